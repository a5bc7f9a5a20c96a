"""The row that suggests prompts, pressed as a user does."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from desktop.desk import Desk
from mrml.controlling import box

from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.panel.suggestions import KINDS


@pytest.fixture
def working(desk: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode) -> Desk:
    """The module on the tilted volume, with a slice view, nothing prompted."""
    desk.open()
    desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    return desk


def a_ruler(desk: Desk) -> slicer.vtkMRMLMarkupsLineNode:
    node = desk.host.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "Lesion")
    for place in VolumeFrame.of(desk.controller.volume).ras_from_ijk(np.array([[6.0, 9, 6], [18.0, 11, 6]])):
        node.AddControlPointWorld(*(float(x) for x in place))
    return node


def inputs(desk: Desk) -> list[str]:
    return [desk.ui.suggestInputBox.itemText(n) for n in range(desk.ui.suggestInputBox.count)]


def test_the_list_holds_every_source_and_says_what_the_scene_lacks(working: Desk) -> None:
    sources = working.ui.suggestSourceBox
    assert [sources.itemText(n) for n in range(sources.count)] == [kind.label for kind in KINDS]
    working.panel.show()
    assert inputs(working) == ["No segment yet"] and not working.ui.suggestButton.enabled
    working.choose("suggestSourceBox", "saliency")
    working.panel.show()
    assert working.ui.suggestButton.enabled and not working.ui.suggestInputBox.enabled


def test_a_ruler_that_is_drawn_appears_and_makes_prompts_which_undo_takes_back(working: Desk) -> None:
    working.choose("suggestSourceBox", "ruler")
    working.panel.show()
    assert inputs(working) == ["No ruler yet"]
    ruler = a_ruler(working)
    working.until(lambda: inputs(working) == ["Lesion"])
    ruler.SetName("Lesion 2")
    working.until(lambda: inputs(working) == ["Lesion 2"])
    working.ui.suggestButton.click()
    working.settle()
    assert len(working.controller.markups.records()) == 4
    assert working.status.startswith("A box and 3 clicks")
    working.ui.undoPromptButton.click()
    working.settle()
    assert working.controller.markups.records() == ()


def test_a_segment_that_is_chosen_is_the_one_that_is_used(working: Desk) -> None:
    working.controller.set_segment("Empty")
    working.controller.set_segment("Full")
    working.controller.add_prompt(box())
    working.settle()
    working.controller.accept()
    working.settle()
    working.controller.clear()
    working.settle()
    node, full = working.controller.segmentation, working.controller.segment_id
    working.until(lambda: inputs(working) == ["Full", "Empty"])
    empty = working.ui.suggestInputBox.itemData(1)
    working.choose("suggestInputBox", empty)
    working.ui.suggestButton.click()
    working.settle()
    assert working.status.startswith("Empty has nothing on slice 6")
    working.choose("suggestInputBox", f"{node.GetID()} {full}")
    working.ui.suggestButton.click()
    working.settle()
    assert [record.prompt.kind for record in working.controller.markups.records()][:2] == ["box", "point"]

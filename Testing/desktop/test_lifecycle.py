"""Entering, leaving, closing and loading scenes, reloading: nothing is left behind and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import slicer
from desktop.desk import MODULE_FOLDER, Desk
from mrml.conftest import an_image
from mrml.controlling import box
from mrml.host import MrmlHost

from SegmentAnythingMedLib.mrml.controller_states import State


@pytest.fixture
def working(desk: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode) -> Desk:
    desk.open()
    desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    return desk


def test_opening_the_module_starts_no_worker(working: Desk) -> None:
    assert working.controller.link.started is None


def test_the_volume_in_the_views_is_chosen_by_itself(
    desk: Desk, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    desk.open()
    desk.widget.enter()
    assert desk.controller.volume is None
    composite = host.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    composite.SetBackgroundVolumeID(a_volume.GetID())
    desk.panel.pump.beat()
    assert desk.controller.volume is a_volume
    assert desk.ui.volumeSelector.currentNode() is a_volume


def test_leaving_takes_keys_and_mouse_away_and_coming_back_gives_them(working: Desk) -> None:
    interactor = working.app.layout_manager.widgets["Red"].interactor()
    working.ui.placeScribbleButton.click()
    assert interactor.HasObserver("LeftButtonPressEvent")
    assert len(working.panel.shortcuts) > 10
    working.widget.exit()
    assert not interactor.HasObserver("LeftButtonPressEvent")
    assert len(working.panel.shortcuts) == 0
    assert working.controller.placing_kind == ""
    working.widget.enter()
    assert len(working.panel.shortcuts) > 10


def test_a_propagation_goes_on_while_another_module_is_shown(working: Desk) -> None:
    working.controller.add_prompt(box())
    working.settle()
    working.ui.propagateBothButton.click()
    working.widget.exit()
    working.settle()
    assert working.controller.state is State.REVIEWING


def test_unloading_removes_every_observer_of_the_scene(
    desk: Desk, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = CountingScene(host.scene)
    monkeypatch.setattr(slicer, "mrmlScene", held)
    desk.open()
    desk.widget.enter()
    desk.controller.set_volume(a_volume)
    desk.controller.add_prompt(box())
    assert held.tags
    desk.widget.cleanup()
    for selector in ("volumeSelector", "segmentationSelector", "channel1Selector", "channel2Selector", "roiSelector"):
        getattr(desk.ui, selector).stop()  # Slicer's own widgets: they stop when they are deleted
    desk.widget = None
    assert held.tags == set()


class CountingScene:
    """A scene that knows which of the observers added through it are still there."""

    def __init__(self, scene: slicer.vtkMRMLScene) -> None:
        self._scene, self.tags = scene, set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._scene, name)

    def AddObserver(self, *what: object) -> int:  # noqa: N802
        tag = self._scene.AddObserver(*what)
        self.tags.add(tag)
        return tag

    def RemoveObserver(self, tag: int) -> None:  # noqa: N802
        self.tags.discard(tag)
        self._scene.RemoveObserver(tag)


def test_closing_the_scene_in_the_middle_of_a_propagation_ends_it(working: Desk, host: MrmlHost) -> None:
    working.controller.add_prompt(box())
    working.settle()
    working.ui.propagateBothButton.click()
    assert working.controller.state is State.PROPAGATING
    working.app.layout_manager.widgets.clear()
    host.scene.Clear(False)
    assert working.controller.volume is None
    assert working.controller.state is State.IDLE
    assert "closed" in working.status
    assert working.ui.volumeSelector.currentNode() is None
    for _ in range(5):
        working.panel.pump.beat()
    assert not working.ui.propagateBothButton.enabled
    again = host.add_volume(an_image(), name="next")
    working.ui.volumeSelector.setCurrentNode(again)
    working.controller.add_prompt(box())
    working.settle()
    assert working.controller.segments.of(working.controller.segment_id).at is not None


def test_removing_the_volume_in_the_middle_of_a_propagation_is_said(working: Desk, host: MrmlHost) -> None:
    working.controller.add_prompt(box())
    working.settle()
    working.ui.propagateBothButton.click()
    host.scene.RemoveNode(working.controller.volume)
    working.panel.pump.beat()
    working.panel.show()
    assert working.controller.volume is None
    assert working.status.startswith("The volume was removed")


def test_a_reload_of_the_module_restores_what_was_worked_on(
    working: Desk, a_segmentation: slicer.vtkMRMLSegmentationNode, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    working.ui.segmentationSelector.setCurrentNode(a_segmentation)
    working.controller.add_segment("Spleen")
    working.choose("windowBox", "bone")
    working.ui.fromHereButton.click()
    working.ui.moreCollapsibleButton.collapsed = False
    working.panel.show()
    chosen = working.controller.segment_id
    working.widget.cleanup()
    working.widget = working.module.SegmentAnythingMedWidget(working._parent())
    working.widget.setup()
    assert working.controller.volume is a_volume
    assert working.controller.segmentation is a_segmentation
    assert working.controller.segment_id == chosen
    assert working.controller.link.window == "bone"
    assert working.ui.windowBox.currentText == "Bone"
    assert working.controller.range == (6, None)
    assert working.ui.rangeLabel.text == "Range: 6 to end"
    assert not working.ui.moreCollapsibleButton.collapsed
    assert working.ui.editorCollapsibleButton.collapsed
    assert working.ui.modelBox.itemData(working.ui.modelBox.currentIndex) == "classic"


def test_a_saved_scene_brings_the_work_back(
    working: Desk, host: MrmlHost, a_segmentation: slicer.vtkMRMLSegmentationNode, tmp_path: Path
) -> None:
    working.ui.segmentationSelector.setCurrentNode(a_segmentation)
    working.controller.add_prompt(box())
    working.settle()
    working.choose("windowBox", "lung")
    working.panel.show()
    host.save(tmp_path / "work.mrb")
    working.app.layout_manager.widgets.clear()
    host.scene.Clear(False)
    assert working.controller.volume is None
    host.load(tmp_path / "work.mrb")
    assert working.controller.volume.GetName() == "tilted"
    assert working.controller.segmentation.GetName() == "user"
    assert working.controller.link.window == "lung"
    assert len(working.controller.markups.records()) == 1
    assert working.ui.replayButton.enabled
    working.ui.replayButton.click()
    working.settle()
    assert working.ui.acceptButton.enabled


@pytest.mark.parametrize(
    ("name", "value"),
    [("rangeFirst", "--5"), ("rangeLast", "\N{SUPERSCRIPT TWO}"), ("segment", "gone"), ("device", "abacus")],
)
def test_wrong_words_in_a_parameter_node_do_not_stop_the_module(
    desk: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode, name: str, value: str
) -> None:
    desk.parameter_node().SetParameter(name, value)
    desk.open()
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    desk.controller.add_prompt(box())
    desk.settle()
    assert desk.ui.acceptButton.enabled


@pytest.mark.parametrize("role", ["volume", "segmentation", "channel1", "roi"])
def test_a_parameter_node_that_names_a_node_of_another_class_does_not_stop_the_module(
    desk: Desk, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode, role: str
) -> None:
    node = desk.parameter_node()
    node.SetNodeReferenceID("volume", a_volume.GetID())
    node.SetNodeReferenceID(role, host.scene.AddNewNodeByClass("vtkMRMLTextNode").GetID())
    desk.open()
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    desk.controller.add_prompt(box())
    desk.settle()
    assert desk.ui.acceptButton.enabled


def test_another_layout_has_the_keys_in_its_views(working: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    before = len(working.panel.shortcuts)
    working.add_view(a_volume, 4, "Yellow")
    working.app.layout_manager.layoutChanged.emit(3)
    assert len(working.panel.shortcuts) == 2 * before


def test_a_brush_of_the_segment_editor_takes_the_mouse_from_the_pen(working: Desk) -> None:
    working.ui.editorCollapsibleButton.collapsed = False
    editor = working.panel._editor.widget
    working.ui.placeScribbleButton.click()
    editor.setActiveEffect("Paint")
    working.panel.pump.beat()
    assert working.controller.placing_kind == ""
    assert working.panel.drawing.kind == ""
    working.ui.placeScribbleButton.click()
    assert editor.effect is None
    working.panel.pump.beat()
    assert working.panel.drawing.kind == "scribble"


def test_a_markup_that_someone_else_places_takes_the_mouse_from_the_pen(working: Desk, host: MrmlHost) -> None:
    working.ui.placeScribbleButton.click()
    interaction = host.scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    interaction.SetCurrentInteractionMode(interaction.Place)
    working.panel.pump.beat()
    assert working.panel.drawing.kind == ""


def test_leaving_the_place_mode_by_a_right_click_releases_the_button(working: Desk, host: MrmlHost) -> None:
    working.ui.placeBoxButton.click()
    assert working.panel.drawing.kind == "box"
    interaction = host.scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    working.until(lambda: not working.ui.placeBoxButton.checked)
    assert working.panel.drawing.kind == ""


def test_the_timer_is_quick_while_something_runs_and_slow_otherwise(working: Desk) -> None:
    pump = working.import_ui("event_pump")
    working.panel.pump.beat()
    assert working.panel.pump.interval_ms == pump.IDLE_MS
    working.controller.add_prompt(box())
    assert working.panel.pump.interval_ms == pump.BUSY_MS
    working.settle()
    working.until(lambda: working.panel.pump.interval_ms == pump.IDLE_MS)


def test_the_panel_works_without_a_main_window(desk: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    desk.app.layout_manager = None
    desk.open()
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    desk.ui.placeScribbleButton.click()
    assert desk.controller.placing_kind == "scribble"


def test_the_modules_own_test_passes(desk: Desk) -> None:
    desk.app.layout_manager = None
    desk.module.SegmentAnythingMedTest().runTest()


FILE_SCOPE = """
import ast, sys
tree = ast.parse(open(sys.argv[1], encoding="utf-8").read())
names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
names += [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
print(sorted({name.partition(".")[0] for name in names}))
"""


def test_the_module_file_imports_only_slicer_and_the_standard_library() -> None:
    run = subprocess.run(
        [sys.executable, "-c", FILE_SCOPE, str(MODULE_FOLDER / "SegmentAnythingMed.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "['pathlib', 'slicer', 'sys', 'time']"

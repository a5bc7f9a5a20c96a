"""Every control does its job, and is enabled only when it can."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import slicer
from desktop.desk import Desk
from mrml.conftest import an_image, tilted_matrix
from mrml.controlling import box, point
from mrml.host import MrmlHost

from SegmentAnythingMedLib.panel.actions import ACTIONS, BY_NAME
from SegmentAnythingMedLib.panel.content import content_of

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "SegmentAnythingMed.ui"


@pytest.fixture
def working(desk: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode) -> Desk:
    """The module on the tilted volume, with a slice view, nothing prompted."""
    desk.open()
    desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    return desk


def outline(desk: Desk) -> None:
    desk.controller.add_prompt(box())
    desk.settle()


def texts_of_ui_file() -> dict[str, tuple[str, str]]:
    """Text and tooltip of every button of the .ui file."""
    found = {}
    for widget in ElementTree.parse(UI_FILE).getroot().iter("widget"):
        if widget.get("class") == "QPushButton":
            values = {item.get("name"): item.findtext("string") for item in widget.findall("property")}
            found[widget.get("name")] = values.get("text"), values.get("toolTip")
    return found


def test_the_ui_file_says_what_the_table_of_actions_says(desk: Desk) -> None:
    texts, buttons = texts_of_ui_file(), desk.import_ui("buttons")
    for action in ACTIONS:
        if action.name in buttons.KEY_ONLY:
            continue
        text, tip = texts[buttons.button_name(action.name)]
        assert text == ("+" if action.name == "add-segment" else action.label)
        assert tip == action.tip + (f" Key: {action.key}" if action.key else "")


@pytest.mark.parametrize("name", [action.name for action in ACTIONS if action.name != "stop"])
def test_each_button_does_its_action_in_the_view_that_is_looked_at(
    working: Desk, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    done = []
    monkeypatch.setattr(working.import_ui("panel"), "perform", lambda *what: done.append(what))
    monkeypatch.setattr(working.import_ui("panel"), "BY_NAME", {name: Always(BY_NAME[name])})
    button = getattr(working.ui, working.import_ui("buttons").button_name(name))
    button.setEnabled(True)
    button.click()
    assert [what[0] for what in done] == [name]
    assert done[0][1] is working.controller
    assert done[0][2].GetName() == "Red"


class Always:
    """An action that can always be done."""

    def __init__(self, action: object) -> None:
        self.section, self.placing = action.section, ""

    def allowed(self, _controller: object) -> bool:
        return True


def test_buttons_are_enabled_as_the_content_says(working: Desk) -> None:
    buttons = working.import_ui("buttons")

    def enabled() -> set[str]:
        names = {action.name for action in ACTIONS} - buttons.KEY_ONLY
        return {name for name in names if getattr(working.ui, buttons.button_name(name)).enabled}

    def allowed() -> set[str]:
        return set(content_of(working.controller).allowed) - buttons.KEY_ONLY

    assert enabled() == allowed()
    assert "accept" not in enabled()
    outline(working)
    assert enabled() == allowed()
    assert {"accept", "discard", "propagate-both", "confirm-slice"} <= enabled()
    working.controller.set_volume(None)
    working.panel.show()
    assert enabled() == allowed() == set()


def test_a_placing_button_is_held_down_while_its_prompt_is_placed(working: Desk) -> None:
    for name, kind in (("placePointButton", "point"), ("placeScribbleButton", "scribble"), ("placeBoxButton", "box")):
        button = getattr(working.ui, name)
        button.click()
        assert working.controller.placing_kind == kind
        assert button.checked
    assert not working.ui.placePointButton.checked
    working.ui.placeBoxButton.click()
    assert working.controller.placing_kind == ""
    assert not working.ui.placeBoxButton.checked


def test_candidates_are_counted_and_cycled(working: Desk) -> None:
    working.controller.add_prompt(point(12, 10))
    working.settle()
    chosen, count = working.controller.candidate
    assert count > 1
    assert working.ui.candidateLabel.text == f"Outline {chosen + 1} of {count}"
    working.ui.candidateNextButton.click()
    working.settle()
    assert working.ui.candidateLabel.text == f"Outline {(chosen + 1) % count + 1} of {count}"
    working.ui.candidatePreviousButton.click()
    working.settle()
    assert working.ui.candidateLabel.text == f"Outline {chosen + 1} of {count}"


def test_undo_redo_and_clear_of_prompts(working: Desk) -> None:
    outline(working)
    working.ui.undoPromptButton.click()
    assert not working.controller.markups.records()
    working.ui.redoPromptButton.click()
    assert len(working.controller.markups.records()) == 1
    working.settle()
    working.ui.clearButton.click()
    assert not working.controller.markups.records()


def test_the_range_is_set_from_what_the_view_shows(working: Desk) -> None:
    working.ui.fromHereButton.click()
    assert working.ui.rangeLabel.text == "Range: 6 to end"
    working.ui.toHereButton.click()
    assert working.ui.rangeLabel.text == "Range: 6 to 6"
    working.ui.rangeAutomaticButton.click()
    assert working.ui.rangeLabel.text == "Range: automatic"


def test_the_range_is_set_from_an_roi(working: Desk, host: MrmlHost) -> None:
    outline(working)
    assert not working.ui.rangeFromRoiButton.enabled
    roi = host.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Where")
    from SegmentAnythingMedLib.mrml.frame import VolumeFrame

    frame = VolumeFrame.of(working.controller.volume)
    center = frame.ras_from_ijk(np.array([12.0, 10.0, 6.0]))
    roi.SetCenter(*center)
    roi.SetSize(4.0, 4.0, 4.0)
    working.ui.roiSelector.setCurrentNode(roi)
    working.ui.rangeFromRoiButton.click()
    first, last = working.controller.range
    assert first <= 6 <= last
    working.until(lambda: working.ui.rangeLabel.text == f"Range: {first} to {last}")


def test_segments_are_listed_with_their_colour_made_and_chosen(working: Desk) -> None:
    working.ui.addSegmentButton.click()
    working.ui.addSegmentButton.click()
    assert working.ui.segmentBox.count == 2
    assert working.ui.segmentBox.currentIndex == 1
    segments = content_of(working.controller).segments
    pixel = working.ui.segmentBox.itemIcon(0).pixmap(12, 12).toImage().pixelColor(6, 6)
    assert np.allclose(pixel.getRgbF()[:3], segments[0].color, atol=0.01)
    working.choose("segmentBox", segments[0].segment_id)
    assert working.controller.segment_id == segments[0].segment_id


def test_a_segmentation_is_chosen_and_let_go(working: Desk, a_segmentation: slicer.vtkMRMLSegmentationNode) -> None:
    working.ui.segmentationSelector.setCurrentNode(a_segmentation)
    assert working.controller.segmentation is a_segmentation
    assert working.controller.segment_id == "organ"
    working.panel.show()
    assert working.ui.segmentBox.currentText == "Organ"
    working.ui.segmentationSelector.setCurrentNode(None)
    working.panel.look()
    assert working.controller.segmentation is None


def test_the_window_preset_reaches_the_worker(working: Desk) -> None:
    working.choose("windowBox", "lung")
    assert working.controller.link.window == "lung"


def test_the_volume_selector_can_be_emptied_and_stays_empty(working: Desk) -> None:
    working.ui.volumeSelector.setCurrentNode(None)
    working.panel.pump.beat()
    working.panel.pump.beat()
    assert working.controller.volume is None
    assert working.status == "Choose a volume."


def test_further_channels_are_given_to_the_model(working: Desk, host: MrmlHost, a_pose: object) -> None:
    second = host.add_volume(an_image(), tilted_matrix(), "PET", a_pose)
    third = host.add_volume(an_image(), tilted_matrix(), "MR", a_pose)
    working.controller.add_segment("Liver")
    segmentation = working.controller.segmentation
    working.ui.channel1Selector.setCurrentNode(second)
    working.ui.channel2Selector.setCurrentNode(third)
    assert working.controller._watch.volumes == (working.controller.volume, second, third)
    assert working.controller.segmentation is segmentation
    assert working.panel.parameters.channels() == [second, third]


def test_the_device_is_chosen(working: Desk) -> None:
    working.choose("deviceBox", "cpu")
    assert working.controller.link.device == "cpu"
    assert working.controller.link.model == "classic"


def test_the_memory_policies_are_those_of_the_library(working: Desk) -> None:
    from SegmentAnythingMedLib.memory.policy import policy_names

    box_of = working.ui.policyBox
    assert tuple(box_of.itemData(n) for n in range(box_of.count)) == policy_names()
    working.choose("policyBox", "recent")
    assert working.controller.link.policy == "recent"


def test_prompts_are_written_to_a_file_and_read_again(
    working: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.json"
    assert not working.ui.exportPromptsButton.enabled
    outline(working)
    dialogs = working.import_ui("more_section").qt.QFileDialog
    monkeypatch.setattr(dialogs, "getSaveFileName", lambda *_: (str(path), ""))
    working.ui.exportPromptsButton.click()
    assert path.is_file()
    working.ui.clearButton.click()
    monkeypatch.setattr(dialogs, "getOpenFileName", lambda *_: (str(path), ""))
    working.ui.importPromptsButton.click()
    working.settle()
    assert len(working.controller.markups.records()) == 1


def test_a_file_dialog_that_is_cancelled_changes_nothing(working: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    outline(working)
    before = working.controller.messages
    monkeypatch.setattr(working.import_ui("more_section").qt.QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    working.ui.exportPromptsButton.click()
    assert working.controller.messages == before


def test_dicom_export_opens_slicers_dialog_or_says_the_steps(working: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    working.controller.add_segment("Liver")
    working.panel.show()
    working.ui.exportDicomButton.click()
    working.panel.show()
    assert "Export to DICOM" in working.status
    opened = []

    class Dialog:
        def setMRMLScene(self, scene: object) -> None:  # noqa: N802
            opened.append(scene)

        def execDialog(self, item: int) -> None:  # noqa: N802
            opened.append(item)

    monkeypatch.setattr(slicer, "qSlicerDICOMExportDialog", Dialog, raising=False)
    working.ui.exportDicomButton.click()
    assert opened[0] is slicer.mrmlScene
    assert len(opened) == 2


def test_the_weights_folder_is_made_and_opened(working: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened = []
    services = working.import_ui("more_section").qt.QDesktopServices
    monkeypatch.setattr(services, "openUrl", lambda url: opened.append(url.toLocalFile()))
    working.ui.weightsFolderButton.click()
    assert opened == [str(tmp_path / "models")]
    assert (tmp_path / "models").is_dir()


def test_views_oblique_to_the_volume_are_offered_to_be_aligned(working: Desk, host: MrmlHost) -> None:
    assert not working.ui.alignFrame.visible
    oblique = host.add_slice_view("Green", np.eye(4))
    working.panel.show()
    assert working.ui.alignFrame.visible
    assert "Green" in working.ui.alignLabel.text
    working.ui.alignViewsButton.click()
    assert not working.ui.alignFrame.visible
    from SegmentAnythingMedLib.mrml.frame import VolumeFrame
    from SegmentAnythingMedLib.mrml.slice_views import is_aligned

    assert is_aligned(oblique, VolumeFrame.of(working.controller.volume))


def test_the_segment_editor_follows_the_segment_and_is_made_late(working: Desk) -> None:
    assert working.panel._editor.widget is None
    working.controller.add_segment("Liver")
    working.ui.editorCollapsibleButton.collapsed = False
    editor = working.panel._editor.widget
    assert editor.editor_node.GetSingletonTag() == "SegmentEditor"
    assert editor.segmentation is working.controller.segmentation
    assert editor.volume is working.controller.volume
    assert editor.segment_id == working.controller.segment_id
    working.ui.addSegmentButton.click()
    assert editor.segment_id == working.controller.segment_id
    assert editor.is_observing
    working.ui.editorCollapsibleButton.collapsed = True
    assert not editor.is_observing


def test_details_show_all_that_was_said(working: Desk) -> None:
    working.controller.tell("First.")
    working.controller.tell("Second.")
    working.ui.detailsButton.click()
    assert working.ui.detailsText.visible
    assert working.ui.detailsText.toPlainText().endswith("First.\nSecond.")
    working.controller.tell("Third.")
    working.panel.show()
    assert working.ui.detailsText.toPlainText().endswith("Third.")
    working.ui.detailsButton.click()
    assert not working.ui.detailsText.visible


def test_an_error_is_told_in_the_status_line_and_marked(working: Desk) -> None:
    working.controller.fail("The model has no weights: choose another.")
    working.panel.show()
    assert working.status == "⚠ The model has no weights: choose another."
    assert "color" in working.ui.statusLabel.styleSheet
    working.choose("modelBox", "classic")
    working.panel.show()
    assert "⚠" not in working.status
    assert working.ui.statusLabel.styleSheet == ""


def test_the_keys_are_listed_in_a_popover(working: Desk) -> None:
    working.ui.keysButton.click()
    label = working.panel._keys.label
    assert label.visible
    for action in ACTIONS:
        if action.key:
            assert f"<b>{action.key}</b>" in label.text
            assert action.tip in label.text.replace("&#x27;", "'")


def test_going_on_through_time_needs_a_sequence(working: Desk) -> None:
    assert not working.ui.timeBox.enabled
    assert not working.ui.throughTimeButton.enabled


def test_a_sequence_is_played_and_carried_through_time(
    desk: Desk, host: MrmlHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "beats")
    for n in range(3):
        sequence.SetDataNodeAtValue(host.add_volume(an_image() + n, tilted_matrix(), f"frame {n}"), str(n))
    for node in [host.scene.GetFirstNodeByName(f"frame {n}") for n in range(3)]:
        host.scene.RemoveNode(node)
    browser = host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    host.logics["Sequences"].UpdateProxyNodesFromSequences(browser)
    volume = browser.GetProxyNode(sequence)
    desk.open()
    desk.add_view(volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(volume)
    desk.controller.add_segment("Heart")
    desk.panel.show()
    assert desk.ui.timeBox.maximum == 2
    desk.ui.timeBox.setValue(2)
    assert desk.controller.time == 2
    assert browser.GetSelectedItemNumber() == 2
    started = []
    monkeypatch.setattr(desk.controller, "propagate_through_time", lambda: started.append(True))
    desk.panel.show()
    desk.ui.throughTimeButton.click()
    assert started == [True]

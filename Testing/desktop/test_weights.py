"""Weights in the panel: the question under the model, progress, cancel, import, remove, another folder."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
import slicer
from desktop.desk import Desk
from mrml.controlling import box
from PySide6 import QtWidgets

from SegmentAnythingMedLib.models.registry import default_model
from SegmentAnythingMedLib.models.weights.task import Outcome, Task
from SegmentAnythingMedLib.panel.weights_process import News, Step, Stopped

OWN = {"name": "mine", "title": "Mine", "family": "classic", "licence": "MIT", "file": "mine.safetensors"}


class Script:
    """A task that says what the test lets it say."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.news: list[News] = []
        self.cancelled = 0

    def __call__(self, task: Task) -> Script:
        self.tasks.append(task)
        return self

    def poll(self) -> list[News]:
        news, self.news = self.news, []
        return news

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The weights folder, with a card of the user whose weights can be downloaded and need no package."""
    folder = tmp_path / "models"
    folder.mkdir()
    card = OWN | {"url": "https://example.org/mine", "size_mb": 20, "research_only": True}
    (folder / "mine.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


@pytest.fixture
def desk_with_weights(desk: Desk, models: Path, a_volume: slicer.vtkMRMLScalarVolumeNode) -> Desk:
    """The module on a volume, with tasks that wait for the test."""
    desk.open()
    desk.script = desk.panel.weights._start_task = Script()
    desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    return desk


def hear(desk: Desk, *news: News) -> None:
    desk.script.news += news
    desk.panel.look()


def want(desk: Desk, name: str) -> None:
    desk.choose("modelBox", name)
    desk.panel.look()


def chosen(desk: Desk) -> str:
    return desk.ui.modelBox.itemData(desk.ui.modelBox.currentIndex)


def text(desk: Desk) -> str:
    return desk.ui.weightsLabel.text.replace("\u200b", "")


def test_nothing_is_shown_while_nothing_is_asked(desk_with_weights: Desk) -> None:
    assert not desk_with_weights.ui.weightsFrame.visible
    assert not desk_with_weights.ui.weightsRemoveButton.enabled


def test_choosing_a_model_that_is_not_here_shows_its_licence_and_fetches_nothing(desk_with_weights: Desk) -> None:
    desk = desk_with_weights
    want(desk, "mine")
    assert desk.ui.weightsFrame.visible and desk.ui.weightsYesButton.text == "Accept and download"
    shown = text(desk)
    assert "Licence: MIT" in shown and "20 MB" in shown and "FOR RESEARCH ONLY" in shown
    assert '<a href="https://example.org/mine">' in shown
    assert desk.script.tasks == [] and chosen(desk) == "classic"
    desk.ui.weightsNoButton.click()
    assert not desk.ui.weightsFrame.visible and desk.script.tasks == []


def test_a_download_runs_beside_the_work_and_is_used_when_it_is_here(desk_with_weights: Desk, models: Path) -> None:
    desk = desk_with_weights
    want(desk, "mine")
    desk.ui.weightsYesButton.click()
    assert desk.script.tasks == [Task("download", str(models), "mine", licence_accepted=True)]
    assert desk.ui.weightsBar.visible and not desk.ui.weightsYesButton.visible
    hear(desk, Step(5_000_000, 20_000_000))
    assert "5.0 of 20 MB" in text(desk) and desk.ui.weightsBar.value == 250
    desk.ui.placeBoxButton.click()
    assert desk.controller.placing_kind == "box", "the user can go on with another model"
    desk.controller.stop_placing()
    (models / "mine.safetensors").write_bytes(b"-")
    hear(desk, Outcome("mine"))
    assert not desk.ui.weightsFrame.visible
    assert desk.controller.link.model == "mine" and chosen(desk) == "mine"


def test_a_model_that_comes_in_the_middle_of_work_waits_to_be_chosen(desk_with_weights: Desk, models: Path) -> None:
    desk = desk_with_weights
    want(desk, "mine")
    desk.ui.weightsYesButton.click()
    desk.controller.add_prompt(box())
    desk.settle()
    (models / "mine.safetensors").write_bytes(b"-")
    hear(desk, Outcome("mine"))
    assert desk.controller.link.model == "classic" and "mine is here" in desk.controller.status
    assert desk.ui.modelBox.itemText(desk.ui.modelBox.findData("mine")) == "mine (ready)"


def test_a_download_is_cancelled_and_goes_on(desk_with_weights: Desk) -> None:
    desk = desk_with_weights
    want(desk, "mine")
    desk.ui.weightsYesButton.click()
    desk.ui.weightsNoButton.click()
    assert desk.script.cancelled == 1
    hear(desk, Stopped())
    assert "are kept" in text(desk) and desk.ui.weightsYesButton.text == "Go on" and not desk.ui.weightsBar.visible
    desk.ui.weightsYesButton.click()
    hear(desk, Stopped("example.org does not answer: look at the network <and> try again."))
    assert "example.org does not answer" in text(desk) and "color: #" in text(desk) and "&lt;and&gt;" in text(desk)
    desk.ui.weightsYesButton.click()
    assert len(desk.script.tasks) == 3


def test_a_saved_scene_whose_model_is_not_here_is_offered_at_the_first_prompt(desk_with_weights: Desk) -> None:
    desk = desk_with_weights
    desk.panel.inputs.want_model("mine")
    desk.panel.look()
    assert not desk.ui.weightsFrame.visible
    desk.ui.placeBoxButton.click()
    assert desk.ui.weightsFrame.visible and chosen(desk) == "classic"
    assert desk.controller.placing_kind == "box"


def test_a_file_brought_by_hand_is_imported_and_used(
    desk_with_weights: Desk, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_with_weights
    seen = []

    def choose(*what: object) -> tuple[str, str]:
        seen.append(what)
        return "/stick/mine.pt", what[3]

    monkeypatch.setattr(QtWidgets.QFileDialog, "getOpenFileName", choose)
    desk.ui.weightsImportButton.click()
    assert "*.safetensors *.pt" in seen[0][3]
    assert desk.script.tasks == [Task("import", str(models), file="/stick/mine.pt")]
    assert "Looking into mine.pt" in text(desk) and not desk.ui.weightsImportButton.enabled
    (models / "brought.noted.json").write_text(json.dumps(OWN | {"name": "brought", "file": "brought.safetensors"}))
    (models / "brought.safetensors").write_bytes(b"-")
    hear(desk, Outcome("brought", "SAM 2.1 tiny", assumed=True))
    assert "mine.pt is SAM 2.1 tiny" in text(desk) and desk.ui.modelBox.findData("brought") >= 0
    assert desk.controller.link.model == "classic"
    desk.ui.weightsYesButton.click()
    assert desk.controller.link.model == "brought"


def test_a_dialog_that_is_closed_changes_nothing(desk_with_weights: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desk_with_weights
    monkeypatch.setattr(QtWidgets.QFileDialog, "getOpenFileName", lambda *_: ("", ""))
    monkeypatch.setattr(QtWidgets.QFileDialog, "getExistingDirectory", lambda *_: "")
    folder = desk.panel.weights.folder
    desk.ui.weightsImportButton.click()
    desk.panel._weights.choose_folder()
    assert desk.script.tasks == [] and desk.panel.weights.folder == folder


def test_removing_asks_and_leaves_the_model_that_is_gone(desk_with_weights: Desk, models: Path) -> None:
    desk = desk_with_weights
    (models / "mine.safetensors").write_bytes(bytes(2_000_000))
    desk.panel.inputs.refresh_models()
    want(desk, "mine")
    desk.panel.show()
    assert desk.ui.weightsRemoveButton.enabled and "mine" in desk.ui.weightsRemoveButton.toolTip
    desk.ui.weightsRemoveButton.click()
    assert "Delete the weights of mine (2.0 MB)" in text(desk) and desk.script.tasks == []
    desk.ui.weightsYesButton.click()
    (models / "mine.safetensors").unlink()
    hear(desk, Outcome("mine"))
    assert desk.controller.link.model == chosen(desk) == default_model()
    assert desk.controller.status == "The weights of mine were deleted." and not desk.ui.weightsRemoveButton.enabled


def test_the_folder_that_the_environment_sets_is_shown_and_stays(desk_with_weights: Desk, models: Path) -> None:
    desk = desk_with_weights
    assert desk.ui.weightsFolderEdit.text == str(models)
    assert not desk.ui.weightsMoveButton.enabled
    assert "SEGMENT_ANYTHING_MED_MODELS" in desk.ui.weightsMoveButton.toolTip


def test_another_folder_is_used_at_once_by_the_worker_too_and_after_a_restart(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    monkeypatch.delenv("SEGMENT_ANYTHING_MED_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    desk.open()
    desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    desk.controller.add_prompt(box())
    desk.settle()
    new = tmp_path / "share"
    new.mkdir()
    (new / "mine.json").write_text(json.dumps({"name": "mine", "title": "M", "family": "classic", "licence": "MIT"}))
    monkeypatch.setattr(QtWidgets.QFileDialog, "getExistingDirectory", lambda *_: str(new))
    assert desk.ui.weightsMoveButton.enabled
    desk.ui.weightsMoveButton.click()
    assert f"looked for in {new} from now on" in desk.controller.status and "stays there" in desk.controller.status
    assert desk.ui.weightsFolderEdit.text == str(new)
    desk.until(lambda: "started again:" in " ".join(desk.controller.messages))
    want(desk, "mine")
    desk.settle()
    desk.until(lambda: desk.controller.model_loaded is not None)
    assert desk.controller.model_loaded.name == "mine", "only the new folder knows it"
    folder = desk.import_ui("weights_folder")
    monkeypatch.delenv("SEGMENT_ANYTHING_MED_MODELS")
    assert folder.apply_stored_folder() and os.environ["SEGMENT_ANYTHING_MED_MODELS"] == str(new)
    monkeypatch.setenv("SEGMENT_ANYTHING_MED_MODELS", "/elsewhere")
    assert not folder.apply_stored_folder() and os.environ["SEGMENT_ANYTHING_MED_MODELS"] == "/elsewhere"


def test_a_folder_that_cannot_be_used_is_a_sentence(desk_with_weights: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    desk_with_weights.panel._weights.use_folder(tmp_path / "file" / "models")
    assert "cannot be made" in desk_with_weights.controller.status
    assert desk_with_weights.panel.weights.folder == tmp_path / "models"


def test_leaving_the_module_stops_a_download(desk_with_weights: Desk) -> None:
    desk = desk_with_weights
    want(desk, "mine")
    desk.ui.weightsYesButton.click()
    desk.widget.exit()
    assert desk.script.cancelled == 0, "another module is looked at"
    desk.widget.cleanup()
    assert desk.script.cancelled == 1


def test_packages_are_asked_for_when_the_weights_are_here(
    desk_with_weights: Desk, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_with_weights
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "torch" else real(name, *more))
    install = desk.import_ui("install")
    asked: list[str] = []
    desk.panel.installer._ask = lambda question: asked.append(question) or install.Consent(install.Answer.NOT_NOW)
    want(desk, "medsam2")
    desk.ui.weightsYesButton.click()
    assert asked == []
    (models / "MedSAM2_latest.pt").write_bytes(b"-")
    hear(desk, Outcome("medsam2"))
    assert "torch: about 900 MB" in asked[0]

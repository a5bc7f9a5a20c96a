"""Installing: asked once, declined, failed, offline, done; and what is said about it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import slicer
from desktop.desk import Desk

from SegmentAnythingMedLib.mrml.controller_states import State

EMBEDDED = {
    "name": "mine",
    "title": "Mine",
    "family": "embedded",
    "licence": "CC0-1.0",
    "file": "mine.onnx",
    "size_mb": 12,
}
TORCHED = {**EMBEDDED, "name": "large", "family": "sam2", "file": "large.pt", "research_only": True}


class Pip:
    """A stand-in for pip that ends when the test says so."""

    def __init__(self) -> None:
        self.arguments: list[str] | None = None

    def __call__(
        self, arguments: Sequence[str], on_line: Callable[[str], None], on_done: Callable[[int], None]
    ) -> None:
        self.arguments, self.line, self.end = list(arguments), on_line, on_done


class Asked:
    """What is answered to the question, and what was asked."""

    def __init__(self, *answers: object) -> None:
        self.answers, self.texts = list(answers), []

    def __call__(self, text: str) -> object:
        self.texts.append(text)
        return self.answers.pop(0)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the packages that can be found; nothing at first."""
    found: set[str] = set()
    real = importlib.util.find_spec
    ours = {"onnxruntime", "torch", "safetensors"}

    def spec(name: str) -> ModuleSpec | None:
        return ModuleSpec(name, None, origin="here") if name in found else None

    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: spec(name) if name in ours else real(name, *more)
    )
    return found


@pytest.fixture
def fresh(desk: Desk, packages: set[str], a_volume: slicer.vtkMRMLScalarVolumeNode, tmp_path: Path) -> Desk:
    """A Slicer without packages, with the weights of two more models, and a pip that waits."""
    folder = tmp_path / "models"
    folder.mkdir()
    for card in (EMBEDDED, TORCHED):
        (folder / f"{card['name']}.json").write_text(json.dumps(card), encoding="utf-8")
        (folder / card["file"]).write_bytes(b"-")
    desk.open()
    desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    desk.pip = desk.panel.installer._pip = Pip()
    return desk


def answers(desk: Desk, *names: str, folder: str = "") -> Asked:
    install = desk.import_ui("install")
    asked = Asked(*(install.Consent(install.Answer[name], folder) for name in names))
    desk.panel.installer._ask = asked
    return asked


def chosen(desk: Desk) -> str:
    return desk.ui.modelBox.itemData(desk.ui.modelBox.currentIndex)


def hint(desk: Desk) -> str:
    """What is said under the list of models."""
    label = desk.ui.modelDetailLabel
    assert label.visible == bool(label.text)
    return label.text


def test_a_fresh_slicer_works_with_classic_and_asks_nothing(fresh: Desk) -> None:
    asked = answers(fresh)
    fresh.ui.placeBoxButton.click()
    assert fresh.controller.placing_kind == "box"
    assert asked.texts == []
    assert chosen(fresh) == "classic"
    assert not fresh.ui.installButton.visible


@pytest.fixture
def a_new_scene(desk: Desk, packages: set[str], a_volume: slicer.vtkMRMLScalarVolumeNode) -> Callable[[], Desk]:
    """Opens the module in a scene that remembers no model; until then packages can be added."""

    def open_it() -> Desk:
        desk.open("")
        desk.add_view(a_volume)
        desk.widget.enter()
        desk.ui.volumeSelector.setCurrentNode(a_volume)
        desk.pip = desk.panel.installer._pip = Pip()
        return desk

    return open_it


def test_a_new_scene_begins_with_the_embedded_model_where_its_package_is(
    a_new_scene: Callable[[], Desk], packages: set[str]
) -> None:
    packages.add("onnxruntime")
    desk = a_new_scene()
    asked = answers(desk)
    desk.ui.placeBoxButton.click()
    assert desk.controller.link.model == chosen(desk) == "embedded"
    assert desk.controller.placing_kind == "box" and asked.texts == []
    assert not desk.ui.modelDetailLabel.visible and not desk.ui.installButton.visible


def test_a_new_scene_without_the_package_begins_with_classic_and_says_what_is_better(
    a_new_scene: Callable[[], Desk], packages: set[str]
) -> None:
    desk = a_new_scene()
    asked = answers(desk, "INSTALL")
    desk.ui.placeBoxButton.click()
    assert desk.controller.link.model == chosen(desk) == "classic"
    assert desk.controller.placing_kind == "box" and asked.texts == []
    assert "embedded is more accurate. It needs one small package, onnxruntime (about 40 MB)" in hint(desk)
    assert desk.ui.modelBox.itemText(0) == "embedded (needs onnxruntime)"
    assert not desk.ui.installButton.visible
    desk.choose("modelBox", "embedded")
    packages.add("onnxruntime")
    desk.pip.end(0)
    desk.panel.show()
    assert len(asked.texts) == 1 and hint(desk) == ""
    assert desk.controller.link.model == chosen(desk) == desk.panel.parameters.text("model") == "embedded"


def test_a_scene_that_remembers_classic_keeps_it(fresh: Desk, packages: set[str]) -> None:
    packages.add("onnxruntime")
    fresh.panel.restore()
    fresh.widget.enter()
    assert fresh.controller.link.model == chosen(fresh) == "classic" and hint(fresh) == ""


def test_a_scene_that_remembers_the_embedded_model_goes_back_to_classic_without_its_package(
    desk: Desk, packages: set[str], a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    desk.open("embedded")
    asked = answers(desk, "NOT_NOW")
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    assert asked.texts == [] and desk.controller.link.model == "classic"
    desk.ui.placeBoxButton.click()
    assert len(asked.texts) == 1 and chosen(desk) == "classic"


def test_after_no_the_hint_is_gone_and_install_asks_again_for_the_same_model(
    a_new_scene: Callable[[], Desk], packages: set[str]
) -> None:
    desk = a_new_scene()
    asked = answers(desk, "NOT_NOW", "INSTALL")
    desk.choose("modelBox", "embedded")
    desk.panel.show()
    assert chosen(desk) == "classic" and hint(desk) == ""
    desk.ui.installButton.click()
    assert len(asked.texts) == 2 and desk.pip.arguments == ["onnxruntime>=1.18"]
    packages.add("onnxruntime")
    desk.pip.end(0)
    desk.panel.show()
    assert desk.controller.link.model == chosen(desk) == "embedded" and not desk.ui.installButton.visible


def test_models_say_what_they_need(fresh: Desk) -> None:
    n = fresh.ui.modelBox.findData("large")
    assert fresh.ui.modelBox.itemText(n) == "large (needs torch)"
    answers(fresh, "NOT_NOW")
    fresh.choose("modelBox", "large")
    import PySide6.QtCore

    detail = fresh.ui.modelBox.itemData(n, PySide6.QtCore.Qt.ToolTipRole)
    assert "For research only." in detail
    assert "CC0-1.0" in detail


def test_the_question_says_sizes_and_is_asked_once(fresh: Desk) -> None:
    asked = answers(fresh, "NOT_NOW")
    fresh.panel.inputs.want_model("mine")  # as from a scene that was saved with it
    fresh.ui.placeBoxButton.click()
    fresh.ui.placeBoxButton.click()
    assert len(asked.texts) == 1
    assert "onnxruntime: about 40 MB" in asked.texts[0]
    assert "No image leaves this computer." in asked.texts[0]
    assert fresh.pip.arguments is None


def test_declining_goes_on_with_the_model_before_and_can_be_taken_back(fresh: Desk) -> None:
    answers(fresh, "NOT_NOW", "INSTALL")
    fresh.choose("modelBox", "mine")
    fresh.panel.show()
    assert chosen(fresh) == "classic"
    assert fresh.status.startswith("Nothing was installed.")
    fresh.ui.placeBoxButton.click()
    assert fresh.controller.placing_kind == "box"
    fresh.choose("modelBox", "mine")
    assert fresh.pip.arguments == ["onnxruntime>=1.18"]


def test_an_installation_runs_beside_and_then_the_model_is_used(fresh: Desk, packages: set[str]) -> None:
    answers(fresh, "INSTALL")
    fresh.choose("modelBox", "mine")
    fresh.panel.show()
    assert fresh.controller.state is State.INSTALLING
    assert "Installing onnxruntime" in fresh.status
    assert not fresh.ui.propagateBothButton.enabled
    fresh.pip.line("Collecting onnxruntime")
    fresh.ui.detailsButton.click()
    assert "Collecting onnxruntime" in fresh.ui.detailsText.toPlainText()
    packages.add("onnxruntime")
    fresh.pip.end(0)
    fresh.panel.show()
    assert fresh.controller.state is State.PROMPTING
    assert fresh.controller.link.model == "mine"
    assert chosen(fresh) == "mine"
    assert "(ready)" in fresh.ui.modelBox.currentText


def test_a_failure_says_what_to_do_and_classic_still_works(fresh: Desk) -> None:
    answers(fresh, "INSTALL")
    fresh.choose("modelBox", "mine")
    fresh.pip.end(1)
    fresh.panel.show()
    assert fresh.controller.state is State.FAILED
    assert fresh.status.startswith("⚠ Installing for the model mine failed (pip says 1")
    assert "Install again" in fresh.status
    assert fresh.ui.installButton.visible
    fresh.choose("modelBox", "classic")
    fresh.panel.show()
    assert fresh.controller.state is State.PROMPTING
    assert fresh.ui.placeBoxButton.enabled


def test_install_again_after_a_failure(fresh: Desk, packages: set[str]) -> None:
    asked = answers(fresh, "INSTALL", "INSTALL")
    fresh.choose("modelBox", "mine")
    fresh.pip.end(1)
    fresh.panel.show()
    fresh.ui.installButton.click()
    assert len(asked.texts) == 2
    packages.add("onnxruntime")
    fresh.pip.end(0)
    fresh.panel.show()
    assert fresh.controller.link.model == "mine"
    assert fresh.controller.state is State.PROMPTING


def test_a_package_that_cannot_be_found_after_pip_needs_a_restart(fresh: Desk) -> None:
    answers(fresh, "INSTALL")
    fresh.choose("modelBox", "mine")
    fresh.pip.end(0)
    fresh.panel.show()
    assert "restart Slicer" in fresh.status


def test_a_folder_of_wheels_needs_no_internet(fresh: Desk, packages: set[str]) -> None:
    answers(fresh, "FOLDER", folder="/stick/wheels")
    fresh.choose("modelBox", "large")
    assert fresh.pip.arguments == ["--no-index", "--find-links", "/stick/wheels", "torch>=2.4", "safetensors>=0.4"]
    fresh.pip.end(1)
    fresh.panel.show()
    assert "The folder /stick/wheels does not have all" in fresh.status


def test_torch_goes_through_the_extension_and_the_rest_through_pip(fresh: Desk, packages: set[str]) -> None:
    answers(fresh, "INSTALL")
    called = []

    def torch() -> str:
        called.append("torch")
        packages.add("torch")
        return ""

    fresh.panel.installer._torch = torch
    fresh.choose("modelBox", "large")
    assert "by the extension PyTorch" in fresh.import_ui("install").question(
        fresh.panel.inputs.choice, fresh.panel.inputs.choice.missing
    )
    fresh.until(lambda: fresh.pip.arguments is not None)
    assert called == ["torch"]
    assert fresh.pip.arguments == ["safetensors>=0.4"]


def test_without_the_pytorch_extension_the_user_is_told_where_to_get_it(fresh: Desk) -> None:
    answers(fresh, "INSTALL")
    assert "PyTorchUtils" not in sys.modules
    fresh.choose("modelBox", "large")
    fresh.until(lambda: fresh.controller.state is State.FAILED)
    fresh.panel.show()
    assert "Extensions Manager" in fresh.status
    assert fresh.pip.arguments is None


def test_missing_weights_are_offered_before_any_package_is_asked_for(fresh: Desk) -> None:
    asked = answers(fresh)
    fresh.choose("modelBox", "medsam2")
    fresh.panel.show()
    assert asked.texts == []
    assert "medsam2 is not on this machine" in fresh.ui.weightsLabel.text
    assert chosen(fresh) == "classic"


def test_closing_the_scene_while_installing_leaves_a_working_module(
    fresh: Desk, packages: set[str], a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    answers(fresh, "INSTALL")
    fresh.choose("modelBox", "mine")
    fresh.app.layout_manager.widgets.clear()
    fresh.host.scene.Clear(False)
    packages.add("onnxruntime")
    fresh.pip.end(0)
    fresh.panel.show()
    assert fresh.controller.state is State.IDLE
    assert not fresh.panel.installer.is_running


def test_a_second_installation_waits_for_the_first(fresh: Desk) -> None:
    asked = answers(fresh, "INSTALL")
    fresh.choose("modelBox", "mine")
    fresh.choose("modelBox", "large")
    assert len(asked.texts) == 1


def run_pip(desk: Desk, python: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> tuple[list[str], list[int]]:
    python.write_text(f"#!{sys.executable}\n{script}", encoding="utf-8")
    python.chmod(0o755)
    process = desk.import_ui("pip_process")
    monkeypatch.setattr(process, "slicer_python", lambda: str(python))
    lines, codes = [], []
    process.run_pip(["some-package"], lines.append, codes.append)
    assert codes == []
    desk.qt_app.processEvents()
    return lines, codes


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for PythonSlicer is a script with a first line")
def test_pip_runs_as_a_process_without_blocking(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.open()
    script = "import sys\nprint(' '.join(sys.argv[1:]))\nprint('no newline', end='')\nsys.exit(3)\n"
    lines, codes = run_pip(desk, tmp_path / "python", monkeypatch, script)
    desk.until(lambda: codes != [])
    assert lines == ["-m pip install some-package", "no newline"]
    assert codes == [3]


def test_a_python_that_cannot_be_started_is_a_failure_in_words(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    process = desk.import_ui("pip_process")
    monkeypatch.setattr(process, "slicer_python", lambda: str(tmp_path / "nowhere"))
    lines, codes = [], []
    process.run_pip(["some-package"], lines.append, codes.append)
    desk.until(lambda: codes != [])
    assert codes == [1]
    assert "could not be started" in lines[0]


def test_slicer_packaging_is_used_where_slicer_has_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    desk.open()
    called = []
    packaging = types.ModuleType("slicer.packaging")
    packaging.pip_install = lambda *what, **more: called.append((what, more))
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    monkeypatch.setattr(slicer, "packaging", packaging, raising=False)
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    desk.import_ui("pip_process").run_pip(["some-package"], print, print)
    ((what, more),) = called
    assert what == (["some-package"],)
    assert more["blocking"] is False
    assert more["completedCallback"] is print

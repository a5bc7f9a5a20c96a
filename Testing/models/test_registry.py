from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError, SegmentAnythingMedError
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.registry import ModelRegistry, default_model, is_installed
from SegmentAnythingMedLib.resources import resource_path

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"name": "mine", "title": "Mine", "family": "sam2", "licence": "MIT"}


@pytest.mark.parametrize("path", sorted((ROOT / "Resources" / "ModelCards").glob("*.json")), ids=lambda p: p.stem)
def test_every_card_of_the_library_fits_the_schema(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "Resources" / "ModelCards" / "schema.json").read_text())
    if path.stem == "schema":
        jsonschema.Draft202012Validator.check_schema(schema)
        return
    jsonschema.validate(json.loads(path.read_text()), schema)
    assert ModelCard.from_json(path).name == path.stem


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"licence": ""}, "lacks licence"),
        ({"weight": "x"}, r"unknown fields \['weight'\]"),
        ({"name": "My Model"}, "name 'My Model' is not of the form"),
        ({"sha256": "abc"}, "sha256 'abc'"),
        ({"file": "../x.pt"}, "file"),
        ({"file": ".."}, "file"),
        ({"file": "C:x.pt"}, "file"),
        ({"file": "x\n.pt"}, "file"),
        ({"url": "http://x"}, "https://"),
        ({"url": "https:///x"}, "name a host"),
        ({"capabilities": ["telepathy"]}, "capabilities must be a list of slice"),
        ({"capabilities": [["slice"]]}, "capabilities must be a list of slice"),
        ({"input_size": -64}, "input_size must be 0 or more"),
        ({"input_size": True}, "input_size has the wrong type"),
        ({"research_only": "no"}, "research_only has the wrong type"),
    ],
)
def test_a_wrong_card_is_named_with_its_field_and_refused_by_the_schema_too(change: dict, sentence: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "Resources" / "ModelCards" / "schema.json").read_text())
    with pytest.raises(ModelFileError, match=sentence):
        ModelCard.from_fields(GOOD | change, "mine.json")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(GOOD | change, schema)


def test_a_card_that_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"broken\.json cannot be read"):
        ModelCard.from_json(tmp_path / "broken.json")


def test_a_card_of_the_user_replaces_the_librarys(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(GOOD | {"name": "classic", "title": "Better", "family": "classic"}))
    registry = ModelRegistry([resource_path("ModelCards"), tmp_path], tmp_path)
    assert registry.card("classic").title == "Better"


def test_without_its_weights_the_embedded_model_is_not_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ModuleSpec("onnxruntime", None, origin="here")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: found)
    assert default_model() == "embedded"
    monkeypatch.setattr("SegmentAnythingMedLib.models.registry.resource_path", lambda *_: tmp_path)
    monkeypatch.setenv("SEGMENT_ANYTHING_MED_MODELS", str(tmp_path / "models"))
    assert default_model() == "classic"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "embedded.onnx").write_bytes(b"x")
    assert default_model() == "embedded", "where a user may put it"


def test_a_stand_in_for_a_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    assert not is_installed("onnxruntime") and default_model() == "classic"


def test_a_broken_card_of_the_user_is_said_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.json").write_text('{"name": "half', encoding="utf-8")
    registry = ModelRegistry(weights=tmp_path)
    assert registry.card("classic").name == "classic"
    assert "broken.json cannot be read" in registry.unreadable[0]
    assert "broken.json" in caplog.text


def test_a_broken_card_of_the_library_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"name": "half', encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"broken\.json cannot be read"):
        ModelRegistry([tmp_path], tmp_path / "weights")


def test_an_unknown_family_or_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(GOOD | {"family": "alien"}))
    registry = ModelRegistry([tmp_path], tmp_path)
    with pytest.raises(ModelUnavailableError, match="family 'alien'"):
        registry.load("mine")
    with pytest.raises(ModelUnavailableError, match="use one of mine"):
        registry.load("other")


def test_a_missing_package_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from SegmentAnythingMedLib.models.registry import ModelRegistry\n"
        "try:\n    ModelRegistry().load('sam2.1-tiny')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("ModelUnavailableError") and "install segment-anything-med[torch]" in run.stdout


def test_resources_are_found_beside_the_package_as_in_a_checkout_and_in_slicer(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "SegmentAnythingMedLib", tmp_path / "SegmentAnythingMedLib")
    shutil.copytree(ROOT / "Resources" / "ModelCards", tmp_path / "Resources" / "ModelCards")
    assert _models_seen_from(tmp_path) == _models_seen_from(ROOT)


def test_resources_are_found_inside_an_installed_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT),
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    assert _models_seen_from(tmp_path / "site") == _models_seen_from(ROOT)


def _models_seen_from(folder: Path) -> str:
    script = (
        "from SegmentAnythingMedLib.models.registry import ModelRegistry\n"
        "import SegmentAnythingMedLib\n"
        "print([card.name for card in ModelRegistry().cards])"
    )
    run = subprocess.run([sys.executable, "-P", "-c", "import sys; sys.path.insert(0, '.')\n" + script], cwd=folder,
                         capture_output=True, text=True, check=True)  # fmt: skip
    return run.stdout


def test_a_missing_resource_says_to_install_again() -> None:
    with pytest.raises(SegmentAnythingMedError, match="Resources/nothing is missing"):
        resource_path("nothing")


def test_a_module_that_is_no_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(GOOD | {"family": "card"}))
    with pytest.raises(ModelUnavailableError, match="family 'card', which this version does not have"):
        ModelRegistry([tmp_path], tmp_path).load("mine")

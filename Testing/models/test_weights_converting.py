from __future__ import annotations

import logging
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError, OutputError
from SegmentAnythingMedLib.models.card import ModelCard, converted_file
from SegmentAnythingMedLib.models.networks.checkpoint import read_checkpoint
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.models.weights.converting import can_convert, convert_if_possible, convert_weights
from SegmentAnythingMedLib.models.weights.importing import import_weights, remove_weights
from SegmentAnythingMedLib.models.weights.notes import note_hash
from SegmentAnythingMedLib.models.weights.structure import sha256_of
from Testing.models.weights_files import folder, save_pt, shapes_of

__all__ = ["folder"]
CARD = ModelCard("mine", "Mine", "recorder", "MIT", file="mine.pt")


def tensors() -> dict[str, torch.Tensor]:
    """Of several types, one transposed, two that are halves of one storage."""
    whole = torch.arange(12, dtype=torch.float32)
    return {
        "a": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "b": torch.ones(3, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "first": whole[:6],
        "second": whole[6:],
    }


@pytest.fixture
def weights(folder: Path) -> Path:
    """A checkpoint as its makers wrote it, in the weights folder."""
    torch.save({"model": tensors(), "epoch": 3}, folder / "mine.pt")
    return folder / "mine.pt"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """Which file a family was given, and what it read; the hash is checked as every family does."""
    seen: list[tuple[str, dict[str, torch.Tensor]]] = []
    family = types.ModuleType("recorder")

    def load(card: ModelCard, path: Path, **_: object) -> object:
        seen.append((path.name, read_checkpoint(path, card.sha256 or None)))
        return seen[-1]

    family.load = load
    monkeypatch.setitem(sys.modules, "SegmentAnythingMedLib.models.recorder", family)
    return seen


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_pt_file_is_converted_once_and_both_hashes_are_noted(weights: Path, folder: Path) -> None:
    before = sha256_of(weights)
    card = convert_weights(CARD, folder)
    copy = converted_file(weights)
    assert names(folder) == ["mine.noted.json", "mine.pt", "mine.pt.safetensors"]
    assert (card.sha256, card.converted) == (before, sha256_of(copy)) and sha256_of(weights) == before
    for key, tensor in read_checkpoint(copy).items():
        assert tensor.dtype == tensors()[key].dtype and torch.equal(tensor, tensors()[key])
    stamp = copy.stat().st_mtime_ns
    assert ModelRegistry([folder], folder).card("mine") == card
    assert not can_convert(card, folder) and convert_weights(card, folder) == card
    assert copy.stat().st_mtime_ns == stamp


def test_later_loads_read_the_copy(weights: Path, folder: Path, loaded: list) -> None:
    convert_weights(CARD, folder)
    ModelRegistry([folder], folder).load("mine")
    ((name, state),) = loaded
    assert name == "mine.pt.safetensors" and state.keys() == tensors().keys()


@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "older"])
def test_a_copy_that_is_not_what_was_noted_is_not_used(
    weights: Path, folder: Path, loaded: list, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    convert_weights(CARD, folder)
    copy = converted_file(weights)
    made = copy.stat().st_mtime_ns
    if harm == "changed":
        content = bytearray(copy.read_bytes())
        content[-1] ^= 1
        copy.write_bytes(content)
    elif harm == "cut":
        copy.write_bytes(copy.read_bytes()[:-5])
    elif harm == "gone":
        copy.unlink()
    if harm != "gone":
        os.utime(copy, ns=(made, made) if harm != "older" else (1, 1))
    ModelRegistry([folder], folder).load("mine")
    assert [name for name, _ in loaded] == ["mine.pt"]
    assert ("mine.pt.safetensors has sha256" in caplog.text) == (harm in ("changed", "cut"))


@pytest.mark.parametrize("seconds", [5, -86400])
def test_an_original_that_was_replaced_is_refused_and_not_hidden_by_the_copy(
    weights: Path, folder: Path, loaded: list, seconds: int
) -> None:
    """Also where it is older than the copy, as files are that were downloaded or copied with their time."""
    convert_weights(CARD, folder)
    torch.save({"a": torch.zeros(3)}, weights)
    late = converted_file(weights).stat().st_mtime + seconds
    os.utime(weights, (late, late))
    with pytest.raises(ModelFileError, match="has sha256"):
        ModelRegistry([folder], folder).load("mine")
    assert loaded == []


def test_files_that_are_wrong_are_not_converted(folder: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch harm",)

    path = folder / "mine.pt"
    torch.save({"model": Hostile()}, path)
    with pytest.raises(ModelFileError, match="nothing in it was run"):
        convert_weights(CARD, folder)
    torch.save(tensors(), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        convert_weights(CARD, folder)
    torch.save(tensors(), path)
    with pytest.raises(ModelFileError, match="has sha256"):
        convert_weights(note_hash(CARD, folder, "0" * 64), folder)
    assert names(folder) == ["mine.noted.json", "mine.pt"]


def test_a_small_file_of_huge_tensors_is_left_as_it_is(folder: Path) -> None:
    save_pt(folder / "mine.pt", {"a": (1 << 20, 1 << 10)})
    with pytest.raises(ModelFileError, match="it would grow"):
        convert_weights(CARD, folder)
    assert names(folder) == ["mine.pt"]


def test_a_read_only_or_full_folder_keeps_the_original(
    weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", fail)
    with pytest.raises(OutputError, match="Read-only file system"):
        convert_weights(CARD, folder)
    caplog.set_level(logging.INFO)
    assert convert_if_possible(CARD, folder) == CARD
    assert "mine.pt is read as it is" in caplog.text and names(folder) == ["mine.pt"]


def test_nothing_is_left_when_writing_breaks_off(weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(_state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("SegmentAnythingMedLib.models.weights.converting._save", half)
    with pytest.raises(KeyboardInterrupt):
        convert_weights(CARD, folder)
    assert names(folder) == ["mine.pt"]


def test_a_disk_that_fills_up_while_the_copy_is_written_keeps_the_original(weights: Path, folder: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(OutputError, match="free some space"):
            convert_weights(CARD, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(folder) == ["mine.pt"]


def test_without_torch_nothing_changes(weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SegmentAnythingMedLib.models.networks.checkpoint", None)
    with pytest.raises(ModelUnavailableError, match="To convert mine.pt the package"):
        convert_weights(CARD, folder)
    assert convert_if_possible(CARD, folder) == CARD and names(folder) == ["mine.pt"]


def test_import_converts_and_remove_takes_both_files(folder: Path, tmp_path: Path) -> None:
    shapes = shapes_of("edgetam")  # the smallest that is known: 56 MB
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    torch.save({"model": state}, tmp_path / "mine.pt")
    done = import_weights(tmp_path / "mine.pt", ModelRegistry())
    assert done.card.converted and names(folder) == ["mine.noted.json", "mine.pt", "mine.pt.safetensors"]
    assert len(remove_weights("mine", ModelRegistry())) == 3
    assert names(folder) == []


def test_importing_it_needs_no_torch() -> None:
    script = (
        "import sys; import SegmentAnythingMedLib.models.weights.converting; "
        "print(sorted({'torch', 'safetensors'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError
from SegmentAnythingMedLib.models.networks.hiera import HIERA_SIZES
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.models.weights import recognition
from SegmentAnythingMedLib.models.weights.importing import import_weights, remove_weights
from SegmentAnythingMedLib.models.weights.recognition import HIERA_LAYOUTS, recognise
from SegmentAnythingMedLib.models.weights.structure import sha256_of
from Testing.models.weights_files import Shapes, folder, save_pt, save_safetensors, shapes_of

__all__ = ["folder"]


@pytest.mark.parametrize("size", HIERA_SIZES)
@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_sam2_is_recognised_by_its_keys(size: str, version: str) -> None:
    layout = recognise(shapes_of(size, version), "x.pt")
    assert (layout.family, layout.size, layout.version) == ("sam2", size, version)


def test_edgetam_is_recognised_by_its_keys() -> None:
    assert recognise(shapes_of("edgetam"), "x.pt").family == "edgetam"


def test_the_sizes_known_without_torch_are_those_of_the_networks() -> None:
    assert {(one.dim, sum(one.blocks)): name for name, one in HIERA_SIZES.items()} == HIERA_LAYOUTS


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "maskmem_tpos_enc"}, r"1 missing \(maskmem_tpos_enc\)"),
        (lambda s: {**s, "extra": (1,)}, r"1 unexpected \(extra\)"),
        (lambda s: {**s, "maskmem_tpos_enc": (8, 1, 1, 64)}, "of another shape"),
        (lambda s: {f"sam2_model.{k}": v for k, v in s.items()}, "of no model known here"),
        (lambda s: {k: v for k, v in s.items() if k.startswith("image_encoder")}, "of no model known here"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: Callable[[Shapes], Shapes], sentence: str) -> None:
    with pytest.raises(ModelFileError, match=sentence):
        recognise(change(shapes_of("tiny")), "x.pt")


def test_a_file_with_a_cards_name_becomes_that_model_and_loads_while_its_hash_holds(
    folder: Path, tmp_path: Path
) -> None:
    source = save_pt(tmp_path / "MedSAM2_latest.pt", shapes_of("tiny"))
    done = import_weights(source, ModelRegistry())
    assert done.card.name == "medsam2" and not done.assumed and done.path == folder / "MedSAM2_latest.pt"
    assert done.path.read_bytes() == source.read_bytes()
    registry = ModelRegistry()
    assert registry.card("medsam2").sha256 == sha256_of(source) and registry.card("medsam2").research_only
    assert registry.load("medsam2", device="cpu").card.input_size == 512
    save_pt(done.path, shapes_of("tiny"), value=1.0)
    with pytest.raises(ModelFileError, match="has sha256"):
        registry.load("medsam2", device="cpu")


def test_a_file_of_another_name_gets_its_own_card_after_what_it_resembles(folder: Path, tmp_path: Path) -> None:
    medical = import_weights(save_pt(tmp_path / "MedSAM2_Spleen.pt", shapes_of("tiny")), ModelRegistry())
    plain = import_weights(save_pt(tmp_path / "My Liver.pth", shapes_of("small", "2.0"), 1.0), ModelRegistry())
    cards = {card.name: card for card in ModelRegistry().cards}
    assert medical.assumed and (medical.card.input_size, medical.card.preprocessing) == (512, "imagenet-stretch")
    assert "CC-BY-SA" in cards["medsam2-spleen"].licence
    mine = cards["my-liver"]
    assert (mine.options["size"], mine.options["version"], mine.input_size) == ("small", "2.0", 1024)
    assert "not known" in mine.licence and mine.research_only and not mine.url and plain.path.name == "my-liver.pt"
    assert ModelRegistry().load("my-liver", device="cpu").card.name == "my-liver"


def test_safetensors_are_recognised_by_their_header_only_without_torch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_safetensors(tmp_path / "sam2.1-tiny.safetensors", shapes_of("tiny"))
    monkeypatch.setitem(sys.modules, "torch", None)
    done = import_weights(source, ModelRegistry())
    assert done.card.name == "sam2.1-tiny" and done.path == folder / "sam2.1_hiera_tiny.safetensors"
    monkeypatch.undo()
    registry = ModelRegistry(weights=folder)
    assert ModelRegistry([folder], folder).card("sam2.1-tiny").file == done.path.name
    assert registry.weights == folder


def test_without_torch_a_pt_file_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_pt(tmp_path / "x.pt", shapes_of("tiny"))
    monkeypatch.setitem(sys.modules, "SegmentAnythingMedLib.models.networks.checkpoint", None)
    with pytest.raises(ModelUnavailableError, match=r"install segment-anything-med\[torch\]"):
        import_weights(source, ModelRegistry())


def test_a_file_for_a_named_model_must_be_that_model(folder: Path, tmp_path: Path) -> None:
    source = save_pt(tmp_path / "x.pt", shapes_of("tiny"))
    with pytest.raises(ModelFileError, match=r"not the model 'sam2.1-large': it is SAM 2.1 tiny"):
        import_weights(source, ModelRegistry(), "sam2.1-large")
    edgetam = save_pt(tmp_path / "edgetam.pt", shapes_of("edgetam"))
    with pytest.raises(ModelFileError, match="the card says ed2d4850"):
        import_weights(edgetam, ModelRegistry(), "edgetam")
    with pytest.raises(ModelFileError, match="name 'My Model' is not of the form"):
        import_weights(source, ModelRegistry(), "My Model")
    assert not list(folder.iterdir())
    assert import_weights(edgetam, ModelRegistry()).card.name == "edgetam-2"


def test_weights_that_are_there_are_not_overwritten_and_the_same_ones_are_welcome(folder: Path, tmp_path: Path) -> None:
    source = save_pt(tmp_path / "sam2.1_hiera_tiny.pt", shapes_of("tiny"))
    first = import_weights(source, ModelRegistry(), "sam2.1-tiny")
    assert import_weights(source, ModelRegistry()).path == first.path
    save_pt(source, shapes_of("tiny"), 2.0)
    with pytest.raises(ModelFileError, match="the card says"):
        import_weights(source, ModelRegistry(), "sam2.1-tiny")
    assert import_weights(source, ModelRegistry()).card.name == "sam2.1-hiera-tiny"


def test_other_weights_of_unknown_hash_are_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (folder / "sam2.1_hiera_tiny.pt").write_bytes(b"put here by hand")
    source = save_pt(tmp_path / "sam2.1_hiera_tiny.pt", shapes_of("tiny"))
    with pytest.raises(ModelUnavailableError, match=r"other weights already: 'models remove sam2.1-tiny' first"):
        import_weights(source, ModelRegistry())
    assert (folder / "sam2.1_hiera_tiny.pt").read_bytes() == b"put here by hand"


def test_a_file_already_in_the_folder_is_taken_where_it_lies(folder: Path) -> None:
    source = save_pt(folder / "MedSAM2_latest.pt", shapes_of("tiny"))
    import_weights(source, ModelRegistry())
    assert sorted(path.name for path in folder.iterdir()) == ["MedSAM2_latest.pt", "medsam2.noted.json"]


def test_the_users_own_card_is_kept_and_its_noted_copy_wins(folder: Path, tmp_path: Path) -> None:
    own = {"name": "mine", "title": "Mine", "family": "sam2", "licence": "MIT", "file": "mine.pt", "input_size": 256}
    (folder / "zz.json").write_text(json.dumps(own | {"preprocessing": "imagenet"}))
    before = (folder / "zz.json").read_text()
    source = save_pt(tmp_path / "mine.pt", shapes_of("tiny"))
    import_weights(source, ModelRegistry())
    assert ModelRegistry().card("mine").sha256 == sha256_of(source) and ModelRegistry().card("mine").input_size == 256
    remove_weights("mine", ModelRegistry())
    assert (folder / "zz.json").read_text() == before and not ModelRegistry().card("mine").sha256
    assert [path.name for path in folder.iterdir()] == ["zz.json"]


def test_remove_takes_weights_part_and_noted_card_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    import_weights(save_pt(tmp_path / "a.pt", shapes_of("tiny")), ModelRegistry())
    import_weights(save_pt(tmp_path / "b.pt", shapes_of("tiny"), 1.0), ModelRegistry())
    (folder / "a.pt.part").write_bytes(b"x")
    remove_weights("a", ModelRegistry())
    assert sorted(path.name for path in folder.iterdir()) == ["b.noted.json", "b.pt"]
    with pytest.raises(ModelUnavailableError, match="has no weights in"):
        remove_weights("sam2.1-tiny", ModelRegistry())


def test_a_file_that_changes_while_it_is_copied_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_pt(tmp_path / "x.pt", shapes_of("tiny"))

    def recognise_then_change(shapes: Shapes, name: str) -> recognition.Layout:
        found = recognise(shapes, name)
        monkeypatch.setattr("SegmentAnythingMedLib.models.weights.importing.sha256_of", lambda _: "0" * 64)
        return found

    monkeypatch.setattr("SegmentAnythingMedLib.models.weights.importing.recognise", recognise_then_change)
    with pytest.raises(ModelFileError, match="changed while it was read"):
        import_weights(source, ModelRegistry())
    assert not list(folder.iterdir())

"""EdgeTAM as users meet it: loading, refusals, policies. What it shares with SAM 2 is tested in test_sam2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry  # noqa: E402
from SegmentAnythingMedLib.memory.policy import policy_names  # noqa: E402
from SegmentAnythingMedLib.models import edgetam  # noqa: E402
from SegmentAnythingMedLib.models.base import Recall, SliceImage  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamConfig, EdgeTamNetwork  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Config, Sam2Network  # noqa: E402
from SegmentAnythingMedLib.models.registry import ModelRegistry  # noqa: E402
from SegmentAnythingMedLib.models.sam2 import Sam2Model  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, SlicePrompts  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402
from Testing.models.small_edgetam import small_network  # noqa: E402

K = Plane(2)


@pytest.fixture
def card() -> ModelCard:
    """The published card at the smallest size, without the hash of the published file."""
    return replace(ModelRegistry().card("edgetam"), input_size=256, sha256="")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return EdgeTamNetwork(EdgeTamConfig()).state_dict()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_of_the_published_layout_loads_strictly(
    card: ModelCard, state: dict[str, torch.Tensor], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"edgetam{suffix}"
    if suffix == ".pt":
        torch.save({"model": state}, path)
    else:
        safetensors_torch.save_file(state, path)
    loaded = edgetam.load(card, path, "cpu", precision="fp32").network.state_dict()
    assert len(loaded) == 982
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_an_image_through_the_published_configuration_has_a_mask_and_a_memory(card: ModelCard) -> None:
    model = edgetam.load(card, None, "cpu", random_seed=1)
    (features,) = model.encode_slices([SliceImage(np.random.default_rng(0).random((1, 40, 60), dtype=np.float32))])
    prediction = model.predict(features, SlicePrompts(box_rc=(5, 5, 30, 40)), Recall())
    memory = model.encode_memory(features, prediction, prompted=True)
    assert prediction.logits.shape == (1, 40, 60)
    assert memory.map.shape == (1, 64, 512) and memory.nbytes == 64 * 512 * 2 + 256 * 4


@pytest.mark.parametrize(("change", "sentence"), [("missing", "1 missing"), ("extra", "1 unexpected .stranger")])
def test_a_checkpoint_with_a_key_too_few_or_too_many_is_refused(
    card: ModelCard, state: dict[str, torch.Tensor], tmp_path: Path, change: str, sentence: str
) -> None:
    changed = dict(state)
    if change == "missing":
        del changed["spatial_perceiver.latents_2d"]
    else:
        changed["stranger"] = torch.zeros(1)
    torch.save({"model": changed}, tmp_path / "odd.pt")
    with pytest.raises(ModelFileError, match=sentence):
        edgetam.load(card, tmp_path / "odd.pt", "cpu")


def test_a_checkpoint_of_sam_2_is_refused_by_its_name(card: ModelCard, tmp_path: Path) -> None:
    with torch.device("meta"):
        other = Sam2Network(Sam2Config.released("tiny")).state_dict()
    empty = {name: torch.zeros(tensor.shape, dtype=torch.bfloat16) for name, tensor in other.items()}
    torch.save({"model": empty}, tmp_path / "edgetam.pt")
    with pytest.raises(ModelFileError, match=r"The file is a SAM 2\.1 tiny checkpoint"):
        edgetam.load(card, tmp_path / "edgetam.pt", "cpu")


def test_another_file_of_the_published_name_is_refused_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "edgetam.pt").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ModelFileError, match="sha256"):
        ModelRegistry(weights=tmp_path).load("edgetam", "cpu")


def test_weights_that_are_not_here_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"https://.*/edgetam\.pt and put edgetam\.pt into"):
        ModelRegistry(weights=tmp_path).load("edgetam")


def test_random_weights_come_only_when_asked_for(card: ModelCard) -> None:
    with pytest.raises(ModelFileError, match="neither weights nor a random seed"):
        edgetam.load(card, None, "cpu")


@pytest.mark.parametrize("size", [0, 128, 640, 1 << 30])
def test_an_input_size_that_is_not_whole_windows_is_refused(card: ModelCard, size: int) -> None:
    with pytest.raises(ModelFileError, match=f"input_size must be a multiple of 256 up to 4096, got {size}"):
        edgetam.load(replace(card, input_size=size), None, "cpu", random_seed=0)


@pytest.fixture(scope="module")
def a_model() -> Sam2Model:
    network = small_network()
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
        network.maskmem_tpos_enc.normal_()
    card = ModelCard("e", "e", "edgetam", "none", ("slice", "memory"), ("point", "box"), preprocessing="imagenet")
    return Sam2Model(card, network)


@pytest.fixture(scope="module")
def a_drifting_column() -> Volume:
    """(14, 28, 34) on a flipped, anisotropic grid: a column that drifts over slices 1 to 12 and is hidden on 9."""
    voxels = np.full((14, 28, 34), 30, dtype=np.uint8)
    for index in range(1, 13):
        if index != 9:
            voxels[index, 8:20, 4 + index // 3 : 16 + index // 3] = 220
    return Volume.from_array(voxels, VolumeGeometry(np.diag([-0.7, 1.1, 4.0, 1.0]), (34, 28, 14)))


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_runs_it_both_ways_and_gives_the_same_twice(
    a_model: Sam2Model, a_drifting_column: Volume, policy: str
) -> None:
    def tracked() -> tuple[VolumeSession, list]:
        session = VolumeSession(a_drifting_column, a_model, policy=policy)
        session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((5, 8, 16, 19), 4, K)))
        return session, list(session.propagate(plane=K, first=0, last=13))

    (first, results), (again, _) = tracked(), tracked()
    np.testing.assert_array_equal(first.labelmap(1), again.labelmap(1))
    assert {result.key.index for result in results} == set(range(14)) - {4}
    assert all(np.isfinite(result.quality) for result in results)

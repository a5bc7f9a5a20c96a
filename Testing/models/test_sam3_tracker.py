"""SAM 3's tracker as users meet it: loading, refusals, policies, and equality with transformers' video loop."""

from __future__ import annotations

import builtins
import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

for _package in ("torch", "safetensors", "transformers"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"the package {_package!r} is not installed (extra 'sam3')", allow_module_level=True)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch.nn import functional  # noqa: E402

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry  # noqa: E402
from SegmentAnythingMedLib.memory.policy import policy_names  # noqa: E402
from SegmentAnythingMedLib.models.base import Recall, SliceImage  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.registry import ModelRegistry  # noqa: E402
from SegmentAnythingMedLib.models.sam2 import Sam2Model  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt, SlicePrompts  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402
from SegmentAnythingMedLib.windowing import Window  # noqa: E402
from Testing.models.oracle_session import RecordingModel, random_slices  # noqa: E402
from Testing.models.sam3_layouts import as_published  # noqa: E402
from Testing.models.small_sam3 import SIDE, small_config, small_network  # noqa: E402
from Testing.models.weights_files import folder  # noqa: E402

from SegmentAnythingMedLib.models import sam3_tracker  # noqa: E402  isort: skip, transformers comes with small_sam3
from SegmentAnythingMedLib.models.networks.sam3_network import Sam3Network  # noqa: E402  isort: skip

__all__ = ["folder"]

TOLERANCE = 1e-5  # of the largest reference logit
SLICES = 6
K = Plane(2)


@pytest.fixture(scope="module")
def network() -> Sam3Network:
    return small_network()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    """The published card, of the small network."""

    def sized(image_size: int) -> object:
        config = small_config()
        config.image_size = image_size
        return config

    monkeypatch.setattr(sam3_tracker, "published_config", sized)
    return replace(ModelRegistry().card("sam3-tracker"), input_size=SIDE)


@pytest.mark.parametrize("kind", ["file", "folder", "published"])
def test_weights_load_strictly_and_answer_as_before(
    card: ModelCard, network: Sam3Network, tmp_path: Path, kind: str
) -> None:
    state = {key: tensor.contiguous() for key, tensor in network.model.state_dict().items()}
    path = tmp_path / "model.safetensors"
    if kind == "folder":
        names = sorted(state)
        save_file({name: state[name] for name in names[:50]}, tmp_path / "model-00001-of-00002.safetensors")
        save_file({name: state[name] for name in names[50:]}, tmp_path / "model-00002-of-00002.safetensors")
        path = tmp_path
    elif kind == "published":
        path = tmp_path / "sam3.pt"
        torch.save({"model": as_published(state)}, path)
    else:
        save_file(state, path)
    model = sam3_tracker.load(card, path, "cpu")
    pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = (each.encode_image(pixels).embedding for each in (model.network, network))
    assert torch.equal(found, expected)
    assert not any(tensor.is_meta for tensor in (*model.network.parameters(), *model.network.buffers()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "no_object_pointer"}, r"1 missing \(no_object_pointer\)"),
        (lambda s: {**s, "stranger": torch.zeros(1)}, r"1 unexpected \(stranger\)"),
        (lambda s: {**s, "no_object_pointer": torch.zeros(1, 16 * 128)}, "1 of another shape"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    card: ModelCard, network: Sam3Network, tmp_path: Path, change: object, sentence: str
) -> None:
    save_file(change(dict(network.model.state_dict())), tmp_path / "odd.safetensors")
    with pytest.raises(ModelFileError, match=sentence):
        sam3_tracker.load(card, tmp_path / "odd.safetensors", "cpu")


def test_a_folder_without_weights_is_named(card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"holds no \.safetensors file"):
        sam3_tracker.load(card, tmp_path, "cpu")


@pytest.mark.parametrize("size", [0, 1000, 14 * 1000])
def test_an_input_size_that_is_not_whole_patches_is_refused(card: ModelCard, size: int) -> None:
    with pytest.raises(ModelFileError, match=f"input_size must be a multiple of 14 up to 4096, got {size}"):
        sam3_tracker.load(replace(card, input_size=size), None, "cpu", random_seed=0)


def test_random_weights_come_only_when_asked_for(card: ModelCard) -> None:
    with pytest.raises(ModelFileError, match="neither weights nor a random seed"):
        sam3_tracker.load(card, None, "cpu")


def test_weights_that_are_not_here_say_where_to_ask_for_them(folder: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"https://huggingface\.co/facebook/sam3/.* and put sam3\.pt into"):
        ModelRegistry().load("sam3-tracker")


def forbid(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Importing transformers' tracker ends in an error, and the family is imported anew."""
    for name in [name for name in sys.modules if "sam3" in name and "SegmentAnythingMedLib" in name]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def refusing(name: str, *arguments: object, **options: object) -> object:
        if name.startswith("transformers"):
            raise error
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refusing)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ModuleNotFoundError("no", name="transformers"), r"install segment-anything-med\[sam3\]"),
        (
            RuntimeError("operator torchvision::nms does not exist"),
            "install the torchvision that belongs to your torch",
        ),
    ],
)
def test_without_a_usable_transformers_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    (folder / "sam3.pt").write_bytes(b"PK\x03\x04")
    forbid(monkeypatch, error)
    with pytest.raises(ModelUnavailableError, match=sentence):
        ModelRegistry().load("sam3-tracker", "cpu")


def test_nothing_may_be_fetched() -> None:
    import huggingface_hub

    assert huggingface_hub.constants.HF_HUB_OFFLINE and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


@pytest.fixture(scope="module")
def volume() -> Volume:
    return random_slices(SIDE, SLICES)


@pytest.fixture
def session(network: Sam3Network, volume: Volume) -> VolumeSession:
    kinds = ("point", "box", "mask")
    slices = ModelCard("s", "s", "sam3_tracker", "none", ("slice", "memory"), kinds, preprocessing="half-stretch")
    return VolumeSession(volume, RecordingModel(slices, network), window=Window((0.0,), (1.0,)))


def as_inputs(prompt: Prompt) -> dict[str, torch.Tensor]:
    points = [[point[0], point[1]] for point in prompt.points_ijk]
    labels = [2, 3] if isinstance(prompt, BoxPrompt) else [int(prompt.positive)]
    return {
        "point_coords": torch.tensor(points, dtype=torch.float32)[None, None],
        "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
    }


@torch.inference_mode()
def expected_track(
    network: Sam3Network, volume: Volume, prompts: dict[int, Prompt], order: list[int]
) -> dict[int, np.ndarray]:
    """transformers' logits (S, S) by slice, by its own video session."""
    from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoInferenceSession

    frames = torch.from_numpy(((volume.voxels[0].transpose(1, 0, 2, 3) - 0.5) / 0.5).astype(np.float32))
    video = Sam3TrackerVideoInferenceSession(frames, SIDE, SIDE, dtype=torch.float32)
    row = video.obj_id_to_idx(1)
    for index, prompt in prompts.items():
        video.add_point_inputs(row, index, as_inputs(prompt))
        video.obj_with_new_inputs = [1]
        network.model(video, frame_idx=index)
    tracked = network.model.propagate_in_video_iterator(video, order[0], reverse=order[1] < order[0])
    size = (SIDE, SIDE)
    return {
        each.frame_idx: functional.interpolate(each.pred_masks, size, mode="bilinear")[0, 0].numpy() for each in tracked
    }


BOX = BoxPrompt.on_slice((12, 14, 40, 44), 0, K)


@pytest.mark.parametrize(
    ("direction", "prompts"),
    [
        ("forward", {0: BOX}),
        ("forward", {0: BOX, 3: PointPrompt((30, 22, 3))}),
        ("backward", {5: PointPrompt((20, 30, 5))}),
    ],
)
def test_prompts_and_propagation_equal_transformers(
    network: Sam3Network, volume: Volume, session: VolumeSession, direction: str, prompts: dict[int, Prompt]
) -> None:
    order = list(range(SLICES)) if direction == "forward" else list(range(SLICES))[::-1]
    expected = expected_track(network, volume, prompts, order)
    ours, logits = {}, session.model.logits
    for index, prompt in prompts.items():
        logits.clear()
        session.segment_slice(1, session.add_prompt(1, prompt))
        ours[index] = logits[-1]
    for result in session.propagate(plane=K, direction=direction, first=0, last=SLICES - 1):
        ours[result.key.index] = logits[-1]
    assert set(ours) == set(expected) == set(range(SLICES))
    for index, found in ours.items():
        assert np.abs(expected[index]).max() >= 5
        assert np.abs(found - expected[index]).max() <= TOLERANCE * np.abs(expected[index]).max(), index


def test_a_mask_is_the_answer_on_its_slice_and_is_remembered(session: VolumeSession) -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disc = (rows - 25) ** 2 + (columns - 30) ** 2 < 15**2
    key = session.add_prompt(1, MaskPrompt(disc, 2))
    assert np.count_nonzero(session.segment_slice(1, key).mask ^ disc) < 0.02 * disc.sum()
    alone = {result.key.index: result.quality for result in session.propagate(plane=K, first=0, last=SLICES - 1)}
    other = VolumeSession(session.volume, session.model, window=session.features.window)
    other.segment_slice(1, other.add_prompt(1, MaskPrompt(disc.T.copy(), 2)))
    assert alone != {result.key.index: result.quality for result in other.propagate(plane=K, first=0, last=SLICES - 1)}


def test_a_refinement_sees_the_mask_before(session: VolumeSession) -> None:
    first = session.segment_slice(1, session.add_prompt(1, BOX)).mask.copy()
    click = PointPrompt((45, 45, 0))
    refined = session.segment_slice(1, session.add_prompt(1, click)).mask
    assert (refined != first).any()


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
    network: Sam3Network, a_drifting_column: Volume, policy: str
) -> None:
    card = ModelCard("s", "s", "sam3_tracker", "none", ("slice", "memory"), ("point", "box"), preprocessing="imagenet")

    def tracked() -> tuple[VolumeSession, list]:
        session = VolumeSession(a_drifting_column, Sam2Model(card, network), policy=policy)
        session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((5, 8, 16, 19), 4, K)))
        return session, list(session.propagate(plane=K, first=0, last=13))

    (first, results), (again, _) = tracked(), tracked()
    np.testing.assert_array_equal(first.labelmap(1), again.labelmap(1))
    assert {result.key.index for result in results} == set(range(14)) - {4}
    assert all(np.isfinite(result.quality) for result in results)


def test_half_precision_answers_nearly_the_same(card: ModelCard, network: Sam3Network) -> None:
    image = SliceImage(np.random.default_rng(0).random((1, 40, 40), dtype=np.float32))
    logits = []
    for precision in (torch.float32, torch.bfloat16):
        model = Sam2Model(card, network, precision)
        (features,) = model.encode_slices([image])
        prediction = model.predict(features, SlicePrompts(box_rc=(5, 5, 30, 30)), Recall())
        assert model.encode_memory(features, prediction, True).map.dtype == torch.bfloat16
        logits.append(prediction.logits)
    difference = np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max()
    assert 0 < difference < 0.1

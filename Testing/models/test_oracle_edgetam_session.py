"""The whole engine (session, memory bank, policy, edgetam family) against transformers' EdgeTAM video model."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
for _package in ("torch", "torchvision", "timm", "transformers"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"the oracle package {_package!r} is not installed (extra 'oracle')", allow_module_level=True)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamNetwork  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402
from SegmentAnythingMedLib.windowing import Window  # noqa: E402
from Testing.models import oracle_edgetam, oracle_sam2  # noqa: E402
from Testing.models.oracle_session import RecordingModel, random_slices  # noqa: E402

TOLERANCE = 1e-5  # of the largest reference logit
SIDE, SLICES = 256, 6
K = Plane(2)


@pytest.fixture(scope="module")
def network() -> Iterator[EdgeTamNetwork]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield oracle_edgetam.random_network(SIDE)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def volume() -> Volume:
    return random_slices(SIDE, SLICES)


@pytest.fixture
def session(network: EdgeTamNetwork, volume: Volume) -> VolumeSession:
    kinds = ("point", "box", "mask")
    card = ModelCard("e", "e", "edgetam", "none", ("slice", "memory"), kinds, preprocessing="imagenet")
    return VolumeSession(volume, RecordingModel(card, network), window=Window((0.0,), (1.0,)))


def as_reference(prompts: list[Prompt], index: int) -> oracle_sam2.Prompt:
    if isinstance(prompts[0], MaskPrompt):
        return oracle_sam2.Prompt(index, mask=torch.from_numpy(prompts[0].mask).float())
    points, labels = [], []
    for prompt in prompts:
        points += [[point[0], point[1]] for point in prompt.points_ijk]
        labels += [2, 3] if isinstance(prompt, BoxPrompt) else [int(prompt.positive)]
    return oracle_sam2.Prompt(index, points, labels)


def expected_track(network: EdgeTamNetwork, volume: Volume, objects: dict, order: list[int]) -> dict[int, np.ndarray]:
    """transformers' logits (objects, 1, S, S) by slice."""
    reference = oracle_edgetam.transformers_model(SIDE)
    reference.load_state_dict(oracle_edgetam.to_transformers_keys(network.state_dict()), strict=True)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    frames = torch.from_numpy(((volume.voxels[0].transpose(1, 0, 2, 3) - mean) / std).astype(np.float32))
    tracked = oracle_edgetam.transformers_track(reference, frames, objects, order)
    return {
        index: functional.interpolate(logits, (SIDE, SIDE), mode="bilinear").numpy()
        for index, logits in tracked.items()
    }


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - 120) ** 2 + (columns - 100) ** 2 < 50**2


BOX = BoxPrompt.on_slice((80, 100, 150, 180), 0, K)
FORWARD = {
    1: {0: [BOX], 3: [PointPrompt((128, 128, 3)), PointPrompt((50, 50, 3), False), PointPrompt((140, 128, 3))]},
    2: {0: [PointPrompt((80, 150, 0)), PointPrompt((180, 50, 0), False)]},
}
BACKWARD = {1: {5: [MaskPrompt(disc(), 5)]}, 2: {5: [MaskPrompt(disc().T.copy(), 5)]}}


@pytest.mark.parametrize(("direction", "objects"), [("forward", FORWARD), ("backward", BACKWARD)])
def test_prompts_and_propagation_equal_the_reference(
    network: EdgeTamNetwork, volume: Volume, session: VolumeSession, direction: str, objects: dict
) -> None:
    order = list(range(SLICES)) if direction == "forward" else list(range(SLICES))[::-1]
    asked = {name: [as_reference(prompts, index) for index, prompts in at.items()] for name, at in objects.items()}
    expected = expected_track(network, volume, asked, order)
    ours: dict[tuple[int, int], np.ndarray] = {}
    logits = session.model.logits
    for object_id, at in objects.items():
        for index, prompts in at.items():
            for prompt in prompts:
                key = session.add_prompt(object_id, prompt)
            logits.clear()
            session.segment_slice(object_id, key)
            ours[object_id, index] = logits[-1]
    for result in session.propagate(plane=K, direction=direction, first=0, last=SLICES - 1):
        ours[result.object_id, result.key.index] = logits[-1]
    assert len(ours) == 2 * SLICES
    for (object_id, index), found in ours.items():
        wanted = expected[index][object_id - 1, 0]
        assert np.abs(wanted).max() >= 5
        assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max(), (object_id, index)


def test_a_correction_on_a_tracked_slice_is_kept_and_conditions_its_neighbours(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, BOX))
    list(session.propagate(plane=K, first=0, last=SLICES - 1))
    before = session.mask_on(1, session.slice_key(K, 4)).copy()
    key = session.add_prompt(1, PointPrompt((60, 200, 3)))
    corrected = session.segment_slice(1, key).mask.copy()
    assert corrected.any()
    list(session.repropagate(1, key))
    np.testing.assert_array_equal(session.mask_on(1, key), corrected)
    assert (session.mask_on(1, session.slice_key(K, 4)) != before).any()


def test_prompts_of_one_object_never_change_another(session: VolumeSession) -> None:
    alone = VolumeSession(session.volume, session.model, window=session.features.window)
    alone.segment_slice(1, alone.add_prompt(1, BOX))
    list(alone.propagate(plane=K, first=0, last=SLICES - 1))
    session.segment_slice(1, session.add_prompt(1, BOX))
    session.segment_slice(2, session.add_prompt(2, PointPrompt((60, 200, 0))))
    list(session.propagate(plane=K, first=0, last=SLICES - 1))
    np.testing.assert_array_equal(session.labelmap(1), alone.labelmap(1))

"""The whole engine (session, memory bank, policy, sam2 family) against PyPI sam2's video predictor."""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
for _package in ("torch", "torchvision", "sam2", "hydra", "iopath"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"the oracle package {_package!r} is not installed (extra 'oracle')", allow_module_level=True)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.checkpoint import infer_sam2_config, load_strictly  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Network  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402
from SegmentAnythingMedLib.windowing import Window  # noqa: E402
from Testing.models import oracle_sam2 as oracle  # noqa: E402
from Testing.models.oracle_session import RecordingModel, random_slices  # noqa: E402

TOLERANCE = 1e-5  # of the largest reference logit
SIDE, SLICES = 256, 6
K = Plane(2)


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    torch.set_num_threads(1)
    return oracle.sam2_predictor("tiny", "2.1", SIDE)


@pytest.fixture(scope="module")
def volume() -> Volume:
    return random_slices(SIDE, SLICES)


@pytest.fixture
def session(reference: nn.Module, volume: Volume) -> VolumeSession:
    state = reference.state_dict()
    network = Sam2Network(infer_sam2_config(state, SIDE))
    load_strictly(network, state, "reference")
    card = ModelCard("t", "t", "sam2", "none", ("slice", "memory"), ("point", "box", "mask"), preprocessing="imagenet")
    return VolumeSession(volume, RecordingModel(card, network.eval()), window=Window((0.0,), (1.0,)))


def expected_track(reference: nn.Module, volume: Volume, objects: dict, order: list[int]) -> dict[int, np.ndarray]:
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    frames = torch.from_numpy(((volume.voxels[0].transpose(1, 0, 2, 3) - mean) / std).astype(np.float32))
    with torch.inference_mode():
        cache = {i: (frames[i : i + 1], reference.forward_image(frames[i : i + 1])) for i in range(SLICES)}
    return {
        index: logits.numpy()
        for index, logits in oracle.reference_track(reference, frames, cache, objects, order).items()
    }


def as_reference(prompts: list[Prompt], index: int) -> oracle.Prompt:
    if isinstance(prompts[0], MaskPrompt):
        return oracle.Prompt(index, mask=torch.from_numpy(prompts[0].mask).float())
    points, labels = [], []
    for prompt in prompts:
        points += [[point[0], point[1]] for point in prompt.points_ijk]
        labels += [2, 3] if isinstance(prompt, BoxPrompt) else [int(prompt.positive)]
    return oracle.Prompt(index, points, labels)


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (rows - 120) ** 2 + (columns - 100) ** 2 < 50**2


FORWARD = {
    1: {0: [BoxPrompt.on_slice((80, 100, 150, 180), 0, K)],
        3: [PointPrompt((128, 128, 3)), PointPrompt((50, 50, 3), False), PointPrompt((140, 128, 3))]},
    2: {0: [PointPrompt((80, 150, 0)), PointPrompt((180, 50, 0), False)]},
}  # fmt: skip
BACKWARD = {1: {5: [MaskPrompt(disc(), 5)]}, 2: {5: [PointPrompt((128, 128, 5))]}}


@pytest.mark.parametrize(("direction", "objects"), [("forward", FORWARD), ("backward", BACKWARD)])
def test_prompts_and_propagation_equal_the_reference(
    reference: nn.Module, volume: Volume, session: VolumeSession, direction: str, objects: dict
) -> None:
    order = list(range(SLICES)) if direction == "forward" else list(range(SLICES))[::-1]
    asked = {o: [as_reference(prompts, index) for index, prompts in at.items()] for o, at in objects.items()}
    expected = expected_track(reference, volume, asked, order)
    ours: dict[tuple[int, int], np.ndarray] = {}
    model = session.model
    for object_id, at in objects.items():
        for index, prompts in at.items():
            for prompt in prompts:
                key = session.add_prompt(object_id, prompt)
            model.logits.clear()
            session.segment_slice(object_id, key)
            ours[object_id, index] = model.logits[-1]
    for result in session.propagate(plane=K, direction=direction, first=0, last=SLICES - 1):
        ours[result.object_id, result.key.index] = model.logits[-1]
    assert len(ours) == 2 * SLICES
    for (object_id, index), logits in ours.items():
        wanted = expected[index][object_id - 1, 0]
        assert np.abs(wanted).max() >= 5
        assert np.abs(logits - wanted).max() <= TOLERANCE * np.abs(wanted).max(), (object_id, index)


def test_a_correction_on_a_tracked_slice_is_kept_and_conditions_its_neighbours(session: VolumeSession) -> None:
    """PyPI sam2 and transformers track over it: their propagation overwrites the corrected slice."""
    session.segment_slice(1, session.add_prompt(1, FORWARD[1][0][0]))
    list(session.propagate(plane=K, first=0, last=SLICES - 1))
    before = session.mask_on(1, session.slice_key(K, 4)).copy()
    key = session.add_prompt(1, PointPrompt((60, 200, 3)))
    corrected = session.segment_slice(1, key).mask.copy()
    assert corrected.sum() != 0
    list(session.repropagate(1, key))
    np.testing.assert_array_equal(session.mask_on(1, key), corrected)
    assert (session.mask_on(1, session.slice_key(K, 4)) != before).any()


def test_the_reference_loses_that_correction(reference: nn.Module, volume: Volume) -> None:
    """Why the test above is worth having: PyPI sam2 1.1.0 in its default settings."""
    import sam2.sam2_video_predictor as module

    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    frames = torch.from_numpy(((volume.voxels[0].transpose(1, 0, 2, 3) - mean) / std).astype(np.float32))
    original, module.load_video_frames = module.load_video_frames, lambda **_: (frames, SIDE, SIDE)
    try:
        with torch.inference_mode():
            state = reference.init_state("")
            at = {"inference_state": state, "obj_id": 1}
            reference.add_new_points_or_box(box=[80, 100, 150, 180], frame_idx=0, **at)
            first = {i: masks.clone() for i, _, masks in reference.propagate_in_video(state)}
            *_, corrected = reference.add_new_points_or_box(points=[[60.0, 200.0]], labels=[1], frame_idx=3, **at)
            second = {i: masks.clone() for i, _, masks in reference.propagate_in_video(state, start_frame_idx=3)}
    finally:
        module.load_video_frames = original
    assert not torch.equal(corrected > 0, second[3] > 0)
    assert oracle.relative_difference(second[4], first[4]) < 1e-4


def test_prompts_of_one_object_never_change_another(session: VolumeSession) -> None:
    """In transformers 5.23 a prompt on one object changes the stored memory of the others on that slice."""
    box, click = FORWARD[1][0][0], PointPrompt((60, 200, 0))
    alone = VolumeSession(session.volume, session.model, window=session.features.window)
    alone.segment_slice(1, alone.add_prompt(1, box))
    list(alone.propagate(plane=K, first=0, last=SLICES - 1))
    session.segment_slice(1, session.add_prompt(1, box))
    session.segment_slice(2, session.add_prompt(2, click))
    list(session.propagate(plane=K, first=0, last=SLICES - 1))
    np.testing.assert_array_equal(session.labelmap(1), alone.labelmap(1))

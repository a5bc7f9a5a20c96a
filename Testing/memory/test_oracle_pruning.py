"""Efficient Frame Pruning in a session against PyPI sam2's video predictor with the published rule in its memory."""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
for _package in ("torch", "torchvision", "sam2", "hydra", "iopath"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"the oracle package {_package!r} is not installed (extra 'oracle')", allow_module_level=True)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.memory.policy import MemoryPolicy, load_policy  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.checkpoint import infer_sam2_config, load_strictly  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Network  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402
from SegmentAnythingMedLib.windowing import Window  # noqa: E402
from Testing.models import oracle_sam2 as oracle  # noqa: E402
from Testing.models.oracle_session import RecordingModel, random_slices  # noqa: E402

TOLERANCE = 1e-5  # of the largest reference logit
SIDE, SLICES, CELLS = 128, 11, (128 // 16) ** 2
K = Plane(2)


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    torch.set_num_threads(1)
    return oracle.sam2_predictor("tiny", "2.1", SIDE)


@pytest.fixture(scope="module")
def volume() -> Volume:
    return random_slices(SIDE, SLICES)


def pruned(memory: Tensor, position: Tensor, pointer_tokens: int, removed: list[int]) -> tuple[Tensor, Tensor]:
    """SurgSAM-2's rule on the (tokens, 1, 64) memory that sam2 is about to attend to."""
    end = len(memory) - pointer_tokens
    parts = list(memory[:end].split(CELLS))
    kept = list(range(len(parts)))
    if len(parts) >= 7:
        stored = [part.to(torch.bfloat16) for part in parts]  # as they were before they met the pointers
        scores = [torch.cosine_similarity(part, stored[-1], dim=-1).sum() for part in stored[1:-1]]
        ranked = sorted(range(1, len(parts) - 1), key=lambda place: scores[place - 1], reverse=True)
        removed += sorted(ranked[:2])
        kept = [place for place in kept if place not in ranked[:2]]
    places = list(position[:end].split(CELLS))
    return (
        torch.cat([*(parts[place] for place in kept), memory[end:]]),
        torch.cat([*(places[place] for place in kept), position[end:]]),
    )


def expected(reference: nn.Module, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, list[int]]:
    removed: list[int] = []
    attend = reference.memory_attention.forward

    def attend_to_less(memory: Tensor, memory_pos: Tensor, num_obj_ptr_tokens: int, **others: object) -> Tensor:
        memory, memory_pos = pruned(memory, memory_pos, num_obj_ptr_tokens, removed)
        return attend(memory=memory, memory_pos=memory_pos, num_obj_ptr_tokens=num_obj_ptr_tokens, **others)

    monkeypatch.setattr(reference.memory_attention, "forward", attend_to_less)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    frames = torch.from_numpy(((volume.voxels[0].transpose(1, 0, 2, 3) - mean) / std).astype(np.float32))
    with torch.inference_mode():
        cache = {i: (frames[i : i + 1], reference.forward_image(frames[i : i + 1])) for i in range(SLICES)}
    prompt = oracle.Prompt(0, [[40, 50], [75, 90]], [2, 3])
    found = oracle.reference_track(reference, frames, cache, {1: [prompt]}, list(range(SLICES)))
    return {index: logits[0, 0].numpy() for index, logits in found.items()}, removed


def ours(reference: nn.Module, volume: Volume, policy: MemoryPolicy) -> dict[int, np.ndarray]:
    state = reference.state_dict()
    network = Sam2Network(infer_sam2_config(state, SIDE))
    load_strictly(network, state, "reference")
    card = ModelCard("t", "t", "sam2", "none", ("slice", "memory"), ("point", "box", "mask"), preprocessing="imagenet")
    model = RecordingModel(card, network.eval())
    session = VolumeSession(volume, model, window=Window((0.0,), (1.0,)), policy=policy)
    session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((40, 50, 75, 90), 0, K)))
    found = {0: model.logits[-1]}
    for result in session.propagate(plane=K, direction="forward", first=0, last=SLICES - 1):
        found[result.key.index] = model.logits[-1]
    return found


def largest_difference(found: dict[int, np.ndarray], wanted: dict[int, np.ndarray]) -> float:
    return max(float(np.abs(found[i] - wanted[i]).max() / np.abs(wanted[i]).max()) for i in range(SLICES))


def test_parity_prunes_like_the_published_rule_in_the_reference(
    reference: nn.Module, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, removed = expected(reference, volume, monkeypatch)
    assert len(removed) == 2 * (SLICES - 7), "the rule is active on the last slices"
    found = ours(reference, volume, load_policy("efficient_frame_pruning:parity=true"))
    assert largest_difference(found, wanted) <= TOLERANCE
    unpruned = largest_difference(ours(reference, volume, load_policy("recent")), wanted)
    assert unpruned > 10 * TOLERANCE, "pruning shows, or this test could not fail"

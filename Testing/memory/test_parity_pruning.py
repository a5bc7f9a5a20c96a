"""Efficient Frame Pruning and memory splitting against golden values of the published code, run once elsewhere."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.memory.bank import MemoryEntry  # noqa: E402
from SegmentAnythingMedLib.memory.policy import Likeness, PolicyContext, Selection, load_policy  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.networks.hiera import HieraConfig  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Config, Sam2Network  # noqa: E402
from SegmentAnythingMedLib.models.sam2 import Sam2Memory, Sam2Model  # noqa: E402

PRUNED = [
    (0, 4, 0.02, 8, 2, (0, 3, 4, 5, 6, 7)),
    (6, 4, 1.0, 9, 3, (0, 1, 2, 3, 4, 5, 8)),
    (7, 8, 1.0, 7, 1, (0, 1, 2, 3, 6)),
    (10, 8, 0.02, 9, 3, (0, 3, 4, 5, 6, 7, 8)),
    (12, 4, 0.2, 8, 2, (0, 1, 2, 3, 4, 7)),
    (13, 8, 0.2, 7, 1, (0, 1, 2, 3, 6)),
    (23, 32, 0.2, 7, 1, (0, 1, 2, 3, 6)),
    (24, 4, 1.0, 8, 2, (0, 1, 2, 3, 4, 7)),
    (30, 4, 0.2, 9, 3, (0, 1, 2, 3, 4, 5, 8)),
    (34, 8, 1.0, 9, 3, (0, 1, 2, 3, 4, 5, 8)),
    (36, 4, 0.02, 7, 1, (0, 2, 4, 5, 6)),
    (38, 32, 0.02, 8, 2, (0, 3, 4, 5, 6, 7)),
    (40, 8, 0.2, 8, 2, (0, 1, 2, 3, 4, 7)),
    (44, 32, 1.0, 8, 2, (0, 1, 2, 3, 4, 7)),
]
"""Seed, cells along a side, drift between memories, memories, key slices; what jinlab-imvr/Surgical-SAM-2
(sam2_base.py) keeps of bfloat16 memories."""
SPLIT = [
    (0, 6, (0, 2, 3, 4)),
    (5, 7, (0, 2, 3, 4, 5)),
    (6, 7, (0, 2, 3, 4, 5)),
    (7, 6, (0, 2, 3, 4)),
    (9, 6, (0, 2, 3, 4)),
    (10, 7, (0, 2, 3, 4, 5)),
    (11, 6, (0, 2, 3, 4)),
    (12, 6, (0, 2, 3, 4)),
    (13, 6, (0, 2, 3, 4)),
    (16, 6, (0, 2, 3, 4)),
]
"""Seed, memories; what apple1986/TSMS-SAM2 (prune_memory_features_time_split, cosine_sp) keeps of float32 memories."""


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    trunk = HieraConfig(dim=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,))
    network = Sam2Network(Sam2Config(trunk, image_size=64, dim=32, memory_dim=8, memory_layers=1, mlp_dim=32))
    return Sam2Model(ModelCard("s", "s", "sam2", "none", preprocessing="imagenet"), network.eval())


def memories(seed: int, side: int, drift: float, count: int, dtype: torch.dtype) -> list[Sam2Memory]:
    """Maps of 64 channels that drift away from the first."""
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(1, 64, side, side, generator=generator)
    found = []
    for _ in range(count):
        one = one + drift * torch.randn(1, 64, side, side, generator=generator)
        found.append(Sam2Memory(one.to(dtype), torch.zeros(1, 1)))
    return found


def selected(model: Sam2Model, policy: str, maps: list[Sam2Memory], keys: int = 1) -> Selection:
    def compare(a: MemoryEntry, b: MemoryEntry, likeness: Likeness) -> float:
        return model.compare(a.memory, b.memory, likeness.value)

    entries = [MemoryEntry(index, one, index < keys) for index, one in enumerate(maps)]
    return load_policy(policy).select(entries, PolicyContext(len(maps), 1, 100, similarity=compare))


@pytest.mark.parametrize(("seed", "side", "drift", "count", "keys", "kept"), PRUNED)
def test_parity_keeps_what_the_published_code_keeps(
    model: Sam2Model, seed: int, side: int, drift: float, count: int, keys: int, kept: tuple[int, ...]
) -> None:
    maps = memories(seed, side, drift, count, torch.bfloat16)
    assert selected(model, "efficient_frame_pruning:parity=true", maps, keys).memories == kept


@pytest.mark.parametrize(("seed", "count", "kept"), SPLIT)
def test_splitting_with_its_bug_keeps_what_the_published_code_keeps(
    model: Sam2Model, seed: int, count: int, kept: tuple[int, ...]
) -> None:
    maps = memories(seed, 8, 0.3, count, torch.float32)
    assert selected(model, "memory_splitting:compat_offset_bug=true", maps).memories == kept


def test_sums_in_bfloat16_tie_where_float32_tells_memories_apart(model: Sam2Model) -> None:
    maps = memories(1, 32, 0.05, 7, torch.bfloat16)
    stored = {model.compare(one, maps[-1], "stored") for one in maps[1:-1]}
    exact = {model.compare(one, maps[-1], "cells") for one in maps[1:-1]}
    assert len(exact) == 5 > len(stored)


@pytest.mark.parametrize("likeness", list(Likeness))
def test_a_memory_is_most_like_itself_in_every_way(model: Sam2Model, likeness: Likeness) -> None:
    first, second = memories(2, 4, 1.0, 2, torch.float32)
    full = 16.0 if likeness is Likeness.STORED else 1.0
    assert model.compare(first, first, likeness.value) == pytest.approx(full, abs=1e-4)
    assert model.compare(first, second, likeness.value) < 0.95 * full


def test_ways_to_compare_differ(model: Sam2Model) -> None:
    a, b = (Sam2Memory(torch.tensor(values).reshape(1, 2, 1, 2), torch.zeros(1, 1)) for values in (
        [1.0, 2.0, 0.0, 0.0], [1.0, 2.0, 3.0, 0.0]))  # fmt: skip
    found = {likeness: model.compare(a, b, likeness.value) for likeness in Likeness}
    assert found[Likeness.CELLS] == pytest.approx((10**-0.5 + 1) / 2, abs=1e-6)
    assert found[Likeness.CHANNELS] == pytest.approx(0.5)
    assert found[Likeness.WHOLE] == pytest.approx(5 / (5 * 14) ** 0.5)

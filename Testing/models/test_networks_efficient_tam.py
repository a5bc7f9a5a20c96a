"""EfficientTAM's networks: keys, values of the published source, merged memories, gradients."""

from __future__ import annotations

import hashlib
import math

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from SegmentAnythingMedLib.benchmark.reference_sam2 import randomise  # noqa: E402
from SegmentAnythingMedLib.models.networks.efficient_tam_network import (  # noqa: E402
    EfficientTamConfig,
    EfficientTamNetwork,
)
from SegmentAnythingMedLib.models.networks.memory_attention import attend  # noqa: E402
from SegmentAnythingMedLib.models.networks.plain_vit import PLAIN_VIT_SIZES, PlainVit  # noqa: E402
from SegmentAnythingMedLib.models.networks.pooled_attention import (  # noqa: E402
    CrossAttention,
    PooledKeys,
    PooledScores,
)
from SegmentAnythingMedLib.models.networks.sam2_network import DecodedMasks  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from Testing.models.oracle_sam2 import Prompt, track  # noqa: E402
from Testing.models.small_efficient_tam import SMALL, small_network  # noqa: E402

SIDE = SMALL.image_size

# Of the lines "name [shape]", sorted, of the models that the published source builds (commit abcd061); MedSAM2's copy
# of the source (commit 332f30d) builds the same.
PUBLISHED = {
    "ti": (455, 17_866_018, "8c7c0bf63ce6b5abdd8529c05b7642da962ee1e274c58a1dc509a5d172db967a"),
    "s": (455, 34_055_842, "b7ce1ad21f3dd52d733609f3963a621bad86e657785c03fd39810c655a8dd74a"),
}

# What the published source answers at 256 pixels with the weights of `randomise`: mean and deviation of the first
# slice's embedding; then of a slice prompted by a box and of three tracked after it the mean of the mask logits and
# those at PLACES. They depend on every part: memories, time slots, pointers, pooling.
PLACES = ((5, 7), (17, 33), (40, 12), (31, 50), (58, 60))
GOLDEN = {
    ("ti", "full"): (
        (0.010775, 1.009401),
        (0.963008, 9.8355, 0.04358, 1.63788, -2.18195, 1.55185),
        (0.783545, 5.69982, 2.38314, -3.16189, 0.80216, 5.65319),
        (0.599163, 2.41437, 3.5443, -1.909, 0.16334, 1.0104),
        (0.363391, -0.93392, 4.35353, -6.83926, -2.39351, -3.73004),
    ),
    ("ti", "pooled-1"): (
        (0.010775, 1.009401),
        (0.963008, 9.8355, 0.04358, 1.63788, -2.18195, 1.55185),
        (0.783545, 5.69982, 2.38314, -3.16189, 0.80216, 5.65319),
        (0.603066, 2.41342, 3.53274, -1.90509, 0.15052, 1.02222),
        (0.368651, -0.94373, 4.3513, -6.83134, -2.39994, -3.71946),
    ),
    ("ti", "pooled-2"): (
        (0.010775, 1.009401),
        (0.963008, 9.8355, 0.04358, 1.63788, -2.18195, 1.55185),
        (0.783545, 5.69982, 2.38314, -3.16189, 0.80216, 5.65319),
        (0.597044, 2.51321, 3.50227, -2.00051, 0.12923, 1.02989),
        (0.360525, -1.02378, 4.41192, -6.94797, -2.39213, -3.69976),
    ),
    ("s", "full"): (
        (0.003708, 1.010631),
        (-1.588697, 3.07497, -4.10376, -6.54253, -1.26954, -5.52292),
        (-1.43865, -13.02701, -3.80935, 3.00622, 3.05488, -3.44735),
        (-1.457252, -10.3709, -2.63298, 4.29552, 4.40873, 3.57045),
        (-1.250329, -8.17723, -6.78802, 1.26668, 3.55493, 2.16575),
    ),
}
LARGEST_LOGIT = 13.0  # at least, on each of these slices


@pytest.fixture
def network() -> EfficientTamNetwork:
    return small_network()


def next_slice(network: EfficientTamNetwork, pixels: torch.Tensor, dtype: torch.dtype | None) -> DecodedMasks:
    """Two objects prompted by boxes in one slice, and what memory makes of them in the next."""
    before, now = (network.encode_image(part) for part in pixels)
    boxes = torch.tensor([[[0.2, 0.2], [0.6, 0.7]], [[0.5, 0.1], [0.9, 0.4]]]) * SIDE
    prompts = network.encode_prompts(boxes, torch.tensor([[2, 3], [2, 3]]))
    embedding = network.condition(before.embedding, (), ())
    prompted = network.decode_masks(embedding, before.high_resolution, prompts, False)
    memory = network.encode_memory(before.embedding, prompted.mask_logits, prompted.object_logits, False, dtype)
    memories = [(memory, 0), (memory, 1)]
    conditioned = network.condition(now.embedding, memories, [(prompted.pointers[:, 0], 1)])
    return network.decode_masks(conditioned, now.high_resolution, network.encode_no_clicks(2), True)


@pytest.mark.parametrize("size", PLAIN_VIT_SIZES)
def test_keys_and_shapes_are_those_of_the_published_models(size: str) -> None:
    with torch.device("meta"):
        published = EfficientTamNetwork(EfficientTamConfig.published(size))
    assert all(tensor.is_meta for tensor in (*published.parameters(), *published.buffers()))
    state = published.state_dict()
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in state.items())
    found = len(state), sum(each.numel() for each in published.parameters())
    assert (*found, hashlib.sha256("\n".join(lines).encode()).hexdigest()) == PUBLISHED[size]
    assert EfficientTamConfig.size_of({name: tuple(tensor.shape) for name, tensor in state.items()}) == size


@pytest.mark.parametrize(("size", "attention"), GOLDEN)
def test_random_weights_give_what_the_published_source_gives(size: str, attention: str) -> None:
    with torch.device("meta"):
        network = EfficientTamNetwork(EfficientTamConfig.published(size, 256, attention))
    network = network.to_empty(device="cpu").eval()
    randomise(network)
    coarse = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    pixels = functional.interpolate(coarse, (256, 256), mode="bicubic").clamp(0, 1)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        slices = [network.encode_image(each[None]) for each in (pixels - mean) / std]
        tracked = track(network, slices, [Prompt(0, [[50.0, 60.0], [150.0, 180.0]], [2, 3])], range(4))
    (embedded, *logits), first = GOLDEN[size, attention], slices[0].embedding.double()
    assert (float(first.mean()), float(first.std())) == pytest.approx(embedded, abs=1e-5)
    for index, expected in enumerate(logits):
        found = tracked[index][0, 0]
        values = [float(found.double().mean()), *(float(found[place]) for place in PLACES)]
        assert found.abs().max() >= LARGEST_LOGIT
        assert values == pytest.approx(expected, abs=1e-5 * LARGEST_LOGIT), index


def test_a_slice_has_one_map_and_its_bytes_are_counted(network: EfficientTamNetwork) -> None:
    features = network.encode_image(torch.randn(2, 3, SIDE, SIDE))
    assert features.embedding.shape == (2, 32, 4, 4) and features.high_resolution is None
    assert features.row(1).nbytes == features.nbytes // 2 == 32 * 16 * 4
    assert torch.equal(features.row(1).embedding, features.embedding[1:])


def test_a_window_does_not_see_its_neighbours() -> None:
    torch.manual_seed(0)
    trunk = PlainVit(SMALL.trunk)
    block = trunk.blocks[0]
    tokens = torch.randn(1, 4, 4, 16)
    changed = tokens.clone()
    changed[:, 3, 3] += 1  # alone, with padding, in the window of row 1, column 1
    moved = (block(changed) - block(tokens)).abs().amax(dim=3)[0] > 0
    assert moved.nonzero().tolist() == [[3, 3]]


def test_positions_are_interpolated_to_other_grids() -> None:
    trunk = PlainVit(SMALL.trunk)
    with torch.no_grad():
        trunk.pos_embed[:, 1:].copy_(torch.arange(9.0)[None, :, None].expand(1, 9, 16))
    assert torch.equal(trunk._position(3, 3)[0, :, :, 0], torch.arange(9.0).view(3, 3))
    larger = trunk._position(6, 6)[0, :, :, 0]
    assert torch.all(larger.diff(dim=0) > 0) and torch.all(larger.diff(dim=1) > 0)


@pytest.mark.parametrize("kind", [PooledScores, PooledKeys])
def test_a_single_memory_is_attended_to_in_full(kind: type[PooledScores]) -> None:
    torch.manual_seed(0)
    query, placed, value = torch.randn(1, 16, 8), torch.randn(1, 1, 16, 8), torch.randn(1, 18, 4)
    unplaced = torch.randn(1, 2, 8)
    expected = attend(query, torch.cat([placed[:, 0], unplaced], dim=1), value)
    assert torch.equal(kind(8, 4).mix(query, placed, unplaced, value), expected)


@pytest.mark.parametrize("grad", [True, False])
def test_merged_cells_that_are_alike_change_nothing(grad: bool) -> None:
    """Where all cells of a window of 2 x 2 agree, their mean with four times the weight is the same as all of them."""
    torch.manual_seed(0)
    query, unplaced = torch.randn(1, 16, 8), torch.randn(1, 3, 8)
    cells = torch.arange(16).view(4, 4)
    window = (cells // 8 * 2 + cells % 4 // 2).flatten()
    placed, values = torch.randn(1, 2, 4, 8)[:, :, window], torch.randn(1, 2, 4, 4)[:, :, window]
    value = torch.cat([values.flatten(1, 2), torch.randn(1, 3, 4)], dim=1)
    with torch.set_grad_enabled(grad):
        expected = attend(query, torch.cat([placed.flatten(1, 2), unplaced], dim=1), value)
        found = PooledScores(8, 4).mix(query, placed, unplaced, value)
    torch.testing.assert_close(found, expected)


def test_the_second_kind_adds_the_share_to_the_keys() -> None:
    torch.manual_seed(0)
    query, placed, unplaced = torch.randn(1, 4, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 1, 8)
    value = torch.randn(1, 9, 4)
    keys = torch.cat([placed.mean(dim=2) + math.log(4), unplaced], dim=1)
    values = torch.cat([value[:, :4].mean(1, True), value[:, 4:8].mean(1, True), value[:, 8:]], dim=1)
    torch.testing.assert_close(PooledKeys(8, 4).mix(query, placed, unplaced, value), attend(query, keys, values))


@pytest.mark.parametrize("kind", CrossAttention)
def test_gradients_of_a_tracked_slice_reach_every_part(kind: CrossAttention) -> None:
    network = small_network(kind).train()  # in evaluation an unstable single mask gives way to another
    decoded = next_slice(network, torch.randn(2, 1, 3, SIDE, SIDE), dtype=None)
    (decoded.mask_logits.sum() + decoded.iou.sum() + decoded.object_logits.sum() + decoded.pointers.sum()).backward()
    unused = ("no_mem_pos_enc", "mask_downsample.", "no_obj_ptr", "mask_downscaling", "point_embeddings.")
    without = {name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()}
    assert {name for name in without if not any(part in name for part in unused)} == set()


def test_batched_slices_equal_single_ones(network: EfficientTamNetwork) -> None:
    pixels = torch.randn(3, 3, SIDE, SIDE)
    with torch.inference_mode():
        together = network.encode_image(pixels).embedding
        apart = torch.cat([network.encode_image(each[None]).embedding for each in pixels])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("m",), "size must be one of ti, s, got 'm'"),
        (("s", 500), "multiple of 32, got 500"),
        (("s", 512, "pooled"), "cross_attention must be one of full, pooled-1, pooled-2, got 'pooled'"),
    ],
)
def test_what_was_not_published_is_refused(arguments: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        EfficientTamConfig.published(*arguments)

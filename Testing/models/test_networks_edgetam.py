"""EdgeTAM's networks: keys, memories of tokens, folding, gradients. Equality is in test_oracle_edgetam."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamConfig, EdgeTamNetwork  # noqa: E402
from SegmentAnythingMedLib.models.networks.perceiver import SpatialPerceiver  # noqa: E402
from SegmentAnythingMedLib.models.networks.repvit import RepVit  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import DecodedMasks  # noqa: E402
from Testing.models.small_edgetam import SMALL, scatter, small_network  # noqa: E402

SIDE = SMALL.image_size

# Of the lines "name [shape]", sorted, of the model that the published source builds (commit 9cc44bf).
PUBLISHED_KEYS = 982
PUBLISHED_PARAMETERS = 13_895_794
PUBLISHED_NAMES_AND_SHAPES = "3b8cf72f9c485ac79f28a5dd5978586a0ff40a1a670554dfbdd0a712f1d3f1a6"


@pytest.fixture
def network() -> EdgeTamNetwork:
    return small_network()


def next_slice(network: EdgeTamNetwork, pixels: torch.Tensor, dtype: torch.dtype | None) -> DecodedMasks:
    """Two objects prompted by boxes in one slice, and what memory makes of them in the next."""
    before, now = (network.encode_image(part) for part in pixels)
    boxes = torch.tensor([[[0.2, 0.2], [0.6, 0.7]], [[0.5, 0.1], [0.9, 0.4]]]) * SIDE
    prompts = network.encode_prompts(boxes, torch.tensor([[2, 3], [2, 3]]))
    embedding = network.condition(before.embedding, (), ())
    prompted = network.decode_masks(embedding, before.high_resolution, prompts, False)
    memory = network.encode_memory(before.embedding, prompted.mask_logits, prompted.object_logits, False, dtype)
    conditioned = network.condition(now.embedding, [(memory, 0)], [(prompted.pointers[:, 0], 1)])
    return network.decode_masks(conditioned, now.high_resolution, network.encode_no_clicks(2), True)


def test_keys_and_shapes_are_those_of_the_published_model() -> None:
    with torch.device("meta"):
        published = EdgeTamNetwork(EdgeTamConfig())
    state = published.state_dict()
    lines = sorted(f"{name} {list(tensor.shape)}" for name, tensor in state.items())
    assert len(state) == PUBLISHED_KEYS
    assert sum(parameter.numel() for parameter in published.parameters()) == PUBLISHED_PARAMETERS
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == PUBLISHED_NAMES_AND_SHAPES


def test_a_network_on_the_meta_device_holds_no_memory() -> None:
    with torch.device("meta"):
        published = EdgeTamNetwork(EdgeTamConfig())
    assert all(tensor.is_meta for tensor in (*published.parameters(), *published.buffers()))


@pytest.mark.parametrize("size", [0, 32, 96, -64])
def test_the_image_must_be_whole_windows(size: int) -> None:
    with pytest.raises(ValueError, match=f"multiple of 64, got {size}"):
        replace(SMALL, image_size=size)


def test_the_trunk_has_a_map_for_each_stride() -> None:
    trunk = RepVit(SMALL.trunk).eval()
    maps = trunk(torch.randn(2, 3, 96, 64))
    assert [tuple(each.shape) for each in maps] == [(2, 8, 24, 16), (2, 16, 12, 8), (2, 16, 6, 4), (2, 32, 3, 2)]


def test_folded_batch_norms_give_what_batch_norms_give() -> None:
    """In training the branches run apart; with running statistics taken over, both ways are the same function."""
    trunk = RepVit(SMALL.trunk).double()
    scatter(trunk)
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    folded = trunk.eval()(pixels)[-1]
    keeping = [module for module in trunk.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in keeping:  # batch norm by running statistics, but through the unfolded path
        module.forward = lambda x, m=module: torch.nn.functional.batch_norm(
            x, m.running_mean, m.running_var, m.weight, m.bias, training=False
        )
        module.training = True
    torch.testing.assert_close(folded, trunk(pixels)[-1])


def test_training_moves_the_running_statistics_and_evaluation_does_not(network: EdgeTamNetwork) -> None:
    mean = network.image_encoder.trunk.body.stem.conv1.bn.running_mean
    before = mean.clone()
    network.encode_image(torch.randn(1, 3, SIDE, SIDE))
    assert torch.equal(mean, before)
    network.train().encode_image(torch.randn(1, 3, SIDE, SIDE))
    assert not torch.equal(mean, before)


def test_a_window_token_sees_its_own_window_only() -> None:
    torch.manual_seed(0)
    perceiver = SpatialPerceiver(dim=8, latents=5, grid=4)
    maps = torch.randn(2, 8, 8, 12)
    changed = maps.clone()
    changed[1, :, 2:4, 9:12] += 1  # in the window of row 1, column 3
    difference = (perceiver(changed) - perceiver(maps)).abs().amax(dim=2)
    assert not difference[0].any()
    assert torch.all(difference[1, :5] > 0)
    assert torch.nonzero(difference[1, 5:]).flatten().tolist() == [1 * 4 + 3]


def test_a_memory_is_a_few_tokens_rounded_to_bf16(network: EdgeTamNetwork) -> None:
    features = network.encode_image(torch.randn(1, 3, SIDE, SIDE))
    logits, present = torch.randn(2, 1, 16, 16), torch.ones(2, 1)
    memory = network.encode_memory(features.embedding, logits, present, from_prompt=True)
    assert memory.shape == (2, 8, 5 + 16) and memory.dtype == torch.bfloat16
    exact = network.encode_memory(features.embedding, logits, present, from_prompt=True, dtype=None)
    assert torch.equal(exact.to(torch.bfloat16), memory) and not torch.equal(exact, memory.float())


def test_the_order_of_window_tokens_matters_and_that_of_the_others_does_not(network: EdgeTamNetwork) -> None:
    embedding = network.encode_image(torch.randn(1, 3, SIDE, SIDE)).embedding
    memory = torch.randn(1, 8, 21)
    base = network.condition(embedding, [(memory, 1)], [])
    whole = torch.cat([memory[:, :, :5].flip(2), memory[:, :, 5:]], dim=2)
    windows = torch.cat([memory[:, :, :5], memory[:, :, 5:].flip(2)], dim=2)
    torch.testing.assert_close(network.condition(embedding, [(whole, 1)], []), base, atol=1e-5, rtol=1e-5)
    assert (network.condition(embedding, [(windows, 1)], []) - base).abs().max() > 1e-3


def test_slots_tell_memories_apart_and_distances_do_not_tell_pointers_apart(network: EdgeTamNetwork) -> None:
    embedding = network.encode_image(torch.randn(1, 3, SIDE, SIDE)).embedding
    memory, pointer = torch.randn(1, 8, 21), torch.randn(1, 32)
    base = network.condition(embedding, [(memory, 0)], [(pointer, 1)])
    assert not torch.allclose(base, network.condition(embedding, [(memory, 1)], [(pointer, 1)]))
    assert torch.equal(base, network.condition(embedding, [(memory, 0)], [(pointer, 4)]))


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_a_tracked_slice_reach_every_part(network: EdgeTamNetwork, training: bool) -> None:
    decoded = next_slice(network.train(training), torch.randn(2, 1, 3, SIDE, SIDE), dtype=None)
    (decoded.mask_logits.square().mean() + decoded.iou.sum() + decoded.object_logits.sum()).backward()
    unreached = {name for name, part in network.named_parameters() if part.grad is None or not part.grad.any()}
    # What two boxes without masks, clicks or absent objects cannot reach, and the embedding no version uses. In
    # evaluation an unstable single mask gives way to the best of three.
    assert unreached <= {
        "no_mem_pos_enc",
        "no_obj_ptr",
        "mask_downsample.weight",
        "mask_downsample.bias",
        "sam_prompt_encoder.point_embeddings.0.weight",
        "sam_prompt_encoder.point_embeddings.1.weight",
        *(name for name, _ in network.named_parameters() if "mask_downscaling" in name),
        *(name for name, _ in network.named_parameters() if "hypernetworks_mlps.0." in name and not training),
    }


def test_gradients_do_not_change_the_result(network: EdgeTamNetwork) -> None:
    pixels = torch.randn(2, 1, 3, SIDE, SIDE)
    with_gradients = next_slice(network, pixels, torch.bfloat16)
    with torch.no_grad():
        without = next_slice(network, pixels, torch.bfloat16)
    torch.testing.assert_close(with_gradients.mask_logits, without.mask_logits, atol=1e-5, rtol=1e-4)

"""SAM's and SAM-HQ's networks: keys, shapes, windows, prompts, gradients. Equality is in test_oracle_sam."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from SegmentAnythingMedLib.errors import ModelFileError  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam_network import (  # noqa: E402
    SamFeatures,
    SamNetwork,
    infer_sam_config,
    is_hq,
)
from SegmentAnythingMedLib.models.networks.vit import VIT_SIZES, ImageEncoder, VitAttention, VitBlock  # noqa: E402
from Testing.models.small_sam import SMALL, small_network  # noqa: E402

# Parameters of the models that the published sources build; test_oracle_sam compares every key and shape.
PUBLISHED_PARAMETERS = {"b": 93_735_472, "l": 312_342_832, "h": 641_090_608}
PUBLISHED_HQ_PARAMETERS = {"b": 94_806_576, "l": 313_676_080, "h": 642_686_000}


@pytest.mark.parametrize("hq", [False, True])
@pytest.mark.parametrize("size", VIT_SIZES)
def test_each_size_has_the_published_number_of_parameters_and_is_known_by_its_tensors(size: str, hq: bool) -> None:
    with torch.device("meta"):
        network = SamNetwork(VIT_SIZES[size], hq)
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    expected = PUBLISHED_HQ_PARAMETERS if hq else PUBLISHED_PARAMETERS
    assert sum(parameter.numel() for parameter in network.parameters()) == expected[size]
    state = network.state_dict()
    assert replace(infer_sam_config(state), mlp_dim=0) == VIT_SIZES[size] and is_hq(state) is hq


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, window=4, global_blocks=()), replace(SMALL, image_size=128)])
def test_the_shape_of_other_encoders_is_read_off_their_tensors(config: object) -> None:
    with torch.device("meta"):
        state = SamNetwork(config).state_dict()
        again = SamNetwork(infer_sam_config(state)).state_dict()
    assert {key: one.shape for key, one in state.items()} == {key: one.shape for key, one in again.items()}


@pytest.mark.parametrize("drop", ["image_encoder.pos_embed", "rel_pos_h", "neck.0.weight", "mlp.lin1.weight"])
def test_tensors_of_another_model_have_no_shape_of_sam(drop: str) -> None:
    with torch.device("meta"):
        state = SamNetwork(SMALL).state_dict()
    with pytest.raises(ModelFileError, match="not a SAM checkpoint"):
        infer_sam_config({key: one for key, one in state.items() if drop not in key})


@pytest.mark.parametrize("change", ["gone", "no_width", "no_patches"])
def test_a_block_that_is_gone_or_empty_is_no_sam(change: str) -> None:
    with torch.device("meta"):
        state = SamNetwork(SMALL).state_dict()
        first, patches = "image_encoder.blocks.0.attn.rel_pos_h", "image_encoder.patch_embed.proj.weight"
        if change == "gone":
            del state[first]
        elif change == "no_width":
            state[first] = torch.empty(len(state[first]), 0)
        else:
            state[patches] = torch.empty(24, 3, 0, 0)
    with pytest.raises(ModelFileError, match="not a SAM checkpoint: .*'models import' tells"):
        infer_sam_config(state)


@pytest.fixture(params=[False, True], ids=["sam", "hq"])
def network(request: pytest.FixtureRequest) -> SamNetwork:
    return small_network(hq=request.param)


def pixels(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


POINTS = torch.tensor([[[10.0, 20.0], [5.0, 5.0], [40.0, 50.0]], [[30.0, 9.0], [20.0, 4.0], [60.0, 33.0]]])
LABELS = torch.tensor([[1, 2, 3], [0, 2, 3]])


@torch.no_grad()
def test_relative_positions_are_added_to_attention() -> None:
    """The attention with more channels is the attention with a bias, written out."""
    torch.manual_seed(0)
    attention = VitAttention(8, heads=2, side=5)
    attention.rel_pos_h.normal_()
    attention.rel_pos_w.normal_()
    x = torch.randn(2, 5, 5, 8)
    q, k, v = attention.qkv(x).reshape(2, 25, 3, 2, 4).permute(2, 0, 3, 1, 4)
    row, column = torch.arange(25) // 5, torch.arange(25) % 5
    down = attention.rel_pos_h[row[:, None] - row[None] + 4]
    across = attention.rel_pos_w[column[:, None] - column[None] + 4]
    bias = torch.einsum("bnqc,qkc->bnqk", q, down + across)
    mixed = ((q @ k.mT / 2 + bias).softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 5, 8)
    torch.testing.assert_close(attention(x), attention.proj(mixed))


@torch.no_grad()
def test_a_window_sees_itself_only_and_a_global_block_the_whole_slice() -> None:
    x = torch.randn(1, 4, 4, 24)
    changed = x.clone()
    changed[0, 0, 0] = torch.randn(24)
    for index, window in ((0, True), (1, False)):
        block = VitBlock(SMALL, index)
        block.attn.qkv.weight.mul_(5)
        reached = (block(changed) - block(x)).abs().amax(dim=-1)[0] > 1e-7
        assert reached[:3, :3].all() and reached[3, 3] == (not window)


@torch.no_grad()
def test_a_block_can_be_replaced_by_one_with_an_adapter() -> None:
    class Doubling(VitBlock):
        def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().feed_forward(x)

    class Adapted(ImageEncoder):
        block = Doubling

    torch.manual_seed(0)
    plain, adapted = ImageEncoder(SMALL), Adapted(SMALL)
    adapted.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(pixels())[0], adapted(pixels())[0])


@torch.no_grad()
def test_a_batch_of_slices_gives_what_each_gives_alone(network: SamNetwork) -> None:
    both = network.encode_image(pixels(2))
    for row in range(2):
        alone = network.encode_image(pixels(2)[row : row + 1])
        torch.testing.assert_close(both.row(row).embedding, alone.embedding, atol=1e-5, rtol=1e-5)
        if alone.fine is not None:
            torch.testing.assert_close(both.row(row).fine, alone.fine, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("given", ["clicks and box", "clicks", "mask", "clicks and mask"])
def test_a_batch_of_prompts_gives_what_each_gives_alone(network: SamNetwork, multimask: bool, given: str) -> None:
    features = network.encode_image(pixels())
    count = 3 if "box" in given else 1
    points, labels = (POINTS[:, :count], LABELS[:, :count]) if "clicks" in given else (None, None)
    masks = torch.randn(2, 1, 16, 16) if "mask" in given else None
    both = network.decode(features, points, labels, masks, multimask)
    assert both.mask_logits.shape == (2, 3 if multimask and features.fine is None else 1, 16, 16)
    for row in range(2):
        part = slice(row, row + 1)
        one = [None if part_of is None else part_of[part] for part_of in (points, labels, masks)]
        alone = network.decode(features, *one, multimask)
        torch.testing.assert_close(both.mask_logits[part], alone.mask_logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(both.iou[part], alone.iou, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_padding_token_follows_clicks_and_no_box(network: SamNetwork) -> None:
    encoder = network.prompt_encoder
    assert encoder(POINTS[:, :1], LABELS[:, :1], None).sparse.shape == (2, 2, 32)
    assert encoder(POINTS, LABELS, None).sparse.shape == (2, 3, 32)
    assert encoder(POINTS[:, 1:], LABELS[:, 1:], None).sparse.shape == (2, 2, 32)
    assert encoder(None, None, None).sparse.shape == (1, 0, 32)


@torch.no_grad()
def test_sam_hq_corrects_the_best_of_three_or_the_single_mask() -> None:
    network = small_network(hq=True)
    features = network.encode_image(pixels())
    network.mask_decoder.iou_prediction_head.layers[-1].bias.copy_(torch.tensor([9.0, 1.0, 7.0, 3.0]))
    single, best = (network.decode(features, POINTS[:1], LABELS[:1], multimask=several) for several in (False, True))
    assert single.iou.item() == pytest.approx(9, abs=1) and best.iou.item() == pytest.approx(7, abs=1)
    assert single.mask_logits.shape == best.mask_logits.shape == (1, 1, 16, 16)
    network.mask_decoder.hf_mlp.layers[-1].weight.zero_()
    network.mask_decoder.hf_mlp.layers[-1].bias.zero_()
    plain = network.decode(SamFeatures(features.embedding, features.fine), POINTS[:1], LABELS[:1], multimask=False)
    assert not torch.allclose(plain.mask_logits, single.mask_logits)


def test_candidates_are_sorted_by_predicted_quality_each_object_on_its_own(network: SamNetwork) -> None:
    with torch.no_grad():
        masks = small_network().decode(small_network().encode_image(pixels()), POINTS, LABELS, multimask=True)
    ordered = masks.sorted()
    for row in range(2):
        order = masks.iou[row].argsort(descending=True)
        assert torch.equal(ordered.iou[row], masks.iou[row, order])
        assert torch.equal(ordered.mask_logits[row], masks.mask_logits[row, order])


def test_gradients_of_a_slice_reach_every_part(network: SamNetwork) -> None:
    features = network.encode_image(pixels())
    labels = torch.tensor([[1, 0]])
    steps = [
        network.decode(features, POINTS[:1, :2], labels, torch.randn(1, 1, 16, 16), several)
        for several in (False, True)
    ]
    steps.append(network.decode(features, POINTS, LABELS))
    sum(step.mask_logits.square().mean() + step.iou.sum() for step in steps).backward()
    unreached = {name for name, part in network.named_parameters() if part.grad is None or not part.grad.any()}
    # Of SAM-HQ's three candidates only the best one is looked at.
    assert {name for name in unreached if "output_hypernetworks_mlps" not in name} == set()
    assert not unreached or features.fine is not None

"""Our EdgeTAM networks against transformers' (its trunk is timm's), same random weights, no pretrained file needed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
for _package in ("torch", "torchvision", "timm", "transformers"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"the oracle package {_package!r} is not installed (extra 'oracle')", allow_module_level=True)

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from SegmentAnythingMedLib.models.networks.edgetam_network import EdgeTamNetwork  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import ImageFeatures  # noqa: E402
from Testing.models import oracle_edgetam, oracle_sam2  # noqa: E402
from Testing.models.oracle_sam2 import Prompt  # noqa: E402

LOGGER = logging.getLogger(__name__)
TOLERANCE = 1e-5  # of the largest reference value
SMALL, MIDDLE, LARGE = (256, 6), (512, 3), (1024, 2)  # image size and slices; 1024 px take minutes on a slow machine


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Equal results from run to run; and beside other work two threads were slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Pair:
    """Reference and our network with the same weights, and slices encoded by ours."""

    reference: nn.Module
    network: EdgeTamNetwork
    frames: Tensor
    slices: list[ImageFeatures]

    @property
    def side(self) -> int:
        return self.network.config.image_size

    def prompt(self, index: int, *points: tuple[float, float], labels: tuple[int, ...]) -> Prompt:
        """Points given as parts of the side."""
        return Prompt(index, [[x * self.side, y * self.side] for x, y in points], labels)


@pytest.fixture(scope="module", params=[SMALL, MIDDLE, LARGE], ids=lambda p: f"{p[0]}px")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    side, count = request.param
    network = oracle_edgetam.random_network(side)
    reference = oracle_edgetam.transformers_model(side)
    reference.load_state_dict(oracle_edgetam.to_transformers_keys(network.state_dict()), strict=True)
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, 3, side // 8, side // 8, generator=generator)
    frames = functional.interpolate(coarse, (side, side), mode="bicubic")
    with torch.inference_mode():
        yield Pair(reference, network, frames, [network.encode_image(frame[None]) for frame in frames])


def assert_equal(ours: Tensor, reference: Tensor) -> None:
    assert ours.shape == reference.shape
    assert oracle_sam2.relative_difference(ours, reference) <= TOLERANCE


def test_image_features_are_equal(pair: Pair) -> None:
    maps = pair.reference.get_image_features(pair.frames[:1], return_dict=True).fpn_hidden_states
    features = pair.slices[0]
    for ours, expected in zip((features.stride4, features.stride8, features.embedding), maps, strict=True):
        assert_equal(ours.flatten(2), expected.permute(1, 2, 0))


@pytest.mark.parametrize("prompt", ["box", "click", "box and clicks", "mask", "click and mask"])
def test_one_slice_is_equal(pair: Pair, prompt: str) -> None:
    corners = [[0.3, 0.4], [0.6, 0.7]] if "box" in prompt else []
    clicks = [[0.5, 0.5], [0.1, 0.8]] if "clicks" in prompt else [[0.4, 0.5]] if "click" in prompt else []
    given = [2, 3][: len(corners)] + [1, 0][: len(clicks)]
    points = torch.tensor([corners + clicks]) * pair.side if given else None
    labels = torch.tensor([given]) if given else None
    blobs = 10 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    mask = functional.interpolate(blobs, (pair.side // 4,) * 2, mode="bicubic") if "mask" in prompt else None
    network, features = pair.network, pair.slices[0]
    multimask = network.config.wants_multimask(len(given))
    embedding = network.condition(features.embedding, (), ())
    prompts = network.encode_no_clicks(1, mask) if points is None else network.encode_prompts(points, labels, mask)
    decoded = network.decode_masks(embedding, features.high_resolution, prompts, multimask)

    expected = pair.reference._single_frame_forward(
        input_points=None if points is None else points[:, None],
        input_labels=None if labels is None else labels[:, None],
        input_masks=mask,
        image_embeddings=[*features.high_resolution, embedding],
        multimask_output=multimask,
    )
    assert expected.pred_masks.abs().max() >= 5
    assert_equal(decoded.best().mask_logits, expected.pred_masks)
    assert_equal(decoded.iou, expected.iou_scores[:, 0])
    assert_equal(decoded.best().pointers, expected.object_pointer)


def test_forward_propagation_of_two_objects_is_equal(pair: Pair) -> None:
    """Object 1 has a second prompted slice, ahead of the first tracked one; at 1024 px it is alone, with one."""
    again = pair.prompt(2, (0.5, 0.5), (0.2, 0.2), (0.55, 0.5), labels=(1, 0, 1))
    first = pair.prompt(0, (0.3, 0.4), (0.6, 0.7), labels=(2, 3))
    objects = {1: [first]}
    if pair.side < LARGE[0]:
        objects = {1: [first, again], 2: [pair.prompt(0, (0.3, 0.6), (0.7, 0.2), labels=(1, 0))]}
    order = list(range(len(pair.slices)))
    assert_tracks_are_equal(pair, objects, order)


def test_backward_propagation_is_equal(pair: Pair) -> None:
    """From a mask, and below 1024 px from a click, too; each alone, as transformers cannot stack the two."""
    order = list(range(len(pair.slices)))[::-1]
    row, column = torch.meshgrid(torch.arange(pair.side), torch.arange(pair.side), indexing="ij")
    disc = (row - 0.45 * pair.side) ** 2 + (column - 0.4 * pair.side) ** 2 < (0.2 * pair.side) ** 2
    assert_tracks_are_equal(pair, {1: [Prompt(order[0], mask=disc.float())]}, order)
    if pair.side < LARGE[0]:
        assert_tracks_are_equal(pair, {1: [pair.prompt(order[0], (0.5, 0.5), labels=(1,))]}, order)


def assert_tracks_are_equal(pair: Pair, objects: dict[int, list[Prompt]], order: list[int]) -> None:
    expected = oracle_edgetam.transformers_track(pair.reference, pair.frames, objects, order)
    for row, prompts in enumerate(objects.values()):
        tracked = oracle_sam2.track(pair.network, pair.slices, prompts, order)
        for index in order:
            reference = expected[index][row : row + 1]
            assert reference.abs().max() >= 5
            difference = oracle_sam2.relative_difference(tracked[index], reference)
            LOGGER.info("%d px, object %d, slice %d: %.1e", pair.side, row + 1, index, difference)
            assert_equal(tracked[index], reference)


def test_memories_in_full_precision_are_equal_too(pair: Pair) -> None:
    """The published predictor's rounding is ours by default; transformers keeps float32, as our ``dtype=None`` does."""
    features = pair.slices[0]
    logits = 5 * torch.randn(1, 1, pair.side, pair.side, generator=torch.Generator().manual_seed(3))
    present = torch.ones(1, 1)
    for from_prompt in (True, False):
        expected, position = pair.reference._encode_new_memory(
            features.embedding.flatten(2).permute(2, 0, 1), logits, present, from_prompt
        )
        ours = pair.network.encode_memory(features.embedding, logits, present, from_prompt, dtype=None)
        assert_equal(ours.mT, expected)
        rounded = pair.network.encode_memory(features.embedding, logits, present, from_prompt)
        assert torch.equal(rounded, ours.to(torch.bfloat16))
    assert_equal(pair.network.memory_position(*features.embedding.shape[2:]), position)


@pytest.mark.parametrize("pair", [SMALL], indirect=True, ids=str)
def test_an_absent_object_leaves_the_same_mask_and_pointer(pair: Pair) -> None:
    heads = (
        pair.reference.mask_decoder.pred_obj_score_head.proj_out,
        pair.network.sam_mask_decoder.pred_obj_score_head,
    )
    biases = (heads[0].bias, heads[1].layers[-1].bias)
    before, features, network = biases[0].clone(), pair.slices[0], pair.network
    try:
        for bias in biases:
            bias.fill_(-10)
        embedding = network.condition(features.embedding, (), ())
        decoded = network.decode_masks(embedding, features.high_resolution, network.encode_no_clicks(1), True)
        expected = pair.reference._single_frame_forward(
            image_embeddings=[*features.high_resolution, embedding], multimask_output=True
        )
        assert float(expected.object_score_logits) < 0
        assert_equal(decoded.best().suppress_absent().mask_logits, expected.pred_masks)
        assert_equal(decoded.best().pointers, expected.object_pointer)
    finally:
        for bias in biases:
            bias.copy_(before)

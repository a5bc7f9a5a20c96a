"""Our SAM against the package segment-anything, our SAM-HQ against transformers, with the same random weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import pytest

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
for _package in ("torch", "torchvision", "segment_anything", "transformers"):
    if importlib.util.find_spec(_package) is None:
        pytest.skip(f"the oracle package {_package!r} is not installed (extra 'oracle')", allow_module_level=True)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from SegmentAnythingMedLib.models.base import Prediction, SliceImage  # noqa: E402
from SegmentAnythingMedLib.models.networks.checkpoint import load_strictly  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam_network import SamNetwork, infer_sam_config, is_hq  # noqa: E402
from SegmentAnythingMedLib.models.networks.vit import VIT_SIZES, VitConfig  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import Placement, Preprocessing, normalize  # noqa: E402
from SegmentAnythingMedLib.models.sam import SamModel  # noqa: E402
from SegmentAnythingMedLib.prompts import SlicePrompts  # noqa: E402
from Testing.models import oracle_sam as oracle  # noqa: E402
from Testing.models.oracle_sam2 import relative_difference  # noqa: E402
from Testing.models.small_sam import small_card  # noqa: E402

TOLERANCE = 1e-5  # of the largest reference value
SIDE = 160
SMALL = VitConfig(dim=64, heads=2, depth=4, global_blocks=(1, 3), window=4, image_size=SIDE, channels=64)

POINTS = np.array([[40.0, 60.0], [100.0, 20.0]])
POSITIVE = np.array([True, False])
BOX_XYXY = np.array([20.0, 30.0, 120.0, 90.0])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Equal results from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def our_network(state: dict[str, Tensor]) -> SamNetwork:
    with torch.device("meta"):
        network = SamNetwork(infer_sam_config(state), is_hq(state))
    load_strictly(network, state, "reference")
    return network.eval()


def assert_equal(ours: Tensor, reference: Tensor) -> None:
    assert ours.shape == reference.shape
    assert relative_difference(ours, reference) <= TOLERANCE


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    model = oracle.reference_sam(SMALL)
    oracle.randomise(model.state_dict())
    return model


@pytest.fixture(scope="module")
def network(reference: nn.Module) -> SamNetwork:
    return our_network(reference.state_dict())


def an_image(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8, smooth enough to have edges."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), dtype=np.uint8)
    return coarse.repeat(10, axis=0).repeat(10, axis=1)[:height, :width]


def slice_of(image: np.ndarray) -> SliceImage:
    return SliceImage(image.transpose(2, 0, 1).astype(np.float32) / 255)


@pytest.mark.parametrize("size", VIT_SIZES)
def test_keys_and_shapes_of_the_released_sizes_are_the_packages(size: str) -> None:
    with torch.device("meta"):
        theirs, ours = oracle.reference_sam(VIT_SIZES[size]).state_dict(), SamNetwork(VIT_SIZES[size]).state_dict()
    assert {key: one.shape for key, one in ours.items()} == {key: one.shape for key, one in theirs.items()}


@torch.inference_mode()
def test_the_image_encoder_is_equal(reference: nn.Module, network: SamNetwork) -> None:
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    assert_equal(network.encode_image(pixels).embedding, reference.image_encoder(pixels))


@torch.inference_mode()
def test_the_image_encoder_is_equal_where_windows_do_not_fill_the_slice() -> None:
    config = replace(SMALL, window=7, global_blocks=(0,))
    reference = oracle.reference_sam(config)
    oracle.randomise(reference.state_dict())
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    ours = our_network(reference.state_dict())
    assert (ours.config.window, ours.config.global_blocks) == (7, (0,))
    assert_equal(ours.encode_image(pixels).embedding, reference.image_encoder(pixels))


@torch.inference_mode()
@pytest.mark.parametrize("several", [False, True], ids=["one", "three"])
@pytest.mark.parametrize("given", ["clicks", "box", "clicks and box", "mask", "clicks and mask", "box and mask"])
def test_prompts_and_masks_are_equal(reference: nn.Module, network: SamNetwork, given: str, several: bool) -> None:
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    features, embedding = network.encode_image(pixels), reference.image_encoder(pixels)
    clicks = (torch.tensor(POINTS, dtype=torch.float32)[None], torch.tensor([[1, 0]])) if "clicks" in given else None
    box = torch.tensor(BOX_XYXY, dtype=torch.float32)[None] if "box" in given else None
    generator = torch.Generator().manual_seed(2)
    mask = 5 * torch.randn(1, 1, SIDE // 4, SIDE // 4, generator=generator) if "mask" in given else None

    sparse, dense = reference.prompt_encoder(points=clicks, boxes=box, masks=mask)
    position = reference.prompt_encoder.get_dense_pe()
    masks, iou = reference.mask_decoder(embedding, position, sparse, dense, several)

    parts = [clicks] if clicks is not None else []
    parts += [(box.reshape(1, 2, 2), torch.tensor([[2, 3]]))] if box is not None else []
    points, labels = (torch.cat(one, dim=1) for one in zip(*parts, strict=True)) if parts else (None, None)
    decoded = network.decode(features, points, labels, mask, several)

    assert masks.abs().max() >= 5
    assert_equal(network.prompt_encoder.grid_encoding(*embedding.shape[2:]), position)
    assert_equal(decoded.mask_logits, masks)
    assert_equal(decoded.iou, iou)


@pytest.mark.parametrize("shape", [(96, 141), (141, 96), (300, 220), (57, 200)])
def test_a_slice_is_prepared_as_sam_predictor_does(reference: nn.Module, shape: tuple[int, int]) -> None:
    """To half a grey level: the predictor rounds what it has resized to whole ones. Beyond the slice lie zeros."""
    from segment_anything.utils.transforms import ResizeLongestSide

    image = an_image(*shape)
    resized = ResizeLongestSide(SIDE).apply_image(image)
    tensor = torch.from_numpy(resized).permute(2, 0, 1)[None].float()
    theirs = nn.functional.pad(
        (tensor - reference.pixel_mean) / reference.pixel_std,
        (0, SIDE - resized.shape[1], 0, SIDE - resized.shape[0]),
    )
    recipe = Preprocessing.named("imagenet")
    placement = Placement.of(slice_of(image), SIDE, recipe.stretch)
    ours = normalize(slice_of(image), recipe, placement)
    assert (placement.height, placement.width) == resized.shape[:2]
    assert ((ours - theirs) * reference.pixel_std).abs().max() <= 1.0
    assert not ours[:, :, placement.height :].any() and not ours[:, :, :, placement.width :].any()


def predictor_of(reference: nn.Module, image: np.ndarray) -> object:
    from segment_anything import SamPredictor

    predictor = SamPredictor(reference)
    predictor.transform.target_length = SIDE
    predictor.set_image(image)
    return predictor


@pytest.mark.parametrize("given", ["click", "clicks", "box", "clicks and box"])
def test_a_slice_that_needs_no_resizing_goes_through_sam_predictor_and_our_model_alike(
    reference: nn.Module, network: SamNetwork, given: str
) -> None:
    """From intensities to logits on the slice, and refined once with the logits fed back."""
    image = an_image(104, SIDE)
    predictor = predictor_of(reference, image)
    model = SamModel(small_card(input_size=SIDE), network)
    (features,) = model.encode_slices([slice_of(image)])
    count = 2 if "clicks" in given else 1 if "click" in given else 0
    box = BOX_XYXY if "box" in given else None
    prompts = SlicePrompts(
        POINTS[:count, ::-1].copy(),
        POSITIVE[:count],
        None if box is None else (box[1], box[0], box[3], box[2]),
    )
    points = (POINTS[:count], POSITIVE[:count].astype(int)) if count else (None, None)
    several = given == "click"
    masks, quality, low = predictor.predict(*points, box, None, several, return_logits=True)
    order = np.argsort(-quality)
    ours = model.outline(features, prompts, None, several)
    assert np.abs(masks).max() >= 5
    assert_equal(torch.from_numpy(ours.logits), torch.from_numpy(masks[order]))
    assert_equal(ours.state.iou[0], torch.from_numpy(quality[order]))

    masks, quality, _ = predictor.predict(*points, box, low[order[:1]], False, return_logits=True)
    refined = model.outline(features, prompts, ours, False)
    assert_equal(torch.from_numpy(refined.logits), torch.from_numpy(masks))
    assert isinstance(refined, Prediction) and refined.quality[0] == pytest.approx(np.clip(quality[0], 0, 1), abs=1e-5)


@pytest.fixture(scope="module")
def hq() -> tuple[nn.Module, SamNetwork]:
    """transformers' SAM-HQ and ours; channels of 256, since theirs are fixed in places."""
    config = replace(SMALL, channels=256)
    torch.manual_seed(0)
    state = SamNetwork(config, hq=True).state_dict()
    oracle.randomise(state)
    reference = oracle.reference_hq(config)
    reference.load_state_dict(oracle.to_transformers_keys(state), strict=True)
    return reference, our_network(state)


@torch.inference_mode()
@pytest.mark.parametrize("several", [False, True], ids=["single", "best of three"])
@pytest.mark.parametrize("given", ["clicks", "box", "clicks and box", "clicks and mask"])
def test_sam_hq_is_equal(hq: tuple[nn.Module, SamNetwork], given: str, several: bool) -> None:
    reference, network = hq
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    clicks = torch.tensor(POINTS, dtype=torch.float32)[None, None] if "clicks" in given else None
    box = torch.tensor(BOX_XYXY, dtype=torch.float32)[None, None] if "box" in given else None
    generator = torch.Generator().manual_seed(2)
    mask = 5 * torch.randn(1, 1, SIDE // 4, SIDE // 4, generator=generator) if "mask" in given else None
    expected = reference(
        pixel_values=pixels,
        input_points=clicks,
        input_labels=None if clicks is None else torch.tensor([[[1, 0]]]),
        input_boxes=box,
        input_masks=mask,
        multimask_output=several,
    )
    parts = [(clicks[0], torch.tensor([[1, 0]]))] if clicks is not None else []
    parts += [(box.reshape(1, 2, 2), torch.tensor([[2, 3]]))] if box is not None else []
    points, labels = (torch.cat(one, dim=1) for one in zip(*parts, strict=True))
    decoded = network.decode(network.encode_image(pixels), points, labels, mask, several)
    assert expected.pred_masks.abs().max() >= 5
    # Theirs corrects each of the three, best first; the published source, and ours, the best one alone.
    assert_equal(decoded.mask_logits, expected.pred_masks[0, :, :1])
    assert_equal(decoded.iou, expected.iou_scores[0, :, :1])


@torch.inference_mode()
def test_without_early_features_sam_hq_would_differ(hq: tuple[nn.Module, SamNetwork]) -> None:
    """So the equality above sees them."""
    _, network = hq
    features = network.encode_image(torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
    late = replace(features, fine=network.mask_decoder.embedding_encoder(features.embedding))
    points, labels = torch.tensor(POINTS, dtype=torch.float32)[None], torch.tensor([[1, 0]])
    with_both, without = (network.decode(one, points, labels).mask_logits for one in (features, late))
    assert relative_difference(without, with_both) > 0.01

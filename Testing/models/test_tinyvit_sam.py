"""MobileSAM, TinySAM and LiteMedSAM as users meet them: cards, loading, import, prompts, propagation by chaining."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from SegmentAnythingMedLib.errors import ModelFileError, PromptError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry  # noqa: E402
from SegmentAnythingMedLib.models import tinyvit_sam  # noqa: E402
from SegmentAnythingMedLib.models.base import Recall, SliceImage  # noqa: E402
from SegmentAnythingMedLib.models.networks.tinyvit import TINYVIT_LAYOUTS  # noqa: E402
from SegmentAnythingMedLib.models.networks.tinyvit_sam_network import TinyVitSamNetwork  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import Placement, Preprocessing, normalize  # noqa: E402
from SegmentAnythingMedLib.models.registry import ModelRegistry  # noqa: E402
from SegmentAnythingMedLib.models.sam import SamModel  # noqa: E402
from SegmentAnythingMedLib.models.weights.importing import import_weights  # noqa: E402
from SegmentAnythingMedLib.models.weights.recognition import recognise  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, SlicePrompts  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402
from Testing.models.small_tinyvit import SMALL, fill, waves  # noqa: E402
from Testing.models.weights_files import folder, save_pt, save_safetensors  # noqa: E402

__all__ = ["folder"]

K = Plane(2)
NAMES = {"mobile-sam": "mobile_sam", "tiny-sam": "mobile_sam", "lite-medsam": "lite_medsam"}
CLICKS_AND_BOX, LABELS = [[0.4, 0.5], [0.1, 0.2], [0.2, 0.3], [0.6, 0.7]], [[1, 0, 2, 3]]

# What the published sources build (see test_networks_tinyvit): keys, parameters, hash of the sorted "name [shape]".
PUBLISHED = {
    "mobile_sam": (439, 10_130_092, "02a1bb2d36347185fea99978181d1cb8a58a5cda5baa2ab2ebb524c5c898d2f8"),
    "lite_medsam": (435, 9_791_300, "ff7bdd488a3a63220d211cf659b22cf02489728c5e159c18090d6a0672bb9714"),
}
# What they compute with the weights of `fill` and pixels, clicks, box and mask as in the test: mean, deviation,
# largest and smallest logit; that of candidate c at row 5 c + 1, column 3 c + 2; the predicted quality of each.
GOLDEN = {
    "mobile_sam": (
        224,
        (-0.5692, 4.6387, 14.8762, -13.2704),
        (6.5236, 1.4151, 2.3914),
        (0.67305, -0.36524, 2.07069),
    ),
    "lite_medsam": (
        64,
        (-1.3354, 4.3752, 10.4206, -11.4489),
        (0.9733, -0.1903, 5.699),
        (1.23455, 0.08733, 1.96803),
    ),
}


def on_meta(size: str) -> TinyVitSamNetwork:
    with torch.device("meta"):
        return TinyVitSamNetwork(TINYVIT_LAYOUTS[size], 256 if size == "lite_medsam" else 1024)


def shapes_of(size: str) -> Mapping[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in on_meta(size).state_dict().items()}


def small_model(name: str = "mobile-sam", **changes: object) -> SamModel:
    """A card's model with a small network of 64 pixels and weights by formula."""
    card = replace(ModelRegistry().card(name), input_size=64, **changes)
    config = replace(SMALL, patch_stride=TINYVIT_LAYOUTS[NAMES[name]].patch_stride)
    return SamModel(card, fill(TinyVitSamNetwork(config, 64, bool(card.options.get("best_of_three")))))


@pytest.fixture
def a_slice() -> SliceImage:
    """(40, 60) with pixels that are higher than wide."""
    rows, columns = np.mgrid[:40, :60]
    disk = (rows - 18) ** 2 + (columns - 25) ** 2 < 100
    return SliceImage((0.2 + 0.5 * disk + 0.001 * columns).astype(np.float32)[None], (1.2, 0.8))


@pytest.fixture(scope="module")
def a_drifting_column() -> Volume:
    """(14, 28, 34) on a flipped, anisotropic grid: a column that drifts over slices 1 to 12."""
    voxels = np.full((14, 28, 34), 30, dtype=np.uint8)
    for index in range(1, 13):
        voxels[index, 8:20, 4 + index // 3 : 16 + index // 3] = 220
    return Volume.from_array(voxels, VolumeGeometry(np.diag([-0.7, 1.1, 4.0, 1.0]), (34, 28, 14)))


@pytest.mark.parametrize("size", PUBLISHED)
def test_keys_and_shapes_are_those_of_the_published_models(size: str) -> None:
    keys, parameters, digest = PUBLISHED[size]
    network = on_meta(size)
    state = network.state_dict()
    lines = sorted(f"{key} {list(tensor.shape)}" for key, tensor in state.items())
    assert len(state) == keys
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest
    assert all(tensor.is_meta for tensor in state.values())


@pytest.mark.parametrize("size", PUBLISHED)
def test_both_published_sizes_give_masks_of_256_cells(size: str) -> None:
    """The one from 1024 pixels at stride 4, the other from 256 at stride 1."""
    network = on_meta(size).eval()
    features = network.encode_image(torch.empty(1, 3, network.image_size, network.image_size, device="meta"))
    masks = network.decode(features, None, None, multimask=True)
    assert masks.mask_logits.shape == (1, 3, 256, 256) and network.mask_size == 256


@pytest.mark.parametrize("size", GOLDEN)
def test_masks_are_what_the_published_source_computes(size: str) -> None:
    side, statistics, samples, qualities = GOLDEN[size]
    network = fill(TinyVitSamNetwork(TINYVIT_LAYOUTS[size], side))
    points, mask = torch.tensor([CLICKS_AND_BOX]) * side, 4 * waves((1, 1, network.mask_size, network.mask_size), 9)
    with torch.inference_mode():
        features = network.encode_image(waves((1, 3, side, side), -1))
        masks = network.decode(features, points, torch.tensor(LABELS), mask, multimask=True)
    logits = masks.mask_logits
    assert logits.shape == (1, 3, network.mask_size, network.mask_size) and logits.abs().max() > 10
    found = [logits.mean(), logits.std(), logits.max(), logits.min()]
    assert [float(value) for value in found] == pytest.approx(statistics, abs=2e-4)
    assert [float(logits[0, c, 5 * c + 1, 3 * c + 2]) for c in range(3)] == pytest.approx(samples, abs=2e-4)
    assert masks.iou[0].tolist() == pytest.approx(qualities, abs=2e-5)


@pytest.mark.parametrize("size", ["mobile_sam", "lite_medsam"])
@pytest.mark.parametrize("multimask", [True, False])
def test_masks_equal_those_of_segment_anythings_decoder(size: str, multimask: bool) -> None:
    """The PyPI package's prompt encoder and mask decoder on our embedding, with the same weights."""
    from Testing.models.oracle_sam2 import declare_torchvision_operators

    declare_torchvision_operators()
    sam = pytest.importorskip("segment_anything.modeling")
    side = 64
    ours = fill(TinyVitSamNetwork(replace(SMALL, patch_stride=TINYVIT_LAYOUTS[size].patch_stride), side))
    cells = side // ours.config.stride
    encoder = sam.PromptEncoder(256, (cells, cells), (side, side), 16).eval()
    transformer = sam.TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    decoder = sam.MaskDecoder(transformer_dim=256, transformer=transformer).eval()
    encoder.load_state_dict(ours.prompt_encoder.state_dict(), strict=True)
    decoder.load_state_dict(ours.mask_decoder.state_dict(), strict=True)
    points, mask = torch.tensor([CLICKS_AND_BOX]) * side, 4 * waves((1, 1, 4 * cells, 4 * cells), 3)
    with torch.inference_mode():
        features = ours.encode_image(waves((1, 3, side, side), 4))
        clicks, box = (points[:, :2], torch.tensor([[1, 0]])), points[:, 2:].flatten(1)
        sparse, dense = encoder(clicks, box, mask)
        expected, iou = decoder(features.embedding, encoder.get_dense_pe(), sparse, dense, multimask)
        found = ours.decode(features, points, torch.tensor(LABELS), mask, multimask)
    assert expected.abs().max() > 5
    assert (found.mask_logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    torch.testing.assert_close(found.iou, iou, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_the_published_layout_loads_strictly(name: str, tmp_path: Path) -> None:
    card = replace(ModelRegistry().card(name), sha256="")
    torch.manual_seed(0)
    state = TinyVitSamNetwork(TINYVIT_LAYOUTS[NAMES[name]]).state_dict()
    path = tmp_path / card.file
    torch.save({"model": state, "epoch": 3} if name == "lite-medsam" else state, path)
    loaded = tinyvit_sam.load(card, path, "cpu").network.state_dict()
    assert len(loaded) == PUBLISHED[NAMES[name]][0]
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())


def test_a_safetensors_copy_with_the_preprocessing_in_it_loads(tmp_path: Path) -> None:
    card = replace(ModelRegistry().card("lite-medsam"), sha256="")
    state = TinyVitSamNetwork(TINYVIT_LAYOUTS["lite_medsam"]).state_dict()
    safetensors_torch.save_file(state | {"pixel_mean": torch.zeros(3, 1, 1)}, tmp_path / "lite.safetensors")
    assert isinstance(tinyvit_sam.load(card, tmp_path / "lite.safetensors", "cpu"), SamModel)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("mobile-sam", lambda s: {k: v for k, v in s.items() if "mask_tokens" not in k}, "1 missing"),
        ("mobile-sam", lambda s: {**s, "stranger": (1,)}, "1 unexpected .stranger"),
        ("lite-medsam", lambda s: s, "is not the lite_medsam model its card 'lite-medsam' says"),
        ("mobile-sam", lambda s: {k: v for k, v in s.items() if "patch_embed" not in k}, "has no TinyViT"),
    ],
)
def test_a_checkpoint_that_is_not_what_the_card_says_is_refused(
    name: str, change: object, sentence: str, tmp_path: Path
) -> None:
    path = save_pt(tmp_path / "weights.pt", change(shapes_of("mobile_sam")))
    with pytest.raises(ModelFileError, match=sentence):
        tinyvit_sam.load(replace(ModelRegistry().card(name), sha256=""), path, "cpu")


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({}, {}, "neither weights nor a random seed"),
        ({"input_size": 1000}, {"random_seed": 0}, "input_size must be a multiple of 16 up to 4096, got 1000"),
        ({}, {"random_seed": 0, "size": "huge"}, "size must be mobile_sam or lite_medsam, got 'huge'"),
        ({}, {"random_seed": 0, "size": ["mobile_sam"]}, "size must be mobile_sam or lite_medsam, got"),
        ({}, {"random_seed": 0, "best_of_three": 1}, "best_of_three must be true or false, got 1"),
    ],
)
def test_a_card_that_is_no_configuration_is_refused(changes: dict, options: dict, sentence: str) -> None:
    card = replace(ModelRegistry().card("mobile-sam"), **changes)
    with pytest.raises(ModelFileError, match=sentence):
        tinyvit_sam.load(card, None, "cpu", **options)


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_file_is_recognised_by_its_keys(size: str) -> None:
    layout = recognise(shapes_of(size), "x.pth")
    assert (layout.family, layout.size) == ("tinyvit_sam", size)


@pytest.mark.parametrize(
    ("file", "size", "name", "side"),
    [
        ("lite_medsam.pth", "lite_medsam", "lite-medsam", 256),
        ("tinysam_42.3.pth", "mobile_sam", "tiny-sam", 1024),
        ("mine.safetensors", "lite_medsam", "mine", 256),
    ],
)
def test_a_file_brought_by_hand_becomes_the_model_it_is(
    folder: Path, tmp_path: Path, file: str, size: str, name: str, side: int
) -> None:
    save = save_safetensors if file.endswith(".safetensors") else save_pt
    card = import_weights(save(tmp_path / file, shapes_of(size)), ModelRegistry()).card
    assert (card.name, card.family, card.input_size) == (name, "tinyvit_sam", side)
    assert card.options["size"] == size and card.research_only is (name == "mine")


@pytest.mark.parametrize("name", NAMES)
def test_a_box_gives_a_mask_on_the_slices_pixels(name: str, a_slice: SliceImage) -> None:
    model = small_model(name)
    (features,) = model.encode_slices([a_slice])
    prediction = model.predict(features, SlicePrompts(box_rc=(8, 15, 28, 35)), Recall(), multimask=True)
    count = 3 if model.card.has("candidates") else 1
    assert prediction.logits.shape == (count, 40, 60) and np.isfinite(prediction.logits).all()
    assert np.all(np.diff(prediction.quality) <= 0) and np.all((prediction.quality >= 0) & (prediction.quality <= 1))


@pytest.mark.parametrize("name", NAMES)
def test_slices_of_a_batch_are_encoded_as_each_alone(name: str, a_slice: SliceImage) -> None:
    model = small_model(name)
    other = replace(a_slice, pixels=a_slice.pixels[:, ::-1])
    together = model.encode_slices([a_slice, other])
    apart = [model.encode_slices([image])[0] for image in (a_slice, other)]
    for one, two in zip(together, apart, strict=True):
        torch.testing.assert_close(one.maps.embedding, two.maps.embedding, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "blind"), [("lite-medsam", True), ("mobile-sam", False)])
def test_only_lite_medsam_does_not_see_how_bright_a_slice_is(name: str, blind: bool, a_slice: SliceImage) -> None:
    darker = replace(a_slice, pixels=0.1 + 0.5 * a_slice.pixels)
    one, two = (small_model(name).encode_slices([image])[0].maps.embedding for image in (a_slice, darker))
    assert torch.allclose(one, two, atol=1e-3) is blind


def test_lite_medsam_keeps_the_slices_shape_and_sees_black_beside_it(a_slice: SliceImage) -> None:
    recipe = Preprocessing.named(ModelRegistry().card("lite-medsam").preprocessing)
    wide = replace(a_slice, spacing_mm=(1.0, 1.0))
    placement = Placement.of(wide, 256, recipe.stretch)
    pixels = normalize(wide, recipe, placement)[0]
    assert (placement.height, placement.width) == (171, 256)
    assert not pixels[:, 171:].any()
    assert (float(pixels[:, :171].min()), float(pixels.max())) == (0.0, 1.0)


def test_lite_medsam_asks_for_a_box_and_its_earlier_answer_stands_for_one(a_slice: SliceImage) -> None:
    model = small_model("lite-medsam")
    (features,) = model.encode_slices([a_slice])
    click = SlicePrompts(points_rc=np.array([[18.0, 25.0]]), positive=np.array([True]))
    with pytest.raises(PromptError, match="box"):
        model.predict(features, click, Recall())
    first = model.predict(features, SlicePrompts(box_rc=(8, 15, 28, 35)), Recall())
    assert first.masks.any()
    assert model.predict(features, click, Recall(), previous=first).logits.shape == (1, 40, 60)


def test_tiny_sam_answers_with_the_best_of_three_where_mobile_sam_has_an_answer_of_its_own(a_slice: SliceImage) -> None:
    prompts = SlicePrompts(box_rc=(8, 15, 28, 35))
    answers = {}
    for name in ("mobile-sam", "tiny-sam"):
        model = small_model(name)
        (features,) = model.encode_slices([a_slice])
        one, three = (model.predict(features, prompts, Recall(), multimask=several) for several in (False, True))
        answers[name] = np.array_equal(one.logits[0], three.logits[0])
    assert answers == {"mobile-sam": False, "tiny-sam": True}


def test_a_model_with_masks_of_its_own_resolution_takes_its_earlier_answer_back(a_slice: SliceImage) -> None:
    """Patches of one pixel: mask logits have as many cells as the input has pixels."""
    model = small_model("lite-medsam", prompts=("point", "box", "mask"))
    (features,) = model.encode_slices([a_slice])
    prompts = SlicePrompts(box_rc=(8, 15, 28, 35))
    first = model.predict(features, prompts, Recall())
    assert first.state.mask_logits.shape == (1, 1, 64, 64)
    own = model.predict(features, prompts, Recall(), previous=first)
    foreign = model.predict(features, prompts, Recall(), previous=replace(first, state=None))
    assert np.abs(own.logits - first.logits).max() > 1e-3 and np.isfinite(foreign.logits).all()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_lower_precision_gives_nearly_the_same_logits(precision: torch.dtype, a_slice: SliceImage) -> None:
    exact = small_model()
    rounded = SamModel(exact.card, exact.network, precision)
    prompts = SlicePrompts(box_rc=(8, 15, 28, 35))
    logits = [m.predict(m.encode_slices([a_slice])[0], prompts, Recall()).logits for m in (exact, rounded)]
    difference = np.abs(logits[0] - logits[1]).max()
    assert 0 < difference < 0.1 * np.abs(logits[0]).max()


def test_gradients_of_a_mask_reach_the_image_encoder() -> None:
    model = small_model()
    features = model.network.encode_image(waves((1, 3, 64, 64), 2))
    prompts = model.tensors(SlicePrompts(box_rc=(8, 8, 40, 40)), model_placement(model), None)
    model.track_step(features, prompts).mask_logits.square().mean().backward()
    assert model.network.image_encoder.patch_embed.seq[0].c.weight.grad.any()


def model_placement(model: SamModel) -> object:
    return model.encode_slices([SliceImage(np.zeros((1, 64, 64), np.float32))])[0].placement


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_is_gone_through_both_ways_and_twice_the_same(name: str, a_drifting_column: Volume) -> None:
    """Random weights know no object: with the limits off, chaining goes on as long as there is a mask."""
    off = {"chain_min_quality": 0.0, "chain_min_overlap": 0.0, "chain_max_change": 1000.0}
    model = small_model(name, options=dict(ModelRegistry().card(name).options) | off)

    def tracked() -> tuple[VolumeSession, list]:
        session = VolumeSession(a_drifting_column, model)
        session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((5, 8, 16, 19), 4, K)))
        return session, list(session.propagate(plane=K, first=1, last=7))

    (first, results), (again, _) = tracked(), tracked()
    np.testing.assert_array_equal(first.labelmap(1), again.labelmap(1))
    indices = {result.key.index for result in results}
    assert min(indices) < 4 < max(indices) and 4 not in indices
    assert all(np.isfinite(result.quality) for result in results)


def test_the_cards_say_what_they_are() -> None:
    cards = {name: ModelRegistry().card(name) for name in NAMES}
    assert all(card.url.startswith("https://") and card.licence.startswith("Apache-2.0") for card in cards.values())
    assert {name: card.prompts for name, card in cards.items() if "point" not in card.prompts} == {
        "lite-medsam": ("box",)
    }
    assert {name: card.input_size for name, card in cards.items()} == {
        "mobile-sam": 1024,
        "tiny-sam": 1024,
        "lite-medsam": 256,
    }

"""The sam2 family behind the engine's seam, with a small random network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.models import sam2  # noqa: E402
from SegmentAnythingMedLib.models.base import Prediction, Recall, Recalled, SliceImage, SliceModel  # noqa: E402
from SegmentAnythingMedLib.models.card import ModelCard  # noqa: E402
from SegmentAnythingMedLib.models.conversion import CLICKS_PER_SCRIBBLE, convert  # noqa: E402
from SegmentAnythingMedLib.models.networks.hiera import HieraConfig  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam2_network import Sam2Config, Sam2Network  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import Placement, Preprocessing, normalize  # noqa: E402
from SegmentAnythingMedLib.models.registry import ModelRegistry  # noqa: E402
from SegmentAnythingMedLib.prompts import PointPrompt, SlicePrompts  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from SegmentAnythingMedLib.volume import Volume  # noqa: E402
from Testing.models import small_edgetam  # noqa: E402

SMALL = Sam2Config(
    HieraConfig(dim=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,)),
    image_size=64,
    dim=32,
    memory_dim=8,
    memory_layers=1,
    mlp_dim=32,
)
CARD = ModelCard(
    "small",
    "small",
    "sam2",
    "none",
    ("slice", "memory", "candidates"),
    ("point", "box", "mask"),
    preprocessing="imagenet",
)
BOX = SlicePrompts(box_rc=(2, 3, 20, 30))
CLICK = SlicePrompts(np.array([[10.0, 12.0]]), np.array([True]))


@pytest.fixture(scope="module", params=["sam2", "edgetam"])
def model(request: pytest.FixtureRequest) -> sam2.Sam2Model:
    """Both families: EdgeTAM is SAM 2 with another trunk and smaller memories."""
    torch.manual_seed(0)
    network = Sam2Network(SMALL) if request.param == "sam2" else small_edgetam.small_network()
    with torch.no_grad():
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    return sam2.Sam2Model(CARD, network.eval())


@pytest.fixture
def image() -> SliceImage:
    """A wide slice of anisotropic pixels: 24 x 60 mm."""
    return SliceImage(np.random.default_rng(0).random((1, 24, 40), dtype=np.float32), (1.0, 1.5))


def test_it_is_a_slice_model(model: sam2.Sam2Model) -> None:
    assert isinstance(model, SliceModel)


def test_masks_are_on_the_pixels_of_the_slice(model: sam2.Sam2Model, image: SliceImage) -> None:
    (features,) = model.encode_slices([image])
    prediction = model.predict(features, BOX, Recall())
    assert prediction.logits.shape == (1, 24, 40) and prediction.logits.dtype == np.float32
    assert features.nbytes == (64 // 4) ** 2 * 4 * 4 + (64 // 8) ** 2 * 8 * 4 + (64 // 16) ** 2 * 32 * 4


def test_one_click_has_three_candidates_best_first(model: sam2.Sam2Model, image: SliceImage) -> None:
    (features,) = model.encode_slices([image])
    prediction = model.predict(features, CLICK, Recall(), multimask=True)
    assert prediction.logits.shape == (3, 24, 40)
    assert list(prediction.quality) == sorted(prediction.quality, reverse=True)
    np.testing.assert_array_equal(model.predict(features, CLICK, Recall()).logits[0], prediction.logits[0])


def test_the_chosen_candidate_is_remembered(model: sam2.Sam2Model, image: SliceImage) -> None:
    (features,) = model.encode_slices([image])
    prediction = model.predict(features, CLICK, Recall(), multimask=True)
    chosen = prediction.preferring(2)
    np.testing.assert_array_equal(chosen.logits[0], prediction.logits[2])
    assert chosen.chosen == 2 and chosen.preferring(0).order == (0, 2, 1)
    np.testing.assert_array_equal(chosen.masks_in_model_order, prediction.masks)
    pointer = model.encode_memory(features, chosen, prompted=True).pointer
    assert torch.equal(pointer, prediction.state.pointers[:, 2])


def test_a_batch_gives_what_single_slices_give(model: sam2.Sam2Model, image: SliceImage) -> None:
    other = SliceImage(1 - image.pixels, image.spacing_mm)
    together = model.encode_slices([image, other])[1]
    (alone,) = model.encode_slices([other])
    torch.testing.assert_close(together.maps.embedding, alone.maps.embedding, atol=1e-5, rtol=1e-5)


def test_a_refining_click_sees_the_earlier_mask(model: sam2.Sam2Model, image: SliceImage) -> None:
    (features,) = model.encode_slices([image])
    first = model.predict(features, BOX, Recall())
    fresh = model.predict(features, CLICK, Recall())
    refined = model.predict(features, CLICK, Recall(), previous=first)
    assert np.abs(refined.logits - fresh.logits).max() > 1e-4


def test_a_mask_from_elsewhere_can_be_refined(model: sam2.Sam2Model, image: SliceImage) -> None:
    (features,) = model.encode_slices([image])
    painted = np.full((1, 24, 40), -10, np.float32)
    painted[0, 5:15, 10:20] = 10
    given = model.tensors(CLICK, features.placement, Prediction(painted, np.ones(1))).previous
    assert given.shape == (1, 1, 16, 16)
    inside = Placement.of(image, 16, False).model_xy(np.array([[10.0, 15.0]]))[0]
    assert given[0, 0, round(inside[1]), round(inside[0])] > 5
    assert (given[0, 0, 12:] < -5).all(), "below the slice lies the square's padding"


def test_a_mask_prompt_is_the_answer(model: sam2.Sam2Model, image: SliceImage) -> None:
    (features,) = model.encode_slices([image])
    mask = np.zeros((24, 40), bool)
    mask[4:20, 6:34] = True
    prediction = model.predict(features, SlicePrompts(mask=mask), Recall())
    assert np.mean(prediction.masks[0] == mask) > 0.95 and prediction.presence == 10


def test_an_absent_object_gives_an_empty_mask_when_tracked_but_not_when_prompted(
    model: sam2.Sam2Model, image: SliceImage
) -> None:
    (features,) = model.encode_slices([image])
    memory = model.encode_memory(features, model.predict(features, BOX, Recall()), prompted=True)
    recall = Recall((Recalled(memory, 0, 1),), (Recalled(memory, 0, 1),))
    bias = model.network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    with torch.no_grad():
        bias.fill_(-50.0)
    try:
        tracked = model.predict(features, SlicePrompts(), recall)
        prompted = model.predict(features, BOX, Recall())
    finally:
        with torch.no_grad():
            bias.fill_(5.0)
    assert tracked.presence < 0 and not tracked.masks.any()
    assert prompted.logits.min() > -1000


def test_a_session_tracks_several_objects_with_it(model: sam2.Sam2Model) -> None:
    volume = Volume.from_array(np.random.default_rng(1).random((5, 24, 40), dtype=np.float32))
    session = VolumeSession(volume, model)
    for object_id in (1, 2):
        session.segment_slice(object_id, session.add_prompt(object_id, PointPrompt((10 * object_id, 9, 2))))
    results = list(session.propagate(plane=Plane(2), first=0, last=4))
    assert len(results) == 8 and session.times.calls["encode"] == 5


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close(model: sam2.Sam2Model, image: SliceImage, precision: str) -> None:
    half = sam2.Sam2Model(CARD, model.network, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
    exact, rounded = (one.predict(one.encode_slices([image])[0], BOX, Recall()).logits for one in (model, half))
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


def test_track_step_is_differentiable_through_memories(model: sam2.Sam2Model) -> None:
    pixels = torch.rand(2, 2, 3, 64, 64)
    first, second = (model.network.encode_image(part) for part in pixels)
    prompts = sam2.Sam2Prompts(torch.full((2, 2, 2), 20.0), torch.tensor([[2, 3], [2, 3]]))
    before = model.track_step(first, prompts, sam2.Sam2Recall())
    memory = model.network.encode_memory(first.embedding, before.mask_logits, before.object_logits, False, None)
    recall = sam2.Sam2Recall(((memory, 0),), ((before.pointers[:, 0], 1.0),))
    after = model.track_step(second, sam2.Sam2Prompts(), recall)
    model.network.zero_grad()
    after.mask_logits.sum().backward()
    assert model.network.memory_encoder.out_proj.weight.grad.abs().sum() > 0
    model.network.zero_grad()


def test_similarity_of_a_memory_with_itself_is_one(model: sam2.Sam2Model, image: SliceImage) -> None:
    (features,) = model.encode_slices([image])
    memory = model.encode_memory(features, model.predict(features, BOX, Recall()), prompted=True)
    assert model.similarity(memory, memory) == pytest.approx(1, abs=1e-5)


# -- placement -----------------------------------------------------------------------------------------------------


def test_square_pixels_in_millimetres_fill_the_longer_side(image: SliceImage) -> None:
    assert Placement.of(image, 64, stretch=False) == Placement((24, 40), 26, 64, 64)
    assert Placement.of(image, 64, stretch=True) == Placement((24, 40), 64, 64, 64)


@pytest.mark.parametrize("stretch", [True, False])
def test_image_points_and_masks_agree_on_where_things_are(stretch: bool) -> None:
    pixels = np.zeros((1, 30, 50), np.float32)
    pixels[0, 20, 35] = 1
    spot = SliceImage(pixels, (2.0, 1.0))
    placement = Placement.of(spot, 256, stretch)
    enlarged = placement.enlarge(torch.from_numpy(pixels)[None])[0, 0]
    rows, columns = np.mgrid[:256, :256]
    weights = enlarged.numpy() / enlarged.sum().item()
    center = ((weights * columns).sum(), (weights * rows).sum())
    np.testing.assert_allclose(placement.model_xy(np.array([[20.0, 35.0]]))[0], center, atol=0.5)
    back = placement.slice_logits(enlarged[None])[0]
    assert np.unravel_index(back.argmax(), back.shape) == (20, 35)


def test_masks_come_back_as_torch_would_interpolate_them() -> None:
    low = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    placement = Placement((40, 70), 64, 64, 64)
    expected = torch.nn.functional.interpolate(low[None], (40, 70), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(placement.slice_logits(low), expected.numpy(), atol=1e-5)


def test_a_slice_of_the_models_own_size_is_not_resampled() -> None:
    image = SliceImage(np.random.default_rng(0).random((3, 64, 64), dtype=np.float32))
    recipe = Preprocessing.named("imagenet")
    pixels = normalize(image, recipe, Placement.of(image, 64, recipe.stretch))
    expected = (image.pixels - np.array(recipe.mean)[:, None, None]) / np.array(recipe.std)[:, None, None]
    np.testing.assert_allclose(pixels[0], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (300, 2)])
def test_very_thin_slices_have_a_place(model: sam2.Sam2Model, shape: tuple[int, int]) -> None:
    (features,) = model.encode_slices([SliceImage(np.zeros((1, *shape), np.float32), (1.0, 20.0))])
    assert model.predict(features, SlicePrompts(mask=np.ones(shape, bool)), Recall()).logits.shape == (1, *shape)


def test_an_unknown_preprocessing_lists_the_known_ones() -> None:
    with pytest.raises(ModelFileError, match="imagenet-stretch"):
        Preprocessing.named("caffe")


# -- prompts the network does not know -------------------------------------------------------------------------------


def test_scribbles_become_clicks_along_them() -> None:
    curve = np.array([[2.0, 2.0], [2.0, 22.0]])
    clicks = convert(SlicePrompts(scribbles=((curve, False),)), ("point",), (30, 30))
    assert len(clicks.points_rc) == CLICKS_PER_SCRIBBLE and not clicks.positive.any()
    np.testing.assert_allclose(clicks.points_rc[:, 1], [2, 7, 12, 17, 22], atol=0.5)


def test_a_lasso_becomes_its_box_and_the_point_deepest_inside() -> None:
    lasso = np.array([[2.0, 2.0], [2.0, 20.0], [20.0, 20.0], [20.0, 2.0]])
    converted = convert(SlicePrompts(lasso_rc=lasso), ("point", "box"), (30, 30))
    assert converted.box_rc == (2, 2, 20, 20) and converted.lasso_rc is None
    np.testing.assert_allclose(converted.points_rc[0], (11, 11), atol=1)


def test_kinds_the_network_takes_stay_as_they_are() -> None:
    prompts = SlicePrompts(scribbles=((np.array([[2.0, 2.0], [2.0, 22.0]]), True),))
    assert convert(prompts, ("scribble",), (30, 30)) is prompts


# -- loading -------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(weights=tmp_path)


def test_weights_that_are_not_here_say_where_to_get_them(registry: ModelRegistry) -> None:
    with pytest.raises(ModelUnavailableError, match=r"https://.*put sam2\.1_hiera_tiny\.pt into"):
        registry.load("sam2.1-tiny")


def test_weights_of_another_size_are_refused_by_name(registry: ModelRegistry, tmp_path: Path) -> None:
    with torch.device("meta"):
        small = Sam2Network(Sam2Config.released("small"))
    state = {key: torch.zeros(value.shape, dtype=torch.bfloat16) for key, value in small.state_dict().items()}
    torch.save({"model": state}, tmp_path / "sam2.1_hiera_tiny.pt")
    with pytest.raises(ModelFileError, match="is not the tiny model"):
        registry.load("sam2.1-tiny", "cpu")


def test_weights_with_a_wrong_hash_are_refused(registry: ModelRegistry, tmp_path: Path) -> None:
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(b"PK\x03\x04 and so on")
    card = replace(registry.card("sam2.1-tiny"), sha256="0" * 64)
    with pytest.raises(ModelFileError, match="sha256"):
        sam2.load(card, registry.weights_path(card), "cpu")


def test_random_weights_come_only_when_asked_for() -> None:
    card = replace(CARD, input_size=64, options={"size": "tiny"})
    with pytest.raises(ModelFileError, match="neither weights nor a random seed"):
        sam2.load(card, None, "cpu")
    model = sam2.load(card, None, "cpu", random_seed=3, precision="bf16")
    again = sam2.load(card, None, "cpu", random_seed=3)
    weights = (one.network.obj_ptr_proj.layers[0].weight.to(torch.bfloat16) for one in (model, again))
    assert torch.equal(*weights)


def test_a_card_may_merge_cells_of_memories_with_the_same_weights(tmp_path: Path) -> None:
    card = replace(CARD, input_size=64, options={"size": "tiny"})
    path = tmp_path / "tiny.safetensors"
    safetensors_torch.save_file(sam2.load(card, None, "cpu", random_seed=0).network.state_dict(), path)
    found = []
    for attention in ("full", "pooled-1"):
        model = sam2.load(card, path, "cpu", precision="fp32", cross_attention=attention)
        assert model.network.config.cross_attention.value == attention
        network, noise = model.network, torch.Generator().manual_seed(0)
        embedding, *maps = (torch.randn(1, size, 4, 4, generator=noise) for size in (256, 64, 64))
        with torch.inference_mode():
            found.append(network.condition(embedding, [(one, slot) for slot, one in enumerate(maps)], []))
    difference = float((found[0] - found[1]).norm() / found[0].norm())
    assert 1e-5 < difference < 0.2


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps:3"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ModelUnavailableError, match="use auto"):
        sam2.load(replace(CARD, input_size=64, options={"size": "tiny", "random_seed": 0}), None, device)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"input_size": 7}, "input_size must be a multiple of 32 up to 4096, got 7"),
        ({"input_size": -64}, "input_size must be a multiple of 32"),
        ({"input_size": 0}, "input_size must be a multiple of 32"),
        ({"input_size": 1 << 30}, "input_size must be a multiple of 32"),
        ({"options": {"size": ["a"]}}, "the option size must be one of tiny, small"),
        (
            {"options": {"size": "tiny", "cross_attention": 1}},
            "the option cross_attention must be one of full, pool",
        ),
        ({"options": {"size": "tiny", "version": 3}}, "the option version must be '2.0' or '2.1'"),
        ({"options": {"size": "tiny", "random_seed": "z"}}, "the option random_seed must be a whole number"),
        ({"options": {"size": "tiny", "memory_slots": [1]}}, "the option memory_slots must be a whole number"),
    ],
)
def test_a_card_that_is_no_sam_2_is_refused_in_a_sentence(changed: dict, sentence: str) -> None:
    good = {"input_size": 64, "options": {"size": "tiny", "random_seed": 0}}
    with pytest.raises(ModelFileError, match=f"Model 'small': {sentence}"):
        sam2.load(replace(CARD, **(good | changed)), None, "cpu")

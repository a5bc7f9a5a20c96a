"""SAM, MedSAM and SAM-HQ as users meet them: loading, importing, refusals, prompts, propagation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

from SegmentAnythingMedLib.errors import ModelFileError, PromptError  # noqa: E402
from SegmentAnythingMedLib.geometry import Plane  # noqa: E402
from SegmentAnythingMedLib.memory.policy import policy_names  # noqa: E402
from SegmentAnythingMedLib.models import sam  # noqa: E402
from SegmentAnythingMedLib.models.base import Recall, Recalled, SliceImage, SliceModel  # noqa: E402
from SegmentAnythingMedLib.models.networks.sam_network import SamNetwork  # noqa: E402
from SegmentAnythingMedLib.models.networks.vit import VIT_SIZES  # noqa: E402
from SegmentAnythingMedLib.models.preprocess import Placement, Preprocessing, normalize  # noqa: E402
from SegmentAnythingMedLib.models.registry import ModelRegistry  # noqa: E402
from SegmentAnythingMedLib.models.sam import SamModel  # noqa: E402
from SegmentAnythingMedLib.models.weights.importing import import_weights  # noqa: E402
from SegmentAnythingMedLib.models.weights.recognition import VIT_LAYOUTS, recognise  # noqa: E402
from SegmentAnythingMedLib.phantom import make_phantom  # noqa: E402
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt, SlicePrompts  # noqa: E402
from SegmentAnythingMedLib.session import VolumeSession  # noqa: E402
from Testing.models.small_sam import small_card, small_network  # noqa: E402
from Testing.models.weights_files import folder, save_pt  # noqa: E402

__all__ = ["folder"]

K = Plane(2)
NOTHING = SlicePrompts()
BOX = SlicePrompts(box_rc=(5.0, 5.0, 30.0, 40.0))
CLICK = SlicePrompts(np.array([[20.0, 30.0]]), np.array([True]))


def an_image(rows: int = 40, columns: int = 60, seed: int = 0) -> SliceImage:
    return SliceImage(np.random.default_rng(seed).random((1, rows, columns), dtype=np.float32))


def model_of(hq: bool = False, **fields: object) -> SamModel:
    return SamModel(small_card(**fields), small_network(hq))


@pytest.fixture
def medsam() -> SamModel:
    return model_of(prompts=("box",), preprocessing="minmax-stretch")


def test_it_is_a_slice_model_and_says_where_it_runs() -> None:
    assert isinstance(model_of(), SliceModel) and model_of().device.type == "cpu"


# -- loading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("hq", [False, True])
@pytest.mark.parametrize("buffers", [False, True], ids=["plain", "with the preprocessing's buffers"])
def test_a_checkpoint_of_the_published_layout_loads_strictly(
    tmp_path: Path, suffix: str, hq: bool, buffers: bool
) -> None:
    state = small_network(hq).state_dict()
    written = state | ({"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)} if buffers else {})
    path = tmp_path / f"sam{suffix}"
    (torch.save if suffix == ".pth" else safetensors_torch.save_file)(written, path)
    loaded = sam.load(small_card(), path, "cpu").network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {k: v for k, v in s.items() if "iou_token" not in k}, "1 missing"),
        (lambda s: s | {"stranger": torch.zeros(1)}, "1 unexpected .stranger"),
        (lambda s: s | {"mask_decoder.iou_token.weight": torch.zeros(1, 3)}, "of another shape"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("image_encoder")}, "not a SAM checkpoint"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, change: object, sentence: str) -> None:
    torch.save(change(small_network().state_dict()), tmp_path / "odd.pth")
    with pytest.raises(ModelFileError, match=sentence):
        sam.load(small_card(), tmp_path / "odd.pth", "cpu")


def test_a_checkpoint_of_another_size_than_the_cards_is_refused(tmp_path: Path) -> None:
    torch.save(small_network().state_dict(), tmp_path / "sam.pth")
    with pytest.raises(ModelFileError, match="is for slices of 64 pixels, its card 'small' says 128"):
        sam.load(small_card(input_size=128), tmp_path / "sam.pth", "cpu")
    with pytest.raises(ModelFileError, match=r"sam.pth is not the hq_b model its card 'small' says"):
        sam.load(small_card(options={"size": "hq_b"}), tmp_path / "sam.pth", "cpu")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": "g"}, "size must be one of b, l, h, hq_b, hq_l, hq_h, got 'g'"),
        ({"random_seed": 0.5}, "random_seed must be a whole number"),
        ({"chain_margin": 7.0}, "chain_margin must be from"),
        ({}, "neither weights nor a random seed"),
    ],
)
def test_options_that_no_sam_has_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelFileError, match=sentence):
        sam.load(small_card(), None, "cpu", **({"random_seed": 0} if "chain_margin" in options else {}), **options)


@pytest.mark.parametrize("size", [0, 100, 1 << 20])
def test_an_input_size_that_is_not_whole_patches_is_refused(size: int) -> None:
    with pytest.raises(ModelFileError, match=f"input_size must be a multiple of 16 up to 4096, got {size}"):
        sam.load(small_card(input_size=size), None, "cpu", random_seed=0)


def test_random_weights_repeat_with_their_seed() -> None:
    card = replace(ModelRegistry().card("sam-hq-vit-b"), input_size=64)
    first, again = (sam.load(card, None, "cpu", random_seed=3).network.state_dict() for _ in range(2))
    assert first["mask_decoder.hf_token.weight"].shape == (1, 256)
    assert all(torch.equal(first[name], again[name]) for name in first)


# -- cards and import ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sam-vit-b", "sam-vit-l", "sam-vit-h", "medsam", "sam-hq-vit-b", "sam-hq-vit-h"])
def test_the_cards_say_what_sam_is(name: str) -> None:
    card = ModelRegistry().card(name)
    assert card.family == "sam" and card.input_size == 1024 and not card.research_only
    assert card.has("candidates") == name.startswith("sam-vit")
    assert card.prompts == (("box",) if name == "medsam" else ("point", "box", "mask"))
    recipe = Preprocessing.named(card.preprocessing)
    assert recipe.rescale == recipe.stretch == (name == "medsam")


@pytest.mark.parametrize("hq", [False, True])
@pytest.mark.parametrize("size", VIT_SIZES)
def test_a_checkpoint_is_recognised_by_its_keys(size: str, hq: bool) -> None:
    with torch.device("meta"):
        shapes = {key: tuple(one.shape) for key, one in SamNetwork(VIT_SIZES[size], hq).state_dict().items()}
    layout = recognise(shapes | {"pixel_mean": (3, 1, 1)}, "x.pth")
    assert (layout.family, layout.size, layout.input_size) == ("sam", f"hq_{size}" if hq else size, 1024)
    assert str(layout) == f"SAM{'-HQ' if hq else ''} ViT-{size.upper()}"
    with pytest.raises(ModelFileError, match="1 unexpected"):
        recognise(shapes | {"stranger": (1,)}, "x.pth")


def test_the_sizes_known_without_torch_are_those_of_the_networks() -> None:
    assert {(one.dim, one.depth): name for name, one in VIT_SIZES.items()} == VIT_LAYOUTS


def shapes_of(image_size: int = 1024) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = SamNetwork(replace(VIT_SIZES["b"], image_size=image_size))
    return {key: tuple(one.shape) for key, one in network.state_dict().items()}


def test_medsam_and_sam_are_told_apart_by_the_name_of_the_file(folder: Path, tmp_path: Path) -> None:
    known = import_weights(save_pt(tmp_path / "medsam_vit_b.pth", shapes_of()), ModelRegistry())
    mine = import_weights(save_pt(tmp_path / "MedSAM-liver.pth", shapes_of(), 1.0), ModelRegistry())
    other = import_weights(save_pt(tmp_path / "my-sam.pth", shapes_of(), 2.0), ModelRegistry())
    assert known.card.name == "medsam" and not known.assumed
    assert mine.assumed and (mine.card.preprocessing, mine.card.prompts) == ("minmax-stretch", ("box",))
    assert other.assumed and (other.card.preprocessing, other.card.options["size"]) == ("imagenet", "b")


def test_fine_tuned_weights_for_smaller_slices_get_a_card_that_says_so(folder: Path, tmp_path: Path) -> None:
    done = import_weights(save_pt(tmp_path / "my-sam-512.pth", shapes_of(512)), ModelRegistry())
    assert (done.card.family, done.card.input_size) == ("sam", 512)
    assert ModelRegistry().load(done.card.name, "cpu").network.image_size == 512
    with pytest.raises(ModelFileError, match="not the model 'sam-vit-b': it is for slices of 512 pixels"):
        import_weights(tmp_path / "my-sam-512.pth", ModelRegistry(), "sam-vit-b")


# -- preprocessing -------------------------------------------------------------------------------------------------


def test_medsam_sees_the_stretched_slice_from_its_darkest_to_its_brightest_pixel() -> None:
    image = replace(an_image(30, 60), pixels=0.2 + 0.3 * an_image(30, 60).pixels)
    recipe = Preprocessing.named("minmax-stretch")
    tensor = normalize(image, recipe, Placement.of(image, 64, recipe.stretch))
    assert tensor.shape == (1, 3, 64, 64)
    assert tensor.min() == 0 and tensor.max() == 1
    assert torch.equal(tensor[:, 0], tensor[:, 2])


def test_a_slice_of_one_value_stays_dark() -> None:
    image = SliceImage(np.full((1, 20, 20), 0.5, np.float32))
    recipe = Preprocessing.named("minmax-stretch")
    assert normalize(image, recipe, Placement.of(image, 64, True)).max() < 1e-3


# -- prompts -------------------------------------------------------------------------------------------------------


def test_slices_of_different_shapes_go_through_the_encoder_in_one_batch() -> None:
    model = model_of()
    images = [an_image(40, 60), an_image(50, 30, seed=1)]
    both = model.encode_slices(images)
    for image, features in zip(images, both, strict=True):
        (alone,) = model.encode_slices([image])
        torch.testing.assert_close(alone.maps.embedding, features.maps.embedding, atol=1e-5, rtol=1e-5)
        assert features.shape == image.shape and features.nbytes == 32 * 4 * 4 * 4


def test_a_click_has_three_candidates_best_first_and_a_box_one_answer() -> None:
    model = model_of()
    (features,) = model.encode_slices([an_image()])
    several = model.predict(features, CLICK, Recall(), multimask=True)
    assert several.logits.shape == (3, 40, 60) and (np.diff(several.quality) <= 0).all()
    best = model.predict(features, CLICK, Recall())
    np.testing.assert_array_equal(best.logits[0], several.logits[0])
    assert len(model.predict(features, BOX, Recall()).logits) == 1
    assert len(model.predict(features, BOX, Recall(), multimask=True).logits) == 3


def test_sam_hq_has_one_answer_whatever_is_asked() -> None:
    model = SamModel(replace(small_card(), capabilities=("slice", "color")), small_network(hq=True))
    (features,) = model.encode_slices([an_image()])
    for prompts in (CLICK, BOX):
        assert len(model.predict(features, prompts, Recall(), multimask=True).logits) == 1


def test_corner_tokens_come_after_clicks_and_a_scribble_becomes_clicks() -> None:
    model = model_of()
    placement = Placement.of(an_image(), 64, False)
    curve = np.array([[5.0, 5.0], [20.0, 20.0]])
    prompts = replace(BOX, points_rc=CLICK.points_rc, positive=np.array([False]), scribbles=((curve, True),))
    assert model.tensors(prompts, placement, None).labels.tolist() == [[0, 1, 1, 1, 1, 1, 2, 3]]


def test_an_answer_is_refined_from_its_own_logits_and_a_painted_mask_from_a_mask() -> None:
    model = model_of()
    (features,) = model.encode_slices([an_image()])
    first = model.predict(features, CLICK, Recall(), multimask=True)
    chosen = first.preferring(1)
    more = replace(CLICK, points_rc=np.array([[20.0, 30.0], [1, 1]]), positive=np.array([True, False]))
    given = model.tensors(more, features.placement, chosen).previous
    assert torch.equal(given, first.state.mask_logits[:, 1:2])
    painted = model.predict(features, SlicePrompts(mask=np.ones((40, 60), bool)), Recall())
    given = model.tensors(more, features.placement, painted).previous
    assert given.shape == (1, 1, 16, 16) and given[0, 0, 0, 0] == 10 and given[0, 0, -1, -1] == -10
    refined = model.predict(features, more, Recall(), chosen)
    assert not np.array_equal(refined.logits[0], model.predict(features, more, Recall()).logits[0])


def test_medsam_is_asked_by_boxes(medsam: SamModel) -> None:
    (features,) = medsam.encode_slices([an_image()])
    with pytest.raises(PromptError, match="asked by a box"):
        medsam.predict(features, CLICK, Recall())
    answer = medsam.predict(features, BOX, Recall())
    wider = replace(BOX, points_rc=np.array([[35.0, 50.0], [20.0, 10.0]]), positive=np.array([True, False]))
    given = medsam.tensors(wider, features.placement, answer)
    assert given.labels.tolist() == [[0, 2, 3]] and given.previous is None
    low, high = features.placement.model_xy(np.array([[5.0, 5.0], [35.0, 50.0]]))
    np.testing.assert_allclose(given.points[0, 1:].numpy(), [low, high], rtol=1e-6)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True
    painted = medsam.predict(features, SlicePrompts(mask=mask), Recall())
    given = medsam.tensors(CLICK, features.placement, painted)
    low, high = features.placement.model_xy(np.array([[10.0, 30.0], [20.0, 49.0]]))
    np.testing.assert_allclose(given.points[0].numpy(), [low, high], rtol=1e-6)


def test_medsam_takes_a_box_and_an_answer_of_a_single_row(medsam: SamModel) -> None:
    (features,) = medsam.encode_slices([an_image(rows=1)])
    drawn = SlicePrompts(box_rc=(0, 5, 0, 50))
    answer = medsam.predict(features, drawn, Recall())
    assert answer.logits.shape == (1, 1, 60)
    remembered = medsam.encode_memory(
        features, medsam.predict(features, SlicePrompts(mask=np.ones((1, 60), bool)), Recall()), True
    )
    carried = medsam.predict(features, SlicePrompts(), Recall((Recalled(remembered, 0, 1),)))
    assert carried.logits.shape == (1, 1, 60)


def test_medsam_chains_with_boxes_alone_and_sam_with_a_point_as_well(medsam: SamModel) -> None:
    assert not medsam.chaining.point and model_of().chaining.point
    assert not model_of(options={"chain_point": False}).chaining.point


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_nearly_the_same_mask(precision: str, tmp_path: Path) -> None:
    torch.save(small_network().state_dict(), tmp_path / "sam.pth")
    logits = []
    for one in ("fp32", precision):
        model = sam.load(small_card(), tmp_path / "sam.pth", "cpu", precision=one)
        (features,) = model.encode_slices([an_image()])
        logits.append(model.predict(features, BOX, Recall()).logits)
    assert logits[1].dtype == np.float32
    assert np.abs(logits[0] - logits[1]).max() < 0.1 * np.abs(logits[0]).max()


# -- propagation ---------------------------------------------------------------------------------------------------


def test_a_remembered_mask_prompts_the_next_slice_and_takes_little_room() -> None:
    model = model_of()
    here, there = model.encode_slices([an_image(), an_image(seed=1)])
    prompted = model.predict(here, BOX, Recall())
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    memory = model.encode_memory(here, replace(prompted, logits=np.where(mask, 5.0, -5.0)[None]), prompted=True)
    assert memory.nbytes < 200
    tracked = model.predict(there, NOTHING, Recall((Recalled(memory, 0, 1),)))
    link = model.chaining.link(Recall((Recalled(memory, 0, 1),)))
    asked = model.predict(there, link.prompts, Recall())
    assert tracked.state.mask_logits.equal(asked.state.mask_logits)
    assert tracked.presence == link.presence(tracked.masks[0], float(tracked.quality[0]))


@pytest.mark.parametrize("kind", ["sam", "hq", "medsam"])
def test_a_session_on_the_phantom_runs_from_prompt_to_volume_and_gives_the_same_twice(kind: str) -> None:
    phantom = make_phantom("CT", (48, 40, 12))
    fields = {"prompts": ("box",), "preprocessing": "minmax-stretch"} if kind == "medsam" else {}
    model = model_of(kind == "hq", **fields)

    def labels() -> np.ndarray:
        session = VolumeSession(phantom.volume, model)
        session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((8, 8, 30, 28), 6, K)))
        results = list(session.propagate(plane=K, first=0, last=11))
        assert {result.key.index for result in results} == set(range(12)) - {6}
        assert all(np.isfinite(result.quality) and -10 <= result.presence <= 10 for result in results)
        key = session.add_prompt(1, PointPrompt((10.0, 10.0, 3.0), False, K))
        session.segment_slice(1, key)
        list(session.repropagate(1, key))
        return session.labelmap(1).copy()

    np.testing.assert_array_equal(labels(), labels())


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_runs(policy: str) -> None:
    phantom = make_phantom("CT", (48, 40, 8))
    session = VolumeSession(phantom.volume, model_of(), policy=policy)
    session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice((8, 8, 30, 28), 3, K)))
    results = list(session.propagate(plane=K, first=0, last=7))
    assert {result.key.index for result in results} == set(range(8)) - {3}


def test_one_computation_serves_several_objects_and_keeps_gradients() -> None:
    model = model_of()
    maps = model.network.encode_image(torch.randn(1, 3, 64, 64))
    points = torch.tensor([[[5.0, 5.0], [40.0, 50.0]], [[20.0, 4.0], [60.0, 33.0]]])
    step = model.track_step(maps, sam.SamPrompts(points, torch.tensor([[2, 3], [2, 3]])))
    assert step.mask_logits.shape == (2, 1, 16, 16) and step.mask_logits.requires_grad

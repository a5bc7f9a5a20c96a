"""The classic family: what its answers must be, on slices small enough to draw."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from SegmentAnythingMedLib.errors import ModelUnavailableError, PromptError
from SegmentAnythingMedLib.models.base import Prediction, Recall, Recalled, SliceImage, SliceModel
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.classic import ClassicModel, load
from SegmentAnythingMedLib.models.classic_clicks import _connected
from SegmentAnythingMedLib.models.classic_crop import Frame, signed_distance_mm
from SegmentAnythingMedLib.models.classic_random_walk import EdgeWeights, random_walk
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.prompts import SlicePrompts

SHAPE = (96, 120)


@pytest.fixture
def model() -> ClassicModel:
    return load(ModelCard("classic", "Classic", "classic", "MIT"), None)


def disc(center_rc=(48, 60), radius=20.0, shape=SHAPE, spacing_mm=(1.0, 1.0)) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    away = ((rows - center_rc[0]) * spacing_mm[0]) ** 2 + ((columns - center_rc[1]) * spacing_mm[1]) ** 2
    return away <= radius**2


def picture(*objects: tuple[np.ndarray, float], background=0.3, noise=0.03, spacing_mm=(1.0, 1.0)) -> SliceImage:
    pixels = np.full(objects[0][0].shape if objects else SHAPE, background, dtype=np.float32)
    for mask, value in objects:
        pixels[mask] = value
    pixels += np.random.default_rng(0).normal(0.0, noise, pixels.shape).astype(np.float32)
    return SliceImage(np.clip(pixels, 0, 1)[None], spacing_mm)


def box_of(mask: np.ndarray, margin=2) -> SlicePrompts:
    rows, columns = np.nonzero(mask)
    box = (rows.min() - margin, columns.min() - margin, rows.max() + margin, columns.max() + margin)
    return SlicePrompts(box_rc=tuple(float(x) for x in box))


def clicks(*points: tuple[float, float, bool], **others) -> SlicePrompts:
    return SlicePrompts(np.array([p[:2] for p in points], float), np.array([p[2] for p in points], bool), **others)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / max(int(a.sum() + b.sum()), 1)


def answer(model, image, prompts, recall=None, previous=None, multimask=False) -> Prediction:
    (features,) = model.encode_slices([image])
    return model.predict(features, prompts, recall or Recall(), previous, multimask)


def remembered(model, image, mask, slot=0, distance=1) -> Recalled:
    (features,) = model.encode_slices([image])
    prediction = model.predict(features, SlicePrompts(mask=mask), Recall())
    return Recalled(model.encode_memory(features, prediction, slot == 0), slot, distance)


def propagate(model, images, key_mask) -> list[Prediction]:
    """Slices 1, 2, ... after key slice 0, each from the key and the slice before it, until the session would stop."""
    memories, answers = [remembered(model, images[0], key_mask)], []
    for index, image in enumerate(images[1:], start=1):
        (features,) = model.encode_slices([image])
        recall = Recall((Recalled(memories[0].memory, 0, index), *memories[1:]))
        prediction = model.predict(features, SlicePrompts(), recall)
        answers.append(prediction)
        if [p.presence < 0 for p in answers[-2:]] == [True, True]:
            break
        memories[1:] = [Recalled(model.encode_memory(features, prediction, False), 1, 1)]
    return answers


def assert_well_formed(prediction: Prediction, shape=SHAPE) -> None:
    assert prediction.logits.dtype == np.float32
    assert prediction.logits.shape[1:] == shape
    assert np.isfinite(prediction.logits).all() and np.abs(prediction.logits).max() <= 10.0
    assert prediction.quality.shape == prediction.logits.shape[:1]
    assert ((prediction.quality >= 0) & (prediction.quality <= 1)).all()
    assert np.isfinite(prediction.presence)
    beyond = np.ones(shape, bool)
    beyond[prediction.reach or ()] = False
    assert (prediction.logits[:, beyond] == -10).all() and (prediction.masks == (prediction.logits > 0)).all()


def test_the_registry_loads_it_and_it_is_a_slice_model():
    model = ModelRegistry().load("classic", device="cpu")
    assert isinstance(model, SliceModel) and isinstance(model, ClassicModel)


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(ModelUnavailableError, match="colour"):
        load(ModelCard("classic", "Classic", "classic", "MIT"), None, colour=True)


# Boxes and lassos


@pytest.mark.parametrize("value", [0.1, 0.7], ids=["dark", "bright"])
def test_a_box_round_a_disc_gives_the_disc(model, value):
    prediction = answer(model, picture((disc(), value)), box_of(disc()))
    assert_well_formed(prediction)
    assert dice(prediction.masks[0], disc()) > 0.95
    assert prediction.quality[0] > 0.8 and prediction.presence > 0


def test_without_contrast_a_box_gives_about_its_ellipse(model):
    prediction = answer(model, picture((disc(), 0.3), noise=0.05), box_of(disc(), margin=0))
    assert dice(prediction.masks[0], disc()) > 0.9


def test_a_ring_in_a_box_is_filled(model):
    prediction = answer(model, picture((disc(), 0.8), (disc(radius=8), 0.3)), box_of(disc()))
    assert dice(prediction.masks[0], disc()) > 0.95


def test_a_box_leaves_out_a_neighbour_of_other_brightness(model):
    image = picture((disc((48, 92), 20), 0.9), (disc(), 0.6))
    assert dice(answer(model, image, box_of(disc())).masks[0], disc()) > 0.93


def test_a_coloured_disc_of_the_same_brightness_is_found(model):
    pixels = np.full((3, *SHAPE), 0.5, np.float32)
    pixels[:, disc()] = np.array([[0.8], [0.4], [0.3]], np.float32)
    assert dice(answer(model, SliceImage(pixels), box_of(disc())).masks[0], disc()) > 0.97


def test_a_circle_on_anisotropic_pixels_is_found(model):
    spacing = (3.0, 0.8)
    mask = disc((48, 60), 30.0, spacing_mm=spacing)
    image = picture((mask, 0.7), spacing_mm=spacing)
    assert dice(answer(model, image, box_of(mask, 1)).masks[0], mask) > 0.93


def test_a_large_object_on_a_large_slice_is_solved_coarsely_and_comes_back_fine(model):
    mask = disc((500, 520), 300.0, (1000, 1024))
    assert dice(answer(model, picture((mask, 0.7)), box_of(mask)).masks[0], mask) > 0.98


def test_a_lasso_drawn_loosely_round_a_disc_gives_the_disc(model):
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    reach = 22 + 2 * np.cos(5 * angles)
    curve = np.stack([48 + reach * np.sin(angles), 60 + reach * np.cos(angles)], axis=1)
    assert dice(answer(model, picture((disc(), 0.7)), SlicePrompts(lasso_rc=curve)).masks[0], disc()) > 0.95


def test_a_lasso_round_a_part_of_an_object_gives_that_part(model):
    angles = np.linspace(0, np.pi, 20)
    curve = np.stack([48 - 31 * np.cos(angles), 60 - 31 * np.sin(angles)], axis=1)
    mask = answer(model, picture((disc(radius=30), 0.7)), SlicePrompts(lasso_rc=curve)).masks[0]
    assert dice(mask, disc(radius=30) & (np.arange(SHAPE[1]) <= 60)) > 0.93


def test_a_mask_prompt_is_the_answer(model):
    drawn = disc((30, 30), 7)
    prediction = answer(model, picture((disc(), 0.7)), SlicePrompts(mask=drawn))
    assert_well_formed(prediction)
    assert (prediction.masks[0] == drawn).all()


def test_a_mask_prompt_of_another_size_is_refused(model):
    with pytest.raises(PromptError, match="shape"):
        answer(model, picture((disc(), 0.7)), SlicePrompts(mask=np.zeros((3, 3), bool)))


# Clicks and scribbles


def test_one_click_on_a_disc_gives_the_disc(model):
    prediction = answer(model, picture((disc(), 0.7)), clicks((48, 60, True)))
    assert len(prediction.logits) == 1
    assert dice(prediction.masks[0], disc()) > 0.95


def test_one_click_offers_candidates_of_different_size(model):
    image = picture((disc(radius=35), 0.5), (disc(radius=10), 0.8))
    prediction = answer(model, image, clicks((48, 60, True)), multimask=True)
    assert_well_formed(prediction)
    assert 2 <= len(prediction.logits) <= 3
    assert (np.diff(prediction.quality) <= 0).all()
    areas = np.sort(prediction.masks.sum(axis=(1, 2)))
    assert (areas[1:] > 1.3 * areas[:-1]).all()
    assert max(dice(mask, disc(radius=10)) for mask in prediction.masks) > 0.9
    assert max(dice(mask, disc(radius=35)) for mask in prediction.masks) > 0.9


def test_a_negative_click_removes_the_neighbour(model):
    both = disc() | disc((48, 92), 14)
    image = picture((both, 0.7))
    first = answer(model, image, clicks((48, 60, True)))
    assert first.masks[0][48, 95]
    second = answer(model, image, clicks((48, 60, True), (48, 94, False)), previous=first)
    assert not second.masks[0][48, 94]
    assert dice(second.masks[0], disc()) > 0.88 > dice(first.masks[0], disc())


def test_a_positive_click_adds_a_part(model):
    image = picture((disc((48, 40), 18), 0.7), (disc((48, 90), 14), 0.55))
    first = answer(model, image, clicks((48, 40, True)))
    second = answer(model, image, clicks((48, 40, True), (48, 90, True)), previous=first)
    assert dice(second.masks[0], disc((48, 40), 18) | disc((48, 90), 14)) > 0.9


def test_refinement_keeps_what_was_right(model):
    mask = disc((48, 45), 25) | disc((48, 95), 10)
    image = picture((mask, 0.7))
    previous = Prediction(np.where(disc((48, 45), 25), 10, -10)[None].astype(np.float32), np.ones(1))
    refined = answer(model, image, clicks((48, 95, True)), previous=previous).masks[0]
    assert refined[48, 95]
    assert dice(refined[:, :70], mask[:, :70]) > 0.97


def test_the_preferred_candidate_is_the_one_that_clicks_refine(model):
    image = picture((disc(radius=35), 0.5), (disc(radius=10), 0.8))
    first = answer(model, image, clicks((48, 60, True)), multimask=True)
    large = int(np.argmax(first.masks.sum(axis=(1, 2))))
    more = clicks((48, 60, True), (48, 85, True))
    assert dice(answer(model, image, more, previous=first.preferring(large)).masks[0], disc(radius=35)) > 0.9


def test_an_answer_to_a_prompt_that_was_removed_is_not_refined(model):
    image = picture((disc(), 0.7), (disc((15, 15), 10), 0.7))
    first = answer(model, image, clicks((15, 15, True)))
    moved = answer(model, image, clicks((48, 60, True)), previous=first)
    assert not moved.masks[0][15, 15]
    assert dice(moved.masks[0], disc()) > 0.95


@pytest.mark.parametrize("shape", [SHAPE, (700, 900)])
def test_every_clicked_pixel_gets_its_label(model, shape):
    points = [(20, 30, True), (21, 31, False), (70, 20, True), (5, 90, False), (48, 60, True)]
    image = picture((disc(shape=shape), 0.5), noise=0.2)
    mask = answer(model, image, clicks(*points)).masks[0]
    assert [bool(mask[row, column]) for row, column, _ in points] == [positive for *_, positive in points]


def test_scribbles_are_obeyed_along_their_whole_length(model):
    through = np.array([[48.0, 45.0], [48.0, 75.0]])
    across = np.array([[10.0, 10.0], [10.0, 100.0]])
    prompts = SlicePrompts(scribbles=((through, True), (across, False)))
    mask = answer(model, picture((disc(), 0.7)), prompts).masks[0]
    assert mask[48, 45:76].all() and not mask[10, 10:101].any()
    assert dice(mask, disc()) > 0.95


def test_only_negative_clicks_give_nothing(model):
    prediction = answer(model, picture((disc(), 0.7)), clicks((48, 60, False)))
    assert_well_formed(prediction)
    assert not prediction.masks.any() and prediction.presence < 0


# Memory


def test_propagation_follows_an_object_that_moves_and_shrinks(model):
    masks = [disc((48, 50 + 2 * k), 20 - k) for k in range(8)]
    answers = propagate(model, [picture((mask, 0.7)) for mask in masks], masks[0])
    assert len(answers) == 7
    assert min(dice(p.masks[0], mask) for p, mask in zip(answers, masks[1:], strict=True)) > 0.93
    assert all(p.presence > 0 for p in answers)


def test_propagation_stops_where_the_object_ends(model):
    images = [picture((disc(), 0.7)) for _ in range(5)] + [picture(noise=0.03) for _ in range(8)]
    answers = propagate(model, images, disc())
    assert [p.presence > 0 for p in answers[:4]] == [True] * 4
    assert len(answers) <= 4 + 4


def test_between_two_key_slices_the_shape_is_in_between(model):
    image = picture((disc(radius=15), 0.3), noise=0.05)
    small = remembered(model, image, disc(radius=10), distance=2)
    large = remembered(model, image, disc(radius=20), distance=-2)
    mask = answer(model, image, SlicePrompts(), Recall((small, large))).masks[0]
    assert dice(mask, disc(radius=15)) > 0.9


def test_a_click_corrects_a_propagated_slice(model):
    image = picture((disc(), 0.7), (disc((48, 100), 10), 0.6))
    recall = Recall((remembered(model, picture((disc(), 0.7)), disc()),))
    mask = answer(model, image, clicks((48, 100, True)), recall).masks[0]
    assert dice(mask, disc() | disc((48, 100), 10)) > 0.9


def test_a_box_and_memories_work_together(model):
    recall = Recall((remembered(model, picture((disc(), 0.7)), disc()),))
    moved = disc((60, 80), 15)
    assert dice(answer(model, picture((moved, 0.7)), box_of(moved), recall).masks[0], moved) > 0.95


def test_propagating_again_does_not_repeat_the_earlier_answer(model):
    image = picture((disc(), 0.7))
    recall = Recall((remembered(model, image, disc()),))
    wrong = Prediction(np.where(disc((20, 20), 5), 10, -10)[None].astype(np.float32), np.ones(1))
    assert dice(answer(model, image, SlicePrompts(), recall, previous=wrong).masks[0], disc()) > 0.95


def test_an_empty_memory_and_no_memory_give_nothing(model):
    image = picture((disc(), 0.7))
    empty = remembered(model, image, np.zeros(SHAPE, bool))
    for recall in (Recall(), Recall((empty,))):
        prediction = answer(model, image, SlicePrompts(), recall)
        assert_well_formed(prediction)
        assert not prediction.masks.any() and prediction.presence < 0


def test_an_empty_key_slice_ahead_shrinks_the_object(model):
    image = picture((disc(), 0.3), noise=0.05)
    full = remembered(model, image, disc(), distance=1)
    gone = remembered(model, image, np.zeros(SHAPE, bool), distance=-1)
    mask = answer(model, image, SlicePrompts(), Recall((full, gone))).masks[0]
    assert mask.sum() < 0.6 * disc().sum()


def test_a_memory_is_a_few_kilobytes_and_keeps_the_mask(model):
    mask = disc((250, 260), 50, (512, 512))
    memory = remembered(model, picture((mask, 0.7)), mask).memory
    assert 0 < memory.nbytes < 4000
    assert (memory.mask((512, 512)) == mask).all()


def test_memories_of_the_same_object_are_more_alike_than_of_others(model):
    image = picture((disc(), 0.7), (disc((15, 15), 10), 0.1))
    same, other, empty = (remembered(model, image, m).memory for m in (disc(), disc((15, 15), 10), disc() & False))
    assert model.similarity(same, same) == pytest.approx(1.0)
    assert -1 <= model.similarity(same, other) < 0
    assert model.similarity(same, empty) == -1 and model.similarity(empty, empty) == 1


def test_the_size_of_features_is_that_of_their_pixels(model):
    (features,) = model.encode_slices([picture((disc(), 0.7))])
    assert features.nbytes == 4 * SHAPE[0] * SHAPE[1]


# Whatever comes


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("constant", [True, False])
def test_any_slice_and_prompt_gives_a_well_formed_answer(model, shape, channels, constant):
    pixels = np.random.default_rng(1).random((channels, *shape)).astype(np.float32)
    image = SliceImage(np.full_like(pixels, 0.5) if constant else pixels, (5.0, 0.3))
    last = (shape[0] - 1.0, shape[1] - 1.0)
    corner = np.array([[0.0, 0.0], [0.0, last[1]], list(last)])
    recall = Recall((remembered(model, image, np.ones(shape, bool)),))
    for prompts in (
        SlicePrompts(box_rc=(0.0, 0.0, *last)),
        SlicePrompts(box_rc=(0.0, 0.0, 0.0, 0.0)),
        clicks((*last, True)),
        clicks((-0.5, -0.5, True), (*last, False)),
        SlicePrompts(scribbles=((corner, True),)),
        SlicePrompts(lasso_rc=corner),
        SlicePrompts(),
    ):
        for memories in (Recall(), recall):
            assert_well_formed(answer(model, image, prompts, memories, multimask=True), shape)


def test_a_box_of_one_pixel_is_not_empty(model):
    assert answer(model, picture((disc(), 0.7)), SlicePrompts(box_rc=(48.0, 60.0, 48.0, 60.0))).masks[0].any()


def test_the_same_question_gets_the_same_answer(model):
    image = picture((disc(), 0.5), noise=0.1)
    first, second = (answer(model, image, clicks((48, 60, True)), multimask=True) for _ in range(2))
    assert (first.logits == second.logits).all() and (first.quality == second.quality).all()


# Parts


@pytest.mark.parametrize("shape", [(37, 53), (301, 407)])
def test_a_frame_gives_back_what_it_took(shape):
    frame = Frame.round_box(shape, (1.0, 2.0), np.array([5.0, 4.0, shape[0] - 9.0, shape[1] - 3.0]))
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    smooth = np.sin(rows / 30) + np.cos(columns / 30)
    inside = frame.give(frame.take(smooth))[frame.start[0] + 5 : frame.stop[0] - 9, frame.start[1] + 5 : -9]
    wanted = smooth[frame.start[0] + 5 : frame.stop[0] - 9, frame.start[1] + 5 : -9]
    assert np.abs(inside - wanted)[:, : frame.stop[1] - frame.start[1] - 20].max() < 0.05


@pytest.mark.parametrize("step_mm", [(1.0, 1.0), (0.7, 2.9)])
def test_distances_near_a_border_are_those_of_the_whole_picture(step_mm):
    random = np.random.default_rng(0)
    for size, reach in ((3, 1.0), (9, 0.4), (21, 3.5), (21, np.inf)):
        mask = ndimage.gaussian_filter(random.random((40, 53)), size / 3) > 0.5
        mask[:, random.integers(20, 53) :] = False
        inside, outside = (ndimage.distance_transform_edt(one, sampling=step_mm) for one in (mask, ~mask))
        wanted = np.where(mask, inside - min(step_mm) / 2, min(step_mm) / 2 - outside)
        found = signed_distance_mm(mask, step_mm, reach)
        near = mask | (outside <= reach)
        assert (found[near] == wanted[near]).all() and (found[~near] <= min(step_mm) / 2 - reach).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (1, 7), (40, 53)])
def test_a_region_of_a_click_is_opened_and_filled(shape):
    random = np.random.default_rng(0)
    at = np.zeros(shape, bool)
    at[shape[0] // 2, shape[1] // 2] = True
    for share in (0.3, 0.5, 0.7, 0.9, 1.0):
        mask = ndimage.uniform_filter(random.random(shape), 3) < share
        labels, _ = ndimage.label(ndimage.binary_opening(mask) | at)
        wanted = ndimage.binary_fill_holes(np.isin(labels, labels[at]))
        assert (_connected(mask, at) == wanted).all()


def test_the_random_walk_solves_its_equations():
    random = np.random.default_rng(0)
    shape, belief, trust = (6, 7), random.random((6, 7)), random.random((6, 7)) + 0.1
    edges = EdgeWeights.of_image(random.random((1, *shape)), (1.0, 2.0), 1.0)
    number = np.arange(42).reshape(shape)
    matrix = np.diag(trust.ravel())
    for a, b, weight in (
        (number[1:], number[:-1], edges.down),
        (number[:, 1:], number[:, :-1], edges.right),
    ):
        for i, j, w in zip(a.ravel(), b.ravel(), weight.ravel(), strict=True):
            matrix[[i, j], [i, j]] += w
            matrix[[i, j], [j, i]] -= w
    exact = np.linalg.solve(matrix, (trust * belief).ravel()).reshape(shape)
    assert np.abs(random_walk(belief, trust, edges) - exact).max() < 5e-3


def test_a_seed_holds_against_the_belief():
    seeds = np.zeros((5, 5), np.int8)
    seeds[2, 2] = 1
    edges = EdgeWeights.of_image(np.zeros((1, 5, 5)), (1.0, 1.0), 1.0)
    walked = random_walk(np.zeros((5, 5)), np.full((5, 5), 0.1), edges, seeds)
    assert walked[2, 2] > 0.99 and walked[2, 1] > walked[2, 0]

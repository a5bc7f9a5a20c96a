"""The slider from part to whole: which candidate it takes, and what lies between."""

from __future__ import annotations

import numpy as np
import pytest
from sources.organ_cases import LIVER, case

from SegmentAnythingMedLib.errors import PromptError, SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.prompts import MaskPrompt, PointPrompt, SlicePrompts
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.sources.part_whole import Source, between, mask_prompt, pick, position
from SegmentAnythingMedLib.sources.source import Given
from SegmentAnythingMedLib.volume import Volume


def disc(radius: float, center: tuple[float, float] = (30, 30), size: int = 61) -> np.ndarray:
    rows, columns = np.ogrid[:size, :size]
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2


NESTED = np.stack([disc(12), disc(25), disc(4)])
"""Best first as a model orders them, not by area; areas are 1 : 9 : 39."""


@pytest.mark.parametrize(
    ("value", "candidate"), [(0.0, 2), (0.25, 2), (0.35, 0), (0.6, 0), (0.75, 0), (0.85, 1), (1.0, 1)]
)
def test_the_slider_takes_the_candidate_whose_log_area_is_nearest(value: float, candidate: int) -> None:
    assert pick(NESTED, value) == candidate


def test_the_smaller_candidate_wins_in_doubt_and_equals_keep_their_order() -> None:
    two = np.stack([disc(20), disc(5)])
    halfway = np.sqrt(two.sum(axis=(1, 2)).prod())
    assert position(two, 0) == 1.0 and position(two, 1) == 0.0
    assert pick(two, 0.5) == 1 and halfway > 0
    assert pick(np.stack([disc(5), disc(5)]), 0.7) == 0


def test_an_empty_candidate_is_never_taken() -> None:
    with_nothing = np.stack([np.zeros((61, 61), bool), disc(9), disc(3)])
    assert [pick(with_nothing, value) for value in (0.0, 1.0)] == [2, 1]
    with pytest.raises(PromptError, match="All candidates are empty: click"):
        pick(np.zeros((2, 5, 5), bool), 0.5)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_the_slider_has_two_ends(value: float) -> None:
    with pytest.raises(PromptError, match="from 0 .part. to 1 .whole."):
        pick(NESTED, value)


@pytest.mark.parametrize("candidate", [0, 1, 2])
def test_where_the_slider_stands_leads_back_to_the_candidate(candidate: int) -> None:
    assert pick(NESTED, position(NESTED, candidate)) == candidate
    np.testing.assert_array_equal(between(NESTED, position(NESTED, candidate), (1.0, 1.0)), NESTED[candidate])


def test_between_nested_candidates_the_outline_only_grows() -> None:
    outlines = [between(NESTED, value, (1.0, 1.0)) for value in np.linspace(0, 1, 15)]
    areas = [np.count_nonzero(outline) for outline in outlines]
    for smaller, larger in zip(outlines, outlines[1:], strict=False):
        assert not (smaller & ~larger).any()
    assert len(set(areas)) > 10 and areas[0] == NESTED[2].sum() and areas[-1] == NESTED[1].sum()


def test_the_morph_is_measured_in_millimetres() -> None:
    wide = np.zeros((41, 41), bool)
    wide[18:23, 18:23] = True
    large = np.zeros((41, 41), bool)
    large[10:31, 18:23] = True
    tall = np.stack([wide, large])
    growth = [np.count_nonzero(between(tall, 0.5, spacing).any(axis=1)) for spacing in ((1.0, 1.0), (1.0, 9.0))]
    assert 5 < growth[0] < 21 and growth[0] != growth[1]


def test_candidates_side_by_side_have_nothing_between_them() -> None:
    apart = np.stack([disc(4, (10, 10)), disc(12, (40, 40))])
    for value in (0.2, 0.8):
        np.testing.assert_array_equal(between(apart, value, (1.0, 1.0)), apart[pick(apart, value)])


def test_a_mask_up_to_the_border_of_the_slice_can_be_morphed() -> None:
    everything = np.stack([disc(5), np.ones((61, 61), bool)])
    middle = between(everything, 0.5, (1.0, 1.0))
    assert 5**2 < np.count_nonzero(middle) < 61**2


def test_it_works_on_a_prediction_in_whatever_order_its_candidates_are() -> None:
    logits = np.where(NESTED, 5.0, -5.0).astype(np.float32)
    prediction = Prediction(logits, np.array([0.9, 0.8, 0.7], np.float32))
    slices = SliceGeometry(VolumeGeometry.from_spacing((61, 61, 5)), Plane(2))
    for shown in (prediction, prediction.preferring(1), prediction.preferring(2)):
        prompt = mask_prompt(shown, 0.0, slices, 3)
        assert isinstance(prompt, MaskPrompt) and prompt.index == 3
        np.testing.assert_array_equal(prompt.mask, NESTED[2])
        np.testing.assert_array_equal(shown.preferring(pick(shown.masks_in_model_order, 1.0)).masks[0], NESTED[1])


def rings() -> Volume:
    """A bright core in a grey disc on black, so that one click has several answers."""
    image = np.where(disc(5), 200.0, np.where(disc(18), 150.0, 20.0)) + np.random.default_rng(0).normal(0, 3, (61, 61))
    return Volume.from_array(np.repeat(image[None], 3, axis=0).astype(np.float32))


def test_a_session_takes_the_candidate_that_the_slider_names() -> None:
    session = VolumeSession(rings(), ModelRegistry().load("classic", "cpu"), window="identity")
    key = session.add_prompt(1, PointPrompt((30, 30, 1)))
    result = session.segment_slice(1, key)
    assert len(result.candidates) > 1
    part, whole = (session.choose_candidate(1, key, pick(result.candidates, value)).mask.copy() for value in (0.0, 1.0))
    assert part.sum() < whole.sum()
    assert np.count_nonzero(part & disc(6)) > 0.8 * part.sum()


def test_the_source_clicks_in_a_rough_mask_and_gives_part_or_whole() -> None:
    logits = np.where(NESTED, 5.0, -5.0).astype(np.float32)
    asked: list[SlicePrompts] = []

    def predict(index: int, prompts: SlicePrompts, multimask: bool = False) -> Prediction:
        asked.append(prompts)
        assert multimask and prompts.is_single_click and index == 2
        return Prediction(logits, np.ones(3, np.float32))

    labels = np.zeros((4, 61, 61), np.uint8)
    labels[2, 25:36, 25:36] = 7
    given = Given(SliceGeometry(VolumeGeometry.from_spacing((61, 61, 4)), Plane(2)), labels=labels, predict=predict)
    click, mask = Source(value=1.0).prompts(given)
    assert click.point_ijk == (30.0, 30.0, 2.0)
    np.testing.assert_array_equal(mask.mask, NESTED[1])
    np.testing.assert_array_equal(Source(value=0.0).prompts(given)[1].mask, NESTED[2])
    morphed = Source(value=0.8, morph=True).prompts(given)[1].mask.sum()
    assert NESTED[0].sum() < morphed < NESTED[1].sum()
    with pytest.raises(SegmentAnythingMedError, match="value must be a number from 0 to 1"):
        Source(value=2.0)
    with pytest.raises(PromptError, match="--model"):
        Source().prompts(Given(case(0).slices, labels=case(0).labels == LIVER))

"""Everything is outlined, and every outline votes: an automatic segmentation snaps to edges."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sources.standins import scene

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.prompts import MaskPrompt, SlicePrompts
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.sources.everything import Masklet, distinct, vote
from SegmentAnythingMedLib.sources.source import Given, load_source

SQUARES = {1: (slice(4, 14), slice(4, 14)), 2: (slice(18, 28), slice(8, 22))}


def square(rows: slice, columns: slice, shape: tuple[int, int] = (32, 32)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


class Seer:
    """A model that knows the squares and answers a click with the one it is in, or with the background."""

    def __init__(self, quality: float = 0.9, softness: float = 10.0) -> None:
        self.quality, self.softness = quality, softness
        self.asked = Counter()

    def __call__(self, index: int, prompts: SlicePrompts, multimask: bool = False) -> Prediction:
        self.asked[index] += 1
        row, column = prompts.points_rc[0].astype(int)
        masks = [square(*sides) for sides in SQUARES.values()]
        mask = next((one for one in masks if one[row, column]), ~masks[0] & ~masks[1])
        return Prediction(np.where(mask, self.softness, -self.softness)[None], np.array([self.quality]))


def given_for(labels: np.ndarray, predict: object, label: int | None = None) -> Given:
    geometry = VolumeGeometry.from_spacing(labels.shape[::-1], (1.0, 1.0, 4.0))
    return Given(SliceGeometry(geometry, Plane(2)), labels=labels, label=label, predict=predict)


@pytest.fixture
def shifted() -> np.ndarray:
    """(3, 32, 32): on slice 1 the squares, two pixels off."""
    labels = np.zeros((3, 32, 32), np.uint8)
    for label, sides in SQUARES.items():
        labels[1][square(*sides)] = label
    return np.roll(labels, (2, -2), (1, 2))


@pytest.mark.parametrize("label", [1, 2])
def test_each_structure_snaps_to_the_outline_that_the_model_sees(shifted: np.ndarray, label: int) -> None:
    (mask,) = load_source("everything").prompts(given_for(shifted, Seer(), label))
    assert isinstance(mask, MaskPrompt) and mask.index == 1
    np.testing.assert_array_equal(mask.mask, square(*SQUARES[label]))


def test_the_model_is_asked_once_for_all_labels_of_a_slice(shifted: np.ndarray) -> None:
    seer = Seer()
    given = given_for(shifted, seer, 1)
    source = load_source("everything:grid=6")
    source.prompts(given)
    source.prompts(replace(given, label=2))
    assert seer.asked == {1: 36}


@pytest.mark.parametrize(
    ("settings", "seer"),
    [("", Seer(quality=0.5)), ("", Seer(softness=0.5)), (":agreement=0.99", Seer()), (":reach_mm=0.5", Seer())],
    ids=["poor", "unstable", "undecided", "out of reach"],
)
def test_outlines_that_are_no_good_change_nothing(shifted: np.ndarray, settings: str, seer: Seer) -> None:
    (mask,) = load_source("everything" + settings).prompts(given_for(shifted, seer, 1))
    if ":reach" in settings:
        assert (mask.mask ^ (shifted[1] == 1)).sum() < (square(*SQUARES[1]) ^ (shifted[1] == 1)).sum()
    else:
        np.testing.assert_array_equal(mask.mask, shifted[1] == 1)


def test_of_two_outlines_of_the_same_thing_the_better_one_stays() -> None:
    worse, better = Masklet(square(slice(4, 14), slice(4, 14)), 0.7), Masklet(square(slice(4, 14), slice(4, 15)), 0.8)
    other = Masklet(square(slice(20, 25), slice(20, 25)), 0.6)
    assert distinct([worse, better, other], 0.8) == (better, other)
    assert len(distinct([worse, better, other], 1.0)) == 3


def test_pixels_without_an_outline_keep_their_class() -> None:
    labels = square(slice(0, 32), slice(0, 10)).astype(np.uint8) * 7
    result = vote(labels, [Masklet(square(slice(4, 14), slice(4, 12)), 0.9)])
    assert set(np.unique(result)) == {0, 7} and result.dtype == labels.dtype
    np.testing.assert_array_equal(result == 7, (labels == 7) | square(slice(4, 14), slice(4, 12)))


def test_where_outlines_overlap_the_one_that_agrees_most_wins() -> None:
    labels = square(slice(0, 32), slice(0, 16)).astype(np.uint8)
    sure, unsure = square(slice(0, 10), slice(4, 18)), square(slice(0, 10), slice(13, 32))
    for order in ([sure, unsure], [unsure, sure]):
        result = vote(labels, [Masklet(mask, 0.9) for mask in order])
        assert result[5, 17] == 1  # 12 of 14 columns agree, against 16 of 19


def test_an_outline_of_two_things_does_not_erase_the_smaller_one() -> None:
    labels = np.zeros((32, 32), np.uint8)
    labels[4:24, 4:24], labels[24:28, 10:16] = 1, 2
    result = vote(labels, [Masklet(square(slice(4, 30), slice(4, 24)), 0.9)])
    np.testing.assert_array_equal(result == 2, labels == 2)
    assert (result == 1).sum() > (labels == 1).sum()


def test_nothing_to_snap_is_a_sentence(shifted: np.ndarray) -> None:
    with pytest.raises(PromptError, match="Label 5 is empty"):
        load_source("everything").prompts(given_for(shifted, Seer(), 5))


def test_one_pixel_is_no_trouble() -> None:
    labels = np.zeros((1, 32, 32), bool)
    labels[0, 31, 0] = True
    (mask,) = load_source("everything").prompts(given_for(labels, Seer()))
    assert mask.mask[31, 0]


def test_a_structure_never_loses_more_than_half_of_itself() -> None:
    labels = square(slice(4, 14), slice(4, 14)).astype(np.uint8)
    parts = [Masklet(square(slice(4, 7), slice(0, 32)), 0.9), Masklet(square(slice(7, 10), slice(0, 32)), 0.9)]
    assert (vote(labels, parts[:1]) == 1).sum() == 70
    np.testing.assert_array_equal(vote(labels, parts), labels)


@pytest.mark.parametrize("how", ["coarse", "shifted"])
def test_a_degraded_automatic_segmentation_gets_better_with_the_classic_model(how: str) -> None:
    here = scene()
    index = here.largest("right kidney")
    truth = here.slices.extract(here.phantom.labelmap(), index, order=0)
    labels = np.zeros(here.phantom.volume.geometry.shape_kji, np.uint8)
    here.slices.paste(degraded(truth, how), index, labels)
    given = replace(here.given, labels=labels)
    after = load_source("everything:quality=0.3,stability=0.6,grid=8").snapped(given, index)
    shown = [label for label in np.unique(truth)[1:] if (truth == label).sum() > 40]
    before, after = (
        np.mean([dice(drawn == label, truth == label) for label in shown]) for drawn in (given.labels_on(index), after)
    )
    assert len(shown) > 5 and after > before + 0.005


def degraded(labels: np.ndarray, how: str) -> np.ndarray:
    """A (rows, columns) label map as from a coarse network, or in the wrong place."""
    if how == "coarse":
        coarse = labels[3::7, 3::7].repeat(7, 0).repeat(7, 1)
        return np.pad(coarse, [(0, 7), (0, 7)])[: labels.shape[0], : labels.shape[1]]
    return np.roll(labels, (3, 4), (0, 1))

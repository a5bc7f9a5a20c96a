from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.benchmark.growcut import BACKGROUND, OBJECT, grow_cut
from SegmentAnythingMedLib.benchmark.metrics import dice, normalised_surface_dice
from SegmentAnythingMedLib.benchmark.slice_rules import BOX_RULES, CLICK_RULES, CORRECTED_RULES, SliceTask
from SegmentAnythingMedLib.benchmark.volume_rules import overlapping
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry

SPACING = (1.0, 2.0)


@pytest.fixture
def bean() -> np.ndarray:
    """(80, 60) bool on pixels twice as wide as high: an object that an ellipse does not fit."""
    rows, columns = np.ogrid[:80, :60]
    disc = ((rows - 40) / 20) ** 2 + ((columns - 30) / 10) ** 2 < 1
    return disc & ~(((rows - 28) / 9) ** 2 + ((columns - 38) / 7) ** 2 < 1)


@pytest.fixture
def picture(bean: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.03, bean.shape)
    return np.clip(0.3 + 0.4 * bean + noise, 0, 1).astype(np.float32)


def test_grow_cut_gives_each_pixel_to_the_seed_it_is_reached_from_with_least_change() -> None:
    image = np.array([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]] * 3)
    seeds = np.zeros((3, 6), dtype=int)
    seeds[1, 0], seeds[1, 5] = OBJECT, BACKGROUND
    assert (grow_cut(image, seeds) == (image == 0)).all()
    assert (grow_cut(1 - image, 3 - seeds * (seeds > 0) - 3 * (seeds == 0)) == (image == 1)).all()


@pytest.mark.parametrize("rule", BOX_RULES)
def test_rules_find_a_bright_object_in_its_box(rule: str, bean: np.ndarray, picture: np.ndarray) -> None:
    box = (20.0, 20.0, 60.0, 40.0)
    assert dice(SliceTask(picture, SPACING, box, box).solve(BOX_RULES[rule]), bean) > 0.85


@pytest.mark.parametrize("rule", CLICK_RULES)
def test_rules_find_a_bright_object_round_a_click(rule: str, bean: np.ndarray, picture: np.ndarray) -> None:
    task = SliceTask(picture, SPACING, None, (20.0, 20.0, 60.0, 40.0), [((45, 28), True)])
    assert dice(task.solve(CLICK_RULES[rule]), bean) > 0.8


@pytest.mark.parametrize("rule", CORRECTED_RULES)
def test_a_negative_click_takes_away_what_looks_the_same(rule: str, bean: np.ndarray, picture: np.ndarray) -> None:
    neighbour = np.zeros_like(bean)
    neighbour[36:60, 42:50] = True
    picture = np.where(neighbour, 0.7, picture).astype(np.float32)
    box = (20.0, 20.0, 60.0, 52.0)
    task = SliceTask(picture, SPACING, box, box)
    before = task.solve(CORRECTED_RULES[rule])
    task.clicks.append(((48, 46), False))
    after = task.solve(CORRECTED_RULES[rule])
    assert not after[48, 46]
    assert dice(after, bean) >= dice(before, bean)


def test_even_slices_and_full_windows_give_an_answer() -> None:
    even = np.full((20, 20), 0.5, dtype=np.float32)
    for rule in (*BOX_RULES.values(), *CLICK_RULES.values()):
        for box in ((0.0, 0.0, 19.0, 19.0), (9.9, 9.9, 10.1, 10.1), None):
            assert SliceTask(even, (1.0, 1.0), box, (5.0, 5.0, 9.0, 9.0)).solve(rule).shape == (20, 20)


def test_threshold_and_overlap_follow_an_object_to_its_ends_and_no_further() -> None:
    directions = np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]], dtype=float)
    stack = SliceGeometry(VolumeGeometry.from_spacing((30, 12, 25), (1.0, 4.0, 1.0), directions), Plane(1))
    truth = np.zeros((25, 12, 30), dtype=bool)
    for j in range(3, 9):
        truth[6 + j : 14 + j, j, 8:18] = True  # moves by a pixel a slice
    pixels = np.where(truth, 0.8, 0.2)
    key = stack.extract(truth, 5)
    found = overlapping(lambda index: stack.extract(pixels, index), 5, key, stack, 0, 11)
    assert dice(found, truth) > 0.95
    assert not found[:, [0, 1, 2, 9, 10, 11]].any()
    within = overlapping(lambda index: stack.extract(pixels, index), 5, key, stack, 4, 6)
    assert np.flatnonzero(within.any(axis=(0, 2))).tolist() == [4, 5, 6]


def test_the_surface_dice_of_a_line_against_its_neighbours_by_hand() -> None:
    one, other = np.zeros((7, 9), dtype=bool), np.zeros((7, 9), dtype=bool)
    one[1, 2:7] = True  # 5 pixels, all surface
    other[3, 2:7] = other[6, 2:7] = True  # 2 rows down: 2 mm away; and 5 rows down: 5 mm
    assert normalised_surface_dice(one, other, (1.0, 1.0), 2.0) == pytest.approx((5 + 5) / 15)
    assert normalised_surface_dice(one, other, (1.0, 1.0), 1.9) == 0.0
    assert normalised_surface_dice(one, other, (0.4, 1.0), 2.0) == 1.0

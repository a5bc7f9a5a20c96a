from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.benchmark.baselines import copied, ellipse, ellipsoid
from SegmentAnythingMedLib.benchmark.simulated_user import (
    JITTER,
    click_inside,
    corrective_click,
    jittered_box,
    seed_of,
    tight_box,
)
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry


@pytest.fixture
def stack() -> SliceGeometry:
    """Slices along J of a permuted, flipped, anisotropic grid of 11 x 7 x 9 voxels."""
    directions = np.array([[0, 1, 0], [0, 0, -1], [1, 0, 0]], dtype=float)
    return SliceGeometry(VolumeGeometry.from_spacing((11, 7, 9), (1.0, 4.0, 1.0), directions), Plane(1))


def test_an_ellipse_fills_its_box_and_leaves_the_corners_free() -> None:
    mask = ellipse((2.0, 1.0, 6.0, 9.0), (9, 11))
    assert tight_box(mask) == (2.0, 1.0, 6.0, 9.0)
    assert not mask[2, 1] and not mask[6, 9]
    assert mask.sum() == pytest.approx(np.pi / 4 * 5 * 9, rel=0.06)


def test_a_copied_mask_is_on_every_slice_of_the_extent_and_no_other(stack: SliceGeometry) -> None:
    mask = np.zeros(stack.shape, dtype=bool)
    mask[2:5, 3:6] = True
    volume = copied(mask, stack, 2, 4)
    assert [int(volume[:, j].sum()) for j in range(7)] == [0, 0, 9, 9, 9, 0, 0]


def test_an_ellipsoid_shrinks_towards_both_ends(stack: SliceGeometry) -> None:
    volume = ellipsoid((1.0, 1.0, 7.0, 9.0), 3, stack, 1, 5)
    areas = [int(volume[:, j].sum()) for j in range(7)]
    assert areas[0] == areas[6] == 0
    assert areas[1] == areas[5] < areas[2] == areas[4] < areas[3]


def test_a_jittered_box_stays_within_the_jitter_and_repeats_for_its_seed() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[30:50, 40:80] = True
    for number in range(50):
        box = jittered_box(mask, seed_of(f"structure {number}"))
        moves = [(30 - box[0]) / 20, (40 - box[1]) / 40, (box[2] - 49) / 20, (box[3] - 79) / 40]
        assert all(JITTER[0] <= move <= JITTER[1] for move in moves)
        assert box == jittered_box(mask, seed_of(f"structure {number}"))


@pytest.mark.parametrize("row", [0, 4, 9])
def test_the_box_of_a_single_row_is_never_empty_and_stays_inside(row: int) -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[row, 2:7] = True
    for seed in range(20):
        row0, column0, row1, column1 = jittered_box(mask, seed)
        assert 0 <= row0 < row1 <= 9 and 0 <= column0 < column1 <= 9


def test_a_click_lands_in_the_middle_of_the_largest_part() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[1:4, 1:4] = True
    mask[8:17, 8:17] = True
    assert click_inside(mask, (1.0, 1.0)) == (12, 12)


def test_a_click_keeps_away_from_the_slices_border() -> None:
    assert click_inside(np.ones((9, 9), dtype=bool), (1.0, 1.0)) == (4, 4)


def test_a_corrective_click_goes_to_the_largest_error_and_says_which_kind() -> None:
    truth, found = np.zeros((20, 20), dtype=bool), np.zeros((20, 20), dtype=bool)
    truth[5:14, 2:9] = True
    found[5:14, 2:6] = True
    found[5:10, 12:17] = True  # 25 pixels too many, 27 are missing
    assert corrective_click(found, truth, (1.0, 1.0)) == ((6, 7), True)
    found[5:14, 6] = True
    assert corrective_click(found, truth, (1.0, 1.0)) == ((7, 14), False)
    assert corrective_click(truth, truth, (1.0, 1.0)) is None

"""Numbers about masks, and the filter that follows their boxes."""

from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.memory.box_filter import BoxFilter
from SegmentAnythingMedLib.memory.outlines import box_mm, box_overlap, rivals

SPACING = (2.0, 0.5)


def mask(*blocks: tuple[slice, slice]) -> np.ndarray:
    """(8, 20) bool with some blocks filled."""
    filled = np.zeros((8, 20), dtype=bool)
    for block in blocks:
        filled[block] = True
    return filled


CHOSEN = np.s_[2:6, 4:8]


def test_a_box_has_the_outer_edges_of_the_mask_in_millimetres() -> None:
    assert box_mm(mask(CHOSEN), SPACING) == (4.0, 2.0, 12.0, 4.0)
    assert box_mm(mask(), SPACING) is None


def test_overlap_is_that_of_areas() -> None:
    assert box_overlap((0, 0, 2, 2), (0, 1, 2, 3)) == pytest.approx(1 / 3)
    assert box_overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0


def test_a_rival_is_the_largest_piece_outside_the_chosen_mask() -> None:
    far, speck = np.s_[2:6, 12:16], np.s_[0:1, 19:20]
    masks = np.stack([mask(CHOSEN), mask(CHOSEN, far, speck)])
    assert rivals(masks, SPACING) == (pytest.approx(4 / 12),), "columns 4 to 8 of columns 4 to 16"


def test_a_mask_inside_the_chosen_one_is_no_rival() -> None:
    assert rivals(np.stack([mask(CHOSEN), mask(np.s_[3:5, 5:7]), mask()]), SPACING) == ()
    assert rivals(np.stack([mask(), mask(CHOSEN)]), SPACING) == ()


def test_the_filter_gives_what_the_published_one_gives() -> None:
    """Golden values of SAMURAI's filter (yangchris11/samurai, sam2/utils/kalman_filter.py)."""
    box = BoxFilter.at((20.0, 10.0, 60.0, 40.0))
    for seen in ((21.0, 12.0, 62.0, 42.0), (21.0, 15.0, 63.0, 44.0), (22.0, 17.0, 64.0, 47.0)):
        box = box.moved().corrected(seen)
    np.testing.assert_allclose(box.moved().box, (22.187666, 17.299595, 64.684624, 49.031405), atol=1e-5)


def test_the_filter_learns_the_speed() -> None:
    box = BoxFilter.at((0.0, 0.0, 10.0, 20.0))
    for step in range(1, 40):
        box = box.moved().corrected((0.0, 1.5 * step, 10.0, 20.0 + 1.5 * step))
    np.testing.assert_allclose(box.moved().box, (0.0, 60.0, 10.0, 80.0), atol=0.2)

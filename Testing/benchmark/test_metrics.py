from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.benchmark.metrics import Ends, dice, ends, normalised_surface_dice, surface


@pytest.fixture
def a_square() -> np.ndarray:
    mask = np.zeros((12, 12), dtype=bool)
    mask[3:8, 3:8] = True
    return mask


def test_dice_of_a_square_and_its_neighbour_is_four_fifths(a_square: np.ndarray) -> None:
    assert dice(a_square, np.roll(a_square, 1, axis=1)) == pytest.approx(2 * 20 / 50)


def test_surface_of_a_five_pixel_square_is_its_rim(a_square: np.ndarray) -> None:
    assert surface(a_square).sum() == 16


def test_a_mask_that_fills_the_array_has_its_surface_at_the_border() -> None:
    assert surface(np.ones((4, 4), dtype=bool)).sum() == 12


def test_surface_dice_of_equal_masks_is_one_without_tolerance(a_square: np.ndarray) -> None:
    assert normalised_surface_dice(a_square, a_square, (1.0, 1.0), 0.0) == 1.0


def test_surface_dice_of_a_shift_counts_the_rim_pixels_that_coincide(a_square: np.ndarray) -> None:
    # Shifted by a pixel to the right, the rims share the upper and lower edges without one end: 2 x 4 of 16 pixels.
    shifted = np.roll(a_square, 1, axis=1)
    assert normalised_surface_dice(a_square, shifted, (1.0, 1.0), 0.0) == pytest.approx(8 / 16)
    assert normalised_surface_dice(a_square, shifted, (1.0, 1.0), 1.0) == 1.0


def test_surface_dice_measures_millimetres_along_each_axis(a_square: np.ndarray) -> None:
    across, along = np.roll(a_square, 1, axis=0), np.roll(a_square, 1, axis=1)
    assert normalised_surface_dice(a_square, along, (5.0, 1.0), 1.0) == 1.0
    assert normalised_surface_dice(a_square, across, (5.0, 1.0), 1.0) < 1.0
    assert normalised_surface_dice(a_square, across, (5.0, 1.0), 5.0) == 1.0


def test_surface_dice_of_a_shifted_cube_works_in_three_dimensions() -> None:
    cube = np.zeros((9, 9, 9), dtype=bool)
    cube[2:6, 2:6, 2:6] = True
    assert normalised_surface_dice(cube, np.roll(cube, 2, axis=0), (3.0, 1.0, 1.0), 6.0) == 1.0
    assert normalised_surface_dice(cube, np.roll(cube, 2, axis=0), (3.0, 1.0, 1.0), 2.9) < 1.0


def test_surface_dice_with_one_empty_mask_is_zero_and_with_two_is_one(a_square: np.ndarray) -> None:
    nothing = np.zeros_like(a_square)
    assert normalised_surface_dice(a_square, nothing, (1.0, 1.0), 2.0) == 0.0
    assert normalised_surface_dice(nothing, nothing, (1.0, 1.0), 2.0) == 1.0


def test_over_run_and_early_stop_are_counted_at_each_end() -> None:
    true = np.array([0, 0, 0, 5, 6, 5, 0, 0])
    assert ends(np.array([0, 1, 1, 5, 6, 0, 0, 0]), true) == Ends((2, 0), (0, 1))


def test_an_object_cut_by_the_volumes_border_has_one_open_end() -> None:
    assert ends(np.array([5, 6, 5, 3, 0]), np.array([5, 6, 5, 0, 0])) == Ends((1,), (0, 0))


def test_nothing_found_is_an_early_stop_of_the_whole_extent() -> None:
    assert ends(np.zeros(5, int), np.array([0, 4, 4, 4, 0])) == Ends((), (3,))

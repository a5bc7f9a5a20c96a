"""Vessel trees: their skeleton as a graph, and the clicks on it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.models.base import SliceImage
from SegmentAnythingMedLib.rasterize import curve_mask
from SegmentAnythingMedLib.sources.skeleton import Skeleton, thinned
from SegmentAnythingMedLib.sources.source import Given, load_source

SHAPE = (120, 160)
FORKS = np.array([(60, 60), (30, 110), (75, 110)])
ENDS = np.array([(110, 20), (15, 150), (50, 140), (100, 150), (60, 150)])
TWIGS = (
    ([(110, 20), (60, 60), (30, 110), (15, 150)], 3),
    ([(60, 60), (75, 110), (100, 150)], 2),
    ([(75, 110), (60, 150)], 1),
    ([(30, 110), (50, 140)], 1),
)


@pytest.fixture
def tree() -> np.ndarray:
    """(120, 160) bool: three forks, five ends, seven branches, 3 to 7 pixels wide."""
    mask = np.zeros(SHAPE, bool)
    for curve, width in TWIGS:
        mask |= ndimage.binary_dilation(curve_mask(np.array(curve, float), SHAPE), iterations=width)
    return mask


def given_for(mask: np.ndarray | None, image: np.ndarray | None = None, spacing_mm: tuple = (1.0, 1.0, 1.0)) -> Given:
    shape = SHAPE if mask is None else mask.shape
    geometry = VolumeGeometry.from_spacing((*shape[::-1], 1), spacing_mm)
    slices = SliceGeometry(geometry, Plane(2))
    pixels = np.zeros((1, *shape), np.float32) if image is None else image[None].astype(np.float32)
    labels = None if mask is None else mask[None]
    return Given(slices, labels=labels, image=lambda index: SliceImage(pixels, slices.spacing_mm))


def imaged(mask: np.ndarray) -> np.ndarray:
    """What a scanner shows of it: bright, with noise."""
    return np.clip(np.where(mask, 0.7, 0.3) + np.random.default_rng(0).normal(0, 0.05, mask.shape), 0, 1)


def pixels_of(found: tuple) -> np.ndarray:
    return np.array([one.point_ijk[1::-1] for one in found])


def all_near(wanted: np.ndarray, found: np.ndarray, reach: float) -> bool:
    return bool((np.linalg.norm(wanted[:, None] - found[None], axis=-1).min(axis=1) <= reach).all())


def test_a_skeleton_line_is_one_pixel_wide(tree: np.ndarray) -> None:
    lines = thinned(tree)
    squares = lines[1:, 1:] & lines[1:, :-1] & lines[:-1, 1:] & lines[:-1, :-1]
    assert not squares.any() and (lines & ~tree).sum() == 0
    assert ndimage.label(lines, np.ones((3, 3)))[1] == ndimage.label(tree, np.ones((3, 3)))[1] == 1


def test_the_graph_has_the_tree_s_forks_ends_and_branches(tree: np.ndarray) -> None:
    skeleton = Skeleton.of_mask(tree, (1.0, 1.0))
    assert len(skeleton.forks) == 3 and len(skeleton.ends) == 5 and len(skeleton.branches) == 7
    assert all_near(FORKS, np.array(skeleton.forks), 6) and all_near(ENDS, np.array(skeleton.ends), 6)


def test_a_branch_is_as_long_as_the_vessel_in_millimetres() -> None:
    mask = np.zeros((9, 50), bool)
    mask[3:6, 2:48] = True
    (branch,) = Skeleton.of_mask(mask, (2.0, 0.5)).branches
    assert branch.length_mm == pytest.approx(0.5 * 43, abs=1.5)
    assert branch.middle[0] == 4 and abs(branch.middle[1] - 24) <= 2


def test_a_bump_is_no_branch_but_a_twig_is() -> None:
    mask = np.zeros((60, 80), bool)
    mask[30:37, 5:75] = True
    mask[26:30, 38:41] = True
    assert len(Skeleton.of_mask(mask, (1.0, 1.0), spur_mm=3.0).branches) == 1
    mask[8:30, 38:41] = True
    assert len(Skeleton.of_mask(mask, (1.0, 1.0), spur_mm=3.0).branches) == 3


def test_a_ring_with_a_tail_keeps_its_ring() -> None:
    rows, columns = np.indices((60, 60))
    radius = np.hypot(rows - 30, columns - 25)
    mask = (radius > 12) & (radius < 17)
    mask[29:32, 40:58] = True
    skeleton = Skeleton.of_mask(mask, (1.0, 1.0), spur_mm=3.0)
    assert len(skeleton.forks) == 1
    assert sorted(len(branch.joints) for branch in skeleton.branches) == [1, 2]


def test_clicks_come_on_forks_then_half_way_along_branches(tree: np.ndarray) -> None:
    found = pixels_of(load_source("vessel").prompts(given_for(tree)))
    assert len(found) == 10
    assert all_near(FORKS, found[:3], 6)
    assert all_near(np.array([(85, 40), (45, 85), (67, 85), (87, 130)]), found[3:], 8)
    assert all(tree[int(row), int(column)] for row, column in found)


def test_ends_are_clicked_on_request_and_nothing_is_too_close(tree: np.ndarray) -> None:
    found = pixels_of(load_source("vessel:ends=9,apart_mm=12").prompts(given_for(tree)))
    apart = np.linalg.norm(found[:, None] - found[None], axis=-1)[np.triu_indices(len(found), 1)]
    assert apart.min() >= 12 and len(found) > 10


def test_the_number_of_clicks_is_kept(tree: np.ndarray) -> None:
    assert len(load_source("vessel:forks=2,middles=3").prompts(given_for(tree))) == 5


@pytest.mark.parametrize("dark", [False, True])
def test_without_a_mask_the_vessels_are_found_on_the_image(tree: np.ndarray, dark: bool) -> None:
    image = imaged(tree)
    given = given_for(None, 1 - image if dark else image)
    found = pixels_of(load_source("vessel", dark=dark).prompts(given))
    assert all_near(FORKS, found, 8)
    on = np.array([ndimage.binary_dilation(tree)[int(row), int(column)] for row, column in found])
    assert on.mean() >= 0.9


def test_pixels_that_are_not_square_change_nothing_of_the_anatomy(tree: np.ndarray) -> None:
    flat = tree[::2]
    found = pixels_of(load_source("vessel:middles=0").prompts(given_for(flat, spacing_mm=(1.0, 2.0, 1.0))))
    assert len(found) == 3 and all_near(FORKS / (2, 1), found, 8)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_speck_gets_one_click(size: int) -> None:
    mask = np.zeros((9, 9), bool)
    mask[4 : 4 + size, 4 : 4 + size] = True
    (click,) = load_source("vessel").prompts(given_for(mask))
    assert mask[int(click.point_ijk[1]), int(click.point_ijk[0])]


def test_no_vessel_is_a_sentence() -> None:
    with pytest.raises(PromptError, match="shows no vessels: choose another slice or give a rough mask"):
        load_source("vessel").prompts(given_for(None, np.full(SHAPE, 0.4)))
    with pytest.raises(PromptError, match="The mask is empty"):
        load_source("vessel").prompts(given_for(np.zeros(SHAPE, bool)))

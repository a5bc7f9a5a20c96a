"""Rulers and RECIST pairs become boxes and clicks, and masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sources.standins import Scene, scene

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.prompts import slice_index
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.sources.source import Given, load_source

Line = tuple[tuple[float, float, float], tuple[float, float, float]]


def given_for(
    *lines: Line, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0), index: int | None = None
) -> Given:
    geometry = VolumeGeometry.from_spacing((60, 50, 9), spacing_mm)
    return Given(SliceGeometry(geometry, Plane(2)), index, lines_ijk=lines)


def box_of(given: Given, settings: str = "") -> np.ndarray:
    """(2, 2) corners (I, J)."""
    (box,) = load_source(f"ruler:points=0{settings}").prompts(given)
    return np.array(box.corners_ijk)[:, :2]


def test_a_level_line_gives_a_box_of_its_length_and_of_a_share_of_it() -> None:
    np.testing.assert_allclose(box_of(given_for(((10, 20, 4), (30, 20, 4)))), [(10, 12), (30, 28)])


def test_with_width_1_the_box_is_the_square_of_medsam2() -> None:
    np.testing.assert_allclose(
        box_of(given_for(((10, 30, 4), (24, 16, 4))), ",width=1"), [(7.1005, 13.1005), (26.8995, 32.8995)], atol=1e-3
    )


def test_the_short_axis_is_measured_in_millimetres() -> None:
    corners = box_of(given_for(((10, 20, 4), (30, 20, 4)), spacing_mm=(1.0, 2.0, 5.0)))
    np.testing.assert_allclose(corners, [(10, 16), (30, 24)])


def test_the_box_of_a_pair_holds_both_lines_and_the_ellipse_between() -> None:
    long, short = ((10, 10, 4), (40, 40, 4)), ((20, 32, 4), (30, 22, 4))
    for pair in ((long, short), (short, long)):
        corners = box_of(given_for(*pair))
        assert (corners[0] <= 10).all() and (corners[1] >= 40).all()
        assert (corners[0] > 8).all() and (corners[1] < 43).all()


def test_an_off_centre_short_axis_moves_the_box() -> None:
    corners = box_of(given_for(((10, 20, 4), (40, 20, 4)), ((20, 18, 4), (20, 30, 4))))
    np.testing.assert_allclose(corners, [(10, 18), (40, 30)])


def test_clicks_lie_evenly_on_the_line_clear_of_its_ends() -> None:
    found = load_source("ruler:box=no").prompts(given_for(((10, 20, 4), (30, 12, 4))))
    np.testing.assert_allclose([one.point_ijk for one in found], [(15, 18, 4), (20, 16, 4), (25, 14, 4)])
    assert all(one.positive for one in found)


def test_negative_clicks_lie_beyond_both_ends_unless_that_is_off_the_slice() -> None:
    *_, first, second = load_source("ruler:negative=yes").prompts(given_for(((20, 20, 4), (40, 20, 4))))
    assert (first.point_ijk, second.point_ijk) == ((15, 20, 4), (45, 20, 4)) and not first.positive
    found = load_source("ruler:negative=yes,box=no,points=0").prompts(given_for(((2, 20, 4), (42, 20, 4))))
    assert [one.point_ijk for one in found] == [(52, 20, 4)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([((10, 20, 4), (70, 20, 4))], r"outside the volume, at voxel \(70.0, 20.0, 4.0\) of 60 x 50 x 9: check"),
        ([((10, 20, 2), (30, 20, 6))], "not on one slice: it goes from 2.0 to 6.0.*Choose the plane"),
        ([((10, 20, 4), (10, 20, 4))], "has no length"),
        ([((10, 20, 4), (np.nan, 20, 4))], "two finite"),
        ([((10, 20), (30, 20))], "two finite"),
        ([((10, 20, 4), (30, 20, 4))] * 3, "one line or two"),
        ([], "give a line"),
    ],
)
def test_a_line_that_cannot_be_used_is_refused_with_a_sentence(lines: list[Line], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        load_source("ruler").prompts(given_for(*lines))


def test_a_line_on_another_slice_than_the_wanted_one_is_refused() -> None:
    with pytest.raises(PromptError, match="on slice 4, not on slice 5"):
        load_source("ruler").prompts(given_for(((10, 20, 4), (30, 20, 4)), index=5))


def test_a_source_that_is_switched_off_says_so() -> None:
    with pytest.raises(PromptError, match="switch on"):
        load_source("ruler:box=no,points=0").prompts(given_for(((10, 20, 4), (30, 20, 4))))


def test_a_line_drawn_on_an_oblique_view_is_on_its_slice() -> None:
    directions = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, -1.0]])
    geometry = VolumeGeometry.from_spacing((40, 36, 12), (1.0, 1.5, 4.0), directions, (5.0, -9.0, 30.0))
    slices = SliceGeometry(geometry, Plane.from_normal((0.3, -0.2, 1.0), geometry))
    middle = np.array(slices.shape) / 2
    ends = slices.ijk_from_pixels(slices.count // 2, np.array([middle - (4, 6), middle + (4, 6)]))
    given = Given(slices, lines_ijk=((tuple(ends[0]), tuple(ends[1])),))
    found = load_source("ruler").prompts(given)
    assert {slice_index(one, slices) for one in found} == {slices.count // 2}
    assert len(found) == 4


def recist(here: Scene, name: str, index: int) -> tuple[Line, Line]:
    """Longest diameter of an organ on a slice, and the longest line across it at a right angle, in mm."""
    step = np.asarray(here.slices.spacing_mm)
    at = np.argwhere(here.truth(name, index)) * step
    apart = np.linalg.norm(at[:, None] - at[None], axis=-1)
    first, second = np.unravel_index(int(np.argmax(apart)), apart.shape)
    along = (at[second] - at[first]) / apart.max()
    across = np.array([-along[1], along[0]])
    places, heights = np.rint(at @ along / step.min()), at @ across
    rows = {place: np.ptp(heights[places == place]) for place in np.unique(places)}
    best = places == max(rows, key=rows.get)
    ends = at[best][[np.argmin(heights[best]), np.argmax(heights[best])]]
    lines = [here.slices.ijk_from_pixels(index, np.stack(pair) / step) for pair in ((at[first], at[second]), ends)]
    long, short = (tuple(tuple(map(float, end)) for end in line) for line in lines)
    return long, short


@pytest.mark.parametrize(
    ("name", "one_line", "pair"),
    [("liver lesion", 0.85, 0.9), ("right kidney", 0.9, 0.9), ("gallbladder", 0.8, 0.8), ("left kidney", 0.9, 0.9)],
)
def test_a_measured_organ_becomes_a_mask(name: str, one_line: float, pair: float) -> None:
    here = scene()
    index = here.largest(name)
    truth = here.truth(name, index)
    long, short = recist(here, name, index)
    scores = [
        dice(here.answer(load_source("ruler").prompts(replace(here.given, lines_ijk=lines)), index), truth)
        for lines in ((long,), (long, short))
    ]
    assert scores[0] > one_line and scores[1] > pair

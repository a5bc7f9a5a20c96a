"""From a rough mask to a box and clicks, and to a better mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sources.standins import roughened, scene

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt, on_slice, slice_index
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.sources.source import Given, load_source


def given_for(mask: np.ndarray, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Given:
    geometry = VolumeGeometry.from_spacing(mask.shape[::-1], spacing_mm)
    return Given(SliceGeometry(geometry, Plane(2)), labels=mask)


@pytest.fixture
def an_l() -> np.ndarray:
    """(3, 40, 40) bool: on slice 1 a thick foot and a thin leg; slice 2 shows less."""
    mask = np.zeros((3, 40, 40), bool)
    mask[1, 5:30, 8:11] = True
    mask[1, 24:35, 8:30] = True
    mask[2, 5:30, 8:11] = True
    return mask


def test_the_click_is_the_centre_of_the_largest_disc_that_fits(an_l: np.ndarray) -> None:
    (click,) = load_source("rough_mask:box=no,points=1").prompts(given_for(an_l))
    assert click.positive and click.point_ijk[2] == 1.0
    assert click.point_ijk[1] == 29.0 and 13 <= click.point_ijk[0] <= 24


def test_the_disc_is_measured_in_millimetres() -> None:
    mask = np.zeros((1, 24, 60), bool)
    mask[0, 2:22, 5:11] = True  # 20 rows of 4 mm by 6 columns of 1 mm: 80 x 6 mm
    mask[0, 15:18, 11:51] = True  # 3 rows by 40 columns: 12 x 40 mm, thicker although of fewer rows
    (click,) = load_source("rough_mask:box=no,points=1").prompts(given_for(mask, (1.0, 4.0, 3.0)))
    assert click.point_ijk[1] == 16.0 and 11 <= click.point_ijk[0] <= 50


def test_the_box_goes_beyond_the_mask_by_the_margin(an_l: np.ndarray) -> None:
    (box,) = load_source("rough_mask:points=0,margin=0.1").prompts(given_for(an_l))
    np.testing.assert_allclose(box.corners_ijk, [(8 - 2.2, 5 - 3.0, 1), (29 + 2.2, 34 + 3.0, 1)])


def test_a_box_stays_within_the_slice() -> None:
    (box,) = load_source("rough_mask:points=0,margin=1").prompts(given_for(np.ones((1, 9, 7), bool)))
    np.testing.assert_allclose(box.corners_ijk, [(0, 0, 0), (6, 8, 0)])


def test_one_pixel_gives_a_box_that_is_not_empty() -> None:
    mask = np.zeros((2, 5, 5), bool)
    mask[0, 0, 4] = True
    given = given_for(mask)
    prompts = load_source("rough_mask:margin=0").prompts(given)
    assert [slice_index(one, given.slices) for one in prompts] == [0, 0]
    assert prompts[1].point_ijk == (4.0, 0.0, 0.0)


def test_an_empty_mask_is_refused_with_a_sentence() -> None:
    with pytest.raises(PromptError, match="The mask is empty: choose another one"):
        load_source("rough_mask").prompts(given_for(np.zeros((2, 5, 5), bool)))


def test_crumbs_beside_the_object_are_left_out_unless_wanted(an_l: np.ndarray) -> None:
    an_l[1, 1:3, 37:39] = True
    alone, all_parts = (
        load_source(f"rough_mask:points=0,margin=0,whole={whole}").prompts(given_for(an_l))[0]
        for whole in ("no", "yes")
    )
    assert alone.corners_ijk[1][0] == 29.0 and all_parts.corners_ijk[1][0] == 38.0


def test_further_clicks_are_no_neighbours(an_l: np.ndarray) -> None:
    found = load_source("rough_mask:box=no,points=3").prompts(given_for(an_l))
    at = np.array([one.point_ijk for one in found])
    apart = np.linalg.norm(at[:, None] - at[None], axis=-1)[np.triu_indices(len(at), 1)]
    assert len(found) == 3 and apart.min() > 5


def test_the_negative_click_is_in_the_empty_corner_of_the_box(an_l: np.ndarray) -> None:
    *_, click = load_source("rough_mask:negative=yes").prompts(given_for(an_l))
    i, j, _ = click.point_ijk
    assert not click.positive and i > 20 and j < 15


def test_prompts_on_several_slices_are_spread_over_the_mask() -> None:
    mask = np.zeros((30, 12, 12), bool)
    mask[4:25, 3:9, 3:9] = True
    mask[14, 2:10, 2:10] = True
    found = load_source("rough_mask:slices=3,points=0").prompts(given_for(mask))
    indices = [one.corners_ijk[0][2] for one in found]
    assert indices[0] == 14.0 and len(set(indices)) == 3
    assert min(indices) < 11 and max(indices) > 17


@pytest.mark.parametrize("normal", [(0.0, 0.5, 1.0), (0.4, -0.3, 1.0), (1.0, 1.0, 1.0)])
def test_every_prompt_of_an_oblique_slice_can_be_used(normal: tuple[float, float, float]) -> None:
    directions = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, -1.0]])
    geometry = VolumeGeometry.from_spacing((30, 26, 9), (1.0, 1.5, 4.0), directions)
    slices = SliceGeometry(geometry, Plane.from_normal(normal, geometry))
    mask = np.ones(geometry.shape_kji, bool)  # touches every face: its box leaves the volume
    found = load_source("rough_mask:margin=0.3,points=3,slices=5").prompts(Given(slices, labels=mask))
    for prompt in found:
        assert on_slice([prompt], slices, slice_index(prompt, slices)).is_empty is False
    assert {type(one) for one in found} == {BoxPrompt, PointPrompt}


ORGANS = (
    "liver", "spleen", "right kidney", "left kidney", "stomach", "spine", "gallbladder", "liver lesion", "aorta",
    "inferior vena cava",
)  # fmt: skip


@pytest.mark.parametrize(
    ("how", "settings", "gain"),
    [
        ("too small", "", 0.02),
        ("too large", "", 0.0),
        ("shifted", "", 0.03),
        ("too small", ":margin=0.08", 0.08),
        ("too large", ":margin=-0.05", 0.06),
    ],
)
def test_the_prompts_of_a_rough_mask_give_a_better_mask(how: str, settings: str, gain: float) -> None:
    here, before, after = scene(), [], []
    for organ in ORGANS:
        index = here.largest(organ)
        truth = here.truth(organ, index)
        rough = roughened(truth, how)
        labels = np.zeros(here.phantom.volume.geometry.shape_kji, bool)
        here.slices.paste(rough, index, labels)
        found = load_source(f"rough_mask{settings}").prompts(replace(here.given, labels=labels))
        before.append(dice(rough, truth))
        after.append(dice(here.answer(found, index), truth))
    assert np.mean(after) > np.mean(before) + gain

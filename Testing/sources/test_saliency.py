"""What stands out on a slice, and the click on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sources.standins import scene

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.models.base import SliceImage
from SegmentAnythingMedLib.sources.saliency import foreground
from SegmentAnythingMedLib.sources.source import Given, load_source


@pytest.fixture
def a_body() -> np.ndarray:
    """(80, 100) float: black air, a grey body, a bright spot at (30, 35) and a fainter, wider one at (50, 65)."""
    rows, columns = np.indices((80, 100))
    image = np.where(np.hypot((rows - 40) / 34, (columns - 50) / 44) < 1, 0.4, 0.0)
    image[np.hypot(rows - 30, columns - 35) < 4] = 0.8
    image[np.hypot(rows - 50, columns - 65) < 6] = 0.6
    return image


def given_for(image: np.ndarray, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0), count: int = 1) -> Given:
    geometry = VolumeGeometry.from_spacing((*image.shape[::-1], count), spacing_mm)
    slices = SliceGeometry(geometry, Plane(2))
    return Given(slices, image=lambda index: SliceImage(image[None].astype(np.float32), slices.spacing_mm))


@pytest.mark.parametrize(("rank", "where"), [(1, (30, 35)), (2, (50, 65))])
def test_the_click_is_on_what_stands_out_and_not_on_the_skin(
    a_body: np.ndarray, rank: int, where: tuple[int, int]
) -> None:
    (click,) = load_source("saliency", rank=rank).prompts(given_for(a_body))
    assert np.hypot(click.point_ijk[1] - where[0], click.point_ijk[0] - where[1]) <= 2


def test_a_dark_thing_stands_out_like_a_bright_one(a_body: np.ndarray) -> None:
    rows, columns = np.indices(a_body.shape)
    a_body[np.hypot(rows - 30, columns - 35) < 4] = 0.05
    (click,) = load_source("saliency").prompts(given_for(a_body))
    assert np.hypot(click.point_ijk[1] - 30, click.point_ijk[0] - 35) <= 2


def test_the_box_is_about_the_thing(a_body: np.ndarray) -> None:
    box, click = load_source("saliency:box=yes").prompts(given_for(a_body))
    (left, top, _), (right, bottom, _) = box.corners_ijk
    assert left < click.point_ijk[0] < right and top < click.point_ijk[1] < bottom
    assert right - left < 16 and bottom - top < 16


def test_sizes_are_in_millimetres(a_body: np.ndarray) -> None:
    (click,) = load_source("saliency").prompts(given_for(a_body[::2], (1.0, 2.0, 1.0)))
    assert np.hypot(2 * click.point_ijk[1] - 30, click.point_ijk[0] - 35) <= 3


def test_what_is_clipped_to_white_can_be_left_out(a_body: np.ndarray) -> None:
    rows, columns = np.indices(a_body.shape)
    a_body[np.hypot(rows - 30, columns - 35) < 4] = 1.0
    (click,) = load_source("saliency:white=no").prompts(given_for(a_body))
    assert np.hypot(click.point_ijk[1] - 50, click.point_ijk[0] - 65) <= 2


def test_black_inside_the_body_is_foreground(a_body: np.ndarray) -> None:
    a_body[38:42, 48:52] = 0.0
    inside = foreground(a_body)
    assert inside[40, 50] and not inside[0, 0] and foreground(np.zeros((5, 5))).all()


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_slice_that_shows_nothing_is_refused_with_a_sentence(value: float) -> None:
    with pytest.raises(PromptError, match="no 1 things that stand out: choose"):
        load_source("saliency").prompts(given_for(np.full((20, 30), value)))


def test_the_slice_must_be_named_where_there_are_many(a_body: np.ndarray) -> None:
    given = given_for(a_body, count=5)
    with pytest.raises(PromptError, match="which of the 5 slices along K"):
        load_source("saliency").prompts(given)
    assert load_source("saliency").prompts(replace(given, index=3))[0].point_ijk[2] == 3.0


def test_in_pet_the_first_clicks_are_on_kidneys_and_the_urine_that_leaves_them() -> None:
    here = scene("PET", 3.2)
    index = here.largest("left kidney")
    kidneys = [here.truth(f"{side} kidney", index) for side in ("left", "right")]
    nearest = []
    for rank in (1, 2):
        (click,) = load_source("saliency", rank=rank).prompts(replace(here.given, index=index))
        _, pixel = here.slices.pixels_from_ijk(np.array(click.point_ijk))
        ways = [(np.argwhere(kidney) - pixel) * here.slices.spacing_mm for kidney in kidneys]
        nearest.append([np.linalg.norm(way, axis=1).min() for way in ways])
    assert (np.min(nearest, axis=0) < 10).all()

"""What every source has in common: names, settings, what is missing, and which slice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import GeometryError, PromptError, SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.memory.settings import settings_of
from SegmentAnythingMedLib.sources.source import Given, Need, load_source, source_class, source_names

FIRST = {"rough_mask", "ruler", "vessel", "saliency", "everything"}


@pytest.fixture
def slices() -> SliceGeometry:
    geometry = VolumeGeometry.from_spacing((20, 16, 6), (1.0, 2.0, 3.0))
    return SliceGeometry(geometry, Plane(2))


def test_the_sources_are_found_by_their_files() -> None:
    assert set(source_names()) >= FIRST
    assert not {"source", "clicks", "skeleton", "command", "options"} & set(source_names())


@pytest.mark.parametrize("name", sorted(FIRST))
def test_every_source_says_what_it_does_and_what_it_needs(name: str) -> None:
    source = source_class(name)
    assert source.name == name and source.sentence.endswith(".") and len(source.sentence) < 100
    assert all(isinstance(need, Need) for need in source.needs)
    assert settings_of(source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magic", "'magic' is not known: use one of .*ruler"),
        ("skeleton", "is not known"),
        ("ruler:points=99", "Prompt source ruler: points must be a whole number from 0 to 9, got '99'"),
        ("ruler:speed=1", "Prompt source ruler has no setting 'speed'"),
        ("ruler:points", "Prompt source 'ruler:points'"),
    ],
)
def test_wrong_names_and_settings_are_refused_with_what_there_is(text: str, message: str) -> None:
    with pytest.raises(SegmentAnythingMedError, match=message):
        load_source(text)


def test_settings_are_checked_in_code_as_in_text() -> None:
    assert load_source("ruler:points=5").points == 5
    with pytest.raises(SegmentAnythingMedError, match="from 0 to 9"):
        source_class("ruler")(points=10)


@pytest.mark.parametrize("name", sorted(FIRST))
def test_a_source_without_what_it_needs_says_what_to_give(name: str, slices: SliceGeometry) -> None:
    with pytest.raises(PromptError, match=rf"'{name}' lacks something: (give|choose)"):
        load_source(name).prompts(Given(slices))


def test_a_mask_of_another_grid_is_refused(slices: SliceGeometry) -> None:
    given = Given(slices, labels=np.ones((6, 16, 19), bool))
    with pytest.raises(GeometryError, match="the volume's own grid"):
        load_source("rough_mask").prompts(given)


def test_a_mask_of_the_slice_alone_does_where_the_slice_is_given(slices: SliceGeometry) -> None:
    labels = np.zeros((6, 16, 20), bool)
    labels[3, 4:11, 5:15] = True
    source = load_source("rough_mask")
    assert source.prompts(Given(slices, 3, labels[3])) == source.prompts(Given(slices, 3, labels))
    with pytest.raises(PromptError, match="say which slice it is"):
        source.prompts(Given(slices, labels=labels[3]))
    with pytest.raises(GeometryError, match="20 x 16 pixels, the slices 16 x 20"):
        source.prompts(Given(slices, 3, labels[3].T))


def test_a_slice_that_does_not_exist_is_refused(slices: SliceGeometry) -> None:
    with pytest.raises(GeometryError, match="Slice 6 does not exist"):
        load_source("rough_mask").prompts(Given(slices, 6, np.ones((6, 16, 20), bool)))


def test_the_wanted_label_is_taken_where_there_are_several(slices: SliceGeometry) -> None:
    labels = np.zeros((6, 16, 20), np.uint8)
    labels[1, 2:5, 2:5], labels[4, 6:12, 6:12] = 1, 2
    assert Given(slices, labels=labels).largest_slice() == 4
    assert Given(slices, labels=labels, label=1).largest_slice() == 1
    with pytest.raises(PromptError, match="Label 3 is empty"):
        Given(slices, labels=labels, label=3).largest_slice()
    with pytest.raises(PromptError, match="Label 1 is not on slice 4"):
        Given(slices, 4, labels, 1).largest_slice()


def test_a_mask_on_an_oblique_slice_ends_with_the_volume(slices: SliceGeometry) -> None:
    plane = Plane.from_normal((0.0, 0.4, 1.0), slices.volume)
    oblique = SliceGeometry(slices.volume, plane)
    given = Given(oblique, labels=np.ones(slices.volume.shape_kji, bool))
    mask = given.mask_on(oblique.count - 3)
    assert mask.any() and not mask.all()


def test_importing_sources_loads_nothing_heavy() -> None:
    script = (
        "import sys; import SegmentAnythingMedLib.sources.source as s; s.source_names(); "
        "print(sorted({n.partition('.')[0] for n in sys.modules} & {'scipy', 'torch', 'SimpleITK', 'matplotlib'}))"
    )
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

"""The row that suggests prompts, without a toolkit: its words, what it offers, and that pressing does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import slicer
from mrml.controlling import Driver, drivers, point, view_on
from mrml.host import MrmlHost

from SegmentAnythingMedLib.panel.actions import BY_NAME, perform
from SegmentAnythingMedLib.panel.content import content_of
from SegmentAnythingMedLib.panel.suggestions import KINDS
from SegmentAnythingMedLib.sources.source import source_names
from SegmentAnythingMedLib.worker.suggest_messages import SOURCES


@pytest.fixture
def driver(host: MrmlHost, tmp_path: Path, a_volume: slicer.vtkMRMLScalarVolumeNode) -> Iterator[Driver]:
    for make in drivers(host, tmp_path):
        made = make()
        made.controller.set_volume(a_volume)
        yield made


def test_the_row_has_words_for_just_the_sources_that_the_worker_takes() -> None:
    assert tuple(kind.source for kind in KINDS) == SOURCES and set(SOURCES) <= set(source_names())
    assert len({kind.label for kind in KINDS} | {BY_NAME["from-segment"].label}) == len(KINDS) + 1
    assert all(kind.tip.endswith(".") for kind in KINDS)


def test_suggesting_is_allowed_only_with_something_to_give(driver: Driver) -> None:
    driver.controller.choose_suggestion("rough_mask")
    content = content_of(driver.controller)
    assert [one.label for one in content.suggestion.shown] == ["No segment yet"]
    assert "suggest" not in content.allowed and not content.suggestion.is_choice
    driver.controller.set_segment("Organ")
    driver.controller.choose_suggestion("rough_mask")
    content = content_of(driver.controller)
    assert [one.label for one in content.suggestion.shown] == ["Organ"] and content.suggestion.is_choice
    assert "suggest" in content.allowed
    driver.controller.choose_suggestion("vessel")
    assert [one.label for one in content_of(driver.controller).suggestion.shown] == ["Whole slice", "Organ"]


def test_an_unknown_source_is_refused_in_words(driver: Driver) -> None:
    driver.controller.choose_suggestion("everything")
    assert "'everything' is not known: use one of rough_mask" in content_of(driver.controller).status
    assert content_of(driver.controller).suggestion.kind is KINDS[0]


def test_pressing_suggest_adds_to_the_users_own_prompts(
    driver: Driver, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    view = view_on(host, a_volume, 6)
    driver.controller.add_prompt(point(4, 4))
    driver.settle()
    driver.controller.choose_suggestion("saliency")
    assert perform("suggest", driver.controller, view)
    assert content_of(driver.controller).status == "Looking for prompts."
    driver.settle()
    assert len(driver.controller.markups.records()) == 2
    assert {"undo-prompt", "clear", "propagate-both"} <= content_of(driver.controller).allowed

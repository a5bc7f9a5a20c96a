"""Every transition of the controller's states, and the marks of the review strip."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from SegmentAnythingMedLib.geometry import Plane, SliceKey
from SegmentAnythingMedLib.mrml.controller_review import Review, weak_quality
from SegmentAnythingMedLib.mrml.controller_states import TRANSITIONS, Signal, State, next_state
from SegmentAnythingMedLib.worker.messages import SliceMask

AXIAL = Plane(2)
S, G = State, Signal

EXPECTED = {
    S.IDLE: {G.OPENED: S.PROMPTING, G.CLOSED: S.IDLE, G.INSTALL: S.INSTALLING},
    S.INSTALLING: {G.OPENED: S.INSTALLING, G.CLOSED: S.IDLE, G.INSTALLED: S.PROMPTING, G.FAILED: S.FAILED},
    S.PROMPTING: {
        G.OPENED: S.PROMPTING, G.CLOSED: S.IDLE, G.INSTALL: S.INSTALLING, G.OUTLINE: S.SEGMENTING,
        G.PROPAGATE: S.PROPAGATING, G.SETTLED: S.PROMPTING, G.FAILED: S.FAILED,
    },
    S.SEGMENTING: {
        G.OPENED: S.PROMPTING, G.CLOSED: S.IDLE, G.PROPAGATE: S.PROPAGATING, G.ENDED: S.PROMPTING,
        G.REVIEWABLE: S.REVIEWING, G.FAILED: S.FAILED,
    },
    S.PROPAGATING: {
        G.OPENED: S.PROMPTING, G.CLOSED: S.IDLE, G.ENDED: S.PROMPTING, G.REVIEWABLE: S.REVIEWING, G.FAILED: S.FAILED,
    },
    S.REVIEWING: {
        G.OPENED: S.PROMPTING, G.CLOSED: S.IDLE, G.INSTALL: S.INSTALLING, G.OUTLINE: S.SEGMENTING,
        G.PROPAGATE: S.PROPAGATING, G.SETTLED: S.PROMPTING, G.FAILED: S.FAILED,
    },
    S.FAILED: {
        G.OPENED: S.PROMPTING, G.CLOSED: S.IDLE, G.INSTALL: S.INSTALLING, G.RECOVERED: S.PROMPTING, G.FAILED: S.FAILED,
    },
}  # fmt: skip


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("signal", Signal)
def test_each_signal_leads_from_each_state_where_the_table_says(state: State, signal: Signal) -> None:
    assert next_state(state, signal) is EXPECTED[state].get(signal, state)
    assert ((state, signal) in TRANSITIONS) == (signal in EXPECTED[state])


def a_slice(index: int, size: int = 4, **fields: object) -> SliceMask:
    mask = np.zeros((6, 6), bool)
    mask[:size, :size] = True
    numbers = {"quality": 0.9, "presence": 5.0, "overlap": 0.9, "done": index, "total": 9} | fields
    return SliceMask(1, 1, SliceKey("volume", 0, AXIAL, index), mask, 1, **numbers)


@pytest.fixture
def review() -> Review:
    made = Review()
    for index in range(1, 8):
        made.note(a_slice(index))
    return made


@pytest.mark.parametrize("doubt", [{"quality": 0.6}, {"overlap": 0.6}, {"presence": -1.0}])
def test_a_slice_with_low_quality_overlap_or_presence_is_weak(review: Review, doubt: dict[str, float]) -> None:
    assert review.weak(AXIAL) == ()
    review.note(a_slice(3, **doubt))
    assert review.weak(AXIAL) == (3,)
    review.confirm(AXIAL, 3)
    assert review.weak(AXIAL) == ()
    assert [item.index for item in review.strip(AXIAL) if item.confirmed] == [3]


def test_a_model_that_says_what_to_expect_is_weak_below_less(review: Review) -> None:
    assert weak_quality("embedded") < 0.6 < weak_quality("sam2.1-tiny") == weak_quality("classic")
    review.note(a_slice(3, quality=0.6), weak_quality("embedded"))
    assert review.weak(AXIAL) == ()
    review.note(a_slice(3, quality=0.5), weak_quality("embedded"))
    assert review.weak(AXIAL) == (3,)
    assert [item.limit for item in review.strip(AXIAL)][1:4] == [0.7, weak_quality("embedded"), 0.7]


def test_what_the_user_prompted_is_not_weak_and_a_gap_is(review: Review) -> None:
    review.note(a_slice(3, quality=0.2, prompted=True))
    review.note(a_slice(5, size=0, presence=-9.0))
    review.note(a_slice(8, size=0, presence=-9.0))
    assert review.weak(AXIAL) == (5,)
    assert [item.index for item in review.strip(AXIAL) if item.is_empty] == [5, 8]


def test_a_slice_that_was_emptied_again_leaves_the_strip(review: Review) -> None:
    review.note(dataclasses.replace(a_slice(7, size=0), cleared=True))
    assert [item.index for item in review.strip(AXIAL)] == [1, 2, 3, 4, 5, 6]
    assert review.strip(Plane(1)) == ()

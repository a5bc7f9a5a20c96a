"""Who goes first in the worker, and what a newer command makes superfluous."""

from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.mailbox import Lane, Mailbox
from Testing.worker.conftest import AXIAL, box


def click(job: int, index: int = 3) -> m.SegmentSlice:
    return m.SegmentSlice(job, 1, job, AXIAL, index)


@pytest.fixture
def a_mailbox() -> Mailbox:
    return Mailbox()


def test_clicks_overtake_propagations_and_those_overtake_prefetching(a_mailbox: Mailbox) -> None:
    for command in (m.Prefetch(1, AXIAL, 3, 2), m.Propagate(2, AXIAL), click(3)):
        assert a_mailbox.put(command) == []
    assert [a_mailbox.wait().job for _ in range(3)] == [3, 2, 1]


def test_prompts_and_their_outlines_keep_their_order(a_mailbox: Mailbox) -> None:
    a_mailbox.put(m.AddPrompts(1, 1, 1, (box(),)))
    a_mailbox.put(click(2))
    a_mailbox.put(m.AddPrompts(3, 1, 2, (box(),)))
    assert a_mailbox.put(click(4)) == [(2, "replaced")]
    assert [a_mailbox.wait().job for _ in range(3)] == [1, 3, 4]


def test_an_outline_that_was_built_upon_is_not_replaced(a_mailbox: Mailbox) -> None:
    for later in (m.ChooseCandidate(2, 1, 1, AXIAL, 3, 1), m.Undo(2, 1, 1), m.Ping(2)):
        a_mailbox.put(click(1))
        a_mailbox.put(later)
        assert a_mailbox.put(click(3)) == []
        assert [a_mailbox.wait().job for _ in range(3)] == [1, 2, 3]


def test_outlines_of_other_slices_and_objects_stay(a_mailbox: Mailbox) -> None:
    a_mailbox.put(click(1, index=3))
    a_mailbox.put(m.SegmentSlice(2, 2, 1, AXIAL, 4))
    assert a_mailbox.put(click(3, index=4)) == []


def test_a_newer_prefetch_ends_the_waiting_and_the_running_one(a_mailbox: Mailbox) -> None:
    a_mailbox.put(m.Prefetch(1, AXIAL, 3, 2))
    running = a_mailbox.wait()
    a_mailbox.put(m.Prefetch(2, AXIAL, 4, 2))
    assert a_mailbox.put(m.Prefetch(3, AXIAL, 5, 2)) == [(2, "replaced")]
    assert a_mailbox.cancelled(running.job) == "replaced"


def test_a_new_session_ends_what_runs_in_the_old_one(a_mailbox: Mailbox) -> None:
    a_mailbox.put(m.Propagate(1, AXIAL))
    running = a_mailbox.wait()
    a_mailbox.put(m.Propagate(2, AXIAL))
    assert [job for job, _ in a_mailbox.put(m.LoadModel(3, "x", "cpu", {}))] == [2]
    assert a_mailbox.cancelled(running.job)
    assert a_mailbox.more_urgent(Lane.PROPAGATION).job == 3


def test_cancelling_takes_out_what_waits_and_marks_what_runs(a_mailbox: Mailbox) -> None:
    a_mailbox.put(m.Propagate(1, AXIAL))
    a_mailbox.put(m.Propagate(2, AXIAL))
    running = a_mailbox.wait()
    assert a_mailbox.cancel(2)
    assert not a_mailbox.cancel(running.job)
    assert a_mailbox.cancelled(running.job) == "cancelled"
    a_mailbox.finished(running.job)
    assert a_mailbox.cancelled(running.job) is None
    assert not a_mailbox.cancel(77)
    assert a_mailbox.cancelled(77) is None


def test_commands_that_hold_arrays_can_be_cancelled_and_replaced(a_mailbox: Mailbox) -> None:
    for job in (1, 2):
        a_mailbox.put(m.ConfirmSlice(job, 1, 1, AXIAL, 3, np.ones((4, 4), dtype=bool)))
    assert a_mailbox.cancel(2)
    assert a_mailbox.wait().job == 1


def test_a_closed_mailbox_wakes_the_inference_thread_for_good(a_mailbox: Mailbox) -> None:
    a_mailbox.put(m.Propagate(1, AXIAL))
    a_mailbox.close()
    assert a_mailbox.wait() is None

"""What is said again to a new worker."""

from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.geometry import SliceKey
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.journal import Journal
from SegmentAnythingMedLib.worker.transport import receive
from Testing.worker.conftest import AXIAL, box, point


class Frames:
    def __init__(self, frames: bytes) -> None:
        self._left = frames

    def read(self, size: int, /) -> bytes:
        got, self._left = self._left[:size], self._left[size:]
        return got


def said(journal: Journal) -> list[m.Message]:
    stream, got = Frames(b"".join(journal.frames(with_model=True, ping=99)(lambda: None))), []
    while (message := receive(stream, m.COMMANDS)) is not None:
        got.append(message)
    return got


def kinds(journal: Journal) -> list[str]:
    return [type(message).__name__ for message in said(journal) if message.job]


@pytest.fixture
def a_journal() -> Journal:
    journal = Journal()
    journal.load_model(m.LoadModel(1, "fake", "cpu", {}))
    journal.open_session(m.OpenSession(2, "auto"))
    return journal


def test_commands_are_said_again_in_order(a_journal: Journal) -> None:
    a_journal.note(m.AddPrompts(3, 1, 1, (box(),)))
    a_journal.note(m.SegmentSlice(4, 1, 2, AXIAL, 12))
    a_journal.note(m.ConfirmSlice(5, 1, 3, AXIAL, 12, np.ones((4, 4), dtype=bool)))
    assert kinds(a_journal) == ["LoadModel", "OpenSession", "AddPrompts", "SegmentSlice", "ConfirmSlice", "Ping"]


def test_what_failed_or_belongs_to_a_removed_object_is_not_said_again(a_journal: Journal) -> None:
    a_journal.note(m.AddPrompts(3, 1, 1, (box(),)))
    a_journal.note(m.AddPrompts(4, 2, 1, (box(),)))
    a_journal.note(m.AddPrompts(5, 2, 2, (box(),)))
    a_journal.forget(5)
    a_journal.note(m.RemoveObject(6, 1, 2))
    assert [message.job for message in said(a_journal)] == [1, 2, 4, 99]


def test_a_dragged_point_leaves_one_step_behind(a_journal: Journal) -> None:
    for step in range(50):
        a_journal.note(m.SetPrompts(10 + 2 * step, 1, 2 * step, (point(5 + step / 10, 5),)))
        a_journal.note(m.SegmentSlice(11 + 2 * step, 1, 2 * step + 1, AXIAL, 12))
    assert [message.job for message in said(a_journal) if isinstance(message, m.ObjectCommand)] == [108, 109]


def test_refining_clicks_keep_every_step(a_journal: Journal) -> None:
    for step in range(5):
        a_journal.note(m.SetPrompts(10 + 2 * step, 1, 1, tuple(point(5 + n, 5) for n in range(step + 1))))
        a_journal.note(m.SegmentSlice(11 + 2 * step, 1, 1, AXIAL, 12))
    assert kinds(a_journal).count("SegmentSlice") == 5


def test_only_tracked_slices_that_still_hold_are_restored(a_journal: Journal) -> None:
    mask, empty = np.eye(9, dtype=bool), np.zeros((9, 9), dtype=bool)
    for index in (3, 4):
        a_journal.received(m.SliceMask(5, 1, SliceKey("v", 0, AXIAL, index), mask, 1, 0.9), tracked=True)
    beyond = m.SliceMask(6, 1, SliceKey("v", 0, AXIAL, 4), empty, 1, cleared=True)
    a_journal.received(beyond, tracked=True)
    a_journal.received(m.SliceMask(7, 1, SliceKey("v", 0, AXIAL, 5), mask, 1, 0.9), tracked=False)
    restored = [message for message in said(a_journal) if isinstance(message, m.RestoreSlice)]
    assert [message.index for message in restored] == [3]
    np.testing.assert_array_equal(restored[0].mask, mask)


def test_the_box_holds_what_differs_from_the_last_time(a_journal: Journal) -> None:
    before, after = np.zeros((9, 9), dtype=bool), np.zeros((9, 9), dtype=bool)
    after[2:4, 5:8] = True
    masks = [m.SliceMask(5, 1, SliceKey("v", 0, AXIAL, 3), mask, 1) for mask in (before, after, after)]
    assert [a_journal.received(event, tracked=False) for event in masks] == [None, (2, 5, 4, 8), (0, 0, 0, 0)]

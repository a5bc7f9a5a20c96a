from __future__ import annotations

from dataclasses import dataclass

import pytest

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.memory.bank import MemoryBank, MemoryEntry
from SegmentAnythingMedLib.memory.policy import PolicyContext, Selection, load_policy, policy_names


@dataclass(frozen=True)
class Bytes:
    nbytes: int = 10


def entry(index: int, prompted: bool = False) -> MemoryEntry:
    return MemoryEntry(index, Bytes(), prompted)


def context(index: int, direction: int = 1, count: int = 100) -> PolicyContext:
    return PolicyContext(index, direction, count)


def test_recent_attends_to_all_key_slices_and_the_last_six() -> None:
    entries = [entry(50, True), entry(90, True), *map(entry, range(51, 70))]
    selection = load_policy("recent").select(entries, context(70))
    assert selection.memories == (50, 90, 64, 65, 66, 67, 68, 69)
    assert selection.slots == (0, 0, 6, 5, 4, 3, 2, 1)


def test_recent_takes_pointers_of_passed_key_slices_and_the_last_fifteen() -> None:
    entries = [entry(50, True), entry(90, True), *map(entry, range(51, 70))]
    selection = load_policy("recent").select(entries, context(70))
    assert selection.pointers == (50, *range(69, 54, -1))
    assert selection.pointer_span == 15


def test_recent_looks_the_other_way_when_going_backward() -> None:
    entries = [entry(50, True), entry(20, True), *map(entry, range(40, 50))]
    selection = load_policy("recent").select(entries, context(39, direction=-1))
    assert selection.memories == (20, 50, 45, 44, 43, 42, 41, 40)
    assert selection.pointers[0] == 50 and 20 not in selection.pointers


def test_recent_slots_are_distances_so_a_key_slice_leaves_a_gap() -> None:
    entries = [entry(10, True), entry(12), entry(13)]
    assert load_policy("recent").select(entries, context(15)) == Selection((10, 12, 13), (0, 3, 2), (10, 13, 12), 15)


def test_pointer_time_is_normalised_by_a_short_volume() -> None:
    assert load_policy("recent").select([entry(0, True)], context(1, count=6)).pointer_span == 5


def test_a_bank_forgets_the_oldest_tracked_slice_but_no_key_slice() -> None:
    bank = MemoryBank({3: entry(3, True)}, capacity=2)
    for index in (4, 5, 6):
        bank.remember(entry(index))
    assert [kept.index for kept in bank] == [3, 5, 6] and bank.nbytes == 30


def test_a_correction_replaces_what_was_tracked_on_its_slice() -> None:
    bank = MemoryBank(capacity=9)
    bank.remember(entry(4))
    bank.remember(entry(4, True))
    assert [(kept.index, kept.prompted) for kept in bank] == [(4, True)]


def test_a_slice_never_recalls_itself() -> None:
    bank = MemoryBank({7: entry(7, True)})
    assert bank.recall(load_policy("recent"), context(7)).is_empty


def test_recalled_distances_count_in_tracking_direction() -> None:
    bank = MemoryBank({7: entry(7, True), 1: entry(1, True)})
    recalled = bank.recall(load_policy("recent"), context(5, direction=-1)).memories
    assert [memory.distance for memory in recalled] == [-4, 2]


def test_an_unknown_policy_lists_the_known_ones() -> None:
    assert "recent" in policy_names()
    with pytest.raises(SegmentAnythingMedError, match="recent"):
        load_policy("fifo")

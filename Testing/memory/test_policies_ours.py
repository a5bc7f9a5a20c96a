"""Approximations of published rules, and our own, on written-out stories."""

from __future__ import annotations

import numpy as np
from memory.scripted import Story

from SegmentAnythingMedLib.memory.bank import MemoryBank
from SegmentAnythingMedLib.memory.policy import load_policy

# diverse


def test_the_candidate_least_like_the_newest_long_term_memory_joins() -> None:
    story = Story("diverse:buffer=5")
    for index, degrees in zip(range(1, 6), (10, 20, 80, 30, 40), strict=True):
        story.track(index, degrees=degrees)
    assert story.notes.long_term == (3,) and story.notes.candidates == ()
    for index, degrees in zip(range(6, 11), (80, 85, 75, 0, 60), strict=True):
        story.track(index, degrees=degrees)
    assert story.notes.long_term == (3, 9), "compared with slice 3, no longer with the key slice"
    for index, degrees in zip(range(11, 16), (0, 10, 85, 20, 30), strict=True):
        story.track(index, degrees=degrees)
    assert story.notes.long_term == (9, 13), "compared with slice 9"


def test_long_term_memories_take_the_oldest_slot_and_the_newest_slices_the_rest() -> None:
    story = Story("diverse:buffer=5").track(1, 2).track(3, degrees=90).track(4, 5).track(*range(6, 10))
    assert story.notes.long_term == (3,)
    assert story.recalled(10) == [(0, 0), (3, 6), (5, 5), (6, 4), (7, 3), (8, 2), (9, 1)]


def test_duplicates_take_one_place_and_the_oldest_long_term_memory_leaves() -> None:
    story = Story("diverse:buffer=4,long_term=2").track(*range(1, 13))
    assert story.notes.long_term == (5, 9)


def test_slices_of_low_quality_or_without_the_object_are_no_candidates() -> None:
    story = Story("diverse:buffer=3").track(1, quality=0.5).track(2, presence=-1.0).track(3, 4)
    assert story.notes.candidates == (3, 4)


# occlusion_aware


def test_an_occlusion_freezes_the_last_two_good_slices() -> None:
    story = Story("occlusion_aware").track(*range(1, 21)).track(*range(21, 25), presence=-2.0)
    assert story.notes.frozen == (19, 20)
    assert story.memories(25) == [0, 8, 11, 14, 17, 19, 20]


def test_a_shrinking_object_counts_as_hidden_and_is_not_remembered_as_good() -> None:
    story = Story("occlusion_aware").track(*range(1, 13)).track(13, 14, area=40.0)
    assert story.notes.frozen == (11, 12) and not {13, 14} & set(story.notes.good)
    assert story.memories(15)[-3:] == [11, 12, 14], "the newest slice that shows anything stays in sight"


def test_frozen_slices_are_let_go_once_the_object_is_back_for_three_slices() -> None:
    story = Story("occlusion_aware").track(*range(1, 13)).track(13, 14, presence=-2.0).track(15, 16)
    assert story.notes.frozen == (11, 12)
    story.track(17)
    assert story.notes.frozen == () and story.notes.good[-1] == 17 and 15 not in story.notes.good


def test_good_slices_are_spread() -> None:
    assert Story("occlusion_aware").track(*range(1, 31)).memories(31) == [0, 18, 21, 24, 27, 30]


def test_the_end_of_an_object_leaves_what_it_was_before() -> None:
    story = Story("occlusion_aware").track(*range(1, 13)).track(*range(13, 60), presence=-5.0)
    assert story.memories(60) == [0, 3, 6, 9, 11, 12]


# self_sorting


def test_a_full_bank_takes_a_newcomer_for_one_of_two_that_are_alike() -> None:
    story = Story("self_sorting:size=3")
    for index, degrees in ((1, 0), (2, 50), (3, 55), (4, 120)):
        story.track(index, degrees=degrees)
    assert story.notes.kept == (1, 3, 4), "4 is least like 1, and what is most like 1 makes room"


def test_a_full_bank_refuses_duplicates_and_poor_newcomers() -> None:
    story = Story("self_sorting:size=3")
    for index, degrees in ((1, 0), (2, 50), (3, 100)):
        story.track(index, degrees=degrees)
    assert story.track(4, degrees=50).notes.kept == (1, 2, 3)
    assert story.track(5, degrees=180, quality=0.2).notes.kept == (1, 2, 3)


def test_memories_are_those_that_look_most_like_the_slice_at_hand() -> None:
    story = Story("self_sorting")
    looks = np.eye(12, dtype=np.float32)
    for index in range(1, 11):
        story.track(index, look=looks[index])
    look = looks[[1, 3, 5]].sum(0) + 0.5 * looks[[2, 4]].sum(0)
    assert story.recalled(11, look=look) == [(0, 0), (1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (10, 1)]


def test_models_that_cannot_say_what_a_slice_looks_like_get_the_nearest() -> None:
    assert Story("self_sorting:previous=false").track(*range(1, 11)).memories(11) == [0, 5, 6, 7, 8, 9, 10]


# anatomical


def test_thin_slices_are_spread_over_millimetres_and_thick_ones_are_not() -> None:
    thin = Story("anatomical", thickness_mm=0.5).track(*range(1, 41)).memories(41)
    thick = Story("anatomical", thickness_mm=5.0).track(*range(1, 41)).memories(41)
    assert thin == [0, 25, 28, 31, 34, 37, 40]
    assert thick == [0, 35, 36, 37, 38, 39, 40]


def test_of_many_key_slices_the_nearest_in_mm_of_both_sides_condition() -> None:
    story = Story("anatomical:keys=2", keys=(0, 10, 20, 50, 60))
    assert story.recalled(30) == [(20, 0), (50, 0)]


def test_an_occlusion_is_bridged() -> None:
    story = Story("anatomical:step_mm=0").track(*range(1, 10)).track(*range(10, 20), presence=-3.0)
    assert story.recalled(20) == [(0, 0), (4, 6), (5, 5), (6, 4), (7, 3), (8, 2), (9, 1)]


def test_a_doubtful_slice_gives_way_to_a_surer_one_farther_back() -> None:
    story = Story("anatomical:step_mm=0,diversity=0")
    for index in range(1, 11):
        story.track(index, quality=0.3 if index in (5, 7) else 0.9)
    assert story.memories(11) == [0, 3, 4, 6, 8, 9, 10]


def test_a_slice_that_differs_is_preferred_to_a_duplicate() -> None:
    story = Story("anatomical:step_mm=0,diversity=1,reach_mm=100")
    for index in range(1, 11):
        story.track(index, degrees=80.0 if index in (3, 4) else 0.0)
    assert {3, 4} & set(story.memories(11))


def test_what_lies_three_reaches_back_is_forgotten() -> None:
    story = Story("anatomical:reach_mm=5").track(*range(1, 40))
    assert min(story.kept) == 39 - 15


# notes and forks


def test_forks_of_a_bank_learn_apart() -> None:
    story = Story("diverse:buffer=2").track(1)
    fork = story.bank.fork()
    story.track(2)
    assert story.notes.long_term and not fork.noted(story.policy, story.context(3)).notes.long_term


def test_a_policy_keeps_no_state_of_its_own() -> None:
    policy = load_policy("motion")
    Story(policy).track(*range(1, 30), box_mm=(0.0, 0.0, 5.0, 5.0))
    assert policy == load_policy("motion") and Story(policy).notes == policy.blank


def test_only_the_policy_that_chose_takes_note() -> None:
    story = Story("quality_filter").track(1)
    bank: MemoryBank = story.bank
    bank.recall(story.policy, story.context(9))
    assert story.notes.kept == (1,), "nothing was found on slice 9 yet"

"""Published rules on written-out stories: an occlusion, duplicates, a jump, the end of an object."""

from __future__ import annotations

import pytest
from memory.scripted import Story

from SegmentAnythingMedLib.memory.policies.multi_path import Way
from SegmentAnythingMedLib.memory.policy import Candidate, load_policy, policy_names

ALL = policy_names()


@pytest.mark.parametrize("name", ALL)
def test_the_first_slice_beside_a_key_slice_looks_at_it(name: str) -> None:
    assert Story(name, keys=(20,)).recalled(21) == [(20, 0)]
    assert Story(name, keys=(20,), direction=-1).recalled(19) == [(20, 0)]


@pytest.mark.parametrize("name", ALL)
def test_selections_fit_what_the_model_can_take(name: str) -> None:
    story = Story(name, keys=(0, 60))
    for index in range(1, 50):
        story.track(index, presence=-2.0 if index % 13 == 5 else 4.0, quality=0.4 + 0.5 * (index % 2), degrees=index)
        recalled = story.recalled(index + 1)
        tracked = [slot for at, slot in recalled if at not in (0, 60)]
        assert len(set(recalled)) == len(recalled) and {at for at, _ in recalled} <= set(range(index + 1)) | {60}
        assert all(0 <= slot <= 6 for _, slot in recalled) and len(tracked) <= 6
        assert recalled[0] == (0, 0), "the key slice passed conditions, first"
        assert story.bank.recall(story.policy, story.context(index + 1)).pointer_span == 15


@pytest.mark.parametrize("name", ALL)
def test_backward_is_the_mirror_of_forward(name: str) -> None:
    there, back = Story(name, keys=(0,), count=401), Story(name, keys=(400,), direction=-1, count=401)
    for step in range(1, 45):
        facts = {"presence": -1.0 if step in (20, 21) else 5.0, "quality": 0.55 + 0.4 * (step % 3 > 0)}
        facts |= {"degrees": 7.0 * step, "rivals": (0.5,) if step % 9 == 4 else ()}
        there.track(step, **facts)
        back.track(400 - step, **facts)
        forward = [(400 - at, slot) for at, slot in there.recalled(step + 1)]
        assert sorted(forward) == sorted(back.recalled(400 - step - 1)), step


@pytest.mark.parametrize("name", ALL)
def test_a_bank_does_not_grow_with_the_volume(name: str) -> None:
    story = Story(name).track(*range(1, 301))
    assert len(story.kept) <= 70
    forked = story.bank.fork()
    story.track(*range(301, 320))
    assert {entry.index for entry in forked} == {0, *range(301)} & {entry.index for entry in forked}


@pytest.mark.parametrize("name", ALL)
def test_a_correction_ahead_and_behind_both_condition(name: str) -> None:
    assert Story(name, keys=(5, 9)).recalled(7) == [(5, 0), (9, 0)]


# closest


def test_closest_takes_the_nearest_key_slices_of_each_side() -> None:
    story = Story("closest:keys=2", keys=(0, 10, 30, 31)).track(11, 12)
    assert story.recalled(13) == [(10, 0), (30, 0), (11, 2), (12, 1)]


def test_a_single_key_slice_is_the_nearest_of_both_sides() -> None:
    story = Story("closest:keys=1", keys=(0, 30))
    assert story.memories(14) == [0] and story.memories(16) == [30]


def test_closest_sees_a_key_slice_left_out_as_a_slice_just_passed() -> None:
    assert Story("closest:keys=1", keys=(10, 12)).track(13).recalled(14) == [(12, 0), (10, 4), (13, 1)]


# efficient_frame_pruning and memory_splitting


def test_pruning_drops_the_two_most_like_the_newest() -> None:
    story = Story("efficient_frame_pruning")
    for index, degrees in zip(range(1, 7), (80, 10, 60, 5, 40, 0), strict=True):
        story.track(index, degrees=degrees)
    assert story.recalled(7) == [(0, 0), (1, 6), (3, 4), (5, 2), (6, 1)]


def test_pruning_leaves_fewer_than_seven_memories_alone() -> None:
    assert Story("efficient_frame_pruning").track(*range(1, 6)).memories(6) == [0, 1, 2, 3, 4, 5]


def test_pruning_drops_the_older_of_duplicates_and_never_the_ends() -> None:
    assert Story("efficient_frame_pruning").track(*range(1, 7)).memories(7) == [0, 3, 4, 5, 6]


def test_pruning_keeps_every_key_slice_but_in_parity_only_the_first() -> None:
    keys = (0, 1, 2, 3)
    assert Story("efficient_frame_pruning", keys).track(*range(4, 10)).memories(10) == [0, 1, 2, 3, 6, 7, 8, 9]
    assert Story("efficient_frame_pruning:parity=true", keys).track(*range(4, 10)).memories(10) == [0, 3, *range(4, 10)]


def test_splitting_thins_the_old_half_by_the_first_and_the_new_half_by_the_last() -> None:
    story = Story("memory_splitting")
    for index, degrees in zip(range(1, 7), (30, 20, 90, 50, 70, 80), strict=True):
        story.track(index, degrees=degrees)
    assert story.memories(7) == [0, 1, 4, 5, 6], "of 1, 2 the one like 0; of 3, 4, 5 the first of those like 6"


def test_splitting_with_the_published_bug_can_lose_the_newest_memory() -> None:
    script = list(zip(range(1, 6), (30, 20, 90, 50, 50), strict=True))
    right, wrong = Story("memory_splitting"), Story("memory_splitting:compat_offset_bug=true")
    for index, degrees in script:
        right.track(index, degrees=degrees)
        wrong.track(index, degrees=degrees)
    assert right.memories(6) == [0, 1, 3, 5]
    assert wrong.memories(6) == [0, 1, 3, 4]


def test_splitting_leaves_five_memories_alone() -> None:
    assert Story("memory_splitting").track(*range(1, 5)).memories(5) == [0, 1, 2, 3, 4]


# quality_filter


def test_the_filter_looks_past_an_occlusion() -> None:
    story = Story("quality_filter").track(*range(1, 11)).track(*range(11, 31), presence=-3.0)
    assert story.recalled(31) == [(0, 0), (6, 6), (7, 5), (8, 4), (9, 3), (10, 2), (30, 1)]


def test_the_filter_times_pointers_by_order_and_leaves_the_oldest_out() -> None:
    story = Story("quality_filter").track(1, 2).track(3, 4, presence=-3.0).track(5)
    recall = story.bank.recall(story.policy, story.context(6))
    assert [one.distance for one in recall.pointers] == [6, 1, 2], (
        "the key slice at its distance, slices 5 and 2 by order"
    )


def test_the_filter_forgets_slices_without_the_object() -> None:
    assert Story("quality_filter").track(1).track(*range(2, 40), presence=-3.0).kept == [1, 39]


# motion


def box(column: float) -> tuple[float, float, float, float]:
    return 10.0, column, 30.0, column + 20.0


def test_the_path_decides_between_masks_once_it_is_steady() -> None:
    story = Story("motion:stable=5,weight=0.5")
    candidates = [Candidate(0.9, box(60.0)), Candidate(0.8, box(17.0))]
    for index in range(1, 8):
        asked = story.bank.noted(story.policy, story.context(index))
        chosen = story.policy.choose([Candidate(0.9, box(60.0)), Candidate(0.8, box(10.0 + index))], asked)
        assert chosen == (0 if index <= 5 else 1), index
        story.track(index, box_mm=box(10.0 + index))
    assert story.policy.choose(candidates, story.bank.noted(story.policy, story.context(8))) == 1


def test_a_jump_off_the_path_is_not_remembered() -> None:
    story = Story("motion:stable=3")
    for index in range(1, 9):
        story.track(index, box_mm=box(31.0 if index == 6 else 10.0))
    assert story.memories(9) == [0, 2, 3, 4, 5, 7, 8]


def test_slices_of_low_quality_start_the_path_anew_and_leave_no_memory() -> None:
    story = Story("motion:stable=3")
    for index in range(1, 7):
        story.track(index, box_mm=box(10.0), quality=0.2 if index == 4 else 0.9)
    assert story.memories(7) == [0, 1, 2, 3, 5, 6] and story.notes.steady_for == 2


def test_an_object_that_ended_leaves_only_the_slice_just_passed() -> None:
    story = Story("motion").track(*range(1, 4), box_mm=box(10.0)).track(4, 5, 6, presence=-4.0, quality=0.1)
    assert story.memories(7) == [0, 1, 2, 3, 6]


# distractor_aware


def test_a_slice_with_a_distractor_conditions() -> None:
    story = Story("distractor_aware").track(*range(1, 12)).track(12, rivals=(0.95, 0.6)).track(*range(13, 22))
    assert story.recalled(22) == [(0, 0), (12, 0), (5, 5), (10, 4), (15, 3), (20, 2), (21, 1)]


@pytest.mark.parametrize(
    "facts", [{"rivals": (0.8,)}, {"rivals": ()}, {"quality": 0.7}, {"area": 130.0}, {"area": 70.0}, {"presence": -1.0}]
)
def test_doubtful_slices_are_no_distractor_slices(facts: dict) -> None:
    story = Story("distractor_aware").track(*range(1, 10)).track(10, **{"rivals": (0.5,), **facts})
    assert story.notes.distractors == ()


def test_distractor_slices_lie_apart_and_the_nearest_are_used() -> None:
    story = Story("distractor_aware").track(*range(1, 40), rivals=(0.5,))
    assert story.notes.distractors == (2, 8, 14, 20, 26, 32, 38)
    assert [at for at, slot in story.recalled(40) if slot == 0] == [0, 26, 32, 38]


def test_slices_without_the_object_are_skipped() -> None:
    story = Story("distractor_aware").track(*range(1, 23)).track(*range(23, 60), presence=-1.0)
    assert story.recalled(60) == [(0, 0), (5, 5), (10, 4), (15, 3), (20, 2), (22, 1)]


# multi_path


def test_ways_go_on_by_the_sum_of_the_logarithms_of_their_quality() -> None:
    policy = load_policy("multi_path:paths=2")
    ways = [Way(-0.1, 0.5, 5.0), Way(-1.0, 0.9, 5.0), Way(-0.1, 0.6, 5.0)]
    assert policy.go_on(ways, lambda a, b: 1.0) == [2, 0]


def test_without_a_sure_path_only_masks_that_differ_go_on() -> None:
    policy = load_policy("multi_path")
    ways = [Way(0.0, 0.9, 1.0), Way(0.0, 0.8, 1.0), Way(0.0, 0.3, 1.0)]
    assert policy.go_on(ways, lambda a, b: 0.95 if {a, b} == {0, 1} else 0.1) == [0, 2]
    assert policy.go_on([*ways[:2], Way(0.0, 0.3, 3.0)], lambda a, b: 0.95) == [0, 1, 2]


def test_a_path_remembers_good_slices_and_the_one_just_passed() -> None:
    story = Story("multi_path").track(1, 2).track(3, quality=0.05).track(4).track(5, presence=-1.0)
    assert story.recalled(6) == [(0, 0), (1, 4), (2, 3), (4, 2), (5, 1)]


# short_long


def test_the_short_look_back_is_the_slice_just_passed() -> None:
    story = Story("short_long").track(1, 2, 3)
    recall = story.bank.recall(story.policy, story.context(4))
    assert [one.distance for one in recall.memories] == [4, 3, 2, 1]
    assert [(one.distance, one.slot) for one in recall.short.memories] == [(1, 1)]
    assert [one.distance for one in recall.short.pointers] == [1]


def test_a_key_slice_just_passed_is_in_the_short_look_back() -> None:
    story = Story("short_long:slices=2", keys=(0,)).track(1)
    short = story.bank.recall(story.policy, story.context(2)).short
    assert [(one.distance, one.slot) for one in short.memories] == [(2, 2), (1, 1)]


def test_without_a_slice_near_enough_there_is_no_short_look_back() -> None:
    story = Story("short_long", keys=(0,))
    assert story.bank.recall(story.policy, story.context(5)).short is None

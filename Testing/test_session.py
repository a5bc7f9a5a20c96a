from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from doubles import ThresholdModel
from scipy.spatial.transform import Rotation

from SegmentAnythingMedLib.errors import GeometryError, PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.prompts import BoxPrompt, MaskPrompt, PointPrompt
from SegmentAnythingMedLib.propagation import StopRule, dice
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Volume

K = Plane(2)


@pytest.fixture
def two_columns() -> np.ndarray:
    """(20, 24, 30) uint8: one column on slices 4 to 15, another on 8 to 12, which never touch."""
    voxels = np.zeros((20, 24, 30), dtype=np.uint8)
    voxels[4:16, 4:12, 5:13] = 255
    voxels[8:13, 14:21, 18:27] = 255
    return voxels


@pytest.fixture
def session(two_columns: np.ndarray) -> VolumeSession:
    return VolumeSession(Volume.from_array(two_columns), ThresholdModel())


def box_on(index: int) -> BoxPrompt:
    return BoxPrompt.on_slice((5, 4, 12, 11), index, K)


def run(session: VolumeSession, **options: object) -> list:
    return list(session.propagate(plane=K, **options))


def test_a_box_gives_the_object_on_its_slice_and_nowhere_else(session: VolumeSession, two_columns: np.ndarray) -> None:
    key = session.add_prompt(1, box_on(9))
    result = session.segment_slice(1, key)
    assert result.prompted and result.key.index == 9
    np.testing.assert_array_equal(result.mask, (two_columns[9] > 0) & (np.arange(30) < 15))
    assert session.labelmap(1).sum() == 64


def test_propagation_fills_the_object_and_stops_where_it_ends(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    results = run(session)
    expected = np.zeros((20, 24, 30), dtype=bool)
    expected[4:16, 4:12, 5:13] = True
    np.testing.assert_array_equal(session.labelmap(1), expected)
    visited = [result.key.index for result in results]
    assert visited == [10, 11, 12, 13, 14, 15, 16, 17, 8, 7, 6, 5, 4, 3, 2]
    assert results[-1].done == results[-1].total == len(results)


def test_a_given_range_is_visited_to_its_ends(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    assert [r.key.index for r in run(session, first=7, last=19)] == [*range(10, 20), 8, 7]


@pytest.mark.parametrize(("direction", "slices"), [("forward", range(9, 16)), ("backward", range(4, 10))])
def test_one_direction_leaves_the_other_alone(session: VolumeSession, direction: str, slices: range) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    run(session, direction=direction)
    assert set(np.flatnonzero(session.labelmap(1).any(axis=(1, 2)))) == set(slices)


def test_both_directions_start_from_fresh_tracking_state(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    model = session.model
    model.recalls.clear()
    results = run(session)
    first_backward = [result.key.index for result in results].index(8)
    assert [recalled.distance for recalled in model.recalls[first_backward].memories] == [1]


def test_several_objects_share_image_features(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    session.segment_slice(2, session.add_prompt(2, PointPrompt((20, 16, 10))))
    run(session)
    assert session.labelmap(2).sum() == 5 * 7 * 9
    assert session.labelmap(1).sum() == 12 * 64
    assert session.model.encoded == session.times.calls["encode"] == 16


def test_a_second_propagation_never_runs_the_image_encoder(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    run(session)
    encoded = session.model.encoded
    run(session)
    assert session.model.encoded == encoded


def test_a_full_cache_drops_the_least_recently_used_slice(two_columns: np.ndarray) -> None:
    one_slice = 24 * 30
    session = VolumeSession(Volume.from_array(two_columns), ThresholdModel(), cache_bytes=3 * one_slice)
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    run(session)
    assert len(session.features) == 3 and session.features.nbytes <= 3 * one_slice
    assert session.labelmap(1).sum() == 12 * 64


def test_closing_the_generator_keeps_what_is_done(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    steps = session.propagate(plane=K)
    assert [next(steps).key.index, next(steps).key.index] == [10, 11]
    steps.close()
    assert set(np.flatnonzero(session.labelmap(1).any(axis=(1, 2)))) == {9, 10, 11}
    run(session)
    assert session.labelmap(1).sum() == 12 * 64


def test_prompts_refine_and_undo_restores_each_state(session: VolumeSession) -> None:
    whole = BoxPrompt.on_slice((0, 0, 29, 23), 9, K)
    key = session.add_prompt(1, whole)
    both = session.segment_slice(1, key).mask
    session.add_prompt(1, PointPrompt((20, 16, 9), positive=False))
    one = session.segment_slice(1, key).mask
    assert both.sum() == 64 + 63 and one.sum() == 64
    np.testing.assert_array_equal(session.undo_prompt(1).mask, both)
    assert not session.undo_prompt(1).mask.any()
    assert session.undo_prompt(1) is None
    assert session.key_slices(1, K) == ()


def test_undoing_one_of_several_prompts_answered_at_once_outlines_the_rest(session: VolumeSession) -> None:
    key = session.add_prompt(1, BoxPrompt.on_slice((0, 0, 29, 23), 9, K))
    session.add_prompt(1, PointPrompt((20, 16, 9), positive=False))
    assert session.segment_slice(1, key).mask.sum() == 64
    assert session.undo_prompt(1).mask.sum() == 64 + 63


def test_a_slice_prompted_during_a_propagation_is_left_alone(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    steps = session.propagate(plane=K)
    next(steps)
    key = session.add_prompt(1, BoxPrompt.on_slice((0, 0, 29, 23), 12, K))
    session.segment_slice(1, key)
    results = {result.key.index: result for result in steps}
    assert session.mask_on(1, key).sum() == results[12].mask.sum() == 64 + 63


def test_a_slice_of_an_earlier_session_can_be_put_back(session: VolumeSession) -> None:
    mask = np.zeros((24, 30), dtype=bool)
    mask[3:5, 3:5] = True
    session.restore_slice(1, session.slice_key(K, 6), mask)
    assert session.labelmap(1).sum() == 4 and session.key_slices(1, K) == ()


def test_undoing_a_correction_brings_the_tracked_mask_back(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    run(session)
    key = session.add_prompt(1, PointPrompt((8, 8, 12), positive=False))
    assert not session.segment_slice(1, key).mask.any()
    assert session.undo_prompt(1).mask.sum() == 64


def test_a_click_has_candidates_and_the_chosen_one_is_written(session: VolumeSession) -> None:
    key = session.add_prompt(1, PointPrompt((8, 8, 9)))
    result = session.segment_slice(1, key)
    assert [mask.sum() for mask in result.candidates] == [64, 36]
    chosen = session.choose_candidate(1, key, 1)
    assert chosen.mask.sum() == 36 and session.labelmap(1).sum() == 36
    assert chosen.candidate == 1 and [mask.sum() for mask in chosen.candidates] == [64, 36]
    assert session.choose_candidate(1, key, 0).mask.sum() == 64
    with pytest.raises(PromptError, match="no candidate 5"):
        session.choose_candidate(1, key, 5)


def test_confirmed_slices_are_never_overwritten(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    painted = np.zeros((24, 30), dtype=bool)
    painted[5:7, 6:9] = True
    session.confirm_slice(1, session.slice_key(K, 12), painted)
    run(session)
    np.testing.assert_array_equal(session.mask_on(1, session.slice_key(K, 12)), painted)
    assert session.labelmap(1)[11].sum() == 64


def test_undoing_a_click_on_a_painted_slice_brings_the_painting_back(session: VolumeSession) -> None:
    painted = np.zeros((24, 30), dtype=bool)
    painted[5:7, 6:9] = True
    key = session.slice_key(K, 9)
    session.confirm_slice(1, key, painted)
    session.add_prompt(1, PointPrompt((20, 16, 9)))
    clicked = session.segment_slice(1, key).mask
    assert clicked.sum() == 64 + 63, "the painting is the earlier outline that the click refines"
    undone = session.undo_prompt(1)
    np.testing.assert_array_equal(undone.mask, painted)
    assert undone.quality == 1 and session.key_slices(1, K) == (9,)
    run(session)
    np.testing.assert_array_equal(session.mask_on(1, key), painted)


def test_what_was_painted_after_a_prompt_survives_its_undo(session: VolumeSession) -> None:
    key = session.add_prompt(1, box_on(9))
    session.segment_slice(1, key)
    painted = session.mask_on(1, key)
    painted[0, 0] = True
    session.confirm_slice(1, key, painted)
    np.testing.assert_array_equal(session.undo_prompt(1).mask, painted)


def test_planes_add_up_and_keep_each_others_key_slices(session: VolumeSession) -> None:
    axial = session.add_prompt(1, box_on(9))
    outline = session.segment_slice(1, axial).mask
    run(session)
    coronal = session.add_prompt(1, BoxPrompt.on_slice((18, 8, 26, 12), 16, Plane(1)))
    session.segment_slice(1, coronal)
    list(session.propagate(plane=Plane(1)))
    crossing = np.arange(24) == 16
    np.testing.assert_array_equal(session.mask_on(1, axial)[~crossing], outline[~crossing])
    both = 12 * 64 + 5 * 63 - (63 - 9)  # the axial key slice shows the second column only where the coronal one crosses
    assert session.labelmap(1).sum() == both
    run(session)
    assert session.labelmap(1).sum() == both


def test_an_oblique_outline_leaves_confirmed_slices_alone(session: VolumeSession) -> None:
    axial = session.add_prompt(1, box_on(9))
    outline = session.segment_slice(1, axial).mask
    session.confirm_slice(1, axial)
    plane = Plane.from_normal((0.4, 0.3, 1.0), session.volume.geometry)
    oblique = session.add_prompt(1, PointPrompt((22, 17, 10), plane=plane))
    session.segment_slice(1, oblique)
    list(session.propagate(plane=plane))
    np.testing.assert_array_equal(session.mask_on(1, axial), outline)


def test_an_object_that_seemed_gone_for_one_slice_has_no_hole(session: VolumeSession) -> None:
    model, predict = session.model, session.model.predict
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    doubted = iter([5.0, -3.0, 5.0])

    def doubting(*arguments: object, **options: object) -> Prediction:
        return replace(predict(*arguments, **options), presence=next(doubted, 5.0))

    model.predict = doubting
    results = run(session, direction="forward", last=12)
    assert [(r.key.index, int(r.mask.sum())) for r in results] == [(10, 64), (11, 0), (11, 64), (12, 64)]
    assert session.labelmap(1)[9:13].all(axis=(0,)).sum() == 64


def test_a_range_away_from_the_outline_is_refused(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    with pytest.raises(GeometryError, match="12 to 14 does not reach slice 9"):
        run(session, first=12, last=14)
    run(session)
    assert [r.key.index for r in run(session, first=12, last=14)] == [12, 13, 14]


def test_a_negative_click_where_nothing_is_ends_the_object_there(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    key = session.add_prompt(1, PointPrompt((8, 8, 13), positive=False))
    assert not session.segment_slice(1, key).mask.any()
    run(session)
    assert set(np.flatnonzero(session.labelmap(1).any(axis=(1, 2)))) == set(range(4, 13))


def test_voxels_painted_in_another_plane_survive(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    sagittal = session.slice_key(Plane(0), 7)
    session.confirm_slice(1, sagittal, np.zeros((20, 24), dtype=bool))
    run(session)
    assert not session.labelmap(1)[:, :, 7].any()
    assert session.labelmap(1).sum() == 12 * 64 - 12 * 8
    session.clear_slice(1, sagittal)
    run(session)
    assert session.labelmap(1).sum() == 12 * 64


def test_painted_voxels_stay_when_a_confirmation_is_taken_back(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    painted = np.zeros((20, 24, 30), dtype=bool)
    painted[:, :, 6] = True
    session.protect_voxels(1, painted)
    session.confirm_slice(1, session.slice_key(K, 12), np.zeros((24, 30), dtype=bool))
    session.clear_slice(1, session.slice_key(K, 12))
    run(session)
    assert session.labelmap(1)[:, :, 6].sum() == 8, "only the key slice had the object before the voxels were painted"
    assert session.labelmap(1).sum() == 12 * 56 + 8


def test_an_empty_confirmed_slice_ends_the_object_there(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    session.confirm_slice(1, session.slice_key(K, 13), np.zeros((24, 30), dtype=bool))
    run(session)
    assert set(np.flatnonzero(session.labelmap(1).any(axis=(1, 2)))) == set(range(4, 13))


def test_between_two_key_slices_both_passes_are_fused(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(6)))
    session.segment_slice(1, session.add_prompt(1, box_on(11)))
    results = run(session)
    between = [(result.key.index, result.final) for result in results if 6 < result.key.index < 11]
    assert between == [(i, False) for i in (7, 8, 9, 10)] + [(i, True) for i in (10, 9, 8, 7)]
    assert session.labelmap(1).sum() == 12 * 64


def test_every_key_slice_conditions(session: VolumeSession) -> None:
    for index in (6, 9, 11):
        session.segment_slice(1, session.add_prompt(1, box_on(index)))
    session.model.recalls.clear()
    next(session.propagate(plane=K, first=12, last=13))
    slots = [(recalled.slot, recalled.distance) for recalled in session.model.recalls[-1].memories]
    assert slots == [(0, 6), (0, 3), (0, 1)]


def test_a_correction_changes_only_up_to_the_neighbouring_key_slices(session: VolumeSession) -> None:
    for index in (6, 14):
        session.segment_slice(1, session.add_prompt(1, box_on(index)))
    run(session)
    key = session.slice_key(K, 10)
    session.confirm_slice(1, key, session.mask_on(1, key))
    assert session.affected_range(1, key) == (7, 13)
    assert {result.key.index for result in session.repropagate(1, key)} == {7, 8, 9, 11, 12, 13}


def test_a_pass_that_stops_earlier_clears_what_an_earlier_one_left(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    run(session)
    cleared = [result.key.index for result in run(session, stop=StopRule(min_area=1.1)) if not result.mask.any()]
    assert set(np.flatnonzero(session.labelmap(1).any(axis=(1, 2)))) == set(range(7, 12))
    assert sorted(cleared) == [2, 3, 4, 5, 6, 12, 13, 14, 15, 16, 17]


def test_oblique_propagation_leaves_no_holes() -> None:
    zyx = np.mgrid[:40, :40, :40] - 20.0
    ball = (zyx**2).sum(axis=0) < 12**2
    geometry = VolumeGeometry.from_spacing(
        (40, 40, 40), (1, 1, 1), Rotation.from_euler("xyz", (10, 20, 5), degrees=True).as_matrix()
    )
    session = VolumeSession(Volume.from_array(ball.astype(np.uint8) * 255, geometry), ThresholdModel())
    plane = Plane.from_normal((0.3, 0.2, 1.0), geometry)
    assert plane.is_oblique
    center = SliceGeometry(geometry, plane).pixels_from_ijk(np.array([20.0, 20, 20]))
    index = int(round(float(center[0])))
    point = session.slices(plane).ijk_from_pixels(index, center[1])
    session.segment_slice(1, session.add_prompt(1, PointPrompt(tuple(point), plane=plane)))
    told = np.zeros((40, 40, 40), dtype=bool)
    for result in session.propagate(plane=plane):
        session.slices(plane).paste(result.mask, result.key.index, told)
    assert dice(session.labelmap(1), ball) > 0.97
    key = session.slice_key(plane, index)
    session.slices(plane).paste(session.mask_on(1, key), index, told)
    np.testing.assert_array_equal(told, session.labelmap(1))  # who follows the results has the same voxels


def test_volumes_of_one_slice_propagate_to_nothing() -> None:
    image = np.zeros((16, 16), dtype=np.uint8)
    image[4:9, 4:9] = 255
    session = VolumeSession(Volume.from_array(image), ThresholdModel())
    session.segment_slice(1, session.add_prompt(1, PointPrompt((5, 5, 0))))
    assert run(session) == [] and session.labelmap(1).sum() == 25


def test_bad_requests_say_what_to_do(session: VolumeSession) -> None:
    with pytest.raises(PromptError, match="draw a box or click"):
        run(session)
    with pytest.raises(PromptError, match="Object 7 has no prompts"):
        session.labelmap(7)
    key = session.add_prompt(1, box_on(9))
    session.segment_slice(1, key)
    with pytest.raises(GeometryError, match="0 to 19"):
        run(session, first=3, last=20)
    with pytest.raises(GeometryError, match="lower slice first"):
        run(session, first=12, last=3)
    with pytest.raises(PromptError, match=r"shape \(3, 3\)"):
        session.confirm_slice(1, key, np.ones((3, 3), dtype=bool))
    with pytest.raises(PromptError, match="Object 2 has no outline"):
        run(session, object_ids=[1, 2])


def test_a_refused_prompt_changes_nothing(session: VolumeSession) -> None:
    with pytest.raises(PromptError):
        session.add_prompt(1, PointPrompt((99, 0, 0)))
    assert session.object_ids == ()


def test_prefetch_goes_outwards_and_stops_when_the_cache_is_full(two_columns: np.ndarray) -> None:
    session = VolumeSession(Volume.from_array(two_columns), ThresholdModel(), cache_bytes=4 * 720)
    assert list(session.prefetch(K, 1, 10)) == [1, 2, 0, 3]
    assert session.model.encoded == 4


def test_the_round_trip_rule_stops_a_pass_that_cannot_find_back(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    impossible = StopRule(round_trip=1.1)
    assert [r.key.index for r in run(session, stop=impossible)] == [10, 11, 8, 7]


def test_the_volume_is_never_written_to(session: VolumeSession, two_columns: np.ndarray) -> None:
    before = two_columns.copy()
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    run(session)
    np.testing.assert_array_equal(two_columns, before)


def test_the_memory_bank_does_not_grow_with_the_volume() -> None:
    voxels = np.full((200, 6, 6), 255, dtype=np.uint8)
    session = VolumeSession(Volume.from_array(voxels), ThresholdModel())
    session.segment_slice(1, session.add_prompt(1, PointPrompt((3, 3, 0))))
    run(session)
    assert max(len(recall.memories) for recall in session.model.recalls) == 7
    assert max(len(recall.pointers) for recall in session.model.recalls) == 16


def test_an_empty_slice_after_an_over_run_takes_away_what_lies_behind_it(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    run(session)
    key = session.add_prompt(1, MaskPrompt(np.zeros((24, 30), bool), 12, K))
    session.segment_slice(1, key)
    cleared = [result.key.index for result in session.repropagate(1, key) if result.cleared]
    assert cleared == [13, 14, 15, 16, 17], "also the two empty slices at which the over-run had stopped"
    assert set(np.flatnonzero(session.labelmap(1).any(axis=(1, 2)))) == set(range(4, 12))


def test_an_empty_slice_between_two_outlined_ones_takes_nothing_away(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(6)))
    session.segment_slice(1, session.add_prompt(1, box_on(14)))
    run(session)
    key = session.add_prompt(1, MaskPrompt(np.zeros((24, 30), bool), 10, K))
    session.segment_slice(1, key)
    assert not [result for result in session.repropagate(1, key) if result.cleared]
    assert set(np.flatnonzero(session.labelmap(1).any(axis=(1, 2)))) == {*range(4, 10), *range(11, 16)}


def test_forward_propagation_leaves_what_lies_behind_an_empty_slice_below(session: VolumeSession) -> None:
    session.segment_slice(1, session.add_prompt(1, box_on(9)))
    run(session)
    session.segment_slice(1, session.add_prompt(1, MaskPrompt(np.zeros((24, 30), bool), 6, K)))
    run(session, direction="forward")
    assert set(np.flatnonzero(session.labelmap(1).any(axis=(1, 2)))) == {4, 5, *range(7, 16)}
    run(session, direction="backward")
    assert set(np.flatnonzero(session.labelmap(1).any(axis=(1, 2)))) == set(range(7, 16))

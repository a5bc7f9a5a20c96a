"""Objects carried along time: every slice from its own memory, into slices the object moves to, until it ends."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from SegmentAnythingMedLib.errors import PromptError, VolumeError, WorkerError
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry
from SegmentAnythingMedLib.memory.policy import load_policy
from SegmentAnythingMedLib.through_time import TimePropagation, TimeResult
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.voxel_block import VoxelBlock
from SegmentAnythingMedLib.windowing import Window
from SegmentAnythingMedLib.worker.messages import COMMANDS, EVENTS, TimePoint, encode
from SegmentAnythingMedLib.worker.time_command import time_command
from SegmentAnythingMedLib.worker.time_work import carry_through_time, opened_series
from SegmentAnythingMedLib.worker.transport import receive
from SegmentAnythingMedLib.worker.voxel_file import VoxelFile
from Testing.doubles import ThresholdModel

COUNT, SHAPE = 6, (10, 16, 18)
AXIAL = Plane(2)
WINDOW = Window((0.0,), (100.0,))
GEOMETRY = VolumeGeometry.from_spacing(
    SHAPE[::-1], (0.9, 1.2, 3.0), Rotation.from_euler("xyz", (10, 20, 5), degrees=True).as_matrix()
)


def moving(last: int = COUNT) -> np.ndarray:
    """(T, K, J, I) bool: a ball of voxels on its way through all slices, gone after time point ``last``."""
    k, j, i = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    balls = [
        ((k - 3 - 0.6 * time) / 2.6) ** 2 + ((j - 6 - 0.7 * time) / 4) ** 2 + ((i - 7 - time) / 5) ** 2 < 1
        for time in range(COUNT)
    ]
    return np.array([ball & (time <= last) for time, ball in enumerate(balls)])


def volume_of(truth: np.ndarray) -> Volume:
    return Volume((100 * truth).astype(np.int16)[:, np.newaxis], GEOMETRY)


def propagation(truth: np.ndarray, plane: Plane = AXIAL) -> TimePropagation:
    return TimePropagation(ThresholdModel(), volume_of(truth), WINDOW, load_policy("recent"), plane)


def carried(run: TimePropagation, *args: object) -> dict[int, np.ndarray]:
    """(K, J, I) bool by time point, of object 1."""
    return {result.time: result.mask for result in run.run(*args) if isinstance(result, TimeResult)}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("start", "direction", "times"),
    [(0, "both", [1, 2, 3, 4, 5]), (2, "backward", [1, 0]), (2, "both", [3, 4, 5, 1, 0])],
)
def test_an_object_is_followed_into_the_slices_it_moves_to(
    axis: int, start: int, direction: str, times: list[int]
) -> None:
    truth = moving()
    found = carried(propagation(truth, Plane(axis)), {1: {start: truth[start]}}, start, direction)
    assert list(found) == times
    for time, mask in found.items():
        np.testing.assert_array_equal(mask, truth[time])


def test_an_oblique_object_is_followed_without_holes() -> None:
    truth = moving()
    plane = Plane.from_normal((0.3, 0.2, 1.0), GEOMETRY)
    assert plane.is_oblique
    for time, mask in carried(propagation(truth, plane), {1: {0: truth[0]}}, 0).items():
        overlap = 2 * (mask & truth[time]).sum() / (mask.sum() + truth[time].sum())
        assert overlap > 0.85, (time, overlap)


def test_an_object_that_ends_stays_gone() -> None:
    truth = moving(last=2)
    found = carried(propagation(truth), {1: {0: truth[0]}}, 0)
    assert [found[time].any() for time in range(1, COUNT)] == [True, True, False, False, False]


def test_time_points_of_the_user_are_not_carried_to_and_the_nearest_one_is_followed() -> None:
    truth, small = moving(), np.zeros(SHAPE, bool)
    small[6, 9, 12] = True
    run = propagation(truth)
    found = carried(run, {1: {0: truth[0], 5: small}, 2: {0: truth[0]}}, 0)
    assert sorted(found) == [1, 2, 3, 4, 5]  # 5 is object 2's; 3 and 4 were reached from time point 5
    results = [result for result in run.run({1: {0: truth[0], 5: small}}, 0) if isinstance(result, TimeResult)]
    assert [result.time for result in results] == [1, 2, 4, 3]
    empty = [
        result.time
        for result in run.run({1: {0: truth[0], 3: np.zeros(SHAPE, bool)}}, 0)
        if isinstance(result, TimeResult)
    ]
    assert empty == [1, 2]


def test_progress_counts_slices_and_closing_ends_it() -> None:
    truth = moving()
    run = propagation(truth).run({1: {0: truth[0]}}, 0)
    first = [next(run) for _ in range(3)]
    assert [item.done for item in first] == [1, 2, 3] and all(item.total >= item.done for item in first)
    run.close()
    last = [item for item in propagation(truth).run({1: {0: truth[0]}}, 0) if not isinstance(item, TimeResult)][-1]
    assert last.done == last.total


def test_what_cannot_be_carried_is_said() -> None:
    truth = moving()
    with pytest.raises(PromptError, match="no voxels at time point 2"):
        next(propagation(truth).run({1: {0: truth[0]}}, 2))
    with pytest.raises(PromptError, match="only one time point"):
        next(propagation(truth[:1]).run({1: {0: truth[0]}}, 0))


def test_the_messages_of_the_worker_carry_keys_in_and_time_points_out(tmp_path: Path) -> None:
    truth = moving()
    whole = volume_of(truth)
    file = VoxelFile(tmp_path, *[whole.at_time(time) for time in range(COUNT)])
    assert file.write(lambda: None)
    keys = {1: {0: VoxelBlock.of(truth[0])}, 7: {0: VoxelBlock.of(truth[0]), 4: VoxelBlock.nothing()}}
    sent = time_command(3, file, keys, AXIAL, 0, "forward")
    command = receive(_stream(encode(sent)), COMMANDS)
    np.testing.assert_array_equal(opened_series(command).voxels, whole.voxels)
    model = ThresholdModel()
    events = list(carry_through_time(command, model, WINDOW, load_policy("recent"), None))
    points = [receive(_stream(encode(event)), EVENTS) for event in events if isinstance(event, TimePoint)]
    assert [(point.object_id, point.time) for point in points] == [
        *((1, t) for t in range(1, 6)),
        *((7, t) for t in (1, 2, 3)),
    ]
    for point in points:
        np.testing.assert_array_equal(VoxelBlock(point.voxels, point.low_kji).whole(SHAPE), truth[point.time])
    for wrong in ({"keys": command.keys[:-1]}, {"voxels": command.voxels[:-1]}, {"keys": (1, 0, 9, 0, 0, 5, 1, 1)}):
        with pytest.raises(WorkerError, match="key mask"):
            list(carry_through_time(type(command)(**{**vars(command), **wrong}), model, WINDOW, None, None))


def test_time_points_of_different_types_are_refused(tmp_path: Path) -> None:
    whole = volume_of(moving())
    other = Volume(whole.voxels[:1].astype(np.float32), GEOMETRY)
    with pytest.raises(VolumeError, match="differ in size, voxel type"):
        VoxelFile(tmp_path, whole.at_time(0), other)
    half = VoxelFile(tmp_path, whole.at_time(0), whole.at_time(1))
    assert half.give_up() and not half.write(lambda: None) and not list(tmp_path.iterdir())


def _stream(frame: bytes) -> io.BytesIO:
    return io.BytesIO(frame)

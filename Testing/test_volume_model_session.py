"""Sessions, jobs and the worker with a model that sees the whole volume."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from SegmentAnythingMedLib import cli
from SegmentAnythingMedLib.errors import GeometryError, PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceKey
from SegmentAnythingMedLib.io import read_labels, write_volume
from SegmentAnythingMedLib.models.base import Region
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.volume_model_session import VolumeModelSession, open_session
from SegmentAnythingMedLib.voxel_block import VoxelBlock
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.client import WorkerClient
from Testing.doubles import ThresholdModel
from Testing.models.nninteractive_server import StandIn, nninteractive_server
from Testing.worker.conftest import Host

AXIAL, CORONAL = Plane(2), Plane(1)
SHAPE_KJI = (12, 20, 24)


class BrightModel:
    """The bright components that positive points, boxes or masks touch, without those of negative points."""

    def __init__(self) -> None:
        self.card = ModelCard("bright", "Bright", "bright", "none", ("volume",))
        self.asked: list[tuple[tuple[Prompt, ...], Region | None]] = []
        self.prepared: list[Volume] = []

    def prepare(self, volume: Volume) -> Iterator[tuple[int, int]]:
        yield 1, 2
        self.prepared.append(volume)
        yield 2, 2

    def predict(self, volume: Volume, prompts: Sequence[Prompt], previous: Region | None) -> Region:
        self.asked.append((tuple(prompts), previous))
        labels, _ = ndimage.label(volume.array() > 100)
        mask = np.zeros(labels.shape, dtype=bool)
        for prompt in prompts:
            if isinstance(prompt, MaskPrompt):
                touched = np.unique(np.moveaxis(labels, 2 - prompt.plane.axis, 0)[prompt.index][prompt.mask])
            else:
                low, high = (np.rint(prompt.points_ijk.min(axis=0)), np.rint(prompt.points_ijk.max(axis=0)))
                (i0, j0, k0), (i1, j1, k1) = low.astype(int), high.astype(int) + 1
                touched = np.unique(labels[k0:k1, j0:j1, i0:i1])
            found = np.isin(labels, np.setdiff1d(touched, [0]))
            mask = mask | found if getattr(prompt, "positive", True) else mask & ~found
        return Region(mask[2:], (2, 0, 0), 0.8, state="mine")


@pytest.fixture
def voxels() -> np.ndarray:
    """A bar on axial slices 3 to 9 with a gap at 7, and another bar on slices 4 to 10."""
    voxels = np.zeros(SHAPE_KJI, dtype=np.int16)
    voxels[3:10, 4:9, 5:12] = 300
    voxels[7, 4:9, 6:12] = 0  # joined by one column only
    voxels[4:11, 12:17, 14:20] = 300
    return voxels


@pytest.fixture
def first_bar(voxels: np.ndarray) -> np.ndarray:
    mask = voxels > 100
    mask[:, 10:] = False
    return mask


@pytest.fixture
def volume(voxels: np.ndarray) -> Volume:
    return Volume.from_array(voxels)


@pytest.fixture
def session(volume: Volume) -> VolumeModelSession:
    return open_session(volume, BrightModel())


def click(i: int, j: int, k: int, positive: bool = True, plane: Plane = AXIAL) -> PointPrompt:
    return PointPrompt((i, j, k), positive, plane)


def box(index: int = 5) -> BoxPrompt:
    return BoxPrompt.on_slice((5, 4, 11, 8), index, AXIAL)


def outline(session: VolumeSession, *prompts: Prompt, object_id: int = 1) -> SliceKey:
    for prompt in prompts:
        key = session.add_prompt(object_id, prompt)
        session.segment_slice(object_id, key)
    return key


# -- session ---------------------------------------------------------------------------------------------------------


def test_the_model_decides_which_session_it_gets(volume: Volume) -> None:
    assert isinstance(open_session(volume, BrightModel()), VolumeModelSession)
    assert type(open_session(volume, ThresholdModel())) is VolumeSession


def test_nothing_is_asked_before_a_prompt_is_answered(session: VolumeModelSession) -> None:
    key = session.add_prompt(1, box())
    empty = session.slice_key(AXIAL, 2)
    assert list(session.prepare(1, empty)) == [] and list(session.prepare(2, key)) == []
    assert list(session.prefetch(AXIAL, 5, 3)) == []
    with pytest.raises(PromptError, match="has no prompts"):
        session.segment_slice(1, empty)
    assert session.model.asked == [] and session.model.prepared == []
    assert list(session.prepare(1, key)) == [(1, 2), (2, 2)]


def test_a_prompt_is_answered_on_its_slice_and_nowhere_else(session: VolumeModelSession, first_bar: np.ndarray) -> None:
    key = session.add_prompt(1, box())
    result = session.segment_slice(1, key)
    assert np.array_equal(result.mask, first_bar[5]) and result.quality == pytest.approx(0.8) and result.prompted
    assert session.labelmap(1).sum() == first_bar[5].sum()


def test_propagation_hands_the_region_out_from_the_key_slice_outwards(
    session: VolumeModelSession, first_bar: np.ndarray
) -> None:
    outline(session, box())
    results = list(session.propagate(plane=AXIAL))
    assert [result.key.index for result in results] == [6, 7, 8, 9, 4, 3]
    assert np.array_equal(session.labelmap(1), first_bar)
    assert (results[-1].done, results[-1].total) == (6, 6) and all(result.final for result in results)
    assert 0 < results[1].overlap < 1 and results[0].overlap == 1
    assert len(session.model.asked) == 1, "propagating costs no second question"


def test_a_range_is_visited_to_its_ends_and_a_direction_leaves_the_other_alone(session: VolumeModelSession) -> None:
    outline(session, box())
    assert [r.key.index for r in session.propagate(plane=AXIAL, direction="backward")] == [4, 3]
    assert [r.key.index for r in session.propagate(plane=AXIAL, first=1, last=6)] == [6, 4, 3, 2, 1]
    with pytest.raises(GeometryError, match="does not reach slice 5"):
        session.propagate(plane=AXIAL, first=8, last=10)


def test_closing_the_propagation_keeps_what_is_done(session: VolumeModelSession, first_bar: np.ndarray) -> None:
    outline(session, box())
    run = session.propagate(plane=AXIAL)
    next(run), next(run)
    run.close()
    assert np.array_equal(np.flatnonzero(session.labelmap(1).any(axis=(1, 2))), [5, 6, 7])


def test_all_prompts_are_asked_at_once_and_earlier_ones_first(session: VolumeModelSession) -> None:
    prompts = [click(7, 6, 5), click(15, 13, 6), click(7, 13, 5, plane=CORONAL)]
    keys = [session.add_prompt(1, prompt) for prompt in prompts]
    for key in keys:
        session.segment_slice(1, key)
    assert [asked for asked, _ in session.model.asked] == [tuple(prompts)]
    more = click(16, 14, 6, positive=False)
    outline(session, more)
    asked, previous = session.model.asked[-1]
    assert all(a is b for a, b in zip(asked, [*prompts, more], strict=True)) and previous.state == "mine"


def test_undo_restores_the_slice_and_the_region(session: VolumeModelSession, first_bar: np.ndarray) -> None:
    outline(session, box(), BoxPrompt.on_slice((14, 12, 19, 16), 5, AXIAL))
    assert session.labelmap(1)[5].sum() > first_bar[5].sum()
    assert np.array_equal(session.undo_prompt(1).mask, first_bar[5])
    list(session.propagate(plane=AXIAL))
    assert np.array_equal(session.labelmap(1), first_bar)
    assert not session.undo_prompt(1).mask.any()


def test_confirmed_and_painted_slices_are_never_overwritten(session: VolumeModelSession, first_bar: np.ndarray) -> None:
    outline(session, box())
    painted = np.zeros(SHAPE_KJI[1:], dtype=bool)
    painted[4:6, 5:7] = True
    session.confirm_slice(1, session.slice_key(AXIAL, 8), painted)
    list(session.propagate(plane=AXIAL))
    expected = first_bar.copy()
    expected[8] = painted
    assert np.array_equal(session.labelmap(1), expected)


def test_a_painted_slice_is_told_to_the_model_once_and_in_its_turn(session: VolumeModelSession) -> None:
    outline(session, box())
    other_bar = session.volume.array()[6] > 100
    session.confirm_slice(1, session.slice_key(AXIAL, 6), other_bar)
    list(session.propagate(plane=AXIAL))
    outline(session, click(15, 13, 7))
    kinds = [[prompt.kind for prompt in asked] for asked, _ in session.model.asked]
    assert kinds == [["box"], ["box", "mask"], ["box", "mask", "point"]]
    assert session.model.asked[1][0][1] is session.model.asked[2][0][1]


def test_a_slice_confirmed_as_it_is_costs_no_question(session: VolumeModelSession) -> None:
    key = outline(session, box())
    session.confirm_slice(1, key)
    list(session.propagate(plane=AXIAL))
    assert len(session.model.asked) == 1


def test_an_empty_confirmed_slice_ends_the_object_there(session: VolumeModelSession, first_bar: np.ndarray) -> None:
    outline(session, box())
    list(session.propagate(plane=AXIAL))
    session.confirm_slice(1, session.slice_key(AXIAL, 7), np.zeros(SHAPE_KJI[1:], dtype=bool))
    cleared = [r.key.index for r in session.propagate(plane=AXIAL) if r.cleared]
    expected = first_bar.copy()
    expected[7:] = False
    assert sorted(cleared) == [8, 9] and np.array_equal(session.labelmap(1), expected)


def test_a_smaller_region_clears_what_a_larger_one_had_left(session: VolumeModelSession, first_bar: np.ndarray) -> None:
    outline(session, box(), click(15, 13, 5))
    list(session.propagate(plane=AXIAL))
    assert session.labelmap(1)[10].any()
    session.undo_prompt(1)
    assert [r.key.index for r in session.propagate(plane=AXIAL) if r.cleared] == [10]
    assert np.array_equal(session.labelmap(1), first_bar)


def test_between_two_key_slices_each_slice_comes_once(session: VolumeModelSession) -> None:
    outline(session, box(4), box(8))
    assert [r.key.index for r in session.propagate(plane=AXIAL)] == [5, 6, 7, 9, 3]


def test_other_planes_show_the_same_region(session: VolumeModelSession, first_bar: np.ndarray) -> None:
    outline(session, click(7, 6, 5, plane=CORONAL))
    assert [r.key.index for r in session.propagate(plane=CORONAL)] == [7, 8, 5, 4]
    assert np.array_equal(session.labelmap(1), first_bar)


def test_an_oblique_plane_shows_the_region(session: VolumeModelSession, first_bar: np.ndarray) -> None:
    plane = Plane.from_normal(np.array([0.0, 0.4, 1.0]), session.volume.geometry)
    slices, expected = session.slices(plane), np.zeros(SHAPE_KJI, dtype=bool)
    depth, pixels = slices.pixels_from_ijk(np.array([8.0, 6.0, 5.0]))
    outline(session, PointPrompt(tuple(slices.ijk_from_pixels(round(float(depth)), pixels)), True, plane))
    list(session.propagate(plane=plane))
    for index in range(slices.count):
        slices.paste(slices.extract(first_bar, index, order=0), index, expected)
    assert expected.any() and np.array_equal(session.labelmap(1), expected)


def test_objects_are_asked_for_separately(
    session: VolumeModelSession, first_bar: np.ndarray, voxels: np.ndarray
) -> None:
    outline(session, box())
    outline(session, click(15, 13, 5), object_id=2)
    list(session.propagate(plane=AXIAL))
    assert np.array_equal(session.labelmap(1), first_bar)
    assert np.array_equal(session.labelmap(2), (voxels > 100) & ~first_bar)


def test_one_time_point_is_given_to_the_model(voxels: np.ndarray) -> None:
    series = Volume(np.stack([voxels * 0, voxels])[:, np.newaxis], Volume.from_array(voxels).geometry)
    session = open_session(series, BrightModel(), time=1)
    assert session.segment_slice(1, session.add_prompt(1, box())).mask.any()


def test_a_later_prompt_renews_prompted_slices_but_no_confirmed_or_given_ones(
    session: VolumeModelSession, voxels: np.ndarray, first_bar: np.ndarray
) -> None:
    outline(session, box(5), box(6), MaskPrompt(first_bar[4], 4, AXIAL), click(15, 13, 9))
    session.confirm_slice(1, session.slice_key(AXIAL, 6))
    renewed = next(session.propagate(plane=AXIAL))
    assert renewed.key.index == 5 and renewed.prompted and np.array_equal(renewed.mask, voxels[5] > 100)
    list(session.propagate(plane=AXIAL))
    expected = voxels > 100
    expected[[4, 6]] = first_bar[[4, 6]]
    assert np.array_equal(session.labelmap(1), expected)


def test_what_does_not_belong_is_taken_from_slices_of_an_earlier_session(
    session: VolumeModelSession, first_bar: np.ndarray
) -> None:
    session.restore_slice(1, session.slice_key(AXIAL, 6), first_bar[6])
    outline(session, click(15, 13, 6, positive=False))
    _, previous = session.model.asked[0]
    assert previous.start_kji == (6, 4, 5) and np.array_equal(previous.mask[0], first_bar[6, 4:9, 5:12])
    again = open_session(session.volume, BrightModel())
    again.restore_slice(1, again.slice_key(AXIAL, 6), first_bar[6])
    outline(again, box())
    assert again.model.asked[0][1] is None, "prompts that say where the object is need no more"


# -- a whole job, and the worker ---------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with nninteractive_server() as stand_in:
        monkeypatch.setenv("SEGMENT_ANYTHING_MED_NNINTERACTIVE", stand_in.url)
        yield stand_in


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Host]]:
    """Starts hosts with the real worker, ended when the test has."""
    started: list[Host] = []

    def start_one() -> Host:
        started.append(Host(WorkerClient(folder=tmp_path)))
        started[-1].client.start()
        return started[-1]

    yield start_one
    for host in started:
        host.client.kill()


@pytest.fixture
def a_host(start: Callable[[], Host], server: StandIn, volume: Volume) -> Host:
    host = start()
    host.client.open_volume(volume)
    host.client.load_model("nninteractive")
    assert isinstance(host.end_of(host.client.open_session()), m.JobDone)
    return host


def segment(volume: Volume, folder: Path, *options: str) -> int:
    write_volume(folder / "volume.nii.gz", volume)
    file, output = str(folder / "volume.nii.gz"), str(folder / "bar.seg.nrrd")
    box = ["--slice", "5", "--box", "5", "4", "11", "8"]
    return cli.main(["segment", file, *box, "--model", "nninteractive", "--output", output, *options])


def test_a_box_becomes_a_segment_on_the_command_line(
    server: StandIn, volume: Volume, first_bar: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(volume, tmp_path, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["device"] == server.url.removeprefix("http://")
    assert summary["objects"][0]["voxels"] == first_bar.sum() and len(summary["objects"][0]["slices"]) == 7
    assert np.array_equal(read_labels(tmp_path / "bar.seg.nrrd").segments[0].mask > 0, first_bar)
    assert server.paths == ["/upload_image", "/add_bbox_interaction"]


def test_a_job_whose_server_fails_ends_with_code_3_and_writes_nothing(
    server: StandIn, volume: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = "status 500"
    assert segment(volume, tmp_path) == 3
    assert "failed (status 500)" in capsys.readouterr().err and not (tmp_path / "bar.seg.nrrd").exists()


def test_a_worker_session_goes_from_prompt_to_labelmap(
    a_host: Host, server: StandIn, first_bar: np.ndarray, voxels: np.ndarray
) -> None:
    loaded = next(event for event in a_host.events if isinstance(event, m.ModelLoaded))
    assert loaded.device == server.url.removeprefix("http://") and loaded.research_only
    a_host.client.prefetch(AXIAL, 5, 2)
    a_host.client.add_prompts(1, box())
    assert server.connections == 0, "no connection before a prompt is to be answered"
    job = a_host.client.segment_slice(1, AXIAL, 5)
    assert np.array_equal(a_host.wait(m.SliceMask, job).mask, first_bar[5])
    progress = a_host.of(job, m.Progress)
    assert progress and progress[-1].done == progress[-1].total > voxels.nbytes
    job = a_host.client.propagate([1], plane=AXIAL)
    assert isinstance(a_host.end_of(job), m.JobDone)
    assert [event.key.index for event in a_host.of(job)] == [6, 7, 8, 9, 4, 3]
    assert np.array_equal(a_host.labelmap(), first_bar)
    assert isinstance(a_host.end_of(a_host.client.undo(1)), m.JobDone)


def test_a_failing_server_fails_the_job_and_not_the_worker(
    a_host: Host, server: StandIn, first_bar: np.ndarray
) -> None:
    server.fault = "closes"
    a_host.client.add_prompts(1, box())
    failed = a_host.end_of(a_host.client.segment_slice(1, AXIAL, 5))
    assert isinstance(failed, m.JobFailed) and "broke" in failed.sentence
    server.fault = ""
    assert np.array_equal(a_host.wait(m.SliceMask, a_host.client.segment_slice(1, AXIAL, 5)).mask, first_bar[5])


def test_a_worker_that_died_asks_the_server_again(a_host: Host, server: StandIn, first_bar: np.ndarray) -> None:
    a_host.client.add_prompts(1, box())
    a_host.wait(m.SliceMask, a_host.client.segment_slice(1, AXIAL, 5))
    os.kill(a_host.client.pid, 9)
    a_host.wait(m.WorkerRestarted)
    assert isinstance(a_host.end_of(a_host.client.propagate([1], plane=AXIAL)), m.JobDone)
    assert np.array_equal(a_host.labelmap(), first_bar)


def test_a_model_without_memory_does_not_go_through_time(a_host: Host, volume: Volume, first_bar: np.ndarray) -> None:
    keys = {1: {0: VoxelBlock.of(first_bar)}}
    failed = a_host.end_of(a_host.client.propagate_through_time([volume, volume], keys, plane=AXIAL, time=0))
    assert isinstance(failed, m.JobFailed) and "'nninteractive' has no memory" in failed.sentence


def test_an_upload_in_the_worker_can_be_cancelled(start: Callable[[], Host], server: StandIn) -> None:
    host, large = start(), np.random.default_rng(0).integers(0, 9, (64, 512, 512)).astype(np.int16)
    server.fault, server.on_upload = "slow_reader", True
    host.client.open_volume(Volume.from_array(large))
    host.client.load_model("nninteractive")
    host.client.open_session(window="identity")
    host.client.add_prompts(1, click(7, 6, 5))
    job = host.client.segment_slice(1, AXIAL, 5)
    host.wait(m.Progress, job)
    host.client.cancel(job)
    assert isinstance(host.end_of(job), m.JobCancelled)
    assert server.asked == [] and server.connections == 1

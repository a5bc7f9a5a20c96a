"""When the worker or its host dies, hangs or does not understand: what is kept and what is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.voxel_file import is_alive, sweep
from Testing.worker.conftest import AXIAL, DEADLINE_S, SERVER, Host, point
from Testing.worker.test_worker import an_undisturbed_labelmap


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def kill(pid: int) -> None:
    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def painted_mask() -> np.ndarray:
    mask = np.zeros((40, 48), dtype=bool)
    mask[16:24, 20:29] = True
    return mask


def work(host: Host, volume: Volume, **options: object) -> None:
    """Box, a refining click, a painted slice, one propagation, and a correction of what it found."""
    host.open(volume, **options)
    host.outline()
    for correction in (point(30, 20, positive=False), point(24, 27)):
        host.client.add_prompts(1, correction)
        host.wait(m.SliceMask, host.client.segment_slice(1, AXIAL, 12))
    host.end_of(host.client.confirm_slice(1, AXIAL, 16, painted_mask()))
    host.end_of(host.client.propagate(plane=AXIAL))
    host.client.add_prompts(1, point(24, 24, 9))
    host.wait(m.SliceMask, host.client.segment_slice(1, AXIAL, 9))


def test_after_a_kill_the_next_propagation_equals_an_undisturbed_one(
    start: Callable[..., Host], a_volume: Volume
) -> None:
    undisturbed, host = start(), start()
    work(undisturbed, a_volume)
    before = undisturbed.labelmap()
    undisturbed.end_of(undisturbed.client.propagate(plane=AXIAL))

    work(host, a_volume, delay=0.01)
    job = host.client.propagate(plane=AXIAL)
    host.wait(m.SliceMask, job)
    kill(host.client.pid)
    died = host.wait(m.WorkerDied)
    assert died.will_restart and "stopped unexpectedly" in died.sentence
    failed = host.end_of(job)
    assert "press propagate to go on" in failed.sentence
    host.wait(m.WorkerRestarted)
    seen = {event.key.index: event.mask for event in host.of(job)}
    restored = host.labelmap()
    for index in range(24):
        np.testing.assert_array_equal(restored[index], seen.get(index, before[index]))
    assert isinstance(host.end_of(host.client.propagate(plane=AXIAL)), m.JobDone)
    np.testing.assert_array_equal(host.labelmap(), undisturbed.labelmap())
    np.testing.assert_array_equal(host.labelmap()[16], painted_mask())


def test_a_worker_that_dies_before_all_is_open_opens_it_again(start: Callable[..., Host], a_volume: Volume) -> None:
    host = start()
    host.client.open_volume(a_volume)
    host.client.load_model("fake")
    session = host.client.open_session(window="identity")
    until(lambda: host.client.pid is not None)
    kill(host.client.pid)
    assert isinstance(host.end_of(session), m.JobDone)
    host.wait(m.WorkerRestarted)
    assert host.outline().mask.any()


def test_a_crash_keeps_the_last_words_and_the_finished_slices(start: Callable[..., Host], a_volume: Volume) -> None:
    host = start()
    host.open(a_volume, crashes_on=15)
    host.outline()
    job = host.client.propagate(plane=AXIAL)
    died = host.wait(m.WorkerDied)
    assert any("the driver gave up" in line for line in died.lines)
    assert isinstance(host.end_of(job), m.JobFailed)
    assert {13, 14} <= {event.key.index for event in host.of(job)}
    host.wait(m.WorkerRestarted)
    assert host.labelmap()[[12, 13, 14]].any(axis=(1, 2)).all()


def test_a_click_that_a_crash_interrupts_is_answered_by_the_next_worker(
    start: Callable[..., Host], a_volume: Volume
) -> None:
    host = start()
    host.open(a_volume, delay=0.2)
    host.client.add_prompts(1, point(24, 20))
    click = host.client.segment_slice(1, AXIAL, 12)
    until(lambda: host.client.pid is not None)
    kill(host.client.pid)
    assert isinstance(host.end_of(click), m.JobDone)
    assert len(host.of(click)) == 1
    assert host.labelmap()[12, 20, 24]


def test_a_click_that_crashes_the_worker_is_given_up_and_its_prompts_are_kept(
    start: Callable[..., Host], a_volume: Volume
) -> None:
    host = start()
    host.open(a_volume, crashes_on=12)
    host.client.add_prompts(1, point(24, 20))
    failed = host.end_of(host.client.segment_slice(1, AXIAL, 12))
    assert isinstance(failed, m.JobFailed) and "prompts are kept" in failed.sentence
    assert sum(isinstance(event, m.WorkerDied) for event in host.events) == 2
    host.wait(m.WorkerRestarted)
    assert host.outline(index=11, object_id=2).mask.any()
    assert isinstance(host.end_of(host.client.undo(1)), m.JobDone)


def test_a_hung_job_is_killed_and_its_finished_slices_are_kept(start: Callable[..., Host], a_volume: Volume) -> None:
    host = start()
    host.open(a_volume, hangs_on=15)
    host.outline()
    job = host.client.propagate(plane=AXIAL)
    host.wait_for(lambda event: isinstance(event, m.SliceMask) and event.key.index == 14)
    host.client.cancel(job, kill_after=0.0)
    assert "did not answer" in host.wait(m.WorkerDied).sentence
    assert isinstance(host.end_of(job), m.JobFailed)
    host.wait(m.WorkerRestarted)
    labelmap = host.labelmap()
    assert all((labelmap[event.key.index] == event.mask).all() for event in host.of(job))
    assert host.of(job)


def test_a_worker_that_keeps_dying_is_left_alone(start: Callable[..., Host], a_volume: Volume) -> None:
    host = start(arguments=("-c", "import sys; sys.exit('no numpy here')"))
    job = host.client.load_model("fake")
    last = host.wait_for(lambda event: isinstance(event, m.WorkerDied) and not event.will_restart)
    assert sum(isinstance(event, m.WorkerDied) for event in host.events) == 4
    assert "no numpy here" in last.lines[-1] and "start it by hand" in last.sentence
    assert isinstance(host.end_of(job), m.JobFailed)
    assert not host.client.is_running
    with pytest.raises(WorkerError, match="start it first"):
        host.client.open_volume(a_volume)


def test_an_interpreter_that_is_not_there_is_a_sentence(start: Callable[..., Host]) -> None:
    host = start(python="/no/such/PythonSlicer")
    died = host.wait(m.WorkerDied)
    assert died.sentence.startswith("The worker cannot be started") and not died.will_restart


def test_another_version_is_a_sentence_and_is_not_tried_again(start: Callable[..., Host]) -> None:
    code = "from SegmentAnythingMedLib.worker import messages, process\nmessages.VERSION = 99\nprocess.main([])"
    died = start(arguments=("-c", code)).wait(m.WorkerDied)
    assert "version 99" in died.sentence and "same installation" in died.sentence and not died.will_restart


@pytest.mark.parametrize("rubbish", [b"hello, I am a library that prints", bytes([0, 0, 0, 2]) + bytes(8) + b"{}"])
def test_an_answer_that_is_no_frame_ends_the_worker(start: Callable[..., Host], rubbish: bytes) -> None:
    code = f"import os, time; os.write(1, {rubbish!r}); time.sleep(100)"
    died = start(arguments=("-c", code)).wait(m.WorkerDied)
    assert not died.will_restart


def test_the_worker_ends_on_a_command_that_is_no_frame() -> None:
    worker = subprocess.Popen([sys.executable, SERVER], stdin=-1, stdout=-1, stderr=-1)
    out, _ = worker.communicate(b"\xff" * 40, timeout=DEADLINE_S)
    assert worker.returncode == 3
    assert b"A command was refused" in out


def test_a_started_again_client_has_everything_still(start: Callable[..., Host], a_volume: Volume) -> None:
    host = start()
    host.open(a_volume)
    host.outline()
    host.client.restart("as the user wished")
    assert host.wait(m.WorkerDied).sentence == "as the user wished"
    host.wait(m.WorkerRestarted)
    host.end_of(host.client.propagate(plane=AXIAL))
    np.testing.assert_array_equal(host.labelmap(), an_undisturbed_labelmap(a_volume))


def test_after_shutdown_neither_process_nor_voxels_are_left(
    start: Callable[..., Host], a_volume: Volume, tmp_path: Path
) -> None:
    host = start()
    host.open(a_volume, delay=0.02)
    host.outline()
    host.client.propagate(plane=AXIAL)
    pid = host.client.pid
    assert len(list(tmp_path.glob("*.voxels"))) == 1
    host.client.shutdown(timeout=DEADLINE_S)
    until(lambda: not is_alive(pid))
    assert not list(tmp_path.glob("*.voxels"))
    assert host.client.poll() == []
    host.client.shutdown()


_PARENT = """
import sys, time
from Testing.worker.conftest import AXIAL, SERVER, Host, point
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.worker.client import WorkerClient
import numpy as np
host = Host(WorkerClient(arguments=(SERVER,), folder=sys.argv[1]))
host.client.start()
host.open(Volume.from_array(np.zeros((20, 30, 30), np.uint8)), hangs_on=0)
host.client.add_prompts(1, point(9, 9, 5))
host.client.segment_slice(1, AXIAL, 5)
print(host.client.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_the_worker_ends_with_its_host_and_leaves_no_voxels(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    command, environment = [sys.executable, "-c", _PARENT, str(tmp_path)], os.environ | {"PYTHONPATH": root}
    parent = subprocess.Popen(command, stdout=-1, text=True, cwd=root, env=environment)
    with parent:
        pid = int(parent.stdout.readline())
        assert is_alive(pid) and len(list(tmp_path.glob("*.voxels"))) == 1
        parent.kill()
    until(lambda: not is_alive(pid))
    sweep(tmp_path)
    assert not list(tmp_path.glob("*.voxels"))

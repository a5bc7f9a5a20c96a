"""Host and worker in conversation: order, overtaking, cancelling, failing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.worker import messages as m
from Testing.worker.conftest import AXIAL, Host, box, point
from Testing.worker.fake_model import FakeModel


def an_undisturbed_labelmap(volume: Volume, *clicks: object) -> np.ndarray:
    """What the session finds without a worker: box on slice 12, further clicks, propagated."""
    session = VolumeSession(volume, FakeModel(), window="identity")
    for prompt in (box(), *clicks):
        session.segment_slice(1, session.add_prompt(1, prompt))
    for _ in session.propagate(plane=AXIAL):
        pass
    return session.labelmap(1)


def test_events_arrive_in_the_order_of_the_work(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    a_host.outline()
    job = a_host.client.propagate([1], plane=AXIAL, direction="forward")
    done = a_host.end_of(job)
    slices = a_host.of(job)
    assert [event.key.index for event in slices] == list(range(13, 13 + len(slices)))
    assert [event.done for event in slices] == list(range(1, len(slices) + 1))
    assert done.stats["slices"] == len(slices)
    assert [type(event) for event in a_host.events[:3]] == [m.Ready, m.VolumeOpened, m.JobDone]
    assert a_host.client.jobs == ()


def test_the_labelmap_is_that_of_a_session_in_process(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    a_host.outline()
    a_host.end_of(a_host.client.propagate(plane=AXIAL))
    np.testing.assert_array_equal(a_host.labelmap(), an_undisturbed_labelmap(a_volume))


def test_slices_carry_their_identity(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    event = a_host.outline(index=11, object_id=5)
    assert (event.object_id, event.key.plane, event.key.index, event.key.time) == (5, AXIAL, 11, 0)
    assert event.key.volume == a_volume.fingerprint
    assert event.revision == a_host.client.revision(5) == 2
    assert event.prompted and event.box is None


def test_a_click_during_a_propagation_is_answered_before_it_ends(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, delay=0.03)
    a_host.outline()
    job = a_host.client.propagate([1], plane=AXIAL)
    a_host.wait(m.SliceMask, job)
    a_host.client.add_prompts(2, point(24, 20, 10))
    click = a_host.client.segment_slice(2, AXIAL, 10)
    a_host.wait(m.SliceMask, click)
    assert job in a_host.client.jobs
    assert isinstance(a_host.end_of(job), m.JobDone)
    np.testing.assert_array_equal(a_host.labelmap(), an_undisturbed_labelmap(a_volume))


def test_a_correction_during_a_propagation_is_carried_too(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, delay=0.01)
    a_host.outline()
    job = a_host.client.propagate([1], plane=AXIAL)
    a_host.wait(m.SliceMask, job)
    correction = point(24, 20, 16, positive=False)
    a_host.client.add_prompts(1, correction)
    a_host.client.segment_slice(1, AXIAL, 16)
    assert isinstance(a_host.end_of(job), m.JobDone)
    np.testing.assert_array_equal(a_host.labelmap(), an_undisturbed_labelmap(a_volume, correction))
    shown = {event.key.index: event.mask for event in a_host.events if isinstance(event, m.SliceMask)}
    labelmap = a_host.labelmap()
    assert all((labelmap[index] == mask).all() for index, mask in shown.items())


def test_an_object_removed_during_its_propagation_is_quiet(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, delay=0.02)
    a_host.outline(object_id=1)
    a_host.outline(object_id=2)
    job = a_host.client.propagate([1, 2], plane=AXIAL)
    a_host.wait(m.SliceMask, job)
    a_host.client.remove_object(1)
    seen = len(a_host.events)
    assert isinstance(a_host.end_of(job), m.JobDone)
    later = [event for event in a_host.events[seen:] if isinstance(event, m.SliceMask)]
    assert {event.object_id for event in later} == {2}


def test_the_newest_of_five_quick_clicks_wins(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, delay=0.4)
    jobs = []
    for column in (20, 22, 24, 26, 28):
        a_host.client.add_prompts(1, point(column, 20))
        jobs.append(a_host.client.segment_slice(1, AXIAL, 12))
    assert isinstance(a_host.end_of(jobs[-1]), m.JobDone)
    ends = [type(event) for event in a_host.events if event.job in jobs[1:4] and not isinstance(event, m.SliceMask)]
    assert ends == [m.JobCancelled] * 3
    answered = [event.job for event in a_host.events if isinstance(event, m.SliceMask)]
    assert answered[-1] == jobs[-1] and len(answered) <= 2
    assert a_host.of(jobs[-1])[0].mask[20, [17, 31]].all()


def test_results_of_an_older_revision_are_dropped(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    a_host.client.add_prompts(1, box())
    first = a_host.client.segment_slice(1, AXIAL, 12)
    a_host.client.set_prompts(1, [point(24, 20)])
    second = a_host.client.segment_slice(1, AXIAL, 12)
    a_host.end_of(second)
    assert a_host.of(first) == []
    assert len(a_host.of(second)) == 1


def test_cancelling_ends_within_one_slice(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, delay=0.15)
    a_host.outline()
    job = a_host.client.propagate(plane=AXIAL)
    a_host.wait(m.SliceMask, job)
    seen = len(a_host.of(job))
    a_host.client.cancel(job)
    assert isinstance(a_host.end_of(job), m.JobCancelled)
    assert len(a_host.of(job)) <= seen + 2  # the slice that was running, and one that had been on its way
    labelmap = a_host.labelmap()
    assert all((labelmap[event.key.index] == event.mask).all() for event in a_host.of(job))


def test_a_job_cancelled_at_once_never_runs(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, delay=0.02)
    a_host.outline()
    running = a_host.client.propagate(plane=AXIAL)
    waiting = a_host.client.propagate(plane=AXIAL)
    a_host.client.cancel(waiting)
    assert isinstance(a_host.end_of(waiting), m.JobCancelled)
    assert running in a_host.client.jobs
    a_host.end_of(running)
    assert a_host.of(waiting) == []


def test_prefetching_gives_way_to_clicks_and_newer_prefetching(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, encode_delay=0.02)
    first = a_host.client.prefetch(AXIAL, 12, 11)
    a_host.wait(m.Progress, first)
    a_host.outline()
    assert first in a_host.client.jobs
    second = a_host.client.prefetch(AXIAL, 3, 1)
    assert isinstance(a_host.end_of(first), m.JobCancelled)
    assert isinstance(a_host.end_of(second), m.JobDone)


def test_candidates_confirmation_undo_and_clearing_answer_with_the_slice(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    a_host.client.add_prompts(1, point(24, 20))
    first = a_host.wait(m.SliceMask, a_host.client.segment_slice(1, AXIAL, 12))
    assert len(first.candidates) == 2
    chosen = a_host.wait(m.SliceMask, a_host.client.choose_candidate(1, AXIAL, 12, 1))
    np.testing.assert_array_equal(chosen.mask, first.candidates[1])
    assert chosen.box == (15, 19, 26, 30)
    painted = np.zeros((40, 48), dtype=bool)
    painted[3:6, 3:6] = True
    confirmed = a_host.wait(m.SliceMask, a_host.client.confirm_slice(1, AXIAL, 12, painted))
    np.testing.assert_array_equal(confirmed.mask, painted)
    cleared = a_host.wait(m.SliceMask, a_host.client.clear_slice(1, AXIAL, 12))
    assert not cleared.mask.any()
    assert isinstance(a_host.end_of(a_host.client.undo(1)), m.JobFailed)


def test_undo_of_one_of_two_clicks_answered_together_leaves_the_other(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    a_host.client.add_prompts(1, point(24, 20), point(24, 28))
    a_host.wait(m.SliceMask, a_host.client.segment_slice(1, AXIAL, 12))
    undone = a_host.wait(m.SliceMask, a_host.client.undo(1))
    assert undone.mask[20, 24] and not undone.mask[28, 24]


def test_prompts_of_other_slices_stay_when_one_is_moved(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    a_host.client.set_prompts(1, [box(12), point(24, 20, 15), point(20, 20, 9)])
    for index in (12, 15, 9):
        a_host.wait(m.SliceMask, a_host.client.segment_slice(1, AXIAL, index))
    kept = a_host.labelmap()
    moved = a_host.client.set_prompts(1, [box(12), point(26, 20, 15)])
    a_host.client.segment_slice(1, AXIAL, 15)
    assert [event.key.index for event in (a_host.end_of(moved), *a_host.of(moved))[1:]] == [9]
    labelmap = a_host.labelmap()
    np.testing.assert_array_equal(labelmap[12], kept[12])
    assert not labelmap[9].any() and labelmap[15, 20, 29] and not kept[15, 20, 29]


def test_repropagation_reaches_to_the_neighbouring_key_slices(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    a_host.outline(12)
    a_host.end_of(a_host.client.propagate(plane=AXIAL))
    a_host.outline(16)
    job = a_host.client.repropagate(1, AXIAL, 16)
    a_host.end_of(job)
    assert min(event.key.index for event in a_host.of(job)) == 13


def test_painted_voxels_stay(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    a_host.outline()
    painted = np.zeros((24, 40, 48), dtype=bool)
    painted[14, 20, 24] = True
    a_host.client.protect_voxels(1, painted)
    a_host.end_of(a_host.client.propagate(plane=AXIAL))
    labelmap = a_host.labelmap()
    assert not labelmap[14, 20, 24] and labelmap[14, 20, 25]


def test_printing_in_the_worker_does_not_spoil_the_conversation(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, prints=True)
    a_host.outline()
    assert isinstance(a_host.end_of(a_host.client.propagate(plane=AXIAL)), m.JobDone)
    assert any("straight to the descriptor" in line for line in a_host.client.error_lines)


def test_a_wrong_prompt_is_a_sentence_and_changes_nothing(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    a_host.outline()
    before = a_host.labelmap()
    failed = a_host.end_of(a_host.client.add_prompts(1, point(20, 20), point(500, 20)))
    assert (failed.error, "outside the volume" in failed.sentence) == ("PromptError", True)
    job = a_host.client.segment_slice(1, AXIAL, 12)
    a_host.end_of(job)
    np.testing.assert_array_equal(a_host.of(job)[0].mask, before[12])


def test_a_bug_in_a_model_fails_the_job_and_not_the_worker(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, fails_on=15)
    a_host.outline()
    failed = a_host.end_of(a_host.client.propagate(plane=AXIAL))
    assert isinstance(failed, m.JobFailed) and failed.error == "ValueError"
    log = [event.line for event in a_host.events if isinstance(event, m.Log)][-1]
    assert "no such kernel in <path>" in log and "fake_model.py" in log
    assert "jane" not in log and "john" not in log and "/" not in log
    assert a_host.labelmap()[12:15].any(axis=(1, 2)).all()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space")
def test_full_memory_is_one_sentence_and_the_session_goes_on(start: Callable[..., Host], a_volume: Volume) -> None:
    host = start(memory_mb=3000)
    host.open(a_volume, hungry_on=15)
    host.outline()
    failed = host.end_of(host.client.propagate(plane=AXIAL))
    assert isinstance(failed, m.JobFailed) and failed.error == "MemoryError"
    assert failed.sentence.startswith("The memory is not enough")
    assert host.labelmap()[14].any()
    assert isinstance(host.end_of(host.client.propagate(plane=AXIAL, first=8, last=13)), m.JobDone)


def test_nothing_to_work_on_is_a_sentence(a_host: Host, a_volume: Volume) -> None:
    a_host.client.add_prompts(1, box())
    assert "Open a volume" in a_host.end_of(a_host.client.segment_slice(1, AXIAL, 3)).sentence
    a_host.client.open_volume(a_volume)
    assert "use one of fake" in a_host.end_of(a_host.client.load_model("sam9")).sentence
    assert "Choose a model" in a_host.end_of(a_host.client.open_session()).sentence


def test_what_the_host_gets_wrong_is_said_at_once(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume)
    with pytest.raises(WorkerError, match="index"):
        a_host.client.segment_slice(1, AXIAL, -3)
    with pytest.raises(WorkerError, match="object_id"):
        a_host.client.add_prompts("liver", box())
    assert a_host.client.jobs == ()


def test_events_of_an_earlier_volume_no_longer_come(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, delay=0.02)
    a_host.outline()
    job = a_host.client.propagate(plane=AXIAL)
    a_host.wait(m.SliceMask, job)
    other = Volume.from_array(np.zeros((5, 6, 7), dtype=np.int16))
    opened = a_host.client.open_volume(other)
    seen = len(a_host.events)
    a_host.end_of(opened)
    assert isinstance(a_host.end_of(a_host.client.open_session()), m.JobDone)
    later = a_host.events[seen:]
    assert not any(isinstance(event, m.SliceMask) for event in later)
    assert [type(event) for event in later if event.job == job] == [m.JobCancelled]


def test_an_edited_volume_keeps_prompts_and_confirmed_slices(a_host: Host, a_volume: Volume) -> None:
    a_host.open(a_volume, delay=0.005)
    a_host.outline()
    painted = np.zeros((40, 48), dtype=bool)
    painted[18:22, 20:28] = True
    a_host.end_of(a_host.client.confirm_slice(1, AXIAL, 15, painted))
    running = a_host.client.propagate(plane=AXIAL)
    voxels = a_volume.voxels.copy()
    voxels[:, :, 18:, 1:] = 0
    edited = Volume(voxels, a_volume.geometry)
    job = a_host.client.volume_changed(edited)
    assert isinstance(a_host.end_of(running), m.JobCancelled)
    assert a_host.wait(m.VolumeOpened, job).fingerprint == edited.fingerprint
    again = a_host.client.propagate(plane=AXIAL)
    assert isinstance(a_host.end_of(again), m.JobDone)
    labelmap = a_host.labelmap()
    np.testing.assert_array_equal(labelmap[15], painted)
    assert labelmap[12].any() and not labelmap[18:].any()
    assert {event.key.volume for event in a_host.of(again)} == {edited.fingerprint}


def test_the_client_needs_nothing_heavy() -> None:
    code = (
        "import sys, SegmentAnythingMedLib.worker.client\n"
        "print(sorted({'scipy', 'SimpleITK', 'torch', 'matplotlib', 'pydicom', 'multiprocessing'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""What goes on between the user's actions: the worker's answers, progress, writing, and what the scene takes away."""

from __future__ import annotations

import functools
import logging
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.mrml.controller_link import Job, Purpose, WorkerLink
from SegmentAnythingMedLib.mrml.controller_outlining import Outlining
from SegmentAnythingMedLib.mrml.controller_proposals import Proposals
from SegmentAnythingMedLib.mrml.controller_review import weak_quality
from SegmentAnythingMedLib.mrml.controller_segment import WorkedSegments
from SegmentAnythingMedLib.mrml.controller_states import Signal, State, next_state
from SegmentAnythingMedLib.mrml.controller_watch import SceneWatch
from SegmentAnythingMedLib.mrml.placing import PromptPlacing
from SegmentAnythingMedLib.mrml.prompt_markups import PromptMarkups
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.client import WorkerClient
from SegmentAnythingMedLib.worker.lighter import NOTICE

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

logger = logging.getLogger(__name__)

_MOST_MESSAGES = 50
_EVENTS_AT_ONCE = 1
_ENDS = (m.JobDone, m.JobCancelled, m.JobFailed)

Self = TypeVar("Self", bound="ControllerWork")
Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def told(
    verb: Callable[Concatenate[Self, Asked], Answer],
) -> Callable[Concatenate[Self, Asked], Answer | None]:
    """A verb of the user: an error of ours becomes the status, and observers hear of what changed."""

    @functools.wraps(verb)
    def wrapped(self: Self, *args: Asked.args, **kwargs: Asked.kwargs) -> Answer | None:
        try:
            self.attend_to_scene()
            return verb(self, *args, **kwargs)
        except SegmentAnythingMedError as error:
            self.tell(str(error))
            return None
        finally:
            self.update_state()
            self.notify()

    return wrapped


@dataclass(frozen=True)
class Progress:
    """How far a propagation or the writing of a segment is; ``total`` 0 where nothing runs."""

    done: int = 0
    total: int = 0
    seconds_left: float = 0.0


class ControllerWork:
    """State, status and everything that `poll` does; `Controller` adds the verbs.

    Parameters
    ----------
    scene
        Where all nodes live.
    client_factory
        Makes the worker's client when it is first needed.
    """

    def __init__(self, scene: vtkMRMLScene, client_factory: Callable[[], WorkerClient] = WorkerClient) -> None:
        self.scene = scene
        self.state = State.IDLE
        self.status = "Choose a volume."
        self.messages: tuple[str, ...] = ()
        self.progress = Progress()
        self.volume: vtkMRMLScalarVolumeNode | None = None
        self.segmentation: vtkMRMLSegmentationNode | None = None
        self.segment_id = ""
        self.time = 0
        self.markups: PromptMarkups | None = None
        self.model_loaded: m.ModelLoaded | None = None
        self.link = WorkerLink(client_factory)
        self.segments = WorkedSegments()
        self.outlining = Outlining(self.link, self.segments, lambda: self.markups)
        self.proposals: Proposals | None = None
        self.left: list[Proposals] = []
        self._placing: PromptPlacing | None = None
        self._watch = SceneWatch(scene)
        self._observers: list[Callable[[], None]] = []
        self._when_outlined: list[Callable[[], None]] = []
        self._is_changed = self._is_muted = False

    # -- telling -------------------------------------------------------------------------------------------------

    def observe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a function called when something the panel shows changed; the answer takes it back."""
        self._observers.append(callback)
        return lambda: self._observers.remove(callback) if callback in self._observers else None

    def tell(self, sentence: str) -> None:
        """Put a sentence into the status; the last 50 are in `messages`."""
        self.status, self._is_changed = sentence, True
        self.messages = (*self.messages, sentence)[-_MOST_MESSAGES:]

    def notify(self) -> None:
        """Call the observers if something changed; one that fails is logged and does not stop the others."""
        if not self._is_changed:
            return
        self._is_changed = False
        for callback in tuple(self._observers):
            try:
                callback()
            except Exception:
                logger.exception("An observer of the controller failed")

    def send(self, signal: Signal) -> None:
        """Change the state by the table."""
        after = next_state(self.state, signal)
        self._is_changed |= after is not self.state
        self.state = after

    def update_state(self) -> None:
        """Bring the state to what runs now."""
        carrying = bool(self.link.open_jobs(Purpose.PROPAGATION))
        if carrying:
            self.send(Signal.PROPAGATE)
        elif self.outlining.is_busy and self.state is not State.PROPAGATING:
            self.send(Signal.OUTLINE)
        elif self.state in (State.SEGMENTING, State.PROPAGATING):
            self.send(Signal.REVIEWABLE if any(item.carried for item in self.segments) else Signal.ENDED)
            self.progress = Progress()

    # -- polling -------------------------------------------------------------------------------------------------

    def poll(self, budget_s: float = 0.01) -> None:
        """Do what has come up, for about so long. Called by the host's timer every 20 to 50 ms; never raises."""
        end = clock.perf_counter() + budget_s
        try:
            self._poll(end)
        except SegmentAnythingMedError as error:
            self.tell(str(error))
        except Exception as error:  # the host's timer must live: said in words, with the trace in the log
            logger.exception("The controller failed")
            self.tell(f"Something went wrong inside ({type(error).__name__}): see the log for details.")
        finally:
            self.update_state()
            self.notify()

    def _poll(self, end: float) -> None:
        self.attend_to_scene()
        client = self.link.started
        while client is not None and clock.perf_counter() < end:
            events = client.poll(_EVENTS_AT_ONCE, end - clock.perf_counter())
            for event in events:
                self._take(event)
            if not events:
                break
        if self.is_usable:
            self.outlining.pump()
            if self._when_outlined and not self._is_running:
                self._when_outlined.pop(0)()
        if self.proposals is not None:
            self.proposals.look(end)
        self.left = [item for item in self.left if item is not self.proposals and item.is_writing]
        if self.is_writing:
            self._is_changed = True
            next(item for item in (*self.left, self.proposals) if item is not None and item.is_writing).step(end)
        elif self.is_usable and self.link.is_open and not self.link.jobs:
            self.when_idle()

    @property
    def is_writing(self) -> bool:
        """Whether something that was accepted or undone is still being written, also of a volume that was left."""
        return any(item is not None and item.is_writing for item in (*self.left, self.proposals))

    def finish_writing(self, most_s: float = 10.0) -> None:
        """Write to its end what the user accepted, without polling: when all is closed."""
        end = clock.perf_counter() + most_s
        for proposals in self.left:
            while proposals.is_writing and clock.perf_counter() < end:
                try:
                    proposals.step(end)
                except SegmentAnythingMedError as error:
                    logger.warning("Not all was written: %s", error)
                clock.sleep(0.001)  # a thread may be building a surface
            proposals.close()
        self.left = []

    @property
    def is_usable(self) -> bool:
        """Whether the worker can be asked something."""
        return self.state not in (State.IDLE, State.FAILED, State.INSTALLING)

    def when_idle(self) -> None:
        """Nothing runs: prepare what may come next."""

    def attend_to_scene(self) -> None:
        """Follow what happened to the nodes that are worked on."""

    def do_when_outlined(self, action: Callable[[], None]) -> None:
        """Do something now, or when the outlines and propagations that were asked for have ended."""
        if self._is_running:
            self._when_outlined.append(action)
        else:
            action()

    @property
    def _is_running(self) -> bool:
        return self.outlining.is_busy or bool(self.link.open_jobs(Purpose.PROPAGATION))

    # -- the worker's events -------------------------------------------------------------------------------------

    def _take(self, event: m.Event) -> None:
        if isinstance(event, m.SliceMask):
            self._take_slice(event)
        elif isinstance(event, _ENDS):
            job = self.link.jobs.pop(event.job, None)
            if job is not None:
                self._job_ended(event, job)
        elif isinstance(event, m.ModelLoaded):
            self.model_loaded, self._is_changed = event, True
        elif isinstance(event, m.WorkerDied):
            self._worker_died(event)
        elif isinstance(event, m.WorkerRestarted):
            self.tell("The worker was started again: prompts and finished slices are kept, go on or propagate again.")
        elif isinstance(event, m.Log):
            logger.info("worker: %s", event.line)
            if event.level == NOTICE:
                self.tell(event.line)

    def _take_slice(self, event: m.SliceMask) -> None:
        segment, job = self.segments.with_object(event.object_id), self.link.jobs.get(event.job)
        if segment is None or job is None or self.proposals is None or self.segmentation is None:
            return
        at = event.key.plane, event.key.index
        self._is_changed = True
        segment.review.note(event, weak_quality(self.link.model))
        if event.candidates is not None:
            segment.candidates[at] = len(event.candidates), event.candidate
            if self.outlining.remember_choice(segment, event, job.is_shown):
                return  # the next event is the one that the user wants to see
        else:
            segment.candidates.pop(at, None)
        if job.purpose is Purpose.PROPAGATION:
            segment.carried.add(at)
            self.progress = Progress(event.done, event.total, event.seconds_left)
        if job.is_shown:
            self.proposals.show(segment, self.segmentation, *at, event.mask)

    def _job_ended(self, event: m.JobDone | m.JobCancelled | m.JobFailed, job: Job) -> None:
        self._is_changed = True
        if isinstance(event, m.JobFailed) and job.purpose is not Purpose.PREFETCH:
            if job.purpose is Purpose.OPENING and self.state is not State.FAILED:
                self.link.reopen()
                self.fail(event.sentence)
            elif self.state is not State.FAILED:
                self.tell(event.sentence)
        elif job.purpose is Purpose.PROPAGATION and not self.link.open_jobs(Purpose.PROPAGATION):
            if isinstance(event, m.JobCancelled):
                self.tell("Cancelled: the slices that are finished are kept.")
            else:
                self.tell("Carried through the volume: look at the weak slices, then accept.")

    def _worker_died(self, event: m.WorkerDied) -> None:
        logger.warning("The worker died: %s %s", event.sentence, " | ".join(event.lines))
        if event.will_restart:
            self.tell(f"{event.sentence} It is being started again.")
        else:
            self.fail(event.sentence)

    def fail(self, sentence: str) -> None:
        """Say what is wrong and ask nothing of the worker until the user chose or installed something else."""
        self.tell(sentence)
        self._when_outlined.clear()
        for segment in self.segments:
            segment.replay.clear()
        self.link.jobs.clear()
        self.send(Signal.FAILED)

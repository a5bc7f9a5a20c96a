"""4D: carrying what is outlined at one time point to the others, as a sequence of segmentations."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import OutputError, PromptError, SegmentAnythingMedError, VolumeError
from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.mrml.controller_link import Job, Purpose
from SegmentAnythingMedLib.mrml.controller_prompting import Prompting
from SegmentAnythingMedLib.mrml.controller_review import weak_quality
from SegmentAnythingMedLib.mrml.controller_segment import WorkedSegment
from SegmentAnythingMedLib.mrml.controller_work import Progress, told
from SegmentAnythingMedLib.mrml.segment_series import SegmentSeries
from SegmentAnythingMedLib.mrml.segment_writer import WriteMode
from SegmentAnythingMedLib.mrml.sequences import browser_of, current_time, volumes_over_time
from SegmentAnythingMedLib.voxel_block import VoxelBlock
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.client import WorkerClient

if TYPE_CHECKING:
    from slicer import vtkMRMLScene


@dataclass(eq=False)
class _Run:
    """A propagation through time that goes on, or the last one.

    Parameters
    ----------
    job
        Of the worker.
    series
        Where time points are written.
    started
        Seconds of the clock.
    written
        Time points that are written.
    weak
        Those of them with a low predicted quality.
    """

    job: int
    series: SegmentSeries
    started: float
    written: set[int] = field(default_factory=set)
    weak: set[int] = field(default_factory=set)


class ThroughTime(Prompting):
    """The part of `Controller` that works on sequences."""

    def __init__(self, scene: vtkMRMLScene, client_factory: Callable[[], WorkerClient] = WorkerClient) -> None:
        super().__init__(scene, client_factory)
        self._run_through_time: _Run | None = None

    @property
    def has_time_points(self) -> bool:
        """Whether a sequence browser plays the volume."""
        return self.volume is not None and browser_of(self.volume) is not None

    @told
    def set_time(self, time: int) -> None:
        """Go to a time point of the sequence."""
        browser = browser_of(self._needed_volume())
        if browser is None:
            raise VolumeError("The volume has only one time point.")
        browser.SetSelectedItemNumber(int(time))
        if current_time(self.volume) != self.time:
            self.change_time(current_time(self.volume))

    @told
    def propagate_through_time(self, direction: str = "both", segment_ids: Iterable[str] | str | None = None) -> None:
        """Carry the segments of this time point to the others and write them into a sequence of segmentations.

        What is proposed for them is accepted first. The user's segmentation becomes the proxy of the sequence, which
        the volume's browser plays; this time point keeps what it has. At other time points segments that the user
        made or changed are kept and help, those of an earlier propagation are replaced. `cancel` keeps the time points
        that are done. Progress counts slices.

        Parameters
        ----------
        direction
            To later time points (``forward``), earlier ones (``backward``), or ``both``.
        segment_ids
            By default the current segment; ``"all"`` for all segments that have prompts at this time point.
        """
        if browser_of(self._needed_volume()) is None:
            raise VolumeError("The volume has only one time point: choose the volume of a sequence.")
        if len(self._watch.volumes) > 1:
            raise VolumeError("Several volumes together cannot be carried through time: choose one volume.")
        self._needed_segment()
        segments = [self.segments.of(name) for name in self._named_segments(segment_ids)]
        if not segments:
            raise PromptError("There is no outline at this time point yet: draw a box or click on the structure first.")
        self.do_when_outlined(lambda: self._accept_and_carry(segments, direction))

    def _named_segments(self, segment_ids: Iterable[str] | str | None) -> list[str]:
        if segment_ids == "all":
            return [item.segment_id for item in self.segments if item.at is not None]
        return [self.segment_id] if segment_ids is None else list(segment_ids)

    def _accept_and_carry(self, segments: list[WorkedSegment], direction: str) -> None:
        proposed = [item.segment_id for item in segments if item in self.proposals]
        if proposed:
            self._accept(proposed, WriteMode.REPLACE)
        self.proposals.later(iter(()), lambda _: self._when_accepted(segments, direction))

    def _when_accepted(self, segments: list[WorkedSegment], direction: str) -> None:
        try:
            if any(item in self.proposals for item in segments):
                raise OutputError("The outline could not be written, so it was not carried through time.")
            self._carry_through_time(segments, direction)
        except SegmentAnythingMedError as error:
            self.tell(str(error))

    def _carry_through_time(self, segments: list[WorkedSegment], direction: str) -> None:
        ids = [item.segment_id for item in segments]
        series = SegmentSeries(self.scene, self.volume, self.segmentation, self.time, ids)
        keys = {item.object_id: series.keys(item.segment_id) for item in segments}
        for item in segments:
            if not keys[item.object_id][self.time].voxels.size:
                name = self.segmentation.GetSegmentation().GetSegment(item.segment_id).GetName()
                raise PromptError(f"The segment {name} has nothing at this time point: outline it first.")
        plane = segments[0].at[0] if segments[0].at else Plane.named("axial", self.markups.frame.geometry)
        volumes = volumes_over_time(self.volume)
        job = self.link.client.propagate_through_time(volumes, keys, plane=plane, time=self.time, direction=direction)
        self.link.track(job, Purpose.PROPAGATION, segments[0].segment_id, is_shown=False)
        self._run_through_time = _Run(job, series, clock.perf_counter())
        self.tell("Carrying the outline through time.")

    # -- the worker's events -------------------------------------------------------------------------------------

    def _take(self, event: m.Event) -> None:
        run = self._run_through_time
        is_ours = run is not None and event.job == run.job and event.job in self.link.jobs
        if is_ours and isinstance(event, m.TimePoint):
            self._take_time_point(run, event)
        elif is_ours and isinstance(event, m.Progress):
            each = (clock.perf_counter() - run.started) / max(event.done, 1)
            self.progress = Progress(event.done, event.total, each * (event.total - event.done))
            self._is_changed = True
        else:
            super()._take(event)

    def _take_time_point(self, run: _Run, event: m.TimePoint) -> None:
        segment = self.segments.with_object(event.object_id)
        if segment is None or self.proposals is None or self.segmentation is None:
            return
        block = VoxelBlock(event.voxels, event.low_kji) if event.voxels is not None else VoxelBlock.nothing()

        def written(error: SegmentAnythingMedError | None) -> None:
            if error is None:
                run.written.add(event.time)
                if event.voxels is not None and event.quality < weak_quality(self.link.model):
                    run.weak.add(event.time)

        self.proposals.later(run.series.write(segment.segment_id, event.time, block), written)

    def _job_ended(self, event: m.JobDone | m.JobCancelled | m.JobFailed, job: Job) -> None:
        run = self._run_through_time
        if run is None or event.job != run.job or isinstance(event, m.JobFailed):
            super()._job_ended(event, job)
        elif self.proposals is not None:
            word = "Cancelled" if isinstance(event, m.JobCancelled) else "Carried through time"
            self.proposals.later(iter(()), lambda _: self.tell(f"{word}: {_summary(run)}"))


def _summary(run: _Run) -> str:
    count = len(run.written)
    text = f"{count} time point{'' if count == 1 else 's'} written"
    if run.weak:
        text += f"; look at {', '.join(map(str, sorted(run.weak)[:5]))}{' and more' if len(run.weak) > 5 else ''}"
    return text + "."

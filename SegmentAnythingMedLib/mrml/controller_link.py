"""The controller's worker: started when first needed, opened on volume and model, its jobs by purpose."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.models.registry import default_model
from SegmentAnythingMedLib.mrml.scene import VolumeStamp, display_window, fused_volume, volume_stamp
from SegmentAnythingMedLib.mrml.sequences import PlayedArray
from SegmentAnythingMedLib.windowing import Window
from SegmentAnythingMedLib.worker.client import WorkerClient

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

HANG_SECONDS = 20.0
"""How long a cancelled job may go on before the worker is started again."""


class Purpose(enum.Enum):
    """Why a job was asked for."""

    OPENING = "opening"
    CHANGE = "change"
    OUTLINE = "outline"
    SUGGESTION = "suggestion"
    PROPAGATION = "propagation"
    PREFETCH = "prefetch"


@dataclass(frozen=True)
class Job:
    """A job of the worker.

    Parameters
    ----------
    purpose
        Why.
    segment_id
        For which segment; empty for several or none.
    is_shown
        Whether its slices go into the preview.
    """

    purpose: Purpose
    segment_id: str = ""
    is_shown: bool = True


class WorkerLink:
    """What has been said to the worker and what it still works on.

    Parameters
    ----------
    client_factory
        Makes the client, when first needed.
    """

    def __init__(self, client_factory: Callable[[], WorkerClient]) -> None:
        self._factory = client_factory
        self._client: WorkerClient | None = None
        self._nodes: tuple[vtkMRMLScalarVolumeNode, ...] = ()
        self._stale = {"volume", "model", "session"}
        self.jobs: dict[int, Job] = {}
        self.model, self.device, self.options = default_model(), "auto", {}
        self.window, self.policy = "auto", "recent"
        self.stamps: tuple[VolumeStamp, ...] = ()
        self._played: tuple[PlayedArray | None, ...] = ()

    @property
    def client(self) -> WorkerClient:
        """The client, with its session open or on the way."""
        if self._client is None:
            self._client = self._factory()
        self._open(self._client)
        return self._client

    @property
    def started(self) -> WorkerClient | None:
        """The client if it was ever needed, without opening anything."""
        return self._client

    @property
    def is_open(self) -> bool:
        """Whether the worker was given volume and model as they are chosen now."""
        return self._client is not None and self._client.is_running and not self._stale

    @property
    def is_lost(self) -> bool:
        """Whether the worker was given up."""
        return self._client is not None and not self._client.is_running

    def set_volume(self, nodes: Iterable[vtkMRMLScalarVolumeNode]) -> None:
        """Work on these nodes as channels of one volume; none: on nothing."""
        self.end_jobs()
        self._nodes = tuple(nodes)
        self._stale |= {"volume", "session"}

    def set_model(self, name: str, device: str, options: dict[str, object]) -> None:
        self.end_jobs()
        self.model, self.device, self.options = name, device, options
        self._stale |= {"model", "session"}

    def set_window(self, name: str) -> None:
        self.end_jobs()
        self.window = name
        self._stale.add("session")

    def set_policy(self, name: str) -> None:
        self.end_jobs()
        self.policy = name
        self._stale.add("session")

    def reopen(self, *what: str) -> None:
        """Say volume, model and session again at the next occasion; or only what is named."""
        self.end_jobs()
        self._stale |= set(what) or {"volume", "model", "session"}

    def changes(self) -> str:
        """What happened to the volume since it was handed over: ``voxels``, ``place`` or nothing."""
        if not self.stamps or "volume" in self._stale:
            return ""
        now = tuple(volume_stamp(node) for node in self._nodes)
        if now == self.stamps:
            return ""
        before, self.stamps = self.stamps, now
        played, self._played = self._played, tuple(map(PlayedArray.of, self._nodes))
        if not all(_place(old) == _place(new) for old, new in zip(before, now, strict=True)):
            return "place"
        pairs = zip(played, self._nodes, strict=True)
        return "" if all(array is not None and array.is_still_shown(node) for array, node in pairs) else "voxels"

    def volume_changed(self) -> None:
        """Hand over the edited voxels; prompts and slices stay."""
        self.track(self.client.volume_changed(fused_volume(self._nodes)), Purpose.OPENING)

    def track(self, job: int, purpose: Purpose, segment_id: str = "", is_shown: bool = True) -> int:
        """Note a job."""
        self.jobs[job] = Job(purpose, segment_id, is_shown)
        return job

    def open_jobs(self, purpose: Purpose) -> list[int]:
        """Jobs of a purpose that have not ended."""
        return [job for job, item in self.jobs.items() if item.purpose is purpose]

    def cancel(self, purpose: Purpose) -> bool:
        """Ask the jobs of a purpose to end; False if there is none."""
        jobs = self.open_jobs(purpose)
        for job in jobs:
            if self._client is not None and self._client.is_running:
                self._client.cancel(job, kill_after=HANG_SECONDS)
        return bool(jobs)

    def end_jobs(self) -> None:
        """Forget all jobs, and let those end that take long; what still comes of them is not ours."""
        for purpose in (Purpose.PROPAGATION, Purpose.PREFETCH, Purpose.OUTLINE, Purpose.SUGGESTION):
            self.cancel(purpose)
        self.jobs.clear()

    def restart(self) -> None:
        """Start a worker that was given up; it is told what the last one knew."""
        if self._client is not None and not self._client.is_running:
            self._client.start()

    def close(self) -> None:
        """End the worker."""
        self.jobs.clear()
        if self._client is not None:
            threading.Thread(target=self._client.kill, name="worker-ending").start()  # it waits for the process
        self._client = None
        self._stale = {"volume", "model", "session"}

    def _open(self, client: WorkerClient) -> None:
        if not self._nodes:
            raise VolumeError("Choose a volume first.")
        if not client.is_running:
            client.start()
        if not self._stale:
            return
        if "volume" in self._stale:
            self.stamps = tuple(volume_stamp(node) for node in self._nodes)
            self._played = tuple(map(PlayedArray.of, self._nodes))
            self.track(client.open_volume(fused_volume(self._nodes)), Purpose.OPENING)
        if "model" in self._stale:
            self.track(client.load_model(self.model, self.device, **self.options), Purpose.OPENING)
        self.track(client.open_session(window=self._window(), policy=self.policy), Purpose.OPENING)
        self._stale = set()

    def _window(self) -> Window | str:
        if self.window != "display":
            return self.window
        return display_window(*self._nodes) or "auto"


def _place(stamp: VolumeStamp) -> tuple[object, ...]:
    return stamp.node_id, stamp.size_ijk, stamp.ijk_to_ras, stamp.transform_id, stamp.transform_modified

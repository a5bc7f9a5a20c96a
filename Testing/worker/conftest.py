"""A worker with the fake model, and ways to wait for what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.client import WorkerClient

SERVER = str(Path(__file__).with_name("fake_server.py"))
AXIAL = Plane(2)
DEADLINE_S = 60.0

AnyEvent = TypeVar("AnyEvent", bound=m.Event)


class Host:
    """A client and everything it has said so far."""

    def __init__(self, client: WorkerClient) -> None:
        self.client = client
        self.events: list[m.Event] = []
        self._looked = 0

    def wait(self, kind: type[AnyEvent], job: int | None = None) -> AnyEvent:
        """The next event of a kind (and job), counted from the last one waited for."""
        return self.wait_for(lambda event: isinstance(event, kind) and (job is None or event.job == job))

    def wait_for(self, is_it: Callable[[m.Event], bool]) -> m.Event:
        end = time.monotonic() + DEADLINE_S
        while True:
            while self._looked < len(self.events):
                self._looked += 1
                if is_it(self.events[self._looked - 1]):
                    return self.events[self._looked - 1]
            assert time.monotonic() < end, f"got {self.events[-5:]}, the worker said {self.client.error_lines}"
            got = self.client.poll(max_items=1)
            self.events += got
            if not got:
                time.sleep(0.001)

    def end_of(self, job: int) -> m.Event:
        """How a job ended."""
        ends = (m.JobDone, m.JobCancelled, m.JobFailed)
        past = [event for event in self.events if isinstance(event, ends) and event.job == job]
        return past[0] if past else self.wait_for(lambda event: isinstance(event, ends) and event.job == job)

    def of(self, job: int, kind: type[AnyEvent] = m.SliceMask) -> list[AnyEvent]:
        """Events of a kind that came for a job."""
        return [event for event in self.events if isinstance(event, kind) and event.job == job]

    def open(self, volume: Volume, **options: object) -> None:
        """Volume, model and session, and wait until they are there."""
        self.client.open_volume(volume)
        self.client.load_model("fake", **options)
        assert isinstance(self.end_of(self.client.open_session(window="identity")), m.JobDone)

    def outline(self, index: int = 12, object_id: int = 1) -> m.SliceMask:
        """Draw the box and wait for its outline."""
        self.client.add_prompts(object_id, box(index))
        return self.wait(m.SliceMask, self.client.segment_slice(object_id, AXIAL, index))

    def labelmap(self, object_id: int = 1) -> np.ndarray:
        return self.wait(m.Labelmap, self.client.get_labelmap(object_id)).voxels


def box(index: int = 12) -> BoxPrompt:
    return BoxPrompt.on_slice((10, 8, 38, 32), index, AXIAL)


def point(column: float, row: float, index: int = 12, positive: bool = True) -> PointPrompt:
    return PointPrompt((column, row, index), positive, AXIAL)


@pytest.fixture
def a_volume() -> Volume:
    """A bright ball on a tilted grid; the corner voxel of each axial slice holds the slice's index."""
    k, j, i = np.indices((24, 40, 48))
    voxels = np.where((k - 12) ** 2 * 1.5 + (j - 20) ** 2 + (i - 24) ** 2 < 130, 220, 30).astype(np.uint8)
    voxels[:, 0, 0] = np.arange(24)
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, -1.0]])
    return Volume.from_array(voxels, VolumeGeometry.from_spacing((48, 40, 24), (0.7, 0.7, 2.0), turn, (10, -20, 30)))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Starts hosts whose workers have ended when the test has."""
    started: list[Host] = []

    def start_one(**options: object) -> Host:
        options = {"arguments": (SERVER,), "folder": tmp_path} | options
        started.append(Host(WorkerClient(**options)))
        started[-1].client.start()
        return started[-1]

    yield start_one
    for host in started:
        host.client.kill()


@pytest.fixture
def a_host(start: Callable[..., Host]) -> Host:
    """A started worker without a volume."""
    return start()

"""A controller with a real worker and the fake model, and ways to wait for what it does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import slicer
from mrml.host import MrmlHost

from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.controller import Controller
from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_grid import Box, read_box
from SegmentAnythingMedLib.mrml.scene import volume_from_node
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt, Prompt
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.worker.client import WorkerClient
from Testing.worker.conftest import SERVER
from Testing.worker.fake_model import FakeModel

DEADLINE_S = 20.0
WINDOW = "100/50"
AXIAL = Plane(2)


class Driver:
    """A controller and the timer that polls it.

    Parameters
    ----------
    host
        Its scene.
    folder
        For the worker's voxels.
    model
        ``fake``, in a worker that knows no other, or the name of a real one.
    """

    def __init__(self, host: MrmlHost, folder: Path, model: str = "fake", **options: object) -> None:
        self.host = host
        self.folder = folder
        kind = {"arguments": (SERVER,)} if model == "fake" else {}
        self.controller = Controller(host.scene, lambda: WorkerClient(folder=folder, threads=1, **kind))
        self.controller.set_model(model, **options)
        if model == "fake":
            self.controller.set_window(WINDOW)
        self.states = [self.controller.state]
        self.controller.observe(self._note)

    def _note(self) -> None:
        if self.controller.state is not self.states[-1]:
            self.states.append(self.controller.state)

    def until(self, condition: Callable[[], bool]) -> None:
        """Poll until something holds."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            client, jobs = self.controller.link.started, self.controller.link.jobs
            said = client.error_lines if client is not None else ()
            assert time.monotonic() < end, f"{self.controller.state}, {self.controller.messages}, {jobs}, {said}"
            self.controller.poll()
            time.sleep(0.001)

    def settle(self) -> None:
        """Poll until nothing runs."""
        self.until(lambda: not self.is_busy)

    @property
    def is_busy(self) -> bool:
        controller = self.controller
        running = controller.state in (State.SEGMENTING, State.PROPAGATING)
        waiting = bool(controller.link.jobs or controller._when_outlined)
        return waiting or running or controller.is_writing or controller.outlining.is_busy

    def proposal(self, segment_id: str = "") -> np.ndarray:
        """(K, J, I) bool of the preview."""
        segment = self.controller.segments.of(segment_id or self.controller.segment_id)
        if segment not in self.controller.proposals:
            return np.zeros(VolumeFrame.of(self.controller.volume).local.shape_kji, bool)
        return self.controller.proposals.preview[segment.object_id].mask > 0

    def labelmap(self, segment_id: str = "") -> np.ndarray:
        """(K, J, I) bool of the user's segment, which must share the volume's grid."""
        frame = VolumeFrame.of(self.controller.volume)
        box = Box((0, 0, 0), frame.local.shape_kji)
        return read_box(self.controller.segmentation, segment_id or self.controller.segment_id, frame, box)

    def accept(self) -> None:
        self.controller.accept()
        self.settle()


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two masks."""
    return 2.0 * float(np.count_nonzero(a & b)) / float(np.count_nonzero(a) + np.count_nonzero(b))


def box(index: int = 6) -> BoxPrompt:
    return BoxPrompt.on_slice((3, 3, 21, 17), index, AXIAL)


def point(i: float, j: float, k: float = 6, positive: bool = True) -> PointPrompt:
    return PointPrompt((i, j, k), positive, AXIAL)


def in_process(volume: slicer.vtkMRMLScalarVolumeNode, *prompts: Prompt) -> VolumeSession:
    """A session without a worker that was given the same prompts, each outlined before the next."""
    session = VolumeSession(volume_from_node(volume), FakeModel(), window=WINDOW)
    for prompt in prompts:
        session.segment_slice(1, session.add_prompt(1, prompt))
    return session


def carried(session: VolumeSession, **options: object) -> np.ndarray:
    """The session's object after propagation along K."""
    for _ in session.propagate(plane=AXIAL, **options):
        pass
    return session.labelmap(1)


def view_on(host: MrmlHost, volume: slicer.vtkMRMLScalarVolumeNode, index: int, name: str = "Red") -> object:
    """A slice view that shows a slice along K."""
    frame = VolumeFrame.of(volume)
    slices = SliceGeometry(frame.geometry, AXIAL)
    geometry = frame.geometry
    normal = geometry.slice_normal_world(2)
    across = geometry.ijk_to_world[:3, 0] / np.linalg.norm(geometry.ijk_to_world[:3, 0])
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = across, np.cross(normal, across), normal
    matrix[:3, 3] = geometry.world_from_ijk(slices.ijk_from_pixels(index, np.array([10.0, 12.0])))
    return host.add_slice_view(name, matrix)


def drivers(host: MrmlHost, folder: Path) -> Iterator[Callable[..., Driver]]:
    """Makes drivers, and ends their workers afterwards."""
    made: list[Driver] = []

    def make(**options: object) -> Driver:
        made.append(Driver(host, folder, **options))
        return made[-1]

    yield make
    for driver in made:
        driver.controller.close()

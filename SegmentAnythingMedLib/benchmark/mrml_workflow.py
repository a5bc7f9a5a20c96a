"""A user's work with the real controller and a real worker, under the watchdog."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.benchmark.mrml_watchdog import Phase, Watchdog
from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.controller import Controller
from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.label_grid import labelmap_of, labels_of
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
from SegmentAnythingMedLib.worker.client import WorkerClient

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

SLICES = 100
_IDLE_S = 1.0
_PAUSE_S = 1.0
"""Between the last stroke and the next button."""


@dataclass(frozen=True)
class Case:
    """On what a user works.

    Parameters
    ----------
    name
        Title.
    plane
        Of prompts and propagation.
    target
        Makes the segmentation and the segment.
    channels
        Makes further volumes.
    slices
        How many are propagated.
    """

    name: str
    plane: Plane
    target: Callable[[], tuple[vtkMRMLSegmentationNode, str]]
    channels: Callable[[], tuple[vtkMRMLScalarVolumeNode, ...]] = tuple
    slices: int = SLICES


class Workflow:
    """One user, one case.

    Parameters
    ----------
    scene, volume
        Where it happens.
    case
        On what.
    folder
        For the worker's voxels and the exported prompts.
    model
        Runs in the worker.
    """

    def __init__(
        self, scene: vtkMRMLScene, volume: vtkMRMLScalarVolumeNode, case: Case, folder: Path, model: str
    ) -> None:
        self._scene, self._volume, self._case, self._folder, self._model = scene, volume, case, folder, model
        self._watchdog = Watchdog()
        self._controller = Controller(scene, lambda: WorkerClient(folder=folder, threads=1))
        self._stack = SliceGeometry(VolumeFrame.of(volume).geometry, case.plane)
        self._middle = self._stack.count // 2

    def run(self) -> list[Phase]:
        """Everything a user does, in order; the nodes it made are removed."""
        controller, made = self._controller, list(self._case.channels())
        node, segment_id = self._case.target()
        try:
            self._open(node, segment_id, made)
            self._say("first outline", lambda: controller.add_prompt(self._box()))
            half = self._case.slices // 2
            first, last = self._middle - half, self._middle + half - 1
            self._say(f"propagate {self._case.slices} slices", lambda: controller.propagate("both", first, last))
            for verb in ("accept", "undo", "redo"):
                self._say(verb, getattr(controller, verb))
            self._say("correct", lambda: controller.add_prompt(self._point(half // 2)))
            self._say("re-propagate", controller.repropagate)
            self._say("accept it", controller.accept)
            self._watchdog.begin("after painting")
            self._paint(node, segment_id)
            self._poll_for(_PAUSE_S)
            self._say("re-propagate what was painted", controller.repropagate)
            self._say("discard", controller.discard)
            self._say("export prompts", lambda: controller.export_prompts(self._folder / "prompts.json"))
            self._watchdog.idle(_IDLE_S)
            self._begin_a_half_accepted_one()
        finally:
            self._watchdog.begin("close")
            self._watchdog.timed(controller.close)
            for item in (node, *made):
                self._scene.RemoveNode(item)
        return self._watchdog.phases

    def _open(self, node: vtkMRMLSegmentationNode, segment_id: str, channels: list[vtkMRMLScalarVolumeNode]) -> None:
        controller = self._controller
        self._watchdog.begin("open")
        controller.set_model(self._model)
        self._watchdog.timed(lambda: controller.set_volume(self._volume, channels))
        self._watchdog.timed(lambda: controller.set_segmentation(node))
        self._watchdog.timed(lambda: controller.set_segment(segment_id))
        show = controller.proposals.show

        def shown(*arguments: object) -> None:
            started = time.perf_counter()
            show(*arguments)
            self._watchdog.phases[-1].shown.append(1e3 * (time.perf_counter() - started))

        controller.proposals.show = shown

    def _say(self, phase: str, verb: Callable[[], object]) -> None:
        """One verb, and the timer until nothing runs."""
        controller, said = self._controller, len(self._controller.messages)
        self._watchdog.begin(phase)
        self._watchdog.timed(verb)
        self._watchdog.run(controller.poll, lambda: not self._is_busy)
        if controller.state is State.FAILED or any("went wrong" in line for line in controller.messages[said:]):
            raise WorkerError(f"{phase!r} failed: {controller.status}")

    def _poll_for(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        self._watchdog.run(self._controller.poll, lambda: time.perf_counter() > end)

    @property
    def _is_busy(self) -> bool:
        controller = self._controller
        return (
            controller.state in (State.SEGMENTING, State.PROPAGATING)
            or bool(controller.link.jobs)
            or controller.proposals.is_writing
            or controller.outlining.is_busy
        )

    def _begin_a_half_accepted_one(self) -> None:
        """Outline, propagate and begin to accept, so that closing comes in the middle of writing."""
        self._say("first outline again", lambda: self._controller.add_prompt(self._box(3)))
        first, last = self._middle - 10, self._middle + 10
        self._say("propagate 21 slices", lambda: self._controller.propagate("both", first, last))
        self._watchdog.begin("begin to accept")
        self._watchdog.timed(self._controller.accept)
        self._watchdog.timed(self._controller.poll)

    def _box(self, margin: int = 0) -> BoxPrompt:
        """Round the organ on the middle slice."""
        around = 0.23 * np.array(self._stack.shape) + margin
        center = (np.array(self._stack.shape) - 1) / 2
        pixels = np.array([center - around, center + around])
        corners = self._stack.ijk_from_pixels(self._middle, pixels)
        return BoxPrompt(tuple(tuple(float(x) for x in corner) for corner in corners), self._case.plane)

    def _point(self, offset: int) -> PointPrompt:
        """A click on a slice that propagation made."""
        center = (np.array(self._stack.shape) - 1) / 2
        place = self._stack.ijk_from_pixels(self._middle + offset, center)
        return PointPrompt(tuple(float(x) for x in place), True, self._case.plane)

    def _paint(self, node: vtkMRMLSegmentationNode, segment_id: str) -> None:
        """What the Segment Editor's eraser does: three slices thick, in the middle of the labelmap."""
        image = labelmap_of(node, segment_id)
        labels = labels_of(image)
        k, j, i = (size // 2 for size in labels.shape)
        part = labels[k - 1 : k + 2, j - 5 : j + 5, i - 5 : i + 5]
        segment = node.GetSegmentation().GetSegment(segment_id)
        part[part == segment.GetLabelValue()] = 0
        image.GetPointData().GetScalars().Modified()
        image.Modified()
        segment.Modified()

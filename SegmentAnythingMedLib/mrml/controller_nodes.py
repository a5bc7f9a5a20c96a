"""The nodes that the user's actions need: found, taken up, or made when missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import PromptError, VolumeError
from SegmentAnythingMedLib.mrml.controller_proposals import Proposals
from SegmentAnythingMedLib.mrml.controller_scene import ControllerScene
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.new_segment import make_segment, make_segmentation
from SegmentAnythingMedLib.mrml.prompt_markups import PromptMarkups
from SegmentAnythingMedLib.mrml.slice_views import cursor_view, slice_views
from SegmentAnythingMedLib.worker.client import WorkerClient

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSliceNode


class ControllerNodes(ControllerScene):
    """The part of `Controller` that knows which nodes are worked on."""

    def __init__(self, scene: vtkMRMLScene, client_factory: Callable[[], WorkerClient] = WorkerClient) -> None:
        super().__init__(scene, client_factory)
        self.range: tuple[int | None, int | None] = (None, None)
        self._drawn_kind = ""
        self._prefetched: tuple[object, ...] | None = None

    def _needed_view(self, view: vtkMRMLSliceNode | None) -> vtkMRMLSliceNode:
        found = view or cursor_view(self.scene) or next(iter(slice_views(self.scene)), None)
        if found is None:
            raise VolumeError("No slice view is shown.")
        return found

    def _needed_volume(self) -> vtkMRMLScalarVolumeNode:
        if self.volume is None:
            raise VolumeError("Choose a volume first.")
        return self.volume

    def _needed_frame(self) -> VolumeFrame:
        return VolumeFrame.of(self._needed_volume())

    def _needed_segmentation(self) -> None:
        """Make the segmentation, and take its prompts up, if that was not done."""
        volume = self._needed_volume()
        if self.segmentation is None:
            self.segmentation = make_segmentation(self.scene, volume)
            self._watch.segmentation = self.segmentation
        if self.markups is None:
            self._take_up_prompts()

    def _needed_segment(self) -> None:
        self._needed_segmentation()
        if not self.segment_id:
            self._choose_segment("")

    def _needed_markups(self) -> PromptMarkups:
        if self.markups is None:
            raise PromptError("There are no prompts yet.")
        return self.markups

    def _choose_segment(self, name: str) -> None:
        self._needed_segmentation()
        segmentation = self.segmentation.GetSegmentation()
        found = name if name and segmentation.GetSegment(name) is not None else ""
        found = found or (segmentation.GetSegmentIdBySegmentName(name) if name else "")
        if not name and segmentation.GetNumberOfSegments():
            found = segmentation.GetNthSegmentID(0)
        self.segment_id = found or make_segment(self.segmentation, name)
        self._is_changed = True

    def _add_segment(self, name: str) -> None:
        self._needed_segmentation()
        self.segment_id = make_segment(self.segmentation, name)
        self._is_changed = True

    def _make_proposals(self) -> None:
        self.proposals = Proposals(self.scene, self.volume)
        self.range, self._prefetched = (None, None), None

    def _take_up_prompts(self) -> None:
        """Read the prompts of the segmentation; those that are there already count as accepted."""
        self._is_muted = True
        try:
            self.markups = PromptMarkups(self.scene, self.segmentation, self.volume, self.prompt_changed, self.time)
        finally:
            self._is_muted = False
        self.markups.model = self.link.model
        for record in self.markups.records():
            segment = self.segments.of(record.segment_id)
            segment.accepted.add(record.uid)
            if record.time == self.time and self.markups.is_inside(record):
                segment.at = self.outlining.slice_of(record)

    def _open_when_usable(self) -> None:
        """Start the worker and hand over the volume, so that the first outline finds it ready."""
        if self.is_usable and not self.link.is_open:
            _ = self.link.client

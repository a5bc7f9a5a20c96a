"""Which slices propagation covers: the verbs that choose the range."""

from __future__ import annotations

from typing import TYPE_CHECKING

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.mrml.controller_time import ThroughTime
from SegmentAnythingMedLib.mrml.controller_work import told
from SegmentAnythingMedLib.mrml.roi_range import slices_in_roi
from SegmentAnythingMedLib.mrml.slice_views import cursor_view, plane_of_view, slice_of_view

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsROINode, vtkMRMLSliceNode


class Ranging(ThroughTime):
    """The part of `Controller` that is about the range of slices."""

    @told
    def from_here(self, view: vtkMRMLSliceNode | None = None) -> None:
        """Let propagation begin at the slice that a view shows."""
        self._set_range(slice_of_view(self._needed_view(view), self._needed_frame()).index, self.range[1])

    @told
    def to_here(self, view: vtkMRMLSliceNode | None = None) -> None:
        """Let propagation end at the slice that a view shows."""
        self._set_range(self.range[0], slice_of_view(self._needed_view(view), self._needed_frame()).index)

    @told
    def set_range(self, first: int | None = None, last: int | None = None) -> None:
        """Choose the range of propagation; None: automatic."""
        self._set_range(first, last)

    @told
    def set_range_from_roi(
        self, roi_node: vtkMRMLMarkupsROINode, view: vtkMRMLSliceNode | None = None
    ) -> tuple[int, int]:
        """Choose the slices that an ROI covers; the first and last of them.

        Parameters
        ----------
        roi_node
            A placed ROI, turned and under any transforms.
        view
            Whose plane counts; by default the plane of the segment's last prompt, else that of the cursor's view, else
            axial slices.
        """
        first, last = slices_in_roi(roi_node, self._needed_frame(), self._plane_or_view(view))
        self._set_range(first, last)
        self.tell(f"Slices {first} to {last} lie in {roi_node.GetName()}.")
        return first, last

    def _plane_or_view(self, view: vtkMRMLSliceNode | None) -> Plane:
        frame = self._needed_frame()
        if view is None and self.segment_id in self.segments and self.segments.of(self.segment_id).at is not None:
            return self.segments.of(self.segment_id).at[0]
        seen = view or cursor_view(self.scene)
        return Plane.named("axial", frame.geometry) if seen is None else plane_of_view(seen, frame)

    def _set_range(self, first: int | None, last: int | None) -> None:
        if first is not None and last is not None and first > last:
            first, last = last, first
        self.range, self._is_changed = (first, last), True

"""The segmentation in 3D: surfaces that are missing are built in the controller's steps, so that no view waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vtkmodules.vtkCommonDataModel import vtkPolyData

from SegmentAnythingMedLib.mrml.label_grid import SURFACE
from SegmentAnythingMedLib.mrml.surfaces import SurfacesAside

if TYPE_CHECKING:
    from slicer import vtkMRMLSegmentationNode

    from SegmentAnythingMedLib.mrml.controller import Controller


class SurfaceSteps:
    """Sees to it that all segments that are worked on have a surface; later changes keep it up to date themselves.

    Parameters
    ----------
    controller
        Of the session; its `poll` does the steps.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._given_up: tuple[str, ...] = ()

    def look(self) -> None:
        """Ask for what is missing; a surface that cannot be made is not tried again at each look."""
        node, proposals = self._controller.segmentation, self._controller.proposals
        if node is None or node.GetScene() is None or proposals is None or proposals.is_writing:
            return
        missing = _without_surface(node)
        if missing and (node.GetID(), *missing) != self._given_up:
            proposals.later(build_surfaces(node), lambda _error: self._note_failure(node))

    def _note_failure(self, node: vtkMRMLSegmentationNode) -> None:
        self._given_up = (node.GetID(), *_without_surface(node))


def build_surfaces(node: vtkMRMLSegmentationNode) -> Iterator[float | None]:
    """Build the surfaces that are missing in short steps; a thread does the work.

    Parameters
    ----------
    node
        A segmentation with labelmaps.

    Yields
    ------
    float or None
        As the writer does: None while there is only to wait.
    """
    missing = _without_surface(node) if node.GetScene() is not None else ()
    if missing:
        # an empty surface says that this segmentation is shown in 3D
        node.GetSegmentation().GetSegment(missing[0]).AddRepresentation(SURFACE, vtkPolyData())
        yield from SurfacesAside(node, missing).rebuilt()


def _without_surface(node: vtkMRMLSegmentationNode) -> tuple[str, ...]:
    segmentation = node.GetSegmentation()
    names = segmentation.GetSegmentIDs()
    return tuple(name for name in names if segmentation.GetSegment(name).GetRepresentation(SURFACE) is None)

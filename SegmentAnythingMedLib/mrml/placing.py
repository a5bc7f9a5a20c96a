"""Placing a prompt with the mouse, by the scene's own place mode: the same in desktop Slicer and in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, matrix_of
from SegmentAnythingMedLib.mrml.markup_kinds import KINDS, slice_axes
from SegmentAnythingMedLib.mrml.markup_nodes import PROMPT_ATTRIBUTE, kind_of_node
from SegmentAnythingMedLib.mrml.prompt_markups import PromptMarkups
from SegmentAnythingMedLib.mrml.slice_views import cursor_view, plane_of_view

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsNode, vtkMRMLMarkupsROINode, vtkMRMLScene, vtkMRMLVolumeNode


class PromptPlacing:
    """Switches the scene's place mode on and off for prompts.

    Parameters
    ----------
    scene
        Has the selection and interaction nodes of the host.
    volume
        What is prompted.
    markups
        Where placed prompts go.
    """

    def __init__(self, scene: vtkMRMLScene, volume: vtkMRMLVolumeNode, markups: PromptMarkups) -> None:
        self._scene = scene
        self._volume = volume
        self._markups = markups
        self._oriented_to: Plane | None = None
        self._crosshair_tag: tuple[object, int] | None = None

    @property
    def node(self) -> vtkMRMLMarkupsNode | None:
        """The markup of ours that the next click goes into, or None."""
        interaction, selection = self._mode_nodes()
        if interaction.GetCurrentInteractionMode() != interaction.Place:
            return None
        node = self._scene.GetNodeByID(selection.GetActivePlaceNodeID() or "")
        return node if node is not None and self._markups.nodes.is_ours(node) else None

    def start(self, kind_name: str, segment_id: str, persistent: bool | None = None) -> vtkMRMLMarkupsNode:
        """Let the next clicks place a prompt.

        Parameters
        ----------
        kind_name
            Key of `KINDS`: ``point``, ``background``, ``box``, ``lasso`` (scribbles are drawn, see `strokes`).
        segment_id
            Whose prompt it is.
        persistent
            Whether clicks go on after the first prompt; by default for points.
        """
        self.stop()
        kind = KINDS[kind_name]
        nodes = self._markups.nodes
        node = nodes.shared(kind, segment_id) if kind.is_shared else nodes.make(kind, segment_id)
        if node.IsA("vtkMRMLMarkupsROINode"):
            self._orient(node)
            crosshair = self._scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
            if crosshair is not None:
                tag = crosshair.AddObserver(crosshair.CursorPositionModifiedEvent, lambda *_: self._cursor_moved())
                self._crosshair_tag = (crosshair, tag)
        interaction, selection = self._mode_nodes()
        selection.SetReferenceActivePlaceNodeClassName(kind.node_class)
        selection.SetActivePlaceNodeID(node.GetID())
        interaction.SetPlaceModePersistence(int(kind.is_shared if persistent is None else persistent))
        interaction.SetCurrentInteractionMode(interaction.Place)
        return node

    def stop(self) -> None:
        """Back to looking; an unfinished box or lasso of ours goes away."""
        if self._crosshair_tag is not None:
            self._crosshair_tag[0].RemoveObserver(self._crosshair_tag[1])
            self._crosshair_tag = None
        self._oriented_to = None
        placed = self.node
        if placed is not None:
            interaction, selection = self._mode_nodes()
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
            selection.SetActivePlaceNodeID(None)
        for node in self._markups.nodes:
            if not kind_of_node(node).is_shared and not node.GetAttribute(PROMPT_ATTRIBUTE):
                self._markups.nodes.remove(node)

    def _cursor_moved(self) -> None:
        node = self.node
        if node is not None and node.IsA("vtkMRMLMarkupsROINode") and not _has_point(node):
            self._orient(node)

    def _orient(self, node: vtkMRMLMarkupsROINode) -> None:
        """Turn an empty ROI to the axes of the slices under the cursor, so that two clicks give an exact box."""
        frame, view = VolumeFrame.of(self._volume), cursor_view(self._scene)
        plane = Plane.named("axial", frame.geometry) if view is None else plane_of_view(view, frame)
        if plane == self._oriented_to:
            return
        self._oriented_to = plane
        axes = np.eye(4)
        axes[:3, :3] = slice_axes(SliceGeometry(frame.geometry, plane), frame.local)
        node.SetAndObserveObjectToNodeMatrix(matrix_of(axes))

    def _mode_nodes(self) -> tuple[object, object]:
        interaction = self._scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        selection = self._scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
        return interaction, selection


def _has_point(node: vtkMRMLMarkupsNode) -> bool:
    count = node.GetNumberOfControlPoints()
    return any(node.GetNthControlPointPositionStatus(n) == node.PositionDefined for n in range(count))

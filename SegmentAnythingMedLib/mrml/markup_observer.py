"""Watching the scene for what the user does to our markups."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import vtk

from SegmentAnythingMedLib.mrml.markup_nodes import MarkupNodes

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsNode, vtkMRMLScene, vtkMRMLVolumeNode


class MarkupObserver:
    """Observers on our markups, the volume's place and the scene; removed by `close` and when the scene closes.

    Parameters
    ----------
    scene, volume, nodes
        What to watch.
    on_change
        Called with a markup whose points changed, and whether a drag or placing goes on.
    on_removed
        Called with a markup of ours that somebody removed from the scene.
    on_volume
        Called when the volume's parent transform or grid changed.
    """

    def __init__(
        self,
        scene: vtkMRMLScene,
        volume: vtkMRMLVolumeNode,
        nodes: MarkupNodes,
        *,
        on_change: Callable[[vtkMRMLMarkupsNode, bool], None],
        on_removed: Callable[[vtkMRMLMarkupsNode], None],
        on_volume: Callable[[], None],
    ) -> None:
        self._scene = scene
        self._nodes = nodes
        self._on_change = on_change
        self._on_removed = on_removed
        self._on_volume = on_volume
        self._mute_depth = 0
        self._dragged: set[str] = set()
        self._last_uid = ""
        self._tags: list[tuple[vtk.vtkObject, int]] = []
        self._watched: set[str] = set()
        self._observe(scene, scene.NodeAddedEvent, self._node_added)
        self._observe(scene, scene.NodeAboutToBeRemovedEvent, self._node_removed)
        self._observe(scene, scene.StartCloseEvent, lambda *_: self.close())
        self._observe(volume, volume.TransformModifiedEvent, self._volume_moved)
        self._observe(volume, vtk.vtkCommand.ModifiedEvent, self._volume_moved)

    @contextlib.contextmanager
    def muted(self) -> Iterator[None]:
        """Nothing is told while the block runs: what happens is our own doing."""
        self._mute_depth += 1
        try:
            yield
        finally:
            self._mute_depth -= 1

    def watch(self, node: vtkMRMLMarkupsNode) -> None:
        """Watch a markup; once is enough."""
        if node.GetID() in self._watched:
            return
        self._watched.add(node.GetID())
        for event in (
            node.PointPositionDefinedEvent,
            node.PointPositionUndefinedEvent,
            node.PointModifiedEvent,
            node.PointRemovedEvent,
            *([vtk.vtkCommand.ModifiedEvent] if node.IsA("vtkMRMLMarkupsROINode") else []),
        ):
            self._observe(node, event, self._changed)
        self._observe(node, node.PointStartInteractionEvent, self._drag_begins)
        self._observe(node, node.PointEndInteractionEvent, self._drag_ends)

    def goes_on(self, uid: str) -> bool:
        """Whether the last change of the same drag or placing was of this record too."""
        return uid == self._last_uid

    def note(self, uid: str) -> None:
        """A record was changed within a drag or placing."""
        self._last_uid = uid

    def close(self) -> None:
        """Remove all observers."""
        for caller, tag in self._tags:
            caller.RemoveObserver(tag)
        self._tags.clear()
        self._watched.clear()

    def _observe(self, caller: vtk.vtkObject, event: int, callback: Callable[..., None]) -> None:
        self._tags.append((caller, caller.AddObserver(event, callback)))

    def _changed(self, caller: vtkMRMLMarkupsNode, _event: str) -> None:
        if self._mute_depth or not self._nodes.is_ours(caller):
            return
        is_dragged = caller.GetID() in self._dragged or self._is_being_placed(caller)
        if not is_dragged:
            self._last_uid = ""
        self._on_change(caller, is_dragged)

    def _drag_begins(self, caller: vtkMRMLMarkupsNode, _event: str) -> None:
        self._dragged.add(caller.GetID())
        self._last_uid = ""

    def _drag_ends(self, caller: vtkMRMLMarkupsNode, event: str) -> None:
        self._changed(caller, event)
        self._dragged.discard(caller.GetID())
        self._last_uid = ""

    def _is_being_placed(self, node: vtkMRMLMarkupsNode) -> bool:
        interaction = self._scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        selection = self._scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
        if interaction is None or selection is None:
            return False
        placing = interaction.GetCurrentInteractionMode() == interaction.Place
        return placing and selection.GetActivePlaceNodeID() == node.GetID()

    def _volume_moved(self, *_: object) -> None:
        self._on_volume()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_added(self, _scene: vtkMRMLScene, _event: str, node: vtk.vtkObject) -> None:
        if node.IsA("vtkMRMLMarkupsNode") and self._nodes.is_ours(node):
            self.watch(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_removed(self, _scene: vtkMRMLScene, _event: str, node: vtk.vtkObject) -> None:
        if not node.IsA("vtkMRMLMarkupsNode") or not self._nodes.is_ours(node):
            return
        self._watched.discard(node.GetID())
        if not self._mute_depth:
            self._on_removed(node)

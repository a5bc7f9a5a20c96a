"""The proposal in 3D while slices arrive: a coarse surface in a model node of ours, by a thread about once a second."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from vtkmodules.vtkCommonDataModel import vtkPolyData

from SegmentAnythingMedLib.mrml.frame import matrix_of
from SegmentAnythingMedLib.mrml.label_grid import Box
from SegmentAnythingMedLib.mrml.nodes import remove_displayed
from SegmentAnythingMedLib.mrml.surfaces import SurfaceSettings, surface_of

if TYPE_CHECKING:
    from slicer import vtkMRMLModelNode, vtkMRMLScalarVolumeNode, vtkMRMLScene

    from SegmentAnythingMedLib.mrml.preview_segments import PreviewSegments

PREVIEW_SURFACE_ATTRIBUTE = "SegmentAnythingMed.preview"
MOST_SAMPLES = 96
"""Samples along each side of an object's box: 96 cubed are copied in 2 ms and become a surface in some 50 ms."""
PAUSE_S = 0.8
"""Least time between two surfaces of an object."""
_SETTINGS = SurfaceSettings(smoothing=0.5, decimation=0.0, has_normals=True)
_OPACITY = 0.6


@dataclass(eq=False)
class _Shown:
    """One object: what its surface shows, and the thread that makes the next one."""

    node: vtkMRMLModelNode
    revision: int = 0
    made_at: float = -np.inf
    thread: threading.Thread | None = None
    result: list[vtkPolyData] = field(default_factory=list)


class PreviewSurfaces:
    """Surfaces of all objects of a preview; they come with it and go with it.

    Parameters
    ----------
    scene
        Gets one hidden model node per object that is not saved.
    volume
        Under whose parent transform they hang.
    """

    def __init__(self, scene: vtkMRMLScene, volume: vtkMRMLScalarVolumeNode) -> None:
        self._scene, self._volume = scene, volume
        self._shown: dict[int, _Shown] = {}

    @property
    def nodes(self) -> dict[int, vtkMRMLModelNode]:
        """Model nodes by object."""
        return {object_id: item.node for object_id, item in self._shown.items()}

    def look(self, preview: PreviewSegments) -> None:
        """Show what threads have made, start them where slices have come, drop what is no proposal any more.

        Takes a few milliseconds; call it from the host's timer.
        """
        for object_id in tuple(self._shown):
            if object_id not in preview or not self._scene.IsNodePresent(self._shown[object_id].node):
                self._drop(object_id)
        for object_id in preview.object_ids:
            self._look(preview, object_id)

    def close(self) -> None:
        """Take all surfaces away."""
        for object_id in tuple(self._shown):
            self._drop(object_id)

    def _look(self, preview: PreviewSegments, object_id: int) -> None:
        item = preview[object_id]
        if item.slices_written < 2:  # one slice is no solid; the slice views show it
            return
        if object_id not in self._shown:
            segment = preview.node.GetSegmentation().GetSegment(str(object_id))
            self._shown[object_id] = _Shown(self._make_node(segment.GetName(), segment.GetColor()))
        shown = self._shown[object_id]
        if shown.thread is not None:
            if shown.thread.is_alive():
                return
            shown.thread = None
            if shown.result:
                shown.node.SetAndObservePolyData(shown.result.pop())
        if shown.revision != item.slices_written and time.monotonic() - shown.made_at >= PAUSE_S:
            self._start(shown, item.mask, item.object_box, item.frame.local.ijk_to_world)
            shown.revision = item.slices_written

    def _start(self, shown: _Shown, mask: np.ndarray, box: Box, ijk_to_world: np.ndarray) -> None:
        """Copy the object's box coarsely, and have a thread make its surface."""
        shown.made_at = time.monotonic()
        if box.is_empty:
            shown.node.SetAndObservePolyData(vtkPolyData())
            return
        steps = tuple(max(1, -(-size // MOST_SAMPLES)) for size in box.shape)
        part = box.within(Box((0, 0, 0), mask.shape))
        voxels = mask[tuple(slice(one.start, one.stop, step) for one, step in zip(part, steps, strict=True))] > 0
        coarse = np.eye(4)
        coarse[:3, :3] = np.diag(steps[::-1])
        coarse[:3, 3] = box.low[::-1]
        matrix = matrix_of(ijk_to_world @ coarse)
        parts = [(Box((0, 0, 0), voxels.shape), voxels)]
        shown.thread = threading.Thread(
            target=lambda: shown.result.append(surface_of(parts, matrix, _SETTINGS)), name="preview", daemon=True
        )
        shown.thread.start()

    def _make_node(self, name: str, color: tuple[float, float, float]) -> vtkMRMLModelNode:
        node = self._scene.CreateNodeByClass("vtkMRMLModelNode")
        node.UnRegister(None)
        node.SetName(f"{name} preview")
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node.SetSelectable(False)
        node.SetAttribute(PREVIEW_SURFACE_ATTRIBUTE, "1")
        self._scene.AddNode(node)
        node.SetAndObserveTransformNodeID(self._volume.GetTransformNodeID())
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetColor(*color)
        display.SetOpacity(_OPACITY)
        display.SetVisibility2D(False)
        return node

    def _drop(self, object_id: int) -> None:
        node = self._shown.pop(object_id).node
        if self._scene.IsNodePresent(node):
            remove_displayed(self._scene, node)

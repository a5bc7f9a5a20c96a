"""Watching the scene for nodes that are taken away while they are worked on."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import vtk

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScene


class Loss(enum.Enum):
    """What was taken away; the value is what the user is told."""

    SCENE = "The scene was closed: the work on it was ended."
    VOXELS = "The voxels of the volume were removed: the work on it was ended. Choose another one."
    VOLUME = "The volume was removed: the work on it was ended. Choose another one."
    SEGMENTATION = "The segmentation was removed: the work on it was ended. The next prompt makes a new one."


class SceneWatch:
    """Notes losses; what to do about them happens later, when the scene is not in the middle of removing.

    Parameters
    ----------
    scene
        What to watch.
    """

    def __init__(self, scene: vtkMRMLScene) -> None:
        self.volumes: tuple[vtkMRMLNode, ...] = ()
        self.segmentation: vtkMRMLNode | None = None
        self._losses: list[Loss] = []
        self._scene = scene
        self._tags = [
            scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._removed),
            scene.AddObserver(scene.StartCloseEvent, lambda *_: self._losses.append(Loss.SCENE)),
        ]

    @property
    def has_losses(self) -> bool:
        return bool(self._losses)

    def take_losses(self) -> list[Loss]:
        """What was lost since the last call, the gravest first."""
        losses, self._losses = self._losses, []
        return [loss for loss in Loss if loss in losses]

    def close(self) -> None:
        """Stop watching."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _removed(self, _scene: vtkMRMLScene, _event: str, node: vtkMRMLNode) -> None:
        if any(node is volume for volume in self.volumes):
            self._losses.append(Loss.VOLUME)
        elif node is self.segmentation:
            self._losses.append(Loss.SEGMENTATION)

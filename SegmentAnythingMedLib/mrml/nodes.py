"""Nodes of a scene: all of a class, and one taken away with its display."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slicer import vtkMRMLDisplayableNode, vtkMRMLNode, vtkMRMLScene


def nodes_of(scene: vtkMRMLScene, class_name: str) -> list[vtkMRMLNode]:
    """All nodes of a class and its subclasses, in the scene's order."""
    return [scene.GetNthNodeByClass(n, class_name) for n in range(scene.GetNumberOfNodesByClass(class_name))]


def remove_displayed(scene: vtkMRMLScene, node: vtkMRMLDisplayableNode) -> None:
    """Remove a node that is in the scene, and its display node, which Slicer would leave behind."""
    display = node.GetDisplayNode()
    scene.RemoveNode(node)
    if display is not None and scene.IsNodePresent(display):
        scene.RemoveNode(display)

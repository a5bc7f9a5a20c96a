"""The markups nodes that are ours: found by their attributes, made, styled, hidden and removed. Never another node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.mrml.markup_kinds import KINDS, MarkupKind
from SegmentAnythingMedLib.mrml.nodes import nodes_of, remove_displayed
from SegmentAnythingMedLib.mrml.prompt_store import SEGMENTATION_ROLE, VOLUME_ROLE

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsNode, vtkMRMLScene, vtkMRMLSegmentationNode, vtkMRMLVolumeNode

KIND_ATTRIBUTE = "SegmentAnythingMed.kind"
SEGMENT_ATTRIBUTE = "SegmentAnythingMed.segment"
PROMPT_ATTRIBUTE = "SegmentAnythingMed.prompt"

_POINT_GLYPH_SCALE = 2.0
_CURVE_GLYPH_SCALE = 0.7
_BOX_HANDLE_SCALE = 1.4
"""Half of Slicer's own, which hides the outline of a small structure."""


class MarkupNodes:
    """Markups of one segmentation's prompts.

    Parameters
    ----------
    scene
        Where they live.
    segmentation
        Whose prompts they show; kept as a node reference.
    volume
        Whose prompts they show, under its parent transform; kept as a node reference.
    """

    def __init__(self, scene: vtkMRMLScene, segmentation: vtkMRMLSegmentationNode, volume: vtkMRMLVolumeNode) -> None:
        self._scene = scene
        self._segmentation = segmentation
        self._volume = volume

    def __iter__(self) -> Iterator[vtkMRMLMarkupsNode]:
        return iter([node for node in nodes_of(self._scene, "vtkMRMLMarkupsNode") if self.is_ours(node)])

    def is_ours(self, node: vtkMRMLMarkupsNode) -> bool:
        """Whether a node shows prompts of this segmentation on this volume."""
        return self._is_of_segmentation(node) and node.GetNodeReferenceID(VOLUME_ROLE) == self._volume.GetID()

    def adopt(self) -> None:
        """Take up the nodes whose volume is gone: it was loaded again."""
        for node in nodes_of(self._scene, "vtkMRMLMarkupsNode"):
            if self._is_of_segmentation(node) and not node.GetNodeReferenceID(VOLUME_ROLE):
                node.SetNodeReferenceID(VOLUME_ROLE, self._volume.GetID())

    def _is_of_segmentation(self, node: vtkMRMLMarkupsNode) -> bool:
        ours = node is not None and node.IsA("vtkMRMLMarkupsNode") and node.GetAttribute(KIND_ATTRIBUTE) in KINDS
        return ours and node.GetNodeReferenceID(SEGMENTATION_ROLE) == self._segmentation.GetID()

    def shared(self, kind: MarkupKind, segment_id: str) -> vtkMRMLMarkupsNode:
        """The node that holds all prompts of a kind and segment; made when missing."""
        for node in self:
            if kind_of_node(node) is kind and segment_of_node(node) == segment_id:
                return node
        return self.make(kind, segment_id)

    def of_prompt(self, uid: str) -> vtkMRMLMarkupsNode | None:
        """The node that shows one prompt alone, or None."""
        return next((node for node in self if uid and node.GetAttribute(PROMPT_ATTRIBUTE) == uid), None)

    def make(self, kind: MarkupKind, segment_id: str, uid: str = "") -> vtkMRMLMarkupsNode:
        """A new node, under the volume's parent transform, ready to be filled or placed."""
        segment = self._segmentation.GetSegmentation().GetSegment(segment_id)
        name = f"{segment.GetName() if segment is not None else segment_id} {kind.name}"
        node = self._scene.CreateNodeByClass(kind.node_class)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(name))
        node.SetAttribute(KIND_ATTRIBUTE, kind.name)
        node.SetAttribute(SEGMENT_ATTRIBUTE, segment_id)
        if uid:
            node.SetAttribute(PROMPT_ATTRIBUTE, uid)
        node.SetNodeReferenceID(SEGMENTATION_ROLE, self._segmentation.GetID())
        node.SetNodeReferenceID(VOLUME_ROLE, self._volume.GetID())
        node.SetAndObserveTransformNodeID(self._volume.GetTransformNodeID())
        if node.IsA("vtkMRMLMarkupsCurveNode"):
            node.SetCurveTypeToLinear()
        self._scene.AddNode(node)
        _style(node, kind)
        return node

    def remove(self, node: vtkMRMLMarkupsNode) -> None:
        """Remove a node if it is ours, and its display with it."""
        if self.is_ours(node):
            remove_displayed(self._scene, node)

    def show_only(self, segment_id: str | None) -> None:
        """Show the prompts of one segment, or (None) of all."""
        for node in self:
            display = node.GetDisplayNode()
            if display is not None:
                display.SetVisibility(segment_id is None or segment_of_node(node) == segment_id)

    def follow_volume(self) -> None:
        """Put all under the transform the volume hangs under now."""
        for node in self:
            if node.GetTransformNodeID() != self._volume.GetTransformNodeID():
                node.SetAndObserveTransformNodeID(self._volume.GetTransformNodeID())


def kind_of_node(node: vtkMRMLMarkupsNode) -> MarkupKind:
    """The row of the table a node of ours belongs to."""
    return KINDS[node.GetAttribute(KIND_ATTRIBUTE)]


def segment_of_node(node: vtkMRMLMarkupsNode) -> str:
    """The segment a node of ours belongs to."""
    return node.GetAttribute(SEGMENT_ATTRIBUTE) or ""


def _style(node: vtkMRMLMarkupsNode, kind: MarkupKind) -> None:
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*kind.color)
    display.SetSelectedColor(*kind.color)
    display.SetGlyphTypeFromString(kind.glyph)
    display.SetGlyphScale(_POINT_GLYPH_SCALE if kind.is_shared else _CURVE_GLYPH_SCALE)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    if node.IsA("vtkMRMLMarkupsROINode"):
        display.SetFillVisibility(False)
        display.SetInteractionHandleScale(_BOX_HANDLE_SCALE)
    if kind.is_locked:
        node.SetLocked(True)

"""What of the scene a prompt source can be given: segments, rulers, pairs of rulers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.nodes import nodes_of

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsLineNode, vtkMRMLScene, vtkMRMLSegmentationNode

_MOST_PAIRED = 12
"""Rulers of which pairs are offered: more would make a list that nobody reads."""


@dataclass(frozen=True)
class SuggestionInput:
    """One entry of the list: its key (node ids, and a segment's id), and its name for the user."""

    key: str
    label: str


NOTHING = SuggestionInput("", "Whole slice")


def segment_inputs(
    scene: vtkMRMLScene, segmentation: vtkMRMLSegmentationNode | None, segment_id: str
) -> tuple[SuggestionInput, ...]:
    """All segments of the scene, the one that is worked on first; those of other segmentations with its name."""
    found: list[SuggestionInput] = []
    nodes = [node for node in nodes_of(scene, "vtkMRMLSegmentationNode") if not node.GetHideFromEditors()]
    for node in sorted(nodes, key=lambda node: node is not segmentation):
        segments = node.GetSegmentation()
        ids = [segments.GetNthSegmentID(n) for n in range(segments.GetNumberOfSegments())]
        for one in sorted(ids, key=lambda one: (node is segmentation and one == segment_id) is False):
            where = "" if node is segmentation else f" ({node.GetName()})"
            found.append(SuggestionInput(f"{node.GetID()} {one}", segments.GetSegment(one).GetName() + where))
    return tuple(found)


def line_inputs(scene: vtkMRMLScene) -> tuple[SuggestionInput, ...]:
    """All placed rulers of the scene, the newest first, and before them pairs that cross as a long and short axis."""
    nodes = [node for node in nodes_of(scene, "vtkMRMLMarkupsLineNode") if not node.GetHideFromEditors()]
    lines = [(node, ends) for node in reversed(nodes) if (ends := ends_ras(node)) is not None]
    pairs = [
        SuggestionInput(f"{a.GetID()} {b.GetID()}", f"{a.GetName()} + {b.GetName()}")
        for (b, ends_b), (a, ends_a) in itertools.combinations(lines[:_MOST_PAIRED], 2)
        if _may_be_axes(ends_a, ends_b)
    ]
    return (*pairs, *(SuggestionInput(node.GetID(), node.GetName()) for node, _ in lines))


def ends_ras(node: vtkMRMLMarkupsLineNode) -> np.ndarray | None:
    """(2, 3) world RAS of a ruler's ends, through its transforms; None while it is not placed."""
    if node.GetNumberOfDefinedControlPoints() != 2:
        return None
    ends = np.zeros((2, 3))
    for n in range(2):
        node.GetNthControlPointPositionWorld(n, place := [0.0, 0.0, 0.0])
        ends[n] = place
    return ends


def lines_ijk(scene: vtkMRMLScene, key: str, frame: VolumeFrame) -> tuple[float, ...]:
    """Continuous (I, J, K) of the ends of one ruler or two, one after the other.

    Raises
    ------
    PromptError
        If a ruler is gone or not placed.
    """
    found: list[float] = []
    for node_id in key.split():
        node = scene.GetNodeByID(node_id)
        ends = ends_ras(node) if node is not None else None
        if ends is None:
            raise PromptError("The ruler is not there any more, or not placed: choose another one.")
        found += frame.ijk_from_ras(ends).ravel().tolist()
    return tuple(found)


def segment_of_key(scene: vtkMRMLScene, key: str) -> tuple[vtkMRMLSegmentationNode, str, str]:
    """Segmentation, segment id and name.

    Raises
    ------
    PromptError
        If the segment is gone.
    """
    node_id, _, segment_id = key.partition(" ")
    node = scene.GetNodeByID(node_id)
    segment = node.GetSegmentation().GetSegment(segment_id) if node is not None else None
    if segment is None:
        raise PromptError("The segment is not there any more: choose another one.")
    return node, segment_id, segment.GetName()


def _may_be_axes(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two lines (2, 3) are near enough to measure one thing: each middle within half the longer line."""
    half = max(np.linalg.norm(a[1] - a[0]), np.linalg.norm(b[1] - b[0])) / 2
    return bool(np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) <= half)

"""Segmentations of files as MRML nodes, and what the list of segments changes: name and colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import slicer
from vtkmodules.util.numpy_support import numpy_to_vtk

from SegmentAnythingMedLib.mrml.frame import matrix_of
from SegmentAnythingMedLib.mrml.label_grid import LABELMAP
from SegmentAnythingMedLib.mrml.new_segment import make_segmentation
from SegmentAnythingMedLib.web.volume_nodes import LPS_TO_RAS

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

    from SegmentAnythingMedLib.io.labels import Labels
    from SegmentAnythingMedLib.mrml.controller import Controller

_MOST_NAME = 80


def add_segmentation(
    scene: vtkMRMLScene, labels: Labels, volume: vtkMRMLScalarVolumeNode, name: str
) -> vtkMRMLSegmentationNode:
    """Labels of a file (LPS) as a segmentation of a volume; each segment keeps its name, colour and terminology."""
    node = make_segmentation(scene, volume, name)
    matrix = matrix_of(LPS_TO_RAS @ labels.geometry.ijk_to_world)
    for item in labels.segments:
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*labels.geometry.size_ijk)
        image.SetImageToWorldMatrix(matrix)
        image.GetPointData().SetScalars(numpy_to_vtk(item.mask.astype(np.uint8).ravel(), deep=1))
        segment = slicer.vtkSegment()
        segment.SetName(item.name)
        segment.SetColor(*item.color)
        segment.SetLabelValue(1)
        if item.terminology:
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), item.terminology)
        segment.AddRepresentation(LABELMAP, image)
        node.GetSegmentation().AddSegment(segment)
    return node


def rename_segment(controller: Controller, segment_id: str, name: str) -> None:
    """Give a segment another name; an empty one is ignored."""
    segment, clean = _segment(controller, segment_id), " ".join(name.split())[:_MOST_NAME]
    if segment is not None and clean:
        segment.SetName(clean)


def recolor_segment(controller: Controller, segment_id: str, color: str) -> None:
    """Give a segment, and what is proposed for it, another colour, ``#rrggbb``."""
    segment = _segment(controller, segment_id)
    digits = color.removeprefix("#")
    if segment is None or len(digits) != 6 or set(digits.lower()) - set("0123456789abcdef"):
        return
    rgb = tuple(int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4))
    segment.SetColor(*rgb)
    preview = controller.proposals.preview if controller.proposals is not None else None
    if preview is not None and preview.node is not None and segment_id in controller.segments:
        shown = preview.node.GetSegmentation().GetSegment(str(controller.segments.of(segment_id).object_id))
        if shown is not None:
            shown.SetColor(*rgb)


def _segment(controller: Controller, segment_id: str) -> slicer.vtkSegment | None:
    node = controller.segmentation
    return node.GetSegmentation().GetSegment(segment_id) if node is not None else None

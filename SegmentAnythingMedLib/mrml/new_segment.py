"""Segmentations and segments of ours for the user: made when missing, named, coloured, with terminology."""

from __future__ import annotations

import colorsys
import re
from typing import TYPE_CHECKING

import slicer

from SegmentAnythingMedLib.mrml.label_grid import LABELMAP

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScene, vtkMRMLSegmentationNode

_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"
_TISSUE = ("85756007", "Tissue")
_ANATOMY = ("123037004", "Anatomical Structure")
_ALTERED = ("49755003", "Morphologically Altered Structure")
_RIGHT, _LEFT = ("24028007", "Right"), ("7771000", "Left")

_TYPES = {
    "aorta": (_ANATOMY, "15825003", "Aorta", (224, 97, 76)),
    "bladder": (_ANATOMY, "89837001", "Bladder", (222, 154, 132)),
    "bone": (_TISSUE, "272673000", "Bone", (241, 214, 145)),
    "brain": (_ANATOMY, "12738006", "Brain", (250, 250, 225)),
    "colon": (_ANATOMY, "71854001", "Colon", (204, 168, 143)),
    "esophagus": (_ANATOMY, "32849002", "Esophagus", (211, 171, 143)),
    "gallbladder": (_ANATOMY, "28231008", "Gallbladder", (139, 150, 98)),
    "heart": (_ANATOMY, "80891009", "Heart", (206, 110, 84)),
    "kidney": (_ANATOMY, "64033007", "Kidney", (185, 102, 83)),
    "liver": (_ANATOMY, "10200004", "Liver", (221, 130, 101)),
    "lung": (_ANATOMY, "39607008", "Lung", (197, 165, 145)),
    "mass": (_ALTERED, "4147007", "Mass", (144, 238, 144)),
    "pancreas": (_ANATOMY, "15776009", "Pancreas", (249, 180, 111)),
    "prostate": (_ANATOMY, "41216001", "Prostate", (230, 158, 140)),
    "spleen": (_ANATOMY, "78961009", "Spleen", (157, 108, 162)),
    "stomach": (_ANATOMY, "69695003", "Stomach", (216, 132, 105)),
}
"""Codes and colours of Slicer's own "General Anatomy" terminology (SegmentationCategoryTypeModifier-...json)."""

_SIDED = {"kidney", "lung"}


def terminology_of(name: str) -> str:
    """Slicer's terminology entry for a name such as ``left kidney``; plain tissue if no word of it is known."""
    words = re.findall(r"[a-z]+", name.lower())
    known = next((word for word in words if word in _TYPES), None)
    category, code, meaning, _ = _TYPES[known] if known else (_TISSUE, *_TISSUE, None)
    side = ("", "")
    if known in _SIDED:
        side = _LEFT if "left" in words else _RIGHT if "right" in words else side
    modifier = "SCT^{}^{}".format(*side) if side[0] else "^^"
    return f"{_CONTEXT}~SCT^{category[0]}^{category[1]}~SCT^{code}^{meaning}~{modifier}~{_REGIONS}~^^~^^|"


def color_of(name: str, number: int) -> tuple[float, float, float]:
    """Colour of a segment: its terminology's, else the ``number``-th of evenly spread hues."""
    known = next((word for word in re.findall(r"[a-z]+", name.lower()) if word in _TYPES), None)
    if known:
        return tuple(channel / 255 for channel in _TYPES[known][3])
    return colorsys.hsv_to_rgb((0.33 + number * 0.618034) % 1.0, 0.65, 0.95)


def make_segmentation(scene: vtkMRMLScene, volume: vtkMRMLScalarVolumeNode, name: str = "") -> vtkMRMLSegmentationNode:
    """A new segmentation on a volume's grid, under its parent transform and its study in the subject hierarchy."""
    wanted = scene.GenerateUniqueName(name or f"{volume.GetName()} segmentation")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", wanted)
    node.CreateDefaultDisplayNodes()
    # the transform first: the reference geometry is computed between the two nodes' parent transforms
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    subjects = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    if subjects is not None:
        volume_item, item = subjects.GetItemByDataNode(volume), subjects.GetItemByDataNode(node)
        if volume_item and item:
            subjects.SetItemParent(item, subjects.GetItemParent(volume_item))
    return node


def make_segment(node: vtkMRMLSegmentationNode, name: str = "") -> str:
    """A new empty segment, not sharing a layer with others; its id.

    Parameters
    ----------
    node
        The segmentation.
    name
        Shown to the user and looked up in the terminology; by default ``Segment_1`` and so on.
    """
    segmentation = node.GetSegmentation()
    number = segmentation.GetNumberOfSegments()
    segment = slicer.vtkSegment()
    segment.SetName(name or f"Segment_{number + 1}")
    segment.SetColor(*color_of(name, number))
    segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology_of(name))
    if segmentation.GetSourceRepresentationName() == LABELMAP:
        segment.AddRepresentation(LABELMAP, slicer.vtkOrientedImageData())
    segment_id = segmentation.GenerateUniqueSegmentID(name or "Segment")
    segmentation.AddSegment(segment, segment_id)
    return segment_id


def ensure_segment(node: vtkMRMLSegmentationNode, name: str) -> str:
    """Id of the segment with this name, made when missing."""
    return node.GetSegmentation().GetSegmentIdBySegmentName(name) or make_segment(node, name)

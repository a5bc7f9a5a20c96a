"""What the MRML layer costs on the main thread, on 512x512x300: showing slices, accepting, undoing.

Run with ``python -m SegmentAnythingMedLib.benchmark.mrml_writing``; needs slicer-core, no display.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Iterator

import numpy as np
import slicer
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk

from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, matrix_of
from SegmentAnythingMedLib.mrml.new_segment import make_segment, make_segmentation
from SegmentAnythingMedLib.mrml.preview_segments import PreviewSegments
from SegmentAnythingMedLib.mrml.segment_writer import SegmentWriter

SIZE_IJK = (512, 512, 300)
SLICES = 100


def measure() -> None:
    """Print a table: milliseconds per shown slice, and the longest and whole time of accept, undo and redo."""
    importlib.import_module("scipy.ndimage")
    scene = slicer.vtkMRMLScene()
    volume = _volume(scene)
    frame = VolumeFrame.of(volume)
    print("| case | show median | show max | accept longest | accept all | undo longest | redo longest |")
    print("|---|---|---|---|---|---|---|")
    planes = {"axial": Plane(2), "coronal": Plane(1), "sagittal": Plane(0)}
    for name, plane in planes.items():
        for case in ("own layer", "five shared layers", "half grid"):
            _row(scene, volume, SliceGeometry(frame.geometry, plane), f"{name}, {case}", case)
    oblique = SliceGeometry(frame.geometry, Plane.from_normal([0.3, 0.2, 0.9], frame.geometry))
    _row(scene, volume, oblique, "oblique, own layer", "own layer", count=10)


def _row(
    scene: slicer.vtkMRMLScene,
    volume: slicer.vtkMRMLScalarVolumeNode,
    slices: SliceGeometry,
    title: str,
    case: str,
    count: int = SLICES,
) -> None:
    preview, writer = PreviewSegments(scene, volume), SegmentWriter(scene, volume)
    item = preview.add_object(1, "object", (1.0, 0.0, 0.0))
    node, segment_id = _target(scene, volume, case)
    shown = []
    middle = slices.count // 2
    for index in range(middle - count // 2, middle + count // 2):
        mask = _ellipse(slices.shape)
        started = time.perf_counter()
        preview.show(1, slices, index, mask)
        shown.append(1e3 * (time.perf_counter() - started))
    accept = _steps(writer.accept(item, node, segment_id))
    undo, redo = _steps(writer.undo()), _steps(writer.redo())
    figures = (statistics.median(shown), max(shown), max(accept), sum(accept), max(undo), max(redo))
    print(f"| {title} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |", flush=True)
    preview.close()
    scene.RemoveNode(node)


def _steps(generator: Iterator[float]) -> list[float]:
    """Milliseconds of every step."""
    found = []
    while True:
        started = time.perf_counter()
        ended = next(generator, None) is None
        found.append(1e3 * (time.perf_counter() - started))
        if ended:
            return found


def _volume(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLScalarVolumeNode:
    image = vtk.vtkImageData()
    image.SetDimensions(*SIZE_IJK)
    image.GetPointData().SetScalars(numpy_to_vtk(np.zeros(int(np.prod(SIZE_IJK)), np.int16), deep=1))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "phantom")
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(matrix_of(np.diag([-0.8, -0.8, 1.5, 1.0])))
    return node


def _target(
    scene: slicer.vtkMRMLScene, volume: slicer.vtkMRMLScalarVolumeNode, case: str
) -> tuple[slicer.vtkMRMLSegmentationNode, str]:
    node = make_segmentation(scene, volume, case)
    if case == "five shared layers":
        _fill_shared(node, volume)
        return node, node.GetSegmentation().GetNthSegmentID(0)
    if case == "half grid":
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(SIZE_IJK[0] // 2, SIZE_IJK[1] // 2, SIZE_IJK[2] // 2)
        image.SetImageToWorldMatrix(matrix_of(VolumeFrame.of(volume).local.ijk_to_world @ np.diag([2.0, 2, 2, 1])))
        name = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
        node.GetSegmentation().SetConversionParameter(
            name, slicer.vtkSegmentationConverter.SerializeImageGeometry(image)
        )
    return node, make_segment(node, "object")


def _fill_shared(node: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Five segments in one layer over the whole volume, as a collapsed .seg.nrrd loads."""
    labels = np.zeros(SIZE_IJK[::-1], np.uint8)
    for number in range(5):
        labels[:, :, 100 * number : 100 * number + 90] = number + 1
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*SIZE_IJK)
    image.SetImageToWorldMatrix(matrix_of(VolumeFrame.of(volume).local.ijk_to_world))
    image.GetPointData().SetScalars(numpy_to_vtk(labels.ravel(), deep=1))
    for number in range(5):
        segment = slicer.vtkSegment()
        segment.SetName(f"segment {number}")
        segment.SetLabelValue(number + 1)
        segment.AddRepresentation("Binary labelmap", image)
        node.GetSegmentation().AddSegment(segment, f"segment_{number}")


def _ellipse(shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows / shape[0] - 0.5) / 0.35) ** 2 + ((columns / shape[1] - 0.5) / 0.3) ** 2 < 1


if __name__ == "__main__":
    measure()

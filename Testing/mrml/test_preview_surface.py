"""The proposal in 3D: it grows while slices arrive, lies where the outlines lie, and goes with the proposal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
from mrml.controlling import AXIAL, Driver, box, drivers
from mrml.host import MrmlHost

from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.mrml import preview_surface
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.preview_segments import PreviewSegments
from SegmentAnythingMedLib.mrml.preview_surface import PreviewSurfaces


@pytest.fixture
def driver(host: MrmlHost, tmp_path: Path, a_volume: slicer.vtkMRMLScalarVolumeNode) -> Iterator[Driver]:
    for make in drivers(host, tmp_path):
        made = make()
        made.controller.set_volume(a_volume)
        yield made


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_surface, "PAUSE_S", 0.0)


def points_ijk(node: slicer.vtkMRMLModelNode, frame: VolumeFrame) -> np.ndarray:
    """(N, 3) continuous voxel indices of a surface's points."""
    mesh = node.GetPolyData()
    local = np.array([mesh.GetPoint(n) for n in range(mesh.GetNumberOfPoints())])
    return frame.local.ijk_from_world(local)


def looked(surfaces: PreviewSurfaces, preview: PreviewSegments) -> None:
    """Look until every thread has ended and its surface is shown."""
    surfaces.look(preview)
    for shown in surfaces._shown.values():
        if shown.thread is not None:
            shown.thread.join(20)
    surfaces.look(preview)


def test_the_surface_lies_round_the_slices_that_came_and_grows_with_them(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    frame = VolumeFrame.of(a_volume)
    preview, surfaces = PreviewSegments(host.scene, a_volume), PreviewSurfaces(host.scene, a_volume)
    preview.add_object(1, "organ", (0.2, 0.6, 0.4))
    slices = SliceGeometry(frame.geometry, AXIAL)
    mask = np.zeros(slices.shape, dtype=bool)
    mask[5:15, 6:18] = True
    rows_of_surface = []
    for last in (5, 8):
        for index in range(3, last + 1):
            preview.show(1, slices, index, mask)
        looked(surfaces, preview)
        points = points_ijk(surfaces.nodes[1], frame)
        rows_of_surface.append((points[:, 2].min(), points[:, 2].max()))
        assert points[:, 0].min() == pytest.approx(5.5, abs=0.6)
        assert points[:, 0].max() == pytest.approx(17.5, abs=0.6)
    assert rows_of_surface[0] == pytest.approx((2.5, 5.5), abs=0.6)
    assert rows_of_surface[1] == pytest.approx((2.5, 8.5), abs=0.6)
    node = surfaces.nodes[1]
    assert node.GetTransformNodeID() == a_volume.GetTransformNodeID()
    assert node.GetDisplayNode().GetColor() == pytest.approx((0.2, 0.6, 0.4))
    assert not node.GetSaveWithScene()
    assert node.GetHideFromEditors()


def test_a_large_object_is_sampled_coarsely_and_lies_in_its_place(
    host: MrmlHost, monkeypatch: pytest.MonkeyPatch, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    monkeypatch.setattr(preview_surface, "MOST_SAMPLES", 5)
    frame = VolumeFrame.of(a_volume)
    preview, surfaces = PreviewSegments(host.scene, a_volume), PreviewSurfaces(host.scene, a_volume)
    preview.add_object(1, "organ", (0.2, 0.6, 0.4))
    slices = SliceGeometry(frame.geometry, AXIAL)
    mask = np.zeros(slices.shape, dtype=bool)
    mask[4:16, 4:19] = True
    for index in (4, 5, 6):
        preview.show(1, slices, index, mask)
    looked(surfaces, preview)
    points = points_ijk(surfaces.nodes[1], frame)
    assert points[:, 0].min() == pytest.approx(4, abs=3)
    assert points[:, 0].max() == pytest.approx(18, abs=3)


def test_one_slice_makes_no_surface(driver: Driver) -> None:
    driver.controller.add_prompt(box())
    driver.settle()
    assert driver.controller.proposals.surfaces.nodes == {}


def test_a_propagation_shows_a_surface_that_goes_when_it_is_accepted(driver: Driver, host: MrmlHost) -> None:
    controller = driver.controller
    controller.add_prompt(box())
    driver.settle()
    controller.propagate("both")
    driver.settle()
    driver.until(lambda: any(node.GetPolyData() is not None for node in controller.proposals.surfaces.nodes.values()))
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLModelNode") >= 1
    before = {node.GetID() for node in controller.proposals.surfaces.nodes.values()}
    driver.accept()
    driver.until(lambda: not controller.proposals.surfaces.nodes)
    assert all(host.scene.GetNodeByID(node_id) is None for node_id in before)


@pytest.mark.parametrize("leave", ["volume", "segmentation", "close"])
def test_no_surface_stays_when_the_work_is_left(driver: Driver, host: MrmlHost, leave: str) -> None:
    controller = driver.controller
    controller.add_prompt(box())
    driver.settle()
    controller.propagate("both")
    driver.settle()
    driver.until(lambda: bool(controller.proposals.surfaces.nodes))
    if leave == "volume":
        controller.set_volume(host.add_volume(np.zeros((6, 7, 8), np.int16), np.eye(4), "other"))
    elif leave == "segmentation":
        controller.set_segmentation(None)
    else:
        controller.close()
    controller.poll()
    count = host.scene.GetNumberOfNodesByClass("vtkMRMLModelNode")
    nodes = [host.scene.GetNthNodeByClass(n, "vtkMRMLModelNode") for n in range(count)]
    assert not [node.GetName() for node in nodes if node.GetAttribute(preview_surface.PREVIEW_SURFACE_ATTRIBUTE)]


def test_a_surface_that_somebody_removed_comes_again_with_the_next_slices(
    host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode
) -> None:
    preview, surfaces = PreviewSegments(host.scene, a_volume), PreviewSurfaces(host.scene, a_volume)
    preview.add_object(1, "organ", (0.2, 0.6, 0.4))
    slices = SliceGeometry(VolumeFrame.of(a_volume).geometry, AXIAL)
    for index in (4, 5):
        preview.show(1, slices, index, np.ones(slices.shape, dtype=bool))
    looked(surfaces, preview)
    host.scene.RemoveNode(surfaces.nodes[1])
    looked(surfaces, preview)
    assert surfaces.nodes[1].GetPolyData().GetNumberOfPoints() > 0
    surfaces.close()
    assert surfaces.nodes == {}

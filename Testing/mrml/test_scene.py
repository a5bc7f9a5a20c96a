"""Volume nodes as volumes: voxels, place, modality, window, fused channels, time points."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from mrml.conftest import an_image, rotation, tilted_matrix
from mrml.host import MrmlHost

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.mrml import sequences
from SegmentAnythingMedLib.mrml.frame import VolumeFrame, array_of, matrix_of
from SegmentAnythingMedLib.mrml.scene import (
    default_volume,
    display_window,
    fused_volume,
    modality_of,
    volume_from_node,
    volume_stamp,
)
from SegmentAnythingMedLib.volume import Modality


def test_a_volume_has_the_nodes_voxels_read_only_and_its_place_in_the_world(
    a_volume: slicer.vtkMRMLScalarVolumeNode, a_pose: slicer.vtkMRMLLinearTransformNode
) -> None:
    volume = volume_from_node(a_volume)
    assert np.array_equal(volume.array(), an_image())
    with pytest.raises(ValueError, match="read-only"):
        volume.voxels[0, 0, 0, 0, 0] = 1
    expected = array_of(a_pose.GetMatrixTransformToParent()) @ tilted_matrix()
    assert np.allclose(volume.geometry.ijk_to_world, expected, atol=1e-9)
    assert volume.name == "tilted"


def test_rgb_and_2d_images_are_volumes_too(host: MrmlHost) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (1, 8, 9, 3)).astype(np.uint8)
    volume = volume_from_node(host.add_volume(photo))
    assert volume.voxels.shape == (1, 3, 1, 8, 9)
    assert np.array_equal(volume.array(channel=2), photo[..., 2])
    assert volume.modality is Modality.COLOR


def test_a_node_without_voxels_is_refused(host: MrmlHost) -> None:
    with pytest.raises(VolumeError, match="no voxels"):
        volume_from_node(host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))


def test_modality_comes_from_dicom_or_from_voxel_units(host: MrmlHost) -> None:
    node = host.add_volume(np.zeros((2, 3, 4), np.int16))
    assert modality_of(node) is Modality.UNKNOWN
    hounsfield = slicer.vtkCodedEntry()
    hounsfield.SetValueSchemeMeaning("[hnsf'U]", "UCUM", "Hounsfield unit")
    node.SetVoxelValueUnits(hounsfield)
    assert modality_of(node) is Modality.CT
    node.SetAttribute("DICOM.Modality", "PT")
    assert modality_of(node) is Modality.PET


def test_the_display_window_is_what_the_user_looks_at(host: MrmlHost) -> None:
    node = host.add_volume(np.zeros((2, 3, 4), np.int16))
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(400, 40)
    window = display_window(node)
    assert (window.low, window.high) == ((-160.0,), (240.0,))


def test_fused_volumes_are_each_shown_in_their_own_display_window(host: MrmlHost) -> None:
    nodes = [host.add_volume(np.zeros((2, 3, 4), np.int16), name=name) for name in ("CT", "PET")]
    for node, limits in zip(nodes, ((400, 40), (10, 5)), strict=True):
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevel(*limits)
    window = display_window(*nodes)
    assert (window.low, window.high) == ((-160.0, 0.0), (240.0, 10.0))


def test_the_default_volume_is_the_background_of_most_views(host: MrmlHost) -> None:
    first, second = (host.add_volume(np.zeros((2, 3, 4), np.int16), name=name) for name in "ab")
    assert default_volume(host.scene) is first
    for name in ("Red", "Yellow", "Green"):
        composite = slicer.vtkMRMLSliceCompositeNode()
        composite.SetLayoutName(name)
        composite.SetSingletonTag(name)
        host.scene.AddNode(composite).SetBackgroundVolumeID((first if name == "Green" else second).GetID())
    assert default_volume(host.scene) is second


def test_a_stamp_changes_with_voxels_place_and_transform_only(
    a_volume: slicer.vtkMRMLScalarVolumeNode, a_pose: slicer.vtkMRMLLinearTransformNode
) -> None:
    stamps = [volume_stamp(a_volume)]
    a_volume.SetName("renamed")
    assert volume_stamp(a_volume) == stamps[0]
    a_volume.GetImageData().GetPointData().GetScalars().Modified()
    stamps.append(volume_stamp(a_volume))
    a_volume.SetOrigin(1, 2, 3)
    stamps.append(volume_stamp(a_volume))
    a_pose.SetMatrixTransformToParent(matrix_of(np.diag([1.0, -1, -1, 1])))
    stamps.append(volume_stamp(a_volume))
    assert len(set(stamps)) == 4


def test_co_located_volumes_become_channels_on_the_grid_of_the_first(host: MrmlHost) -> None:
    def ramp(matrix: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        k, j, i = np.meshgrid(*map(np.arange, shape), indexing="ij")
        return (np.stack([i, j, k, np.ones_like(i)], axis=-1) @ matrix.T)[..., 0].astype(np.float32)

    coarse = np.eye(4)
    coarse[:3, :3] = rotation(0, 0, 25) * (2, 2, 3)
    coarse[:3, 3] = -20, -20, -9
    fine = np.diag([1.0, 1, 2, 1])
    nodes = [host.add_volume(ramp(fine, (4, 8, 8)), fine), host.add_volume(ramp(coarse, (12, 30, 30)), coarse)]
    volume = fused_volume(nodes)
    assert volume.voxels.shape == (1, 2, 4, 8, 8)
    assert np.abs(volume.array(channel=1) - volume.array(channel=0)).max() < 1e-3


def test_channels_are_resampled_only_when_their_voxels_are_asked_for(
    host: MrmlHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy import ndimage

    nodes = [host.add_volume(np.full((2, 3, 4), n, np.int16)) for n in (1, 2)]
    resample, asked = ndimage.affine_transform, []
    monkeypatch.setattr(ndimage, "affine_transform", lambda *a, **b: asked.append(1) or resample(*a, **b))
    volume = fused_volume(nodes)
    assert (volume.voxels.shape, volume.voxels.dtype, volume.nbytes) == ((1, 2, 2, 3, 4), np.float32, 192)
    assert not asked
    assert np.array_equal(volume.at_time(0).array(channel=1), np.full((2, 3, 4), 2))
    assert len(volume.fingerprint) == 16 and len(asked) == 1


@pytest.mark.parametrize("amplitude", [0.0, 6.0])
def test_points_go_through_a_warp_and_back_within_a_hundredth_of_a_voxel(host: MrmlHost, amplitude: float) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(10, 5, -20) * (1.5, 1.5, 3)
    matrix[:3, 3] = -15, -15, -15
    warp = host.add_warp(amplitude)
    frame = VolumeFrame.of(host.add_volume(an_image(), matrix, transform=warp))
    points = np.array([[0.0, 0, 0], [12.3, 10.1, 6.7], [23, 19, 11]])
    world = frame.ras_from_ijk(points)
    assert np.abs(frame.ijk_from_ras(world) - points).max() < 0.01
    bent = np.abs(world - frame.local.world_from_ijk(points)).max()
    assert bent == pytest.approx(0, abs=1e-6) if amplitude == 0 else bent > 1


def test_a_sequence_is_one_volume_over_time_and_its_proxy_the_current_time_point(host: MrmlHost) -> None:
    sequence = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("ms")
    for time in range(3):
        node = host.add_volume(np.full((2, 3, 4), time, np.int16))
        sequence.SetDataNodeAtValue(node, str(time * 40))
        host.scene.RemoveNode(node)
    browser = host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    host.logics["Sequences"].UpdateAllProxyNodes()
    proxy = browser.GetProxyNode(sequence)
    browser.SetSelectedItemNumber(2)
    host.logics["Sequences"].UpdateProxyNodesFromSequences(browser)
    assert sequences.current_time(proxy) == 2
    assert volume_from_node(proxy).array().max() == 2
    volume = sequences.volume_of_all_times(proxy)
    assert volume.voxels[:, 0, 0, 0, 0].tolist() == [0, 1, 2]
    assert volume.times_s == pytest.approx((0, 0.04, 0.08))

"""A real MRML scene, and volumes that are tilted, flipped, anisotropic and under a parent transform."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.11.0.6")

import slicer
import vtk
from mrml.controlling import Driver, drivers
from mrml.host import MrmlHost
from mrml.views import SliceView

SIZE_IJK = (24, 20, 12)


def rotation(degrees_x: float, degrees_y: float, degrees_z: float) -> np.ndarray:
    """(3, 3) rotation about x, then y, then z."""
    x, y, z = np.radians([degrees_x, degrees_y, degrees_z])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def tilted_matrix() -> np.ndarray:
    """Tilted by 20 degrees, I flipped, J and K exchanged in patient space, voxels of 0.8 x 1.1 x 2.5 mm."""
    matrix = np.eye(4)
    axes = rotation(20, -15, 10) @ np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]]).T
    matrix[:3, :3] = axes * (0.8, 1.1, 2.5)
    matrix[:3, 3] = 5.0, -12.0, 30.0
    return matrix


def an_image() -> np.ndarray:
    """(K, J, I) int16 with an ellipsoid in the middle."""
    k, j, i = np.mgrid[: SIZE_IJK[2], : SIZE_IJK[1], : SIZE_IJK[0]]
    inside = ((k - 6) / 4) ** 2 + ((j - 10) / 6) ** 2 + ((i - 12) / 8) ** 2 < 1
    return (100 * inside + (i + j + k) % 7).astype(np.int16)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[MrmlHost]:
    slicer.vtkMRMLScene()
    vtk.vtkObject.GlobalWarningDisplayOff()
    host = MrmlHost(tmp_path)
    yield host
    host.scene.Clear(True)


@pytest.fixture
def a_pose(host: MrmlHost) -> slicer.vtkMRMLLinearTransformNode:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(-5, 12, 33)
    matrix[:3, 3] = -20, 8, 3
    return host.add_linear_transform(matrix)


@pytest.fixture
def a_volume(host: MrmlHost, a_pose: slicer.vtkMRMLLinearTransformNode) -> slicer.vtkMRMLScalarVolumeNode:
    """Tilted, flipped, anisotropic, under a parent transform."""
    return host.add_volume(an_image(), tilted_matrix(), "tilted", a_pose)


@pytest.fixture
def a_segmentation(host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSegmentationNode:
    node = host.add_segmentation(a_volume)
    node.GetSegmentation().AddEmptySegment("organ", "Organ")
    return node


@pytest.fixture(scope="session")
def rendering() -> None:
    """Skips where nothing can be rendered; asked in a process of its own because VTK aborts there."""
    script = (
        "import vtk; w = vtk.vtkRenderWindow(); w.OffScreenRenderingOn(); w.AddRenderer(vtk.vtkRenderer()); w.Render()"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False)
    if run.returncode != 0:
        pytest.skip("no OpenGL: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri")


@pytest.fixture
def views(rendering: None, host: MrmlHost, a_volume: slicer.vtkMRMLScalarVolumeNode) -> dict[str, SliceView]:
    """Three views of the tilted volume, aligned with its array."""
    made = {
        orientation: SliceView(host, name, orientation)
        for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal"))
    }
    for view in made.values():
        view.show(a_volume)
    return made


@pytest.fixture
def drive(host: MrmlHost, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Makes controllers with a worker, which end with the test."""
    yield from drivers(host, tmp_path)

"""Offscreen slice views driven by Slicer's own displayable managers, with mouse events."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtkmodules.util.numpy_support import vtk_to_numpy

from SegmentAnythingMedLib.mrml.frame import VolumeFrame, array_of
from SegmentAnythingMedLib.mrml.slice_views import align_view

MANAGERS = (
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
)


class SliceView:
    """A window of 300 x 300 pixels with one slice view."""

    size = (300, 300)

    def __init__(self, host: object, name: str, orientation: str) -> None:
        self.host = host
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(*self.size)
        self.renderer = vtk.vtkRenderer()
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.managers = slicer.vtkMRMLDisplayableManagerGroup()
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(host.app_logic)
        for manager in MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self.managers.SetRenderer(self.renderer)
        self.managers.Initialize(factory, self.renderer)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(host.app_logic)
        host.app_logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(host.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetOrientation(orientation)
        self.node.SetMappedInLayout(1)
        self.managers.SetMRMLDisplayableNode(self.node)
        self.style = slicer.vtkMRMLSliceViewInteractorStyle()
        self.style.SetSliceLogic(self.logic)
        self.style.SetDisplayableManagers(self.managers)
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self.style.SetInteractor(self.interactor)
        self.interactor.Initialize()
        self.logic.ResizeSliceNode(*self.size)

    def show(self, volume: slicer.vtkMRMLScalarVolumeNode, align: bool = True) -> None:
        """Make a volume the background and fit it, on slices of its array or not."""
        self.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
        self.logic.FitSliceToAll()
        if align:
            align_view(self.node, VolumeFrame.of(volume))
        self.render()

    def render(self) -> np.ndarray:
        """(rows, columns, 3) uint8 of what is seen, without the volume."""
        self.window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self.window)
        grabber.ReadFrontBufferOff()
        grabber.ShouldRerenderOff()
        grabber.Update()
        image = grabber.GetOutput()
        columns, rows, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)[::-1].copy()

    def display_of(self, ras: np.ndarray) -> np.ndarray:
        """(2,) pixel of a world position."""
        return (np.linalg.inv(array_of(self.node.GetXYToRAS())) @ (*ras, 1.0))[:2]

    def event(self, name: str, pixel: np.ndarray) -> None:
        """Send a mouse event."""
        self.interactor.SetEventInformation(int(round(pixel[0])), int(round(pixel[1])), 0, 0, chr(0), 0, "")
        self.interactor.InvokeEvent(name)

    def click(self, ras: np.ndarray) -> np.ndarray:
        """Click on a world position; the world position of the pixel that was hit."""
        pixel = np.rint(self.display_of(ras))
        for name in ("EnterEvent", "MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
            self.event(name, pixel)
        return (array_of(self.node.GetXYToRAS()) @ (*pixel, 0.0, 1.0))[:3]

    def drag(self, path_ras: np.ndarray) -> None:
        """Press at the first of (N, 3) positions, move along, release at the last."""
        pixels = [self.display_of(ras) for ras in path_ras]
        self.event("EnterEvent", pixels[0])
        self.event("MouseMoveEvent", pixels[0])
        self.event("LeftButtonPressEvent", pixels[0])
        for pixel in pixels[1:]:
            self.event("MouseMoveEvent", pixel)
        self.event("LeftButtonReleaseEvent", pixels[-1])

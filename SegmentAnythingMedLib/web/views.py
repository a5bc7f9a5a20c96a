"""The four views of the browser app: axial, sagittal, coronal, 3D; what they show and what is drawn in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import vtk
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import SliceView, ViewLayoutDefinition

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.slice_views import align_view, ras_from_display, slice_of_view
from SegmentAnythingMedLib.mrml.strokes import simplified

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSliceNode
    from trame_server import Server
    from trame_slicer.core import SlicerApp
    from trame_slicer.views import AbstractView

THREE_D = "ThreeD"
_TARGET_FPS, _BLUR_FPS = 20.0, 6.0
_AZIMUTH, _ELEVATION = 30.0, 25.0  # the 3D view looks from the front, a little from the left and above
_MOST_POINTS = 20_000
_TOLERANCE_PIXELS = 0.5


@dataclass(frozen=True)
class ViewPlace:
    """A view of the layout: its tag in the scene, its title, and its colour as Slicer's."""

    tag: str
    title: str
    color: str


PLACES = (
    ViewPlace("Red", "Axial", "#F34A33"),
    ViewPlace("Yellow", "Sagittal", "#EFD64D"),
    ViewPlace("Green", "Coronal", "#6DAD4A"),
    ViewPlace(THREE_D, "3D", "#8AA0C8"),
)
TAGS = tuple(place.tag for place in PLACES)


class Views:
    """The views of one session.

    Parameters
    ----------
    app
        trame-slicer's scene and logics.
    server
        Of the session.
    """

    def __init__(self, app: SlicerApp, server: Server) -> None:
        self._manager = app.view_manager
        register_rca_factories(
            self._manager,
            server,
            slice_view_ui_f=_no_ui,
            three_d_view_ui_f=_no_ui,
            target_fps=_TARGET_FPS,
            blur_fps=_BLUR_FPS,
            interactive_quality=70,
        )
        self._views = {definition.singleton_tag: self._manager.create_view(definition) for definition in _layout()}
        for view in self._views.values():
            view.render_window().SetMultiSamples(0)  # software rendering: 8 samples cost four times as much
        app.scene.AddObserver(app.scene.NodeAddedEvent, self._prompt_added)
        self.show("")

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _prompt_added(self, _scene: object, _event: str, node: vtk.vtkObject) -> None:
        """Prompts are shown in the slice views alone: in 3D their handles hide what they are about."""
        if node.IsA("vtkMRMLMarkupsDisplayNode"):
            for view in self.slices.values():
                node.AddViewNodeID(view.get_view_node_id())

    def __getitem__(self, tag: str) -> AbstractView:
        return self._views[tag]

    @property
    def slices(self) -> dict[str, SliceView]:
        """The slice views by tag."""
        return {tag: view for tag, view in self._views.items() if isinstance(view, SliceView)}

    def node(self, tag: str) -> vtkMRMLSliceNode | None:
        """The slice node of a view; None for the 3D view and unknown names."""
        view = self.slices.get(tag)
        return view.get_view_node() if view is not None else None

    def show(self, tag: str) -> None:
        """Show one view, or (empty) all four; hidden ones are not rendered."""
        self._manager.set_current_view_ids([tag] if tag in self._views else list(self._views))
        for view in self._views.values():
            view.schedule_render()

    def show_volume(self, node: vtkMRMLScalarVolumeNode) -> None:
        """Show a volume in all views, aligned with its array and fitted."""
        for tag, view in self.slices.items():
            view.set_background_volume_id(node.GetID())
            view.get_view_node().SetOrientationToDefault()
            if VolumeFrame.of(node).is_linear:
                align_view(view.get_view_node(), VolumeFrame.of(node))
            view.fit_view_to_content()
            view.set_visible_in_3d(tag == "Red")  # more planes would hide the segments
        self.reset(THREE_D)

    def center_on(self, place_ras: np.ndarray) -> None:
        """Let all slice views show a place, (3,) in the world."""
        for view in self.slices.values():
            view.get_view_node().JumpSliceByOffsetting(*(float(x) for x in place_ras))

    def reset(self, tag: str) -> None:
        """Fit a view to what it shows."""
        view = self._views.get(tag)
        if isinstance(view, SliceView):
            view.fit_view_to_content()
        elif view is not None:
            view.fit_view_to_content()
            camera = view.first_renderer().GetActiveCamera()
            camera.Azimuth(_AZIMUTH)
            camera.Elevation(_ELEVATION)
            camera.OrthogonalizeViewUp()
            view.first_renderer().ResetCameraClippingRange()
        if view is not None:
            view.schedule_render()

    def scroll(self, tag: str, offset_mm: float) -> None:
        """Let a slice view show another slice."""
        view = self.slices.get(tag)
        if view is not None and math.isfinite(offset_mm):
            view.set_slice_value(float(offset_mm))

    def step(self, tag: str, steps: int) -> None:
        """Go a number of slices further in a view."""
        view = self.slices.get(tag)
        if view is not None and math.isfinite(steps):
            low, high = view.get_slice_range()
            view.set_slice_value(min(max(view.get_slice_value() + steps * view.get_slice_step(), low), high))

    def sliders(self, node: vtkMRMLScalarVolumeNode | None) -> dict[str, dict[str, Any]]:
        """For each slice view: the slider's range, step and value in millimetres, and the slice in words."""
        if node is None or node.GetImageData() is None:
            return {}
        frame, found = VolumeFrame.of(node), {}
        for tag, view in self.slices.items():
            low, high = view.get_slice_range()
            found[tag] = {
                "min": round(low, 4),
                "max": round(high, 4),
                "step": round(view.get_slice_step(), 4),
                "value": round(view.get_slice_value(), 4),
                "text": _slice_text(view.get_view_node(), frame),
            }
        return found

    def stroke(self, tag: str, fractions: Sequence[Sequence[float]]) -> np.ndarray | None:
        """What was drawn in a slice view, (N, 3) world RAS without points that a straight line needs not.

        Parameters
        ----------
        tag
            Of the view.
        fractions
            (N, 2) of the view's picture, across and down, from 0 to 1.
        """
        view, places = self.slices.get(tag), np.asarray(fractions, dtype=np.float64)
        if view is None or places.ndim != 2 or places.shape[1] != 2 or not 2 <= len(places) <= _MOST_POINTS:
            return None
        if not np.isfinite(places).all():
            return None
        width, height = view.render_window().GetSize()
        pixels = np.clip(places, 0, 1) * (width, height)
        pixels[:, 1] = height - pixels[:, 1]
        node = view.get_view_node()
        return np.array([ras_from_display(node, *pixel) for pixel in simplified(pixels, _TOLERANCE_PIXELS)])


def _layout() -> tuple[ViewLayoutDefinition, ...]:
    return (
        ViewLayoutDefinition.axial_view(),
        ViewLayoutDefinition.sagittal_view(),
        ViewLayoutDefinition.coronal_view(),
        ViewLayoutDefinition.threed_view(name=THREE_D, background_color="#15181d"),
    )


def _slice_text(view: vtkMRMLSliceNode, frame: VolumeFrame) -> str:
    try:
        shown = slice_of_view(view, frame)
    except SegmentAnythingMedError:
        return "beside the volume"
    return f"slice {shown.index}" if shown.plane.axis is not None else f"oblique slice {shown.index}"


def _no_ui(*_arguments: object) -> None:
    """Nothing of trame-slicer's is drawn over a view: the app's own frame does that."""

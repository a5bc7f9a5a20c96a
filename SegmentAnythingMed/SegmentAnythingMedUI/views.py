"""The slice views of the layout, and which of them the user looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import qt
import slicer

from SegmentAnythingMedLib.mrml.nodes import nodes_of
from SegmentAnythingMedLib.mrml.slice_views import cursor_view, slice_views

if TYPE_CHECKING:
    import vtk
    from slicer import vtkMRMLScene, vtkMRMLSliceNode, vtkMRMLVolumeNode


@dataclass(frozen=True, eq=False)
class SliceWidget:
    """One slice view of the layout.

    Parameters
    ----------
    widget
        The Qt widget, for shortcuts.
    node
        Its slice node.
    interactor
        Of its render window, for drawing.
    """

    widget: qt.QWidget
    node: vtkMRMLSliceNode
    interactor: vtk.vtkRenderWindowInteractor


def slice_widgets() -> list[SliceWidget]:
    """All slice views that the layout has; none without a main window."""
    layout = slicer.app.layoutManager()
    if layout is None:
        return []
    widgets = [layout.sliceWidget(name) for name in layout.sliceViewNames()]
    return [
        SliceWidget(widget, widget.mrmlSliceNode(), widget.sliceView().interactor())
        for widget in widgets
        if widget is not None
    ]


class LookedAtView:
    """Remembers the slice view the cursor was in last, since it leaves the view on its way to a button."""

    def __init__(self, scene: vtkMRMLScene) -> None:
        self._scene = scene
        self._last_id = ""

    def node(self) -> vtkMRMLSliceNode | None:
        """The view that the user looks at: the cursor's, else the last one it was in, else the first that is shown."""
        found = cursor_view(self._scene)
        if found is not None:
            self._last_id = found.GetID() or ""
            return found
        remembered = self._scene.GetNodeByID(self._last_id) if self._last_id else None
        if remembered is not None and remembered.IsMappedInLayout():
            return remembered
        return next(iter(slice_views(self._scene)), None)


def shown_volume(scene: vtkMRMLScene) -> vtkMRMLVolumeNode | None:
    """The background volume of the first slice view that has one."""
    for composite in nodes_of(scene, "vtkMRMLSliceCompositeNode"):
        node = scene.GetNodeByID(composite.GetBackgroundVolumeID() or "")
        if node is not None and node.IsA("vtkMRMLScalarVolumeNode") and not node.IsA("vtkMRMLLabelMapVolumeNode"):
            return node
    return None

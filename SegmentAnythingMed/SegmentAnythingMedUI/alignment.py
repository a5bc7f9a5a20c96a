"""The offer to turn slice views onto the volume's own slices, shown only while a view is oblique to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.slice_views import align_view, is_aligned, slice_views

if TYPE_CHECKING:
    from slicer import vtkMRMLSliceNode

    from SegmentAnythingMedLib.mrml.controller import Controller


class Alignment:
    """The row with the offer.

    Parameters
    ----------
    ui
        The widgets of the panel, by name.
    controller
        Says which volume is worked on.
    """

    def __init__(self, ui: object, controller: Controller) -> None:
        self._ui, self._controller = ui, controller
        self._looked_at: tuple[object, ...] = ()
        ui.alignViewsButton.connect("clicked()", self.align)

    def look(self) -> None:
        """Show or take away the offer, if a view or the volume moved since the last look."""
        volume = self._controller.volume
        views = list(slice_views(self._controller.scene)) if volume is not None else []
        now = (volume, tuple((view.GetID(), view.GetMTime()) for view in views))
        if now == self._looked_at:
            return
        self._looked_at = now
        oblique = self._oblique(views)
        if oblique:
            names = ", ".join(view.GetName() for view in oblique)
            text = _("Oblique to the slices of the volume: {names}.").format(names=names)
            self._ui.alignLabel.setText(text)
        self._ui.alignFrame.setVisible(bool(oblique))

    def align(self) -> None:
        """Turn all views that are oblique."""
        views = list(slice_views(self._controller.scene))
        frame = VolumeFrame.of(self._controller.volume)
        for view in self._oblique(views):
            align_view(view, frame)
        self.look()

    def _oblique(self, views: list[vtkMRMLSliceNode]) -> list[vtkMRMLSliceNode]:
        if not views:
            return []
        try:
            frame = VolumeFrame.of(self._controller.volume)
            return [view for view in views if not is_aligned(view, frame)]
        except SegmentAnythingMedError:
            return []  # a volume without a grid of its own has nothing to align to

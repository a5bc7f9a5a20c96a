"""The session's heartbeat: polls the controller, and tells the browser what changed."""

from __future__ import annotations

import asyncio
import time as clock
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.mrml.label_grid import SURFACE
from SegmentAnythingMedLib.web.panel_state import panel_values, strip_values
from SegmentAnythingMedLib.web.quality_strip import QualityStrip

if TYPE_CHECKING:
    from slicer import vtkMRMLSliceNode
    from trame_server.state import State

    from SegmentAnythingMedLib.web.views import Views
    from SegmentAnythingMedLib.web.workspace import Workspace

POLL_S = 0.03
PUSH_S = 0.12
"""The browser is told at most this often: a propagation brings slices faster."""


class Pump:
    """Runs until the session ends.

    Parameters
    ----------
    workspace, views
        Of the session.
    state
        Shared with the browser.
    """

    def __init__(self, workspace: Workspace, views: Views, state: State) -> None:
        self._workspace = workspace
        self._views = views
        self._state = state
        self._pushed = 0.0
        self._was_writing = False
        self.strip = QualityStrip()
        self.view_tag = "Red"

    @property
    def view(self) -> vtkMRMLSliceNode | None:
        """The slice view that the user looks at."""
        return self._views.node(self.view_tag)

    async def run(self) -> None:
        """Poll for ever; the controller says what goes wrong in its status."""
        while True:
            self._workspace.controller.poll()
            self._show_surface()
            if clock.monotonic() - self._pushed >= PUSH_S:
                self.push()
            await asyncio.sleep(POLL_S)

    def push(self) -> None:
        """Tell the browser now; what did not change is not sent."""
        panel, self.strip = panel_values(self._workspace, self.view)
        sliders = self._views.sliders(self._workspace.controller.volume)
        strip = strip_values(self.strip)
        with self._state as state:
            for key, value in (("panel", panel), ("strip", strip), ("sliders", sliders)):
                if state[key] != value:
                    state[key] = value
        self._pushed = clock.monotonic()

    def _show_surface(self) -> None:
        """After the first accepting have the segmentation shown in 3D; later ones keep it up to date themselves."""
        controller = self._workspace.controller
        is_writing = controller.proposals is not None and controller.proposals.is_writing
        was_writing, self._was_writing = self._was_writing, is_writing
        node = controller.segmentation
        if not was_writing or is_writing or node is None:
            return
        if not node.GetSegmentation().ContainsRepresentation(SURFACE):
            node.CreateClosedSurfaceRepresentation()

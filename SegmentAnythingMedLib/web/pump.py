"""The session's heartbeat: polls the controller, and tells the browser what changed."""

from __future__ import annotations

import asyncio
import time as clock
from typing import TYPE_CHECKING, Any

from SegmentAnythingMedLib.web.panel_state import panel_values, strip_values
from SegmentAnythingMedLib.web.quality_strip import QualityStrip
from SegmentAnythingMedLib.web.surface_steps import SurfaceSteps

if TYPE_CHECKING:
    from slicer import vtkMRMLSliceNode
    from trame_server.state import State

    from SegmentAnythingMedLib.web.views import Views
    from SegmentAnythingMedLib.web.weights_panel import WeightsPanel
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
    weights
        The list of models, and getting their weights.
    state
        Shared with the browser.
    """

    def __init__(self, workspace: Workspace, views: Views, weights: WeightsPanel, state: State) -> None:
        self._workspace = workspace
        self._views = views
        self._weights = weights
        self._state = state
        self._pushed = 0.0
        self._surfaces = SurfaceSteps(workspace.controller)
        self.strip = QualityStrip()
        self.panel: dict[str, Any] = {}
        self.view_tag = "Red"

    @property
    def view(self) -> vtkMRMLSliceNode | None:
        """The slice view that the user looks at."""
        return self._views.node(self.view_tag)

    async def run(self) -> None:
        """Poll for ever; the controller says what goes wrong in its status."""
        while True:
            self._workspace.controller.poll()
            self._surfaces.look()
            self._weights.look()
            if clock.monotonic() - self._pushed >= PUSH_S:
                self.push()
            await asyncio.sleep(POLL_S)

    def push(self) -> None:
        """Tell the browser now; what did not change is not sent."""
        self.panel, self.strip = panel_values(self._workspace, self.view)
        sliders = self._views.sliders(self._workspace.controller.volume)
        strip = strip_values(self.strip)
        told = {"panel": self.panel, "strip": strip, "sliders": sliders}
        told |= {"models": self._weights.models, "weights": self._weights.values}
        with self._state as state:
            for key, value in told.items():
                if state[key] != value:
                    state[key] = value
        self._pushed = clock.monotonic()

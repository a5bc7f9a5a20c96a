"""The panel: its sections put together, shown from the controller after every change, stored for a reload."""

from __future__ import annotations

import time as clock
from typing import TYPE_CHECKING

import slicer

from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.scene import has_voxels
from SegmentAnythingMedLib.panel.actions import BY_NAME, perform
from SegmentAnythingMedLib.panel.content import content_of
from SegmentAnythingMedUI.alignment import Alignment
from SegmentAnythingMedUI.buttons import Buttons
from SegmentAnythingMedUI.drawing import CLICKED, Drawing
from SegmentAnythingMedUI.editor_section import EditorSection
from SegmentAnythingMedUI.event_pump import EventPump
from SegmentAnythingMedUI.inputs import Inputs
from SegmentAnythingMedUI.install import Installer
from SegmentAnythingMedUI.keys_popover import KeysPopover
from SegmentAnythingMedUI.more_section import MoreSection
from SegmentAnythingMedUI.parameters import Parameters, parameter_node
from SegmentAnythingMedUI.quality_strip import QualityStrip
from SegmentAnythingMedUI.shortcuts import ViewShortcuts
from SegmentAnythingMedUI.status_line import StatusLine
from SegmentAnythingMedUI.suggest_row import SuggestRow
from SegmentAnythingMedUI.views import LookedAtView, shown_volume, slice_widgets
from SegmentAnythingMedUI.weights_section import WeightsSection, weights_of_slicer

if TYPE_CHECKING:
    import numpy as np
    from slicer import vtkMRMLSliceNode

    from SegmentAnythingMedLib.mrml.controller import Controller
    from SegmentAnythingMedLib.panel.weights import Weights

QUIET_S = 0.1
"""While slices arrive, the panel is drawn anew ten times a second and no more."""

_NEEDS_MODEL = {"prompt", "propagate", "review"}
_FOLDS = {"editor": "editorCollapsibleButton", "more": "moreCollapsibleButton"}


class Panel:
    """Everything the user sees of the module.

    Parameters
    ----------
    ui
        The widgets of the .ui file, by name.
    controller
        Does the work.
    weights
        Lists the models and gets their weights; by default those in the folder that the user chose.
    installer
        Gets missing packages; by default with a message box and pip.
    """

    def __init__(
        self,
        ui: object,
        controller: Controller,
        weights: Weights | None = None,
        installer: Installer | None = None,
    ) -> None:
        self.weights = weights or weights_of_slicer()
        self._ui, self.controller = ui, controller
        self.installer = installer or Installer(controller)
        self.parameters = Parameters(parameter_node(controller.scene))
        self._view = LookedAtView(controller.scene)
        self._buttons = Buttons(ui, self.press)
        self.inputs = Inputs(ui, controller, self.installer, self.weights, lambda: self.parameters)
        self._suggest = SuggestRow(ui, controller)
        self._more = MoreSection(ui, controller, lambda: self.parameters)
        self._weights = WeightsSection(ui, controller, self.weights, self.inputs)
        self._status = StatusLine(ui, lambda: (*controller.messages, *self.installer.lines))
        self.strip = QualityStrip(controller.go_to_slice)
        ui.stripPlace.layout().addWidget(self.strip)
        self._editor = EditorSection(ui, controller)
        self._alignment = Alignment(ui, controller)
        self._keys = KeysPopover(ui.keysButton)
        self.shortcuts = ViewShortcuts(self.press)
        self.drawing = Drawing(self._drawn)
        self.is_entered = False
        self._is_dirty, self._shown_at, self._state = True, 0.0, None
        self._seen_view: tuple[object, ...] = ()
        self._placing = ""
        for role, name in _FOLDS.items():
            getattr(ui, name).connect("contentsCollapsed(bool)", self._fold_noter(role))
        self._unobserve = controller.observe(self._changed)
        self.pump = EventPump(controller, self.look)

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what the scene knows of an earlier session, and begin to poll."""
        self.restore()
        self.pump.start()

    def enter(self) -> None:
        """The module is shown: keys act, views can be drawn in."""
        self.is_entered = True
        self.inputs.refresh_models()
        self._adopt_shown_volume()
        self.follow_layout()
        self._editor.enter()
        self.show()

    def exit(self) -> None:
        """Another module is shown: keys and mouse are given back; what runs goes on."""
        self.is_entered = False
        self.controller.stop_placing()
        self.shortcuts.remove()
        self.drawing.stop()
        self._editor.leave()
        self._keys.label.hide()

    def follow_layout(self) -> None:
        """The layout changed: other views have the keys now."""
        if self.is_entered:
            self.drawing.stop()
            self.shortcuts.install(slice_widgets())
            self._is_dirty = True

    def close(self) -> None:
        """The module is unloaded."""
        self.exit()
        self.pump.stop()
        self._unobserve()
        self._keys.close()
        self.weights.close()
        self.controller.close()

    def scene_closes(self) -> None:
        """The scene is about to be emptied."""
        self.drawing.stop()
        self._editor.scene_closes()

    def restore(self) -> None:
        """Work on what the scene's parameter node says: at the start, after closing and after loading a scene."""
        self.controller.poll()
        self.parameters = Parameters(parameter_node(self.controller.scene))
        parameters = self.parameters
        self._more.restore()
        device = parameters.text("device", "auto")
        if device != self.controller.link.device:
            self.controller.set_model(self.controller.link.model, device)
        self.inputs.want_model(parameters.text("model"))
        parameters.restore(self.controller)
        for role, name in _FOLDS.items():
            getattr(self._ui, name).collapsed = not parameters.flag(role)
        self.inputs.is_emptied_by_user = False
        if self.is_entered:
            self._adopt_shown_volume()
            self._editor.enter()
        self.show()

    # -- doing -------------------------------------------------------------------------------------------------------

    def press(self, name: str, view: vtkMRMLSliceNode | None = None) -> None:
        """Do an action; the first that needs the model asks for what the model lacks."""
        action = BY_NAME[name]
        is_wanted = action.allowed(self.controller)
        is_asking = (
            action.section in _NEEDS_MODEL and self.controller.volume is not None and not self.installer.is_running
        )
        if is_wanted and is_asking and not self.controller.placing_kind and not self.inputs.ensure_model():
            is_wanted = False
        if is_wanted:
            perform(name, self.controller, view or self._view.node())
            if action.placing and self.controller.placing_kind:
                self._editor.put_brush_down()
        self.show()

    def _share_mouse(self) -> None:
        """A brush of the Segment Editor, or a markup of someone else, takes the mouse from our pen."""
        if self.drawing.kind and (self._editor.has_brush or self._is_placed_by_others()):
            self.controller.stop_placing()

    def _is_placed_by_others(self) -> bool:
        interaction = self.controller.scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
        is_place = interaction is not None and interaction.GetCurrentInteractionMode() == interaction.Place
        return is_place and self.drawing.kind not in CLICKED

    def _drawn(self, kind: str, points_ras: np.ndarray, view: vtkMRMLSliceNode) -> None:
        self.controller.add_drawn(kind, points_ras, view)
        if kind in ("box", "lasso"):  # as after two clicks: one box, then the mouse is the view's again
            self.controller.stop_placing()
        self.show()

    # -- showing -----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """After each poll: show what changed, but not more often than can be seen."""
        self.inputs.settle()
        self._weights.look()
        if not self.is_entered:
            self._is_dirty = True
            self.parameters.store(self.controller)
            return
        if self.controller.volume is None:
            self._adopt_shown_volume()
        view = self._view.node()
        seen = (view.GetID(), view.GetMTime()) if view is not None else ()
        self._share_mouse()
        self._is_dirty |= seen != self._seen_view
        self._seen_view = seen
        if self._has_turned() or (self._is_dirty and clock.monotonic() - self._shown_at >= QUIET_S):
            self.show()

    def show(self) -> None:
        """Show everything as it is now, and store it."""
        if slicer.mrmlScene.IsClosing():
            return
        self._is_dirty, self._shown_at, self._state = False, clock.monotonic(), self.controller.state
        content = content_of(self.controller, self._view.node())
        self._placing = content.placing
        self._buttons.show(content)
        self.inputs.show(content)
        self._suggest.show(content)
        self._status.show(content)
        self.strip.show_slices(content.strip, content.shown_slice)
        self._more.show()
        self._weights.show()
        self._editor.follow()
        self._alignment.look()
        if self.is_entered:
            self.drawing.follow(content.placing, slice_widgets)
        self.parameters.store(self.controller)
        self.parameters.set_text("model", self.inputs.choice.card.name)

    def _changed(self) -> None:
        self._is_dirty = True
        if self.controller.state is State.IDLE or slicer.mrmlScene.IsClosing():
            return
        if self._has_turned() or clock.monotonic() - self._shown_at >= QUIET_S:
            self.show()

    def _has_turned(self) -> bool:
        """Whether something changed that must be seen at once."""
        return self.controller.state is not self._state or self.controller.placing_kind != self._placing

    def _adopt_shown_volume(self) -> None:
        """Begin with the volume that the views show, unless the user emptied the selector."""
        if self.controller.volume is None and not self.inputs.is_emptied_by_user:
            volume = shown_volume(self.controller.scene)
            if volume is not None and has_voxels(volume):
                self.controller.set_volume(volume, self.parameters.channels())

    def _fold_noter(self, role: str) -> object:
        return lambda is_folded: self.parameters.set_flag(role, not is_folded)

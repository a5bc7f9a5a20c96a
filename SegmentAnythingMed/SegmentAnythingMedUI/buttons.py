"""The buttons of the panel, connected to the table of actions by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.panel.actions import ACTIONS
from SegmentAnythingMedLib.resources import resource_path

if TYPE_CHECKING:
    from SegmentAnythingMedLib.panel.content import PanelContent

KEY_ONLY = {"stop"}
"""Actions without a button: the placing buttons and Cancel do the same."""

_ICONS = {
    "place-point": "point",
    "place-background": "background_point",
    "place-box": "box",
    "place-scribble": "scribble",
    "place-background-scribble": "background_scribble",
    "place-lasso": "lasso",
    "from-segment": "from_segment",
    "undo-prompt": "undo",
    "redo-prompt": "redo",
    "propagate-backward": "backward",
    "propagate-both": "both",
    "propagate-forward": "forward",
    "accept": "accept",
    "discard": "discard",
    "undo": "undo",
    "redo": "redo",
}


def button_name(action: str) -> str:
    """Name of an action's button in the .ui file: ``place-box`` is ``placeBoxButton``."""
    first, *rest = action.split("-")
    return first + "".join(word.title() for word in rest) + "Button"


class Buttons:
    """All buttons of the table of actions.

    Parameters
    ----------
    ui
        The widgets of the panel, by name.
    press
        Called with the action's name.
    """

    def __init__(self, ui: object, press: Callable[[str], None]) -> None:
        self._buttons = {
            action.name: getattr(ui, button_name(action.name)) for action in ACTIONS if action.name not in KEY_ONLY
        }
        for name, button in self._buttons.items():
            button.connect("clicked()", _pressing(press, name))
            icon = icon_of(name)
            if icon is not None:
                button.setIcon(icon)

    def show(self, content: PanelContent) -> None:
        """Enable what can be done now, and hold down the button of what is being placed."""
        for action in ACTIONS:
            button = self._buttons.get(action.name)
            if button is None:
                continue
            allowed = action.name in content.allowed
            if button.enabled != allowed:
                button.setEnabled(allowed)
            if action.placing and button.checked != (action.placing == content.placing):
                button.setChecked(action.placing == content.placing)


def icon_of(action: str) -> qt.QIcon | None:
    """The icon of an action, or None if there is none."""
    try:
        return qt.QIcon(str(resource_path("Icons", f"{_ICONS[action]}.png")))
    except (KeyError, SegmentAnythingMedError):
        return None


def _pressing(press: Callable[[str], None], name: str) -> Callable[[], None]:
    return lambda: press(name)

"""Keys that act while a slice view has the focus and the module is shown, and never otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import qt

from SegmentAnythingMedLib.panel.actions import ACTIONS

if TYPE_CHECKING:
    from slicer import vtkMRMLSliceNode

    from SegmentAnythingMedUI.views import SliceWidget


class ViewShortcuts:
    """The shortcuts of all actions on all slice views.

    Parameters
    ----------
    perform
        Does an action, by name, in the slice view whose key was pressed.
    """

    def __init__(self, perform: Callable[[str, vtkMRMLSliceNode], None]) -> None:
        self._perform = perform
        self._shortcuts: list[qt.QShortcut] = []

    def __len__(self) -> int:
        return len(self._shortcuts)

    def install(self, views: Iterable[SliceWidget]) -> None:
        """Let the keys act in these views; those of before are taken away."""
        self.remove()
        for view in views:
            for action in ACTIONS:
                if action.key:
                    self._shortcuts.append(self._shortcut(view, action.name, action.key))

    def remove(self) -> None:
        """Give the keys back."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []

    def _shortcut(self, view: SliceWidget, name: str, key: str) -> qt.QShortcut:
        shortcut = qt.QShortcut(qt.QKeySequence(key), view.widget)
        shortcut.setContext(qt.Qt.WidgetWithChildrenShortcut)
        node = view.node
        shortcut.connect("activated()", lambda: self._perform(name, node))
        return shortcut

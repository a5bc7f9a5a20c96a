"""The list of keys, in a window that closes at the next click."""

from __future__ import annotations

from html import escape

import qt
from slicer.i18n import tr as _

from SegmentAnythingMedLib.panel.actions import keys


class KeysPopover:
    """Shows the keys below a button.

    Parameters
    ----------
    button
        Opens it.
    """

    def __init__(self, button: qt.QPushButton) -> None:
        self._button = button
        self.label = qt.QLabel(text())
        self.label.setWindowFlags(qt.Qt.Popup)
        self.label.setMargin(10)
        button.connect("clicked()", self.show)

    def show(self) -> None:
        """Open it."""
        self.label.adjustSize()
        corner = self._button.mapToGlobal(qt.QPoint(0, 0))
        self.label.move(max(corner.x() - self.label.width, 0), max(corner.y() - self.label.height, 0))
        self.label.show()

    def close(self) -> None:
        """Take it away."""
        self.label.close()
        self.label.deleteLater()


def text() -> str:
    """The keys as rich text."""
    rows = "".join(
        f"<tr><td><b>{escape(key)}</b>&nbsp;&nbsp;</td><td>{escape(sentence)}</td></tr>" for key, sentence in keys()
    )
    intro = _("These keys act while this module is open and a slice view has the focus (click into it).")
    return f"<p>{escape(intro)}</p><table>{rows}</table>"

"""What goes on, in words: the status, progress, quality and range; behind a button all that was said so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from SegmentAnythingMedUI.quality_strip import is_dark

if TYPE_CHECKING:
    from SegmentAnythingMedLib.panel.content import PanelContent

RED = {"light": "#b3261e", "dark": "#ff9a8f"}
_STEPS = 1000


class StatusLine:
    """The words and bars of the panel.

    Parameters
    ----------
    ui
        The widgets of the panel, by name.
    details
        Gives the lines behind the button.
    """

    def __init__(self, ui: object, details: Callable[[], tuple[str, ...]]) -> None:
        self._ui, self._details = ui, details
        self._shown_lines: tuple[str, ...] = ()
        ui.detailsButton.connect("toggled(bool)", self._toggle_details)

    def show(self, content: PanelContent) -> None:
        """Show a moment."""
        ui = self._ui
        label = ui.statusLabel
        label.setText(("⚠ " if content.is_error else "") + content.status)
        color = RED["dark" if is_dark(label) else "light"]
        label.setStyleSheet(f"color: {color}" if content.is_error else "")
        many = _("Outline {which}").format(which=content.candidate)
        one = _("One outline") if content.quality is not None else _("No outline yet")
        ui.candidateLabel.setText(many if content.candidate else one)
        ui.qualityLabel.setText(_("quality {text}").format(text=content.quality_text) if content.quality_text else "")
        ui.qualityBar.setValue(int(round(100 * (content.quality or 0.0))))
        ui.qualityBar.setVisible(content.quality is not None)
        ui.rangeLabel.setText(_("Range: {text}").format(text=content.range_text))
        ui.progressBar.setValue(int(round(_STEPS * (content.progress or 0.0))))
        ui.progressBar.setFormat(content.progress_text or _("nothing runs"))
        ui.stripLabel.setText(_strip_words(content))
        ui.stripLabel.setVisible(bool(content.strip))
        if ui.detailsText.visible:
            self.show_details()

    def show_details(self) -> None:
        """Bring the text behind the button up to date, with its end in sight."""
        lines = self._details()
        if lines != self._shown_lines:
            self._shown_lines = lines
            self._ui.detailsText.setPlainText("\n".join(lines))
            self._ui.detailsText.moveCursor(qt.QTextCursor.End)

    def _toggle_details(self, is_open: bool) -> None:
        self._ui.detailsText.setVisible(is_open)
        if is_open:
            self.show_details()


def _strip_words(content: PanelContent) -> str:
    if not content.strip:
        return ""
    words = _("{summary}. Bars: predicted quality; line: overlap with the neighbour. Click to go there.")
    return words.format(summary=content.strip_text)

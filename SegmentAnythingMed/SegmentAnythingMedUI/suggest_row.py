"""The row that suggests prompts: what they are made from, and which segment or ruler of the scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qt

from SegmentAnythingMedLib.panel.suggestions import KINDS

if TYPE_CHECKING:
    from SegmentAnythingMedLib.mrml.controller import Controller
    from SegmentAnythingMedLib.mrml.suggestion_inputs import SuggestionInput
    from SegmentAnythingMedLib.panel.content import PanelContent


class SuggestRow:
    """Two lists; the button beside them is one of the panel's actions.

    Parameters
    ----------
    ui
        The widgets of the panel, by name.
    controller
        Does what is chosen.
    """

    def __init__(self, ui: object, controller: Controller) -> None:
        self._ui, self._controller = ui, controller
        self._inputs: tuple[SuggestionInput, ...] | None = None
        for kind in KINDS:
            ui.suggestSourceBox.addItem(kind.label, kind.source)
            ui.suggestSourceBox.setItemData(ui.suggestSourceBox.count - 1, kind.tip, qt.Qt.ToolTipRole)
        ui.suggestSourceBox.connect("activated(int)", self._source_chosen)
        ui.suggestInputBox.connect("activated(int)", self._input_chosen)

    def show(self, content: PanelContent) -> None:
        """Show a moment."""
        row, sources, inputs = content.suggestion, self._ui.suggestSourceBox, self._ui.suggestInputBox
        n = sources.findData(row.kind.source)
        if sources.currentIndex != n:
            sources.setCurrentIndex(n)
        if sources.toolTip != row.kind.tip:
            sources.setToolTip(row.kind.tip)
        if row.shown != self._inputs:
            self._inputs = row.shown
            inputs.clear()
            for one in row.shown:
                inputs.addItem(one.label, one.key)
        n = max(inputs.findData(row.chosen), 0)
        if inputs.currentIndex != n:
            inputs.setCurrentIndex(n)
        inputs.setEnabled(row.is_choice)

    def _source_chosen(self, n: int) -> None:
        self._controller.choose_suggestion(self._ui.suggestSourceBox.itemData(n))

    def _input_chosen(self, n: int) -> None:
        source = self._ui.suggestSourceBox.itemData(self._ui.suggestSourceBox.currentIndex)
        self._controller.choose_suggestion(source, self._ui.suggestInputBox.itemData(n))

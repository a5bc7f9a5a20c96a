"""Getting, importing and removing weights: the question under the model, and the rows in the folded section."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.models.registry import FOLDER_VARIABLE
from SegmentAnythingMedLib.models.weights.converting import SUFFIXES
from SegmentAnythingMedLib.panel.actions import is_between_tasks
from SegmentAnythingMedLib.panel.weights import Weights
from SegmentAnythingMedLib.panel.weights_process import WeightsProcess
from SegmentAnythingMedUI.more_section import chosen_file
from SegmentAnythingMedUI.pip_process import slicer_python
from SegmentAnythingMedUI.quality_strip import is_dark
from SegmentAnythingMedUI.status_line import RED
from SegmentAnythingMedUI.weights_folder import apply_stored_folder, store_folder

if TYPE_CHECKING:
    from SegmentAnythingMedLib.mrml.controller import Controller
    from SegmentAnythingMedLib.panel.weights import Finished
    from SegmentAnythingMedLib.panel.weights_content import WeightsContent
    from SegmentAnythingMedUI.inputs import Inputs

_STEPS = 1000
_BREAK = "\u200b"
"""Lets a long address or path go on in the next line."""


def weights_of_slicer() -> Weights:
    """Weights in the folder that the user chose, got by Slicer's Python."""
    apply_stored_folder()
    return Weights(start=partial(WeightsProcess, python=slicer_python()))


class WeightsSection:
    """The widgets about weights.

    Parameters
    ----------
    ui
        The widgets of the panel, by name.
    controller
        Is told what became of a task.
    weights
        Does what is asked for.
    inputs
        The list of models.
    """

    def __init__(self, ui: object, controller: Controller, weights: Weights, inputs: Inputs) -> None:
        self._ui, self._controller, self._weights, self._inputs = ui, controller, weights, inputs
        self._can_move = apply_stored_folder()
        ui.weightsYesButton.connect("clicked()", lambda: self._press(weights.say_yes))
        ui.weightsNoButton.connect("clicked()", lambda: self._press(weights.say_no))
        ui.weightsImportButton.connect("clicked()", self.import_file)
        ui.weightsRemoveButton.connect("clicked()", self._remove)
        ui.weightsMoveButton.connect("clicked()", self.choose_folder)
        ui.weightsFolderButton.connect("clicked()", self.open_folder)

    def look(self) -> None:
        """After each poll: show what changed, and use what came."""
        if self._weights.poll():
            for finished in self._weights.take_finished():
                self._react(finished)
            self.show()

    def show(self) -> None:
        """Show a moment."""
        ui, content = self._ui, self._weights.content
        ui.weightsFrame.setVisible(bool(content.lines))
        ui.weightsLabel.setText(_rich(content, RED["dark" if is_dark(ui.weightsLabel) else "light"]))
        for button, text in ((ui.weightsYesButton, content.yes), (ui.weightsNoButton, content.no)):
            button.setVisible(bool(text))
            if text:
                button.setText(text)
        ui.weightsBar.setVisible(content.is_running)
        ui.weightsBar.setMaximum(0 if content.progress is None else _STEPS)
        ui.weightsBar.setValue(int(round(_STEPS * (content.progress or 0.0))))
        self._show_rows()

    def _show_rows(self) -> None:
        ui, weights, used = self._ui, self._weights, self._controller.link.model
        if ui.weightsFolderEdit.text != str(weights.folder):
            ui.weightsFolderEdit.setText(str(weights.folder))
            ui.weightsFolderEdit.setCursorPosition(0)
        ui.weightsMoveButton.setEnabled(self._can_move and not weights.is_running)
        if not self._can_move:
            text = _("The folder is set by the environment variable {name}: change it there.")
            ui.weightsMoveButton.setToolTip(text.format(name=FOLDER_VARIABLE))
        ui.weightsImportButton.setEnabled(not weights.is_running)
        can_remove = weights.can_remove(used)
        ui.weightsRemoveButton.setEnabled(can_remove and not weights.is_running)
        tip = (
            _("Delete the weights of {name}; you are asked first.")
            if can_remove
            else _("Choose a model whose weights were downloaded or imported, to delete them.")
        )
        ui.weightsRemoveButton.setToolTip(tip.format(name=used))

    def _press(self, say: Callable[[], None]) -> None:
        say()
        self.look()
        self.show()

    def _react(self, finished: Finished) -> None:
        """Something is here or gone: the list of models shows it, and what the user waited for is used."""
        inputs, name = self._inputs, finished.name
        inputs.refresh_models()
        if finished.kind == "use" or (finished.kind == "download" and is_between_tasks(self._controller)):
            inputs.choose(name)
        elif finished.kind == "download":
            self._controller.tell(_("{name} is here: choose it in the list when you are done.").format(name=name))
        elif finished.kind == "remove":
            self._controller.tell(_("The weights of {name} were deleted.").format(name=name))
            inputs.leave_what_is_gone()

    def _remove(self) -> None:
        self._weights.offer_removal(self._controller.link.model)
        self.show()

    # -- dialogs -----------------------------------------------------------------------------------------------------

    def import_file(self) -> None:
        """Ask for a file of weights and take it in."""
        endings = " ".join(f"*{suffix}" for suffix in (".safetensors", *SUFFIXES))
        path = chosen_file(
            qt.QFileDialog.getOpenFileName(
                slicer.util.mainWindow(),
                _("Weights of a model"),
                "",
                _("Weights ({patterns})").format(patterns=endings),
            )
        )
        if path:
            self._weights.import_file(path)
            self.show()

    def choose_folder(self) -> None:
        """Ask for another weights folder."""
        title, old = _("Folder of the weights"), str(self._weights.folder)
        path = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, old)
        if path:
            self.use_folder(Path(path))

    def use_folder(self, folder: Path) -> None:
        """Look for weights elsewhere from now on; the worker is started anew, since it looks there, too."""
        old = self._weights.folder
        try:
            self._weights.use_folder(folder)
        except SegmentAnythingMedError as error:
            self._controller.tell(str(error))
            return
        store_folder(folder)
        self._inputs.refresh_models()
        self._inputs.leave_what_is_gone()
        if self._controller.link.started is not None:
            self._controller.restart_worker()
        text = _("Weights are looked for in {folder} from now on. What lies in {old} stays there: move it as you like.")
        self._controller.tell(text.format(folder=folder, old=old))
        self.show()

    def open_folder(self) -> None:
        """Open the folder of the weights, made when missing."""
        folder = self._weights.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            text = _("The folder {folder} cannot be made ({reason}): make it yourself.")
            self._controller.tell(text.format(folder=folder, reason=error.strerror))
            return
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))


def _rich(content: WeightsContent, red: str) -> str:
    """The sentences as rich text, the warning in bold, an error in red; long words may be broken."""
    lines = [_breakable(line) for line in content.lines]
    if content.is_error:
        lines = [f'<span style="color: {red}">\u26a0 {line}</span>' for line in lines]
    elif content.stage.value == "asking" or content.warning:
        lines[0] = f"<b>{lines[0]}</b>" if len(lines) > 1 else lines[0]
    if content.warning:
        lines.insert(1, f'<b style="color: {red}">{html.escape(content.warning)}</b>')
    return "".join(f'<p style="margin: 0 0 3px 0">{line}</p>' for line in lines)


def _breakable(line: str) -> str:
    """A line with its addresses as links."""
    parts = re.split(r"(https://[^\s,]+)", line)
    shown = [re.sub(r"([/\\_])", rf"\1{_BREAK}", html.escape(part)) for part in parts]
    return "".join(
        f'<a href="{html.escape(part)}">{text}</a>' if part.startswith("https://") else text
        for part, text in zip(parts, shown, strict=True)
    )

"""Installing what a model needs: asked once, in the background, from the internet or a folder of wheels."""

from __future__ import annotations

import enum
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from SegmentAnythingMedLib.panel.models import missing_packages
from SegmentAnythingMedUI.pip_process import run_pip

if TYPE_CHECKING:
    from SegmentAnythingMedLib.mrml.controller import Controller
    from SegmentAnythingMedLib.panel.models import ModelChoice, Package

_MOST_LINES = 400


class Answer(enum.Enum):
    """What the user said to the question."""

    INSTALL = "install"
    FOLDER = "folder"
    NOT_NOW = "not now"


@dataclass(frozen=True)
class Consent:
    """The answer, and the folder of wheels where that was chosen."""

    answer: Answer
    folder: str = ""


class Installer:
    """Gets the packages of a model; the only thing in the panel that ever asks a question.

    Parameters
    ----------
    controller
        Is told when an installation begins and how it ended.
    ask
        Puts the question; by default a message box.
    pip
        Runs pip without blocking.
    torch
        Has the PyTorch extension install torch; returns what went wrong, in words, or nothing.
    """

    def __init__(
        self,
        controller: Controller,
        ask: Callable[[str], Consent] | None = None,
        pip: Callable[[Sequence[str], Callable[[str], None], Callable[[int], None]], None] = run_pip,
        torch: Callable[[], str] | None = None,
    ) -> None:
        self._controller = controller
        self._ask = ask or ask_user
        self._pip = pip
        self._torch = torch or install_torch
        self._declined: set[str] = set()
        self.is_running = False
        self.lines: tuple[str, ...] = ()

    def ensure(self, choice: ModelChoice, then: Callable[[], None], again: bool = False) -> bool:
        """Whether a model's packages are there; else ask once and install them, then call ``then``.

        Parameters
        ----------
        choice
            The model.
        then
            Called when everything is there; not if the user declines or it fails.
        again
            Whether to ask again although the user declined before.
        """
        missing = missing_packages(choice.card)
        if not missing:
            then()
            return True
        if self.is_running:
            self._controller.tell(_("Something is being installed: wait until it is done."))
            return False
        if choice.card.name in self._declined and not again:
            self._controller.tell(self._declined_text(choice))
            return False
        consent = self._ask(question(choice, missing))
        if consent.answer is Answer.NOT_NOW:
            self._declined.add(choice.card.name)
            self._controller.tell(self._declined_text(choice))
            return False
        self._install(choice, missing, consent, then)
        return False

    def has_declined(self, choice: ModelChoice) -> bool:
        """Whether the user said no."""
        return choice.card.name in self._declined

    def _declined_text(self, choice: ModelChoice) -> str:
        return _("Nothing was installed. Press Install when you want the model {name}, or go on with another.").format(
            name=choice.card.name
        )

    def _install(
        self, choice: ModelChoice, missing: Sequence[Package], consent: Consent, then: Callable[[], None]
    ) -> None:
        self.is_running, self.lines = True, ()
        self._declined.discard(choice.card.name)
        names = ", ".join(package.module for package in missing)
        self._controller.begin_install(_("Installing {names}. You can go on looking at images.").format(names=names))
        by_extension = [package for package in missing if package.from_extension]
        by_pip = [package for package in missing if not package.from_extension]
        if consent.answer is Answer.FOLDER:
            arguments = ["--no-index", "--find-links", consent.folder, *(item.requirement for item in missing)]
            self._run(arguments, choice, consent, then)
        elif by_extension:
            qt.QTimer.singleShot(0, lambda: self._install_with_extension(by_pip, choice, consent, then))
        else:
            self._run([item.requirement for item in by_pip], choice, consent, then)

    def _install_with_extension(
        self, by_pip: Sequence[Package], choice: ModelChoice, consent: Consent, then: Callable[[], None]
    ) -> None:
        error = self._torch()
        if error:
            self._end(error)
        elif by_pip:
            self._run([item.requirement for item in by_pip], choice, consent, then)
        else:
            self._finish(0, choice, consent, then)

    def _run(self, arguments: Sequence[str], choice: ModelChoice, consent: Consent, then: Callable[[], None]) -> None:
        try:
            self._pip(arguments, self._note, lambda code: self._finish(code, choice, consent, then))
        except (OSError, RuntimeError) as error:
            self._note(str(error))
            self._finish(1, choice, consent, then)

    def _note(self, line: str) -> None:
        self.lines = (*self.lines, line)[-_MOST_LINES:]

    def _finish(self, code: int, choice: ModelChoice, consent: Consent, then: Callable[[], None]) -> None:
        importlib.invalidate_caches()
        still_missing = missing_packages(choice.card)
        if code == 0 and not still_missing:
            self._end("")
            then()
        elif code == 0:
            names = ", ".join(package.module for package in still_missing)
            text = _("pip is done, but {names} cannot be found: restart Slicer and choose the model again.")
            self._end(text.format(names=names))
        elif consent.answer is Answer.FOLDER:
            text = _(
                "The folder {folder} does not have all that {name} needs: put the wheels for this system and Python "
                "{version} into it (see Details), or choose the model classic, which needs nothing."
            )
            self._end(text.format(folder=consent.folder, name=choice.card.name, version=python_version()))
        else:
            text = _(
                "Installing for the model {name} failed (pip says {code}, see Details): check the internet connection "
                "and press Install again, install from a folder of wheels, or choose the model classic, which needs "
                "nothing."
            )
            self._end(text.format(name=choice.card.name, code=code))

    def _end(self, error: str) -> None:
        self.is_running = False
        self._controller.end_install(error)


def question(choice: ModelChoice, missing: Sequence[Package]) -> str:
    """The question, with sizes and where things come from."""
    lines = [
        _("{module}: about {size} MB, {source}").format(
            module=package.module,
            size=package.download_mb,
            source=_("by the extension {name}").format(name=package.from_extension)
            if package.from_extension
            else _("from the Python Package Index"),
        )
        for package in missing
    ]
    head = _("The model {name} needs {count} that Slicer does not have yet:").format(
        name=choice.card.name, count=_("a package") if len(missing) == 1 else _("packages")
    )
    tail = _("It is put into Slicer's own Python, once. No image leaves this computer.")
    if any(package.from_extension for package in missing):
        tail += " " + _("While the extension {name} works, Slicer waits for it.").format(name="PyTorch")
    return "\n\n".join([head, "\n".join(lines), tail])


def ask_user(text: str) -> Consent:
    """Put the question in a message box; the only one of this module."""
    box = qt.QMessageBox(slicer.util.mainWindow())
    box.setWindowTitle(_("Segment Anything Med"))
    box.setIcon(qt.QMessageBox.Question)
    box.setText(text)
    install = box.addButton(_("Install"), qt.QMessageBox.AcceptRole)
    folder = box.addButton(_("From a folder of wheels..."), qt.QMessageBox.ActionRole)
    box.addButton(_("Not now"), qt.QMessageBox.RejectRole)
    box.exec_()
    if box.clickedButton() == install:
        return Consent(Answer.INSTALL)
    if box.clickedButton() == folder:
        title = _("Folder with the wheels (.whl) of the packages")
        chosen = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        if chosen:
            return Consent(Answer.FOLDER, chosen)
    return Consent(Answer.NOT_NOW)


def install_torch() -> str:
    """Have the PyTorch extension install torch as it fits the computer; what went wrong, in words, or nothing."""
    try:
        import PyTorchUtils
    except ImportError:
        return _(
            "The extension PyTorch is not installed: get it in the Extensions Manager, restart Slicer, and choose the "
            "model again; or install from a folder of wheels."
        )
    try:
        PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=">=2.4")
    except Exception as error:  # noqa: BLE001 whatever another extension raises becomes a sentence
        return _("The extension PyTorch could not install torch ({error}): try it in the module PyTorch.").format(
            error=error
        )
    return ""


def python_version() -> str:
    """Of the interpreter that wheels must fit."""
    import sys

    return f"{sys.version_info.major}.{sys.version_info.minor}"

"""Getting, importing and removing weights from a panel: one question or task at a time, polled, never waited for."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.registry import ModelRegistry, weights_folder
from SegmentAnythingMedLib.models.weights.converting import can_convert
from SegmentAnythingMedLib.models.weights.task import CONVERT, DOWNLOAD, IMPORT, REMOVE, Outcome, Task
from SegmentAnythingMedLib.panel import weights_content as words
from SegmentAnythingMedLib.panel.weights_content import Stage, WeightsContent
from SegmentAnythingMedLib.panel.weights_process import News, Step, Stopped, WeightsProcess
from SegmentAnythingMedLib.replacing import make_folder

_LEAST_S = 2.0
"""How long a download must have run before the time that is left is told."""


class Running(Protocol):
    """A task that was started; `WeightsProcess` or a test's."""

    def poll(self) -> list[News]: ...

    def cancel(self) -> None: ...


@dataclass(frozen=True)
class Finished:
    """Something the panel has to react to.

    Parameters
    ----------
    kind
        ``download``: the weights are here now. ``remove``: they are gone. ``import``: there is a model more. ``use``:
        the user wants to work with the imported model.
    name
        Of the model.
    """

    kind: str
    name: str


class Weights:
    """The weights of all models, from the user's side.

    Parameters
    ----------
    folder
        The weights folder; by default the one of `weights_folder`.
    may_change
        Whether this user may download, import and remove; else only what to ask others for is said.
    start
        Starts a task.
    clock
        Seconds.

    Attributes
    ----------
    registry
        The models as they are now; another one after each change.
    content
        What is shown.
    """

    def __init__(
        self,
        folder: Path | None = None,
        may_change: bool = True,
        start: Callable[[Task], Running] = WeightsProcess,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.may_change = may_change
        self.registry = ModelRegistry(weights=folder or weights_folder())
        self.content = self._seen = WeightsContent()
        self._start_task, self._clock = start, clock
        self._task: Task | None = None
        self._running: Running | None = None
        self._converting: Running | None = None
        self._began: tuple[float, int] | None = None
        self._finished: list[Finished] = []

    @property
    def folder(self) -> Path:
        """Where weights lie."""
        return self.registry.weights

    @property
    def is_running(self) -> bool:
        """Whether a task was started that has not ended."""
        return self._running is not None

    def can_remove(self, name: str) -> bool:
        """Whether the model's weights lie in the folder, and this user may delete them."""
        card = self._card(name)
        return self.may_change and card is not None and bool(card.file) and (self.folder / card.file).is_file()

    # -- what the user wants -----------------------------------------------------------------------------------------

    def offer(self, name: str) -> None:
        """Ask whether to download a model that is not here."""
        card = self._card(name)
        if card is None or not card.file or not self._is_free():
            return
        if not self.may_change:
            self._show(words.elsewhere(card))
        elif not card.url:
            self._show(words.no_source(card, self.folder))
        else:
            self._ask(Task(DOWNLOAD, str(self.folder), name), words.offer(card, self.folder))

    def offer_removal(self, name: str) -> None:
        """Ask whether to delete a model's weights."""
        if self.can_remove(name) and self._is_free():
            card = self.registry.card(name)
            self._ask(Task(REMOVE, str(self.folder), name), words.removal(card, self.folder))

    def import_file(self, path: str | Path) -> None:
        """Take in a file that was brought by hand."""
        if self.may_change and self._is_free():
            self._begin(
                Task(IMPORT, str(self.folder), file=str(path)),
                words.working(f"Looking into {Path(path).name} and copying it. Nothing in it is run."),
            )

    def say_yes(self) -> None:
        """Press the button that goes on: accept the licence and download, go on, try again, delete, use."""
        if not self.content.yes or self._task is None:
            return
        task, card = self._task, self._card(self._task.name)
        if self.content.stage is Stage.DONE:
            self._finished.append(Finished("use", task.name))
            self._close()
        elif task.kind == DOWNLOAD and card is not None:
            accepted = Task(DOWNLOAD, task.folder, task.name, licence_accepted=True)
            self._begin(accepted, words.downloading(card, None, None))
        elif task.kind == REMOVE:
            self._begin(task, words.working(f"Deleting the weights of {task.name}."))

    def say_no(self) -> None:
        """Press the other button: decline, cancel, close."""
        if self._running is None:
            self._close()
        elif self.content.stage is Stage.RUNNING:
            self._show(words.stopping())
            self._running.cancel()

    def convert(self, name: str) -> None:
        """Have an original .pt converted in the background if it was not yet and can be; nothing is shown."""
        card = self._card(name)
        if self._running is not None or self._converting is not None or not self.may_change or card is None:
            return
        has_packages = all(importlib.util.find_spec(module) is not None for module in ("torch", "safetensors"))
        if has_packages and card.file and can_convert(card, self.folder):
            self._converting = self._start_task(Task(CONVERT, str(self.folder), name))

    def use_folder(self, folder: Path) -> None:
        """Look for weights elsewhere from now on; no file is moved.

        Raises
        ------
        SegmentAnythingMedError
            If a task runs.
        OutputError
            If the folder is not there and cannot be made.
        """
        if self._running is not None:
            raise SegmentAnythingMedError("Wait until the weights are here, or cancel, before choosing another folder.")
        self._stop_converting()
        self.registry = ModelRegistry(weights=make_folder(folder))
        self._close()

    def refresh(self) -> None:
        """Read the cards again: others may have brought weights."""
        self.registry = ModelRegistry(weights=self.folder)

    def close(self) -> None:
        """The panel goes: what runs is stopped; what came of a download is kept."""
        self._stop_converting()
        if self._running is not None:
            self._running.cancel()

    # -- what happens ------------------------------------------------------------------------------------------------

    def poll(self) -> bool:
        """Hear what the task says; whether something was shown or finished since the last call."""
        self._poll_converting()
        for news in self._running.poll() if self._running is not None else ():
            self._take(news)
        seen, self._seen = self._seen, self.content
        return seen != self.content or bool(self._finished)

    def take_finished(self) -> tuple[Finished, ...]:
        """What finished since the last call."""
        finished, self._finished = tuple(self._finished), []
        return finished

    def _take(self, news: News) -> None:
        if isinstance(news, Step):
            self._step(news)
            return
        task, self._running = self._task, None
        if isinstance(news, Outcome):
            self.refresh()
            self._ended(task, news)
        elif news.error:
            self._show(words.failed(news.error, task.kind == DOWNLOAD))
        elif task.kind == DOWNLOAD:
            self._show(words.stopped(self.registry.card(task.name), self.folder))
        else:
            self._close()

    def _step(self, step: Step) -> None:
        if self.content.stage is not Stage.RUNNING:
            return
        now = self._clock()
        self._began = self._began or (now, step.done)
        seconds, done = now - self._began[0], step.done - self._began[1]
        has_speed = bool(step.total and done) and seconds >= _LEAST_S
        left = seconds / done * (step.total - step.done) if has_speed else None
        self._show(words.downloading(self.registry.card(self._task.name), step, left))

    def _ended(self, task: Task, outcome: Outcome) -> None:
        self._finished.append(Finished(task.kind, outcome.name))
        if task.kind == IMPORT:
            self._task = Task(IMPORT, task.folder, outcome.name, task.file)
            card = self.registry.card(outcome.name)
            self._show(words.imported(Path(task.file).name, card, outcome, self.folder))
        else:
            self._close()

    def _poll_converting(self) -> None:
        for news in self._converting.poll() if self._converting is not None else ():
            if isinstance(news, Outcome | Stopped):
                self._converting = None
                self.refresh()

    def _stop_converting(self) -> None:
        if self._converting is not None:
            self._converting.cancel()
            self._converting = None

    # -- steps -------------------------------------------------------------------------------------------------------

    def _card(self, name: str) -> ModelCard | None:
        return next((card for card in self.registry.cards if card.name == name), None)

    def _is_free(self) -> bool:
        return self._running is None

    def _ask(self, task: Task, content: WeightsContent) -> None:
        self._task = task
        self._show(content)

    def _begin(self, task: Task, content: WeightsContent) -> None:
        self._stop_converting()
        self._task, self._began = task, None
        self._show(content)
        self._running = self._start_task(task)

    def _show(self, content: WeightsContent) -> None:
        self.content = content

    def _close(self) -> None:
        self._task = None
        self._show(WeightsContent())

"""A process that gets, takes in, converts or removes weights for a panel: ``python -m ...models.weights.task``.

The first line of standard input is the task (`Task`), as JSON. Standard input then stays open; when it is closed, by
the panel to cancel or because the panel is gone, the task stops and what came of a download is kept. Standard output
has a line of JSON for each step, ``{"done": 3, "total": 9}``, and a last one: ``{"ended": {...}}``, ``{"cancelled":
true}`` or ``{"error": "a sentence"}``. Nothing heavy is imported into the panel's own process that way, above all not
torch for a .pt file.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import threading
import time as clock
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from SegmentAnythingMedLib.errors import ModelUnavailableError, OutputError, SegmentAnythingMedError
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.registry import ModelRegistry

DOWNLOAD, IMPORT, CONVERT, REMOVE = "download", "import", "convert", "remove"
_EVERY_S = 0.1
_PATIENCE_S = 3.0


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Parameters
    ----------
    kind
        ``download``, ``import``, ``convert`` or ``remove``.
    folder
        The weights folder.
    name
        Of the model; empty for an import.
    file
        To import; else empty.
    licence_accepted
        Whether the user has seen the licence of what is downloaded, and agreed.
    """

    kind: str
    folder: str
    name: str = ""
    file: str = ""
    licence_accepted: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a task that was done.

    Parameters
    ----------
    name
        Of the model.
    layout
        What an imported file was recognised as; else empty.
    assumed
        Whether no card fits the imported file, so that one was written for it.
    is_converted
        Whether the weights have a safetensors copy.
    """

    name: str
    layout: str = ""
    assumed: bool = False
    is_converted: bool = False


def main() -> None:
    """Do the task of standard input."""
    task = Task(**json.loads(sys.stdin.readline()))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    threading.Thread(target=_interrupt_at_end, args=(sys.stdin, task.kind), daemon=True).start()
    try:
        outcome = _DO[task.kind](task, ModelRegistry(weights=Path(task.folder)))
        _tell({"ended": asdict(outcome)} if outcome is not None else {"cancelled": True})
    except KeyboardInterrupt:
        _tell({"cancelled": True})
    except SegmentAnythingMedError as error:
        _tell({"error": str(error)})
    except OSError as error:
        _tell({"error": str(OutputError(f"{task.folder} cannot be used ({error.strerror or error}): choose another."))})


def _download(task: Task, registry: ModelRegistry) -> Outcome | None:
    from SegmentAnythingMedLib.models.weights.download import Download

    told = 0.0
    download = Download(registry.card(task.name), registry.weights, task.licence_accepted)
    for progress in download.steps():
        is_last = progress.done == progress.total
        if is_last or clock.monotonic() - told >= _EVERY_S:
            told = clock.monotonic()
            _tell({"done": progress.done, "total": progress.total})
    return _outcome(download.card)


def _import(task: Task, registry: ModelRegistry) -> Outcome:
    from SegmentAnythingMedLib.models.weights.importing import import_weights

    done = import_weights(task.file, registry)
    return Outcome(done.card.name, str(done.layout), done.assumed, bool(done.card.converted))


def _convert(task: Task, registry: ModelRegistry) -> Outcome:
    from SegmentAnythingMedLib.models.weights.converting import convert_if_possible

    return _outcome(convert_if_possible(registry.card(task.name), registry.weights))


def _remove(task: Task, registry: ModelRegistry) -> Outcome:
    from SegmentAnythingMedLib.models.weights.importing import remove_weights

    remove_weights(task.name, registry)
    return Outcome(task.name)


def _outcome(card: ModelCard) -> Outcome:
    return Outcome(card.name, is_converted=bool(card.converted))


_DO: dict[str, Callable[[Task, ModelRegistry], Outcome | None]] = {
    DOWNLOAD: _download,
    IMPORT: _import,
    CONVERT: _convert,
    REMOVE: _remove,
}


def _interrupt_at_end(stream: TextIO, kind: str) -> None:
    """As Ctrl-C, so that half-written files are taken away on the way out."""
    stream.read()
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return
    _thread.interrupt_main()
    if kind == DOWNLOAD:  # Windows waits on for a silent server; what came lies on the disk already
        clock.sleep(_PATIENCE_S)
        os._exit(0)


def _tell(message: dict[str, object]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except OSError as error:  # nobody listens any more
        raise ModelUnavailableError("The panel is gone.") from error


if __name__ == "__main__":
    main()

"""What the panels show of getting and removing weights: sentences, two buttons and a bar, without any toolkit."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from SegmentAnythingMedLib.models.card import ModelCard, converted_file
from SegmentAnythingMedLib.models.weights.partial import PartialFile
from SegmentAnythingMedLib.models.weights.task import Outcome
from SegmentAnythingMedLib.panel.weights_process import Step

_MB = 1e6


class Stage(enum.Enum):
    """What goes on with weights."""

    IDLE = "idle"
    ASKING = "asking"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True)
class WeightsContent:
    """The part of a panel that is about weights, at a moment; without ``lines`` there is nothing to show.

    Parameters
    ----------
    stage
        What goes on.
    lines
        Sentences.
    warning
        A sentence that must stand out, or empty.
    is_error
        Whether the sentences say what went wrong.
    yes, no
        Labels of the button that goes on and of the one that does not; without a label there is no button.
    is_running
        Whether a bar is shown.
    progress
        0 to 1, or None if it is not known.
    """

    stage: Stage = Stage.IDLE
    lines: tuple[str, ...] = ()
    warning: str = ""
    is_error: bool = False
    yes: str = ""
    no: str = ""
    is_running: bool = False
    progress: float | None = None


def offer(card: ModelCard, folder: Path) -> WeightsContent:
    """The question whether to download a model: licence, size, source, research only, and what is here already."""
    from SegmentAnythingMedLib.models.weights.commands import RESEARCH_ONLY, licence_lines

    here = PartialFile(folder / card.file).size
    lines = [f"{card.name} is not on this machine.", *licence_lines(card)]
    only = RESEARCH_ONLY if RESEARCH_ONLY in lines else ""
    lines = [line for line in lines if line != RESEARCH_ONLY]
    lines.append(f"It goes into {folder}, and is used offline from then on. No image leaves this computer.")
    if here:
        lines.append(f"{_megabytes(here)} MB of an earlier download are here: it goes on from there if it can.")
    return WeightsContent(Stage.ASKING, tuple(lines), only, yes="Accept and download", no="Not now")


def no_source(card: ModelCard, folder: Path) -> WeightsContent:
    """What to do about a model that has no address."""
    text = f"{card.name} is not on this machine, and its card has no address: ask whoever made it for {card.file}, "
    return WeightsContent(Stage.ASKING, (text + f"then import that file, or put it into {folder}.",), no="Close")


def elsewhere(card: ModelCard) -> WeightsContent:
    """What to do about a model where only others may get it."""
    text = (
        f"{card.name} is not on the server. Ask whoever runs it for: segment-anything-med models download {card.name}"
    )
    return WeightsContent(Stage.ASKING, (text,), no="Close")


def removal(card: ModelCard, folder: Path) -> WeightsContent:
    """The question whether to delete a model's weights."""
    path = folder / card.file
    files = [one for one in (path, converted_file(path)) if one.is_file()]
    size = _megabytes(sum(one.stat().st_size for one in files))
    again = "it can be downloaded again" if card.url else "to use it again you must bring the file again"
    text = f"Delete the weights of {card.name} ({size} MB) from {folder}? Others who share the folder lose them, too; "
    return WeightsContent(Stage.ASKING, (f"{text}{again}.",), yes="Delete", no="Keep")


def downloading(card: ModelCard, step: Step | None, seconds_left: float | None) -> WeightsContent:
    """A download that runs; ``step`` is None until the server has answered."""
    progress = None
    if step is None:
        text = f"Asking {urlsplit(card.url).hostname} for {card.name}."
    elif step.done == step.total:
        text = f"{card.name} is here; its hash is checked."
    else:
        of = f" of {_megabytes(step.total)}" if step.total else ""
        left = "" if seconds_left is None else f", {_duration(seconds_left)} left"
        text = f"Downloading {card.name}: {_megabytes(step.done)}{of} MB{left}."
        progress = step.done / step.total if step.total else None
    return WeightsContent(Stage.RUNNING, (text,), no="Cancel", is_running=True, progress=progress)


def working(sentence: str) -> WeightsContent:
    """Something that runs and cannot say how far it is."""
    return WeightsContent(Stage.RUNNING, (sentence,), no="Cancel", is_running=True)


def stopping() -> WeightsContent:
    """A task that was cancelled and has not ended yet."""
    return WeightsContent(Stage.STOPPING, ("Stopping.",), is_running=True)


def stopped(card: ModelCard, folder: Path) -> WeightsContent:
    """A download that was cancelled."""
    here = PartialFile(folder / card.file).size
    text = f"Stopped. {_megabytes(here)} MB of {card.name} are kept: it can go on from there, also another day."
    return WeightsContent(Stage.STOPPED, (text,), yes="Go on", no="Close")


def failed(error: str, can_try_again: bool) -> WeightsContent:
    """What went wrong."""
    return WeightsContent(Stage.FAILED, (error,), is_error=True, yes="Try again" if can_try_again else "", no="Close")


def imported(file: str, card: ModelCard, outcome: Outcome, folder: Path) -> WeightsContent:
    """What a file brought by hand was taken for."""
    return WeightsContent(
        Stage.DONE,
        tuple(_imported_lines(file, card, outcome, folder)),
        "For research only." if card.research_only else "",
        yes="Use it",
        no="Close",
    )


def _imported_lines(file: str, card: ModelCard, outcome: Outcome, folder: Path) -> Iterator[str]:
    yield f"{file} is {outcome.layout}, and is the model {card.name} now."
    yield f"Licence: {card.licence}. A copy was made: the file you brought is not needed any more."
    if outcome.assumed:
        yield (
            f"No card fits it, so one was written: input {card.input_size} pixels, preprocessing {card.preprocessing}. "
            f"If it was trained otherwise, write its own card into {folder}."
        )


def _megabytes(size: int) -> str:
    return f"{size / _MB:.0f}" if size >= 10 * _MB else f"{size / _MB:.1f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"

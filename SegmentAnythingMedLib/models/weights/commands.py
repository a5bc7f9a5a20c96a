"""What ``models list, info, download, import, remove`` do, apart from printing; a panel may use the same functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.errors import ModelUnavailableError
from SegmentAnythingMedLib.models.card import ModelCard, converted_file
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.models.weights.download import Download, DownloadProgress
from SegmentAnythingMedLib.models.weights.importing import import_weights, remove_weights
from SegmentAnythingMedLib.models.weights.structure import sha256_of

Say = Callable[[str], None]

RESEARCH_ONLY = "FOR RESEARCH ONLY: not for patients and not for commercial use."


def model_row(card: ModelCard, registry: ModelRegistry) -> dict[str, Any]:
    """What a list of models shows of one; costs no reading of weights."""
    path = registry.weights_path(card)
    return {
        "name": card.name,
        "ready": registry.is_present(card),
        "licence": card.licence,
        "research_only": card.research_only,
        "size_mb": round(path.stat().st_size / 1e6, 1) if path else card.size_mb,
        "path": str(path) if path else None,
        "title": card.title,
    }


def list_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A table for people."""
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        state = "ready" if row["ready"] else "no weights"
        size = f"{row['size_mb']:.0f} MB" if row["size_mb"] else "-"
        only = ", research only" if row["research_only"] else ""
        place = f"  {row['path']}" if row["path"] else ""
        yield f"{row['name']:<{width}}  {state:<10}  {size:>7}  {row['title']} ({row['licence']}{only}){place}"


def model_fields(card: ModelCard, registry: ModelRegistry) -> dict[str, Any]:
    """All that is known of a model."""
    return asdict(card) | model_row(card, registry) | {"weights_folder": str(registry.weights)}


def info_lines(fields: dict[str, Any]) -> Iterator[str]:
    """One line for each field that says something."""
    for key, value in fields.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else value
        shown = ("no", "yes")[value] if isinstance(value, bool) else shown
        if shown not in ("", {}, 0, 0.0, None):
            yield f"{key.replace('_', ' '):<15} {shown}"


def licence_lines(card: ModelCard) -> Iterator[str]:
    """What the user must have seen before weights are fetched."""
    size = f", {card.size_mb:g} MB" if card.size_mb else ""
    yield f"{card.title}{size}, from {card.url}"
    yield f"Licence: {card.licence}"
    if card.research_only:
        yield RESEARCH_ONLY
    if card.citation:
        yield f"Cite: {card.citation}"


def download_model(
    name: str,
    registry: ModelRegistry,
    accepted: bool,
    ask: Callable[[str], bool] | None,
    say: Say,
    on_progress: Callable[[DownloadProgress], None],
) -> None:
    """Show the licence, have it accepted, fetch and check the weights.

    Parameters
    ----------
    accepted
        Whether the user agreed beforehand.
    ask
        Puts a yes-no question to the user; None where there is nobody to ask.

    Raises
    ------
    ModelUnavailableError, ModelFileError, OutputError
        As `Download`.
    """
    card = registry.card(name)
    here = registry.weights_path(card)
    if here is not None and card.sha256 in ("", sha256_of(here)):
        say(f"{name} is here already: {here}")
        return
    if card.url and card.file:
        for line in licence_lines(card):
            say(line)
        if not accepted and ask is None:
            raise ModelUnavailableError(
                f"The licence of {name!r} must be accepted first: read it, then add --accept-licence."
            )
        accepted = accepted or ask("Do you accept the licence?")
    download = Download(card, registry.weights, accepted)
    path = download.run(on_progress)
    say(f"{name} is ready: {path}")
    if download.card.converted:
        say(f"It was converted to {converted_file(path).name}, which loads read from now on.")
    if not card.sha256:
        say("Its card knows no sha256: that of this download was noted and is checked whenever it is loaded.")


def import_model(file: str | Path, registry: ModelRegistry, name: str | None, say: Say) -> None:
    """Take in a file brought by hand, and say what it was taken for."""
    done = import_weights(file, registry, name)
    card = done.card
    say(f"{Path(file).name} is {done.layout}; it is the model {card.name!r} now: {done.path}")
    say(f"Licence: {card.licence}{', for research only' if card.research_only else ''}. sha256 {card.sha256}")
    if card.converted:
        say(f"It was converted to {converted_file(done.path).name}, which loads read from now on.")
    if done.assumed:
        say(
            f"No card fits it, so one was written: input {card.input_size} pixels, preprocessing {card.preprocessing}. "
            f"If it was trained otherwise, write its own card into {registry.weights}; see docs/models.md."
        )


def remove_model(name: str, registry: ModelRegistry, say: Say) -> None:
    """Delete a model's weights."""
    for path in remove_weights(name, registry):
        say(f"Removed {path}")

"""The command line's ``learn`` verb: structures from the user's own cases. Importing it loads nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SegmentAnythingMedLib.errors import OutputError, PromptError

if TYPE_CHECKING:
    import numpy as np

    from SegmentAnythingMedLib.io import Labels

_ENDING = ".npz"


def add_learn(commands: Any, common: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the verb to a parser's commands, and return its parser."""
    learn = commands.add_parser(
        "learn",
        parents=[common],
        help="learn structures from your own cases, for 'prompts prototypes' and 'prompts patch_head'",
        description="Nothing leaves this machine, and no image is kept in the file. See docs/prompt-sources.md.",
    )
    add = learn.add_argument
    add("source", choices=("prototypes", "patch_head"), help="what is learned")
    add("--case", nargs=2, action="append", metavar=("VOLUME", "MASK"), help="a volume and its segments; repeat it")
    add(
        "--structure",
        action="append",
        default=[],
        metavar="SEGMENT[=NAME]",
        help="a segment's name or label value, and what to call it; repeat it (default: all by their names)",
    )
    add("--plane", default="axial", help="axial, coronal, sagittal, I, J or K (default: %(default)s)")
    add("--window", default="auto", help="as for 'segment' (default: %(default)s)")
    add("--cell", type=float, metavar="MM", help="size of a patch (default: fits the smallest structure)")
    add("--output", required=True, metavar=f"FILE{_ENDING}", help="what was learned")
    return learn


def run_learn(options: argparse.Namespace) -> list[str]:
    """Do what the options say; lines for the user.

    Raises
    ------
    PromptError
        If there is nothing to learn from.
    OutputError
        If the file cannot be written, or would be written over an input.
    """
    if not options.case:
        raise PromptError("learn needs --case VOLUME MASK at least once.")
    if not 0.1 <= (options.cell or 1.0) <= 100:
        raise PromptError(f"--cell {options.cell:g} mm is no size of a patch: give 0.1 to 100.")
    _check_output(options)
    from SegmentAnythingMedLib.geometry import Plane
    from SegmentAnythingMedLib.io import read_labels, read_volume
    from SegmentAnythingMedLib.sources.cases import labelled_case
    from SegmentAnythingMedLib.sources.descriptor import HandMade
    from SegmentAnythingMedLib.sources.source import source_class

    cases, names = [], {}
    for volume_path, mask_path in options.case:
        volume = read_volume(volume_path)
        if volume.time_count > 1:
            raise PromptError(f"{volume_path} has {volume.time_count} time points: learn from a file with one.")
        labels = read_labels(mask_path, volume)
        drawn = _label_map(labels, _wanted(labels, options.structure), names)
        cases.append(labelled_case(volume, drawn, Plane.named(options.plane, volume.geometry), options.window))
    describer = HandMade(options.cell) if options.cell else None
    learned = source_class(options.source).learn(cases, {number: name for name, number in names.items()}, describer)
    learned.save(options.output)
    return [
        f"learned {', '.join(learned.origin.names)} from {learned.origin.slices} slices of {len(cases)} cases",
        f"saved {options.output}: prompts {options.source} --learned {options.output} --volume FILE --output FILE.json",
    ]


def _wanted(labels: Labels, written: list[str]) -> dict[int, str]:
    """Number of each segment that is learned from, and what it is called."""
    if not written:
        return {number: segment.name for number, segment in enumerate(labels.segments)}
    found = {}
    for text in written:
        wanted, _, name = text.partition("=")
        for number, segment in enumerate(labels.segments):
            if wanted in (segment.name, str(segment.value)):
                found[number] = name or segment.name
    return found


def _label_map(labels: Labels, wanted: Mapping[int, str], numbers: dict[str, int]) -> np.ndarray:
    """(K, J, I) uint16 with the number of each name, which ``numbers`` keeps over all cases."""
    import numpy as np

    drawn = np.zeros(labels.geometry.shape_kji, np.uint16)
    for number, name in wanted.items():
        drawn[labels.segments[number].mask] = numbers.setdefault(name, len(numbers) + 1)
    return drawn


def _check_output(options: argparse.Namespace) -> None:
    path = Path(options.output)
    if path.suffix.lower() != _ENDING or path.resolve() in [
        Path(name).resolve() for case in options.case for name in case
    ]:
        raise OutputError(
            f"--output {options.output} must end in {_ENDING} and be none of the cases: choose another name."
        )

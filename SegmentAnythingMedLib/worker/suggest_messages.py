"""The messages that ask a prompt source for prompts, and bring them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.worker import fields as of
from SegmentAnythingMedLib.worker.message import Command, Event

SOURCES = ("rough_mask", "ruler", "vessel", "saliency")
"""Prompt sources that can be asked: those that need neither a file nor a model."""


@dataclass(frozen=True, eq=False)
class SuggestPrompts(Command):
    """Make prompts from what there is on a slice; `SuggestedPrompts` follows. No object gets them by this.

    Parameters
    ----------
    source
        Name of the prompt source.
    plane
        Whose slices.
    index
        The slice; None lets the source say it, as a ruler does.
    mask
        (rows, columns) bool: a rough mask on the slice.
    lines_ijk
        Continuous (I, J, K) of both ends of each line, 6 numbers a line: a ruler, or a RECIST pair.
    settings
        The source's, by name.
    """

    source: str = of.text(20, SOURCES)
    plane: Plane = of.plane()
    index: int | None = of.whole(default=None)
    mask: np.ndarray | None = of.mask(2, default=None)
    lines_ijk: tuple[float, ...] = of.numbers(default=())
    settings: Mapping[str, Any] = of.mapping(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SuggestedPrompts(Event):
    """What a prompt source made, all on one slice, in the order a user would give them."""

    prompts: tuple[Prompt, ...] = of.prompts()

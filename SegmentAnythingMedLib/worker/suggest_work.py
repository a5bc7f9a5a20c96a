"""The worker's part in suggesting prompts: a prompt source is asked about a slice of the open volume."""

from __future__ import annotations

from functools import partial

import numpy as np

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.sources.source import Given, load_source
from SegmentAnythingMedLib.worker.suggest_messages import SuggestedPrompts, SuggestPrompts


def suggested(command: SuggestPrompts, session: VolumeSession) -> SuggestedPrompts:
    """The answer to a command, on the slice as the session's window shows it.

    Raises
    ------
    WorkerError
        If the lines are not 6 numbers each.
    PromptError
        If there is nothing to prompt; the message says what to do.
    """
    if len(command.lines_ijk) % 6:
        raise WorkerError(f"A line needs 6 numbers, its two ends (I, J, K): got {len(command.lines_ijk)}.")
    lines = tuple((tuple(a), tuple(b)) for a, b in np.reshape(command.lines_ijk, (-1, 2, 3)).tolist())
    slices = session.slices(command.plane)
    image = partial(session.features.image, slices)
    given = Given(slices, command.index, labels=command.mask, lines_ijk=lines, image=image)
    return SuggestedPrompts(command.job, load_source(command.source, **command.settings).prompts(given))

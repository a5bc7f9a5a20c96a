"""What a session answers: one slice of one object as it now is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from SegmentAnythingMedLib.geometry import SliceKey


@dataclass(frozen=True, eq=False)
class SliceResult:
    """A slice of an object as it now is.

    Parameters
    ----------
    object_id, key
        Whose slice it is.
    mask
        (rows, columns) bool; protected voxels already applied.
    quality
        Predicted intersection over union, 0 to 1.
    presence
        Logit that the object is on the slice.
    overlap
        Dice with the neighbour it came from; 1 for prompted slices.
    candidates
        (M, rows, columns) bool, best first, where one click has several answers; their order stays the same.
    candidate
        Which of them the mask is.
    revision
        The object's prompt revision the result belongs to.
    prompted
        Whether it comes from prompts on this slice.
    cleared
        Whether propagation emptied a slice that an earlier one had filled.
    final
        False while an opposite pass will still improve it.
    done, total, seconds_left
        Progress of the propagation it belongs to; ``total`` shrinks when a pass stops early.
    """

    object_id: int
    key: SliceKey
    mask: np.ndarray
    quality: float = 0.0
    presence: float = 0.0
    overlap: float = 1.0
    candidates: np.ndarray | None = field(default=None, repr=False)
    candidate: int = 0
    revision: int = 0
    prompted: bool = False
    cleared: bool = False
    final: bool = True
    done: int = 0
    total: int = 0
    seconds_left: float = 0.0

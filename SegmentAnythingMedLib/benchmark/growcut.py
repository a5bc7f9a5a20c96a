"""GrowCut (Vezhnevets and Konouchine 2005): seeds conquer neighbours, the more easily the more alike they are."""

from __future__ import annotations

import numpy as np

OBJECT, BACKGROUND = 1, 2
"""Labels of seeds; 0 is unknown."""

_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def grow_cut(image: np.ndarray, seeds: np.ndarray, most_rounds: int = 400) -> np.ndarray:
    """Let every seed grow until nothing changes.

    A pixel's strength is 1 at seeds. A neighbour attacks with its own strength times ``1 - difference / range`` and
    takes the pixel where that is more.

    Parameters
    ----------
    image
        (rows, columns) float.
    seeds
        (rows, columns) int: `OBJECT`, `BACKGROUND`, 0 for pixels to be decided.
    most_rounds
        Ends a run that has not settled.

    Returns
    -------
    np.ndarray
        (rows, columns) bool.
    """
    labels, strength = seeds.astype(np.int8), (seeds > 0).astype(np.float32)
    span = max(float(np.ptp(image)), 1e-6)
    links = [(*_facing(step), 1 - np.abs(np.subtract(*(image[part] for part in _facing(step)))) / span)
             for step in _NEIGHBOURS]  # fmt: skip
    for _ in range(most_rounds):
        changed = False
        for one, other, ease in links:
            for attacker, defender in ((one, other), (other, one)):
                attack = strength[attacker] * ease
                wins = attack > strength[defender] + 1e-6
                if wins.any():
                    changed = True
                    strength[defender] = np.where(wins, attack, strength[defender])
                    labels[defender] = np.where(wins, labels[attacker], labels[defender])
        if not changed:
            break
    return labels == OBJECT


def _facing(step: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Two views of an array in which neighbours in a direction have the same place."""
    first, second = zip(*(_shifted(away) for away in step), strict=True)
    return first, second


def _shifted(away: int) -> tuple[slice, slice]:
    if away == 0:
        return slice(None), slice(None)
    return (slice(None, -1), slice(1, None)) if away > 0 else (slice(1, None), slice(None, -1))

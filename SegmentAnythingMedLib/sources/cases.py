"""What is learned from: cells of slices of the user's own cases, and how much of each cell a structure fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.models.base import SliceImage
from SegmentAnythingMedLib.sources.descriptor import Describer, HandMade
from SegmentAnythingMedLib.sources.source import Given, Need
from SegmentAnythingMedLib.volume import Volume
from SegmentAnythingMedLib.windowing import Window, choose_window

INSIDE, OUTSIDE = 0.5, 0.1
"""Share of a cell that makes it the structure's, and up to which it is background; cells between teach nothing."""
_CELLS_ACROSS = 8
"""Cells along the diameter of a disc as large as the smallest structure, within `_CELL_MM`."""
_CELL_MM = (0.5, 6.0)
_NEEDS = frozenset({Need.LABELS, Need.IMAGE})


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of learned slices.

    Parameters
    ----------
    rows
        (N, D) float32 features.
    cover
        (N, L) float32: share of each cell that each structure fills.
    slices
        How many slices they come from.
    """

    rows: np.ndarray
    cover: np.ndarray
    slices: int

    @property
    def inside(self) -> np.ndarray:
        """(N, L) bool: cells of each structure."""
        return self.cover >= INSIDE

    @property
    def outside(self) -> np.ndarray:
        """(N, L) bool: background of each structure."""
        return self.cover <= OUTSIDE


def labelled_case(
    volume: Volume, labels: np.ndarray, plane: Plane, window: Window | str = "auto", time: int = 0
) -> Given:
    """A volume with its label map as a case to learn from.

    Parameters
    ----------
    volume
        One to three channels are looked at, as models see them.
    labels
        (K, J, I) integers on the volume's grid.
    plane
        Whose slices are learned from; the same that prompts are wanted on later.
    window, time
        As for a session.
    """
    slices = SliceGeometry(volume.geometry, plane)
    chosen = choose_window(volume, window, time) if isinstance(window, str) else window

    def image(index: int) -> SliceImage:
        channels = [slices.extract(volume.array(time, c), index) for c in range(min(volume.channel_count, 3))]
        pixels = chosen.apply(np.stack(channels))
        if len(pixels) == 2:
            pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
        return SliceImage(pixels, slices.spacing_mm)

    return Given(slices, labels=labels, image=image)


def check_cases(cases: Sequence[Given], names: Mapping[int, str]) -> None:
    """Refuse to learn from nothing.

    Raises
    ------
    PromptError
        If there is no case or no structure, a case lacks labels or an image, or no case shows a structure.
    """
    if not cases or not names:
        raise PromptError("There is nothing to learn from: give at least one volume with its label map and one name.")
    for case in cases:
        case.check(_NEEDS, "learning")
    for value, name in names.items():
        if not any((case.labels == value).any() for case in cases):
            raise PromptError(f"No case shows {name!r} (value {value} of the label map): check names and values.")


def cells_of(cases: Sequence[Given], values: Sequence[int], describer: Describer, slices: int) -> Cells:
    """Describe slices of all cases.

    Parameters
    ----------
    cases
        With labels and images.
    values
        The structures, as in the label maps.
    describer
        Makes the features.
    slices
        Most slices of a case for each structure, spread evenly over it; a quarter as many without any of them.
    """
    rows, cover, count = [], [], 0
    for case in cases:
        for index in _slices_to_learn(case, values, slices):
            found = describer.describe(case.image(index))
            drawn = case.labels_on(index)
            rows.append(found.rows)
            cover.append(np.stack([found.share(drawn == value).ravel() for value in values], axis=1))
            count += 1
    return Cells(np.concatenate(rows), np.concatenate(cover).astype(np.float32), count)


def largest_areas(cases: Sequence[Given], values: Sequence[int]) -> np.ndarray:
    """(L,) float64 mm2: the largest connected area that each structure has on a slice of any case."""
    from scipy import ndimage

    largest = np.zeros(len(values))
    for case in cases:
        pixel = float(np.prod(case.slices.spacing_mm))
        for index in range(case.slices.count):
            drawn = case.labels_on(index)
            for number, value in enumerate(values):
                parts, count = ndimage.label(drawn == value)
                if count:
                    largest[number] = max(largest[number], np.bincount(parts.ravel())[1:].max() * pixel)
    return largest


def fitting_descriptor(smallest_mm2: float) -> HandMade:
    """Cells of which eight cross a disc of this area, of half a millimetre to 6 mm."""
    diameter = 2 * np.sqrt(smallest_mm2 / np.pi)
    return HandMade(round(float(np.clip(diameter / _CELLS_ACROSS, *_CELL_MM)), 1))


def _slices_to_learn(case: Given, values: Sequence[int], most: int) -> list[int]:
    shown = {value: [] for value in values}
    empty = []
    for index in range(case.slices.count):
        there = np.isin(values, case.labels_on(index))
        for value, seen in zip(values, there, strict=True):
            if seen:
                shown[value].append(index)
        if not there.any():
            empty.append(index)
    chosen = {index for indices in shown.values() for index in _spread(indices, most)}
    return sorted(chosen | set(_spread(empty, -(-most // 4))))


def _spread(indices: Sequence[int], most: int) -> list[int]:
    """At most so many of the indices, evenly spread."""
    if len(indices) <= most:
        return list(indices)
    return [indices[int(place)] for place in (np.arange(most) + 0.5) * len(indices) / most]

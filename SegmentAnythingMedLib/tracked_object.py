"""One object (segment) of a session: its prompts, its key slices and its voxels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, SliceKey, VolumeGeometry
from SegmentAnythingMedLib.memory.bank import MemoryEntry
from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.prompts import Prompt, SlicePrompts, on_slice, slice_index


@dataclass
class KeySlice:
    """A slice the user spoke about.

    Parameters
    ----------
    before
        (rows, columns) bool: the object's mask there before the first prompt, restored when the last is undone.
    tracked_before
        Whether that mask came from propagation.
    """

    before: np.ndarray
    tracked_before: bool = False
    confirmed: np.ndarray | None = None
    history: list[tuple[int, Prediction]] = field(default_factory=list)
    memory: MemoryEntry | None = None

    @property
    def prediction(self) -> Prediction | None:
        """The newest prediction of the slice."""
        return self.history[-1][1] if self.history else None

    @property
    def mask(self) -> np.ndarray | None:
        """The slice's mask as the user left it, or None before the first prediction."""
        if self.confirmed is not None:
            return self.confirmed
        return None if self.prediction is None else self.prediction.masks[0]


class TrackedObject:
    """State of one object; the session is the only writer.

    Parameters
    ----------
    geometry
        Grid of the volume.
    """

    def __init__(self, geometry: VolumeGeometry) -> None:
        self.labelmap = np.zeros(geometry.shape_kji, dtype=bool)
        self.protected: np.ndarray | None = None
        self._painted: np.ndarray | None = None
        self.prompts: list[tuple[SliceKey, Prompt]] = []
        self.keys: dict[SliceKey, KeySlice] = {}
        self.tracked: dict[Plane, set[int]] = {}
        self.revision = 0

    def mask_on(self, slices: SliceGeometry, index: int) -> np.ndarray:
        """(rows, columns) bool copy of the object's mask on a slice."""
        return np.array(slices.extract(self.labelmap, index, order=0), dtype=bool)

    def write(self, slices: SliceGeometry, index: int, mask: np.ndarray) -> None:
        """Set the object's voxels on a slice, except protected ones."""
        slices.paste(mask, index, self.labelmap, keep=self.protected)

    def protect(self, slices: SliceGeometry, index: int, mask: np.ndarray) -> None:
        """Write a confirmed slice and keep all its voxels from being overwritten."""
        slices.paste(mask, index, self.labelmap)
        if self.protected is None:
            self.protected = np.zeros_like(self.labelmap)
        slices.paste(np.ones(slices.shape, dtype=bool), index, self.protected)

    def protect_voxels(self, voxels: np.ndarray) -> None:
        """Keep (K, J, I) bool voxels as they are now."""
        self._painted = voxels.astype(bool) if self._painted is None else self._painted | voxels
        self.protected = self._painted.copy() if self.protected is None else self.protected | voxels

    def rebuild_protection(self, stacks: dict[Plane, SliceGeometry]) -> None:
        """Recompute the protected voxels after a confirmation was taken back."""
        self.protected = None if self._painted is None else self._painted.copy()
        for key, state in self.keys.items():
            if state.confirmed is not None:
                self.protect(stacks[key.plane], key.index, state.confirmed)

    def tracked_on(self, plane: Plane, time: int) -> set[int]:
        """Slices of a plane filled by propagation, without those the user spoke about since."""
        spoken_about = {key.index for key in self.keys if key.plane == plane and key.time == time}
        return self.tracked.get(plane, set()) - spoken_about

    def prompts_on(self, key: SliceKey, slices: SliceGeometry) -> SlicePrompts:
        """The prompts of a slice, in slice pixels."""
        return on_slice((prompt for at, prompt in self.prompts if at == key), slices, key.index)

    def prompt_count(self, key: SliceKey) -> int:
        return sum(1 for at, _ in self.prompts if at == key)

    def key_slices(self, plane: Plane, time: int) -> dict[int, KeySlice]:
        """Key slices of a plane that have a mask, by index."""
        found = {key.index: state for key, state in self.keys.items() if key.plane == plane and key.time == time}
        return {index: found[index] for index in sorted(found) if found[index].mask is not None}


def key_of(prompt: Prompt, slices: SliceGeometry, volume: str, time: int) -> SliceKey:
    """The slice a prompt lies on, checked."""
    return SliceKey(volume, time, slices.plane, slice_index(prompt, slices))

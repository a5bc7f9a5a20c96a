"""One object (segment) of a session: its prompts, its key slices and its voxels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, SliceKey, VolumeGeometry
from SegmentAnythingMedLib.memory.bank import MemoryEntry
from SegmentAnythingMedLib.models.base import Prediction
from SegmentAnythingMedLib.prompts import Prompt, SlicePrompts, on_slice, slice_index

_CONFIRMED, _PROMPTED = 1, 2


@dataclass(frozen=True, eq=False)
class KeyStep:
    """One answer on a key slice: a prediction from so many prompts, or what the user painted or confirmed."""

    prompts: int
    prediction: Prediction
    confirmed: bool = False


@dataclass
class KeySlice:
    """A slice the user spoke about.

    Parameters
    ----------
    before
        (rows, columns) bool: the object's mask there before the first prompt, restored when the last is undone.
    tracked_before
        Whether that mask came from propagation.
    steps
        Answers so far, newest last.
    memory
        What the model remembers of the newest answer; None until it is needed.
    """

    before: np.ndarray
    tracked_before: bool = False
    steps: list[KeyStep] = field(default_factory=list)
    memory: MemoryEntry | None = None

    def add(self, step: KeyStep) -> None:
        self.steps.append(step)
        self.memory = None

    def take_back(self, prompts_left: int) -> None:
        """Drop answers to prompts that are gone; what the user painted stays."""
        self.steps = [step for step in self.steps if step.confirmed or step.prompts <= prompts_left]
        self.memory = None

    @property
    def prediction(self) -> Prediction | None:
        """The newest answer."""
        return self.steps[-1].prediction if self.steps else None

    @property
    def is_confirmed(self) -> bool:
        return bool(self.steps) and self.steps[-1].confirmed

    @property
    def mask(self) -> np.ndarray | None:
        """The slice's mask as the user left it, or None before the first answer."""
        return None if self.prediction is None else self.prediction.masks[0]


class TrackedObject:
    """State of one object; the session is the only writer.

    Where an object is propagated in several planes, its voxels are the union of what each plane found, so that no
    plane removes another's work; key slices of every plane hold exactly what the user left there.

    Parameters
    ----------
    geometry
        Grid of the volume.
    """

    def __init__(self, geometry: VolumeGeometry) -> None:
        self.labelmap = np.zeros(geometry.shape_kji, dtype=bool)
        self.prompts: list[tuple[SliceKey, Prompt]] = []
        self.keys: dict[SliceKey, KeySlice] = {}
        self.tracked: dict[Plane, set[int]] = {}
        self.revision = 0
        self._layers: dict[Plane, np.ndarray] = {}
        self._drawn: dict[tuple[Plane, int], np.ndarray] = {}
        self._kept: np.ndarray | None = None
        self._painted: np.ndarray | None = None

    def mask_on(self, slices: SliceGeometry, index: int) -> np.ndarray:
        """(rows, columns) bool copy of the object's mask on a slice.

        On an oblique slice that was written: its pixels as they were drawn, and voxels that something else changed
        since. Sampling the voxels instead would lose those that belong to neighbours not written yet.
        """
        if (slices.plane, index) not in self._drawn:
            return np.array(slices.extract(self.labelmap, index, order=0), dtype=bool)
        bits = self._drawn[slices.plane, index]
        mask = np.unpackbits(bits, count=int(np.prod(slices.shape))).astype(bool).reshape(slices.shape)
        k, j, i = slices.region(index)
        now = self.labelmap[k, j, i]
        other = now != slices.values(mask, index)
        _, pixels = slices.pixels_from_ijk(np.stack([i[other], j[other], k[other]], axis=-1))
        rows, columns = np.clip(np.rint(pixels).astype(int), 0, np.asarray(slices.shape) - 1).T
        mask[rows, columns] = now[other]
        return mask

    def write_tracked(self, slices: SliceGeometry, index: int, mask: np.ndarray) -> None:
        """Set what propagation in this plane found on a slice; key slices and painted voxels stay."""
        values, others = self._into_layer(slices, index, mask)
        region = slices.region(index)
        for other in others:
            values = values | other[region]
        self._set(region, values, None if self._kept is None else self._kept[region] > 0)

    def write_key(self, slices: SliceGeometry, index: int, mask: np.ndarray) -> None:
        """Set a key slice; only confirmed slices and painted voxels stay."""
        values, _ = self._into_layer(slices, index, mask)
        region = slices.region(index)
        self._set(region, values, None if self._kept is None else (self._kept[region] & _CONFIRMED) > 0)

    def protect_voxels(self, voxels: np.ndarray) -> None:
        """Keep (K, J, I) bool voxels as they are now."""
        self._painted = voxels.astype(bool) if self._painted is None else self._painted | voxels

    def keep_key_slices(self, stacks: dict[Plane, SliceGeometry]) -> None:
        """Find out anew which voxels nothing may overwrite, and write the confirmed slices; after keys changed."""
        confirmed = [key for key, slot in self.keys.items() if slot.is_confirmed]
        if not confirmed and self._painted is None and len({key.plane for key in self.keys}) < 2:
            self._kept = None
            return
        self._kept = np.zeros(self.labelmap.shape, dtype=np.uint8)
        for key, slot in self.keys.items():
            if slot.steps:
                self._kept[stacks[key.plane].region(key.index)] = _PROMPTED
        for key in confirmed:
            slices, mask = stacks[key.plane], self.keys[key].mask
            slices.paste(mask, key.index, self.labelmap)
            self._into_layer(slices, key.index, mask)
            self._kept[slices.region(key.index)] |= _CONFIRMED
        if self._painted is not None:
            self._kept[self._painted] |= _CONFIRMED

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
        found = {key.index: slot for key, slot in self.keys.items() if key.plane == plane and key.time == time}
        return {index: found[index] for index in sorted(found) if found[index].steps}

    def _into_layer(
        self, slices: SliceGeometry, index: int, mask: np.ndarray
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Write to the plane's own layer; the values at the slice's voxels, and the other planes' layers.

        With one plane the labelmap is its layer; the second plane makes them separate.
        """
        if slices.plane.is_oblique:
            self._drawn[slices.plane, index] = np.packbits(np.asarray(mask, dtype=bool))
        if slices.plane not in self._layers:
            if len(self._layers) == 1:
                only = next(iter(self._layers))
                self._layers[only] = self.labelmap.copy()
            self._layers[slices.plane] = self.labelmap if not self._layers else np.zeros_like(self.labelmap)
        layer, values = self._layers[slices.plane], slices.values(np.asarray(mask, dtype=bool), index)
        if layer is not self.labelmap:
            layer[slices.region(index)] = values
        return values, tuple(other for plane, other in self._layers.items() if plane != slices.plane)

    def _set(self, region: tuple[object, ...], values: np.ndarray, keep: np.ndarray | None) -> None:
        self.labelmap[region] = values if keep is None else np.where(keep, self.labelmap[region], values)


def key_of(prompt: Prompt, slices: SliceGeometry, volume: str, time: int) -> SliceKey:
    """The slice a prompt lies on, checked."""
    return SliceKey(volume, time, slices.plane, slice_index(prompt, slices))

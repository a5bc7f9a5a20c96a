"""A phantom and the classic model as a prompt source sees them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.features import FeatureCache
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.models.base import Prediction, Recall
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.phantom import Phantom, make_phantom
from SegmentAnythingMedLib.prompts import Prompt, SlicePrompts, on_slice
from SegmentAnythingMedLib.sources.source import Given
from SegmentAnythingMedLib.windowing import choose_window


@dataclass(frozen=True)
class Scene:
    """A scanned phantom, its axial slices, and the classic model on them."""

    phantom: Phantom

    @cached_property
    def slices(self) -> SliceGeometry:
        geometry = self.phantom.volume.geometry
        return SliceGeometry(geometry, Plane.named("axial", geometry))

    @cached_property
    def given(self) -> Given:
        cache = FeatureCache(self.phantom.volume, choose_window(self.phantom.volume), ModelRegistry().load("classic"))

        def predict(index: int, prompts: SlicePrompts, multimask: bool = False) -> Prediction:
            return cache._model.predict(cache.get(self.slices, index), prompts, Recall(), None, multimask)

        return Given(self.slices, image=lambda index: cache.image(self.slices, index), predict=predict)

    def answer(self, prompts: tuple[Prompt, ...], index: int) -> np.ndarray:
        """The model's mask on a slice."""
        return self.given.predict(index, on_slice(prompts, self.slices, index)).masks[0]

    def truth(self, name: str, index: int) -> np.ndarray:
        """(rows, columns) bool of an organ."""
        return self.slices.extract(self.phantom.structure(name).mask(), index)

    def largest(self, name: str) -> int:
        """Slice that shows most of an organ."""
        mask = self.phantom.structure(name).mask()
        return max(range(self.slices.count), key=lambda index: self.slices.extract(mask, index).sum())


@lru_cache(maxsize=2)
def scene(kind: str = "CT", step: float = 1.6) -> Scene:
    """A tilted, flipped scan with flat voxels whose slices lie along I: square pixels of ``step`` mm, 12 mm apart."""
    size = round(307 / step), round(256 / step), 18
    return Scene(make_phantom(kind, size, (step, step, 12.0), flip=(True, False, True), axes=(2, 0, 1)))


def roughened(mask: np.ndarray, how: str) -> np.ndarray:
    """A (rows, columns) mask as a careless hand or a coarse network leaves it, 3 pixels off."""
    if how == "shifted":
        return np.roll(mask, (3, 3), (0, 1))
    return (ndimage.binary_erosion if how == "too small" else ndimage.binary_dilation)(mask, iterations=3)

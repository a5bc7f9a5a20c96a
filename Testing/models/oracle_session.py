"""What comparisons of whole sessions with reference packages share: random slices, a model that keeps its logits."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.models.sam2 import Sam2Model
from SegmentAnythingMedLib.volume import Modality, Volume


class RecordingModel(Sam2Model):
    """Keeps the logits of every prediction."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.logits: list[np.ndarray] = []

    def predict(self, *arguments: object, **options: object) -> object:
        prediction = super().predict(*arguments, **options)
        self.logits.append(prediction.logits[0])
        return prediction


def random_slices(side: int, count: int) -> Volume:
    """``count`` smooth RGB slices of ``side`` x ``side`` pixels, 0 to 1."""
    coarse = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(5))
    pixels = functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1).numpy()
    geometry = VolumeGeometry.from_spacing((side, side, count))
    return Volume(pixels.transpose(1, 0, 2, 3)[np.newaxis], geometry, Modality.COLOR)

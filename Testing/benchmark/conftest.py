"""Two tiny labelled volumes on disk, and models that are always right or always empty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from doubles import ThresholdModel

from SegmentAnythingMedLib.benchmark.datasets import Structure
from SegmentAnythingMedLib.models.base import Prediction


class EmptyModel(ThresholdModel):
    """Finds nothing, whatever it is asked."""

    def predict(self, *arguments: object, **options: object) -> Prediction:
        found = super().predict(*arguments, **options)
        return Prediction(np.full_like(found.logits, -8.0), found.quality, -5.0)


@pytest.fixture
def an_empty_model() -> EmptyModel:
    return EmptyModel()


@pytest.fixture
def a_perfect_model() -> ThresholdModel:
    return ThresholdModel()


@pytest.fixture
def a_ball() -> np.ndarray:
    """(14, 20, 24) bool: an ellipsoid on 9 of 14 slices."""
    k, j, i = np.ogrid[:14, :20, :24]
    return ((k - 6) / 4.5) ** 2 + ((j - 10) / 6) ** 2 + ((i - 12) / 8) ** 2 <= 1


@pytest.fixture
def tiny_data(tmp_path: Path, a_ball: np.ndarray) -> tuple[Path, list[Structure]]:
    """A data folder of two volumes, one flipped and permuted against the other, and their structures."""
    import SimpleITK

    structures = []
    for name, mask in (("one", a_ball), ("two", np.ascontiguousarray(a_ball.transpose(1, 0, 2)[:, ::-1]))):
        for kind, array in (("image", mask * np.uint8(200)), ("label", mask.astype(np.uint8))):
            image = SimpleITK.GetImageFromArray(array)
            if name == "one":
                image.SetSpacing((1.0, 1.0, 3.0))
            else:
                image.SetSpacing((1.0, 3.0, 1.0))
                image.SetDirection((1, 0, 0, 0, 0, -1, 0, 1, 0))
            SimpleITK.WriteImage(image, str(tmp_path / f"{name}_{kind}.nrrd"))
        files = f"{name}_image.nrrd", f"{name}_label.nrrd"
        structures.append(Structure(f"tiny/{name}/ball", "tiny", name, "compact", *files, 1, "ball"))
    return tmp_path, structures

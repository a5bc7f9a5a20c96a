"""Sparse matrices that resample along rows and columns."""

from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.resampling import resampled, weighing


@pytest.mark.parametrize("kind", [np.uint8, bool, np.float32, np.float64])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_pixels_are_weighed_along_both_axes(kind, lead):
    random = np.random.default_rng(0)
    pixels = (random.random((*lead, 9, 11)) * 200).astype(kind)
    dense, sparse = [], []
    for count, many in ((9, 5), (11, 14)):
        source, weights = random.integers(0, count, (many, 3)), random.random((many, 3))
        dense.append(np.zeros((many, count)))
        np.add.at(dense[-1], (np.arange(many)[:, None], source), weights)
        sparse.append(weighing(source, weights, count))
    found = resampled(pixels, *sparse)
    assert found.dtype == (np.float64 if kind is np.float64 else np.float32) and found.shape == (*lead, 5, 14)
    wanted = dense[0] @ pixels.astype(float) @ dense[1].T
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-4)

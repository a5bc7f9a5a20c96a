"""The shares of network and solver are measured on volumes no one trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from SegmentAnythingMedLib.benchmark import embedded_shares
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.resources import resource_path
from SegmentAnythingMedLib.volume import Volume


def test_every_setting_is_measured_on_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((6, 48, 48), bool)
    mask[1:5, 16:32, 14:34] = True
    grey = np.where(mask, 200, 40).astype(np.uint8)
    volume = Volume.from_array(grey, VolumeGeometry.from_spacing((48, 48, 6), (1.0, 1.0, 3.0)))
    monkeypatch.setattr(embedded_shares, "cases", lambda data: iter([("made up", volume, mask, "identity")]))
    settings = [(0.0, 0.0, 0.0), (0.0, 0.0, 30.0)]
    found = embedded_shares.measure(Path("nowhere"), resource_path("Weights") / "embedded.onnx", settings)
    goes_on, stops = (found[one] for one in settings)
    assert list(found) == settings and goes_on["mask, extent"] > 0.9
    assert stops["mask"] < goes_on["mask"], "with so large an offset the object is gone at once"
    assert stops["mask, extent"] == goes_on["mask, extent"], "the extent is given"

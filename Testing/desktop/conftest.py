"""The desktop module on PySide6 standing in for PythonQt, with a real MRML scene and a real worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.11.0.6")
pytest.importorskip(
    "PySide6.QtWidgets",
    reason="PySide6 is not there: pip install PySide6-Essentials==6.11.1; "
    "apt-get install libgl1 libegl1 libxkbcommon0 libfontconfig1 libglib2.0-0",
    exc_type=ImportError,
)

from desktop.desk import Desk
from desktop.standins import pythonqt
from mrml.conftest import a_pose, a_segmentation, a_volume, host, rendering
from mrml.host import MrmlHost

__all__ = ["a_pose", "a_segmentation", "a_volume", "host", "rendering"]


@pytest.fixture
def desk(host: MrmlHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Slicer with the module's widget set up, not entered yet."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SEGMENT_ANYTHING_MED_MODELS", str(tmp_path / "models"))
    made = Desk(host, tmp_path)
    yield made
    made.close()
    raised, pythonqt.raised[:] = list(pythonqt.raised), []
    assert raised == []

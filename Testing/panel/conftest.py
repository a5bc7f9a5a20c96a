"""The scene and volumes of the MRML tests."""

from __future__ import annotations

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.11.0.6")

from mrml.conftest import a_pose, a_volume, host

__all__ = ["a_pose", "a_volume", "host"]

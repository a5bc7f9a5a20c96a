"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Converting a model for OpenVINO takes 10 s: tests that want it say so.
os.environ.setdefault("SEGMENT_ANYTHING_MED_ENGINE", "torch")


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """The folder of real data, or the test is skipped."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "dev"
    folder = Path(os.environ.get("SEGMENT_ANYTHING_MED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SEGMENT_ANYTHING_MED_DATA")
    return folder

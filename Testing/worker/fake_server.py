"""The worker process with the fake model: run with the same arguments as the real one."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))

from SegmentAnythingMedLib.worker.process import main
from Testing.worker.fake_model import FakeRegistry

if __name__ == "__main__":
    sys.exit(main(registry=FakeRegistry()))

"""The worker's client as desktop Slicer needs it: Slicer's Python, Slicer's temporary folder."""

from __future__ import annotations

import slicer

from SegmentAnythingMedLib.worker.client import WorkerClient
from SegmentAnythingMedUI.pip_process import slicer_python


def client_of_slicer() -> WorkerClient:
    """A client whose process is started when it is first needed."""
    return WorkerClient(python=slicer_python(), folder=slicer.app.temporaryPath)

"""Sample Data: phantoms that are made on this computer, and public cases that Slicer itself knows with checksums."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode

    from SegmentAnythingMedLib.phantom import Phantom

CATEGORY = "Segment Anything Med"
PHANTOMS = {"CT": "PhantomCT", "MR": "PhantomMR", "PET": "PhantomPET"}
PUBLIC = ("CTLiver", "CTACardio", "MRBrainTumor1", "MRHead")
"""Of Slicer's own sources, which come with SHA-256 sums: listed again under our heading, not registered again."""


def register() -> None:
    """Add the category to the module Sample Data; doing it twice changes nothing."""
    import SampleData

    for kind, name in PHANTOMS.items():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=name,
            uris=f"phantom:{kind}",
            fileNames=f"{name}.nrrd",
            nodeNames=name,
            customDownloader=load_phantom,
        )
    SampleData.SampleDataLogic()  # has Slicer's own sources registered
    known = getattr(slicer.modules, "sampleDataSources")  # noqa: B009 not a module: Sample Data puts it there
    ours, every = known[CATEGORY], [source for sources in known.values() for source in sources]
    for source in every:
        if source.sampleName in PUBLIC and source not in ours:
            ours.append(source)


def load_phantom(source: object) -> list[vtkMRMLScalarVolumeNode]:
    """Load a phantom for a button of Sample Data, made anew only where the cache does not have it."""
    kind = source.uris[0].partition(":")[2]
    path = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory()) / source.fileNames[0]
    if not path.is_file():
        _in_background(lambda: _write_phantom(kind, path))
    return [slicer.util.loadVolume(str(path), {"name": source.nodeNames[0]})]


def add_phantom(kind: str, **options: object) -> tuple[vtkMRMLScalarVolumeNode, Phantom]:
    """Make a phantom and add it to the scene, with its truth."""
    from SegmentAnythingMedLib.phantom import make_phantom

    phantom = make_phantom(kind, **options)
    volume = phantom.volume
    node = slicer.util.addVolumeFromArray(
        volume.array(), ijkToRAS=_ras_from_lps(volume.geometry.ijk_to_world), name=PHANTOMS.get(kind, "Phantom")
    )
    return node, phantom


def _write_phantom(kind: str, path: Path) -> None:
    from SegmentAnythingMedLib.io import write_volume
    from SegmentAnythingMedLib.phantom import make_phantom

    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, make_phantom(kind).volume)


def _in_background(work: object) -> None:
    """Do something in a thread while Slicer goes on drawing; what it raised is raised here."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 handed over to the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        slicer.app.processEvents()
        time.sleep(0.01)
    if failed:
        raise failed[0]


def _ras_from_lps(matrix: object) -> object:
    import numpy as np

    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix

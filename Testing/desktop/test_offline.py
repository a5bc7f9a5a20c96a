"""Nothing leaves the machine, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
from desktop.desk import Desk
from mrml.controlling import box

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "onnxruntime", "scipy", "SimpleITK", "skimage", "matplotlib", "pydicom", "highdicom", "transformers")
TELEMETRY = ("sentry_sdk", "posthog", "segment", "analytics", "mixpanel", "opentelemetry", "wandb", "comet_ml", "scarf")


def test_a_whole_session_opens_no_socket(
    desk: Desk, a_volume: slicer.vtkMRMLScalarVolumeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def refuse(_self: socket.socket, address: object) -> None:
        opened.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    desk.open()
    desk.add_view(a_volume)
    desk.widget.enter()
    desk.ui.volumeSelector.setCurrentNode(a_volume)
    desk.controller.add_prompt(box())
    desk.settle()
    desk.ui.propagateBothButton.click()
    desk.settle()
    desk.ui.acceptButton.click()
    desk.settle()
    assert desk.labels().any()
    assert opened == []
    assert [name for name in TELEMETRY if name in sys.modules] == []


SCRIPT = """
import sys
from pathlib import Path
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path[:0] = [str(root), str(root / "Testing")]
import vtk
vtk.vtkObject.GlobalWarningDisplayOff()
from mrml.host import MrmlHost
host = MrmlHost(folder)
from desktop.standins import application
before = set(sys.modules)
application.install(host.scene, folder, host.logics)
sys.path.insert(0, str(root / "SegmentAnythingMed"))
import SegmentAnythingMed
import types
parent = types.SimpleNamespace(path="")
SegmentAnythingMed.SegmentAnythingMed(parent)
widget = SegmentAnythingMed.SegmentAnythingMedWidget()
widget.enter()
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
widget.cleanup()
"""


def test_opening_the_module_loads_nothing_heavy(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(ROOT), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.strip().splitlines()[-1].strip("[]").replace("'", "").split(", "))
    assert "SegmentAnythingMedUI" in loaded
    assert [name for name in (*HEAVY, *TELEMETRY) if name in loaded] == []


def test_sample_data_makes_the_phantom_here_and_lists_slicers_public_cases(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import types

    from SegmentAnythingMedLib import phantom

    parent = types.SimpleNamespace(path="")
    desk.module.SegmentAnythingMed(parent)
    assert parent.title == "Segment Anything Med"
    assert parent.categories == ["Segmentation"]
    assert "Not a medical device" in parent.helpText
    assert not parent.icon.isNull()
    desk.app.startupCompleted.emit()
    sources = slicer.modules.sampleDataSources["Segment Anything Med"]
    assert [source.sampleName for source in sources] == ["PhantomCT", "PhantomMR", "PhantomPET", "MRHead", "CTLiver"]
    desk.import_ui("sample_data").register()
    assert len(sources) == 5
    small = phantom.make_phantom("CT", (24, 20, 8), (12.0, 12.0, 24.0))
    made = []
    monkeypatch.setattr(phantom, "make_phantom", lambda kind: made.append(kind) or small)
    loaded = []
    monkeypatch.setattr(slicer.util, "loadVolume", lambda path, properties: loaded.append(Path(path)) or "node")
    cache = types.SimpleNamespace(GetRemoteCacheDirectory=lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(slicer, "mrmlScene", types.SimpleNamespace(GetCacheManager=lambda: cache))
    assert sources[0].customDownloader(sources[0]) == ["node"]
    assert sources[0].customDownloader(sources[0]) == ["node"]
    assert made == ["CT"]
    assert loaded == [tmp_path / "cache" / "PhantomCT.nrrd"] * 2
    from SegmentAnythingMedLib.io import read_volume

    again = read_volume(loaded[0])
    assert np.array_equal(again.array(), small.volume.array())
    assert again.geometry.matches(small.volume.geometry)


def test_a_phantom_that_cannot_be_written_is_an_error_of_the_button(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_data = desk.import_ui("sample_data")

    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        sample_data._in_background(fail)

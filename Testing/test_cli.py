"""The command line as a user meets it: exit codes, files, messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from SegmentAnythingMedLib import cli
from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import Plane, VolumeGeometry
from SegmentAnythingMedLib.io import read_labels, write_volume
from SegmentAnythingMedLib.models.registry import default_model
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
from SegmentAnythingMedLib.prompts_file import ObjectPrompts, PromptsFile, load_prompts, save_prompts
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.volume import Volume

BOX = ["--slice", "7", "--box", "11", "9", "27", "25"]


@pytest.fixture
def ball() -> np.ndarray:
    """(K, J, I) bool: a ball of 8 voxels' radius round (19, 17, 7), flattened along K."""
    k, j, i = np.ogrid[:14, :36, :40]
    return ((k - 7) * 1.6) ** 2 + (j - 17) ** 2 + (i - 19) ** 2 <= 64


@pytest.fixture
def volume(ball: np.ndarray) -> Volume:
    rng = np.random.default_rng(0)
    voxels = np.where(ball, 120, -20) + rng.normal(0, 8, ball.shape)
    geometry = VolumeGeometry.from_spacing((40, 36, 14), (1.0, 1.0, 1.6), np.diag((-1.0, -1.0, 1.0)))
    return Volume.from_array(voxels.astype(np.int16), geometry)


@pytest.fixture
def volume_file(volume: Volume, tmp_path: Path) -> str:
    write_volume(tmp_path / "volume.nii.gz", volume)
    return str(tmp_path / "volume.nii.gz")


def segment(*arguments: object) -> int:
    return cli.main(["segment", *map(str, arguments)])


def test_a_box_on_one_slice_gives_a_3d_segment_and_a_picture(
    volume_file: str, ball: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, picture = tmp_path / "ball.seg.nrrd", tmp_path / "ball.png"
    code = segment(volume_file, *BOX, "--segment-name", "Ball", "--output", output, "--preview", picture, "--json")
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    labels = read_labels(output)
    assert dice(labels.segments[0].mask, ball) > 0.85
    assert labels.segments[0].name == "Ball"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    (item,) = report["objects"]
    assert item["voxels"] == labels.segments[0].mask.sum()
    assert item["volume_ml"] == pytest.approx(item["voxels"] * 1.6 / 1000, abs=1e-3)
    assert [one["index"] for one in item["slices"] if one["prompted"]] == [7]
    assert report["model"] == default_model() and report["device"] == "cpu" and not report["cancelled"]
    assert report["seconds"]["total"] >= report["seconds"]["predict"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_label_maps_lie_where_the_volume_lies(
    volume_file: str, volume: Volume, ball: np.ndarray, tmp_path: Path, ending: str
) -> None:
    assert segment(volume_file, *BOX, "--output", tmp_path / f"ball{ending}") == 0
    labels = read_labels(tmp_path / f"ball{ending}")
    assert labels.geometry.matches(volume.geometry)
    assert dice(labels.segments[0].mask, ball) > 0.85


def test_a_picture_file_has_no_millilitres(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.zeros((30, 40), np.uint8)
    image[8:20, 10:25] = 200
    PIL.Image.fromarray(image).save(tmp_path / "spot.png")
    code = segment(tmp_path / "spot.png", "--point", 15, 12, 0, "--output", tmp_path / "spot.nrrd", "--json")
    assert code == 0
    (item,) = json.loads(capsys.readouterr().out)["objects"]
    assert item["volume_ml"] is None and item["voxels"] > 100


def test_a_range_is_kept(volume_file: str, tmp_path: Path) -> None:
    assert segment(volume_file, *BOX, "--range", 6, 8, "--output", tmp_path / "b.nrrd") == 0
    mask = read_labels(tmp_path / "b.nrrd").segments[0].mask
    assert set(np.flatnonzero(mask.any(axis=(1, 2)))) == {6, 7, 8}


def test_without_propagation_only_the_prompted_slice_is_filled(volume_file: str, tmp_path: Path) -> None:
    assert segment(volume_file, *BOX, "--propagate", "none", "--output", tmp_path / "b.nrrd") == 0
    mask = read_labels(tmp_path / "b.nrrd").segments[0].mask
    assert set(np.flatnonzero(mask.any(axis=(1, 2)))) == {7}


@pytest.mark.parametrize(("plane", "box"), [("coronal", (11, 3, 27, 11)), ("sagittal", (9, 3, 25, 11))])
def test_other_planes_work_the_same(
    volume_file: str, ball: np.ndarray, tmp_path: Path, plane: str, box: tuple[int, ...]
) -> None:
    index = 17 if plane == "coronal" else 19
    code = segment(volume_file, "--plane", plane, "--slice", index, "--box", *box, "--output", tmp_path / "b.nrrd")
    assert code == 0
    assert dice(read_labels(tmp_path / "b.nrrd").segments[0].mask, ball) > 0.85


def test_used_prompts_can_be_saved_and_replayed(volume_file: str, tmp_path: Path) -> None:
    saved = tmp_path / "prompts.json"
    segment(volume_file, *BOX, "--point", 19, 17, 7, "--output", tmp_path / "a.nrrd", "--save-prompts", saved)
    assert [prompt.kind for prompt in load_prompts(saved).objects[0].prompts] == ["box", "point"]
    assert segment(volume_file, "--prompts", saved, "--output", tmp_path / "b.nrrd") == 0
    first, second = (read_labels(tmp_path / name).segments[0].mask for name in ("a.nrrd", "b.nrrd"))
    np.testing.assert_array_equal(first, second)


def test_oblique_prompts_come_from_the_file(volume_file: str, volume: Volume, ball: np.ndarray, tmp_path: Path) -> None:
    plane = Plane.from_normal((0.4, 0.3, 1.0), volume.geometry)
    clicks = ObjectPrompts(1, (PointPrompt((19, 17, 7), plane=plane),), "Ball")
    save_prompts(tmp_path / "p.json", PromptsFile((clicks,)), volume)
    assert segment(volume_file, "--prompts", tmp_path / "p.json", "--output", tmp_path / "b.seg.nrrd", "--preview",
                   tmp_path / "b.png") == 0  # fmt: skip
    assert dice(read_labels(tmp_path / "b.seg.nrrd").segments[0].mask, ball) > 0.8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--box", "1", "2", "3", "4"], "--box needs --slice"),
        ([], "give a box, a point or a prompts file"),
        (["--slice", "99", "--box", "1", "2", "30", "31"], "outside the volume"),
        (["--slice", "7", "--box", "5", "5", "5", "5"], "is empty"),
        ([*BOX, "--plane", "diagonal"], "axial, coronal, sagittal"),
        ([*BOX, "--range", "3", "40"], "from 0 to 13"),
        ([*BOX, "--range", "9", "3"], "lower slice first"),
        ([*BOX, "--time", "2"], "Time point 2"),
        ([*BOX, "--window", "spleen"], "soft-tissue"),
        ([*BOX, "--policy", "fifo"], "recent"),
        (["--prompts", "nowhere.json"], "cannot be read"),
        (["--slice", "5", "--point", "19", "17", "7"], "--slice goes with --box"),
        ([*BOX, "--range", "10", "12"], "does not reach slice 7"),
        (["--negative-point", "19", "17", "7"], "only negative prompts for"),
        ([*BOX, "--preview", "no/folder.png"], "--preview"),
    ],
)
def test_wrong_input_ends_with_2_and_one_sentence(
    volume_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert segment(volume_file, *arguments, "--output", tmp_path / "b.nrrd") == 2
    message = capsys.readouterr().err
    assert sentence in message and message.count("\n") == 1
    assert not (tmp_path / "b.nrrd").exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    volume_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("SegmentAnythingMedLib.segmenting.run_job", lambda *_, **__: pytest.fail("work was started"))
    assert segment(volume_file, *BOX, "--output", tmp_path / "no" / "b.nrrd") == 2
    assert segment(volume_file, *BOX, "--output", tmp_path / "b.docx") == 2
    assert ".seg.nrrd" in capsys.readouterr().err


def test_no_input_and_no_other_result_is_written_over(
    volume_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(volume_file).read_bytes()
    picture = tmp_path / "b.seg.nrrd"
    assert segment(volume_file, *BOX, "--output", volume_file) == 2
    assert "is the volume: choose another name" in capsys.readouterr().err
    assert segment(volume_file, *BOX, "--output", picture, "--preview", picture) == 2
    assert "is --output: choose another name" in capsys.readouterr().err
    assert Path(volume_file).read_bytes() == before and not picture.exists()


def test_overlapping_objects_in_a_label_map_keep_the_first_and_say_so(
    volume_file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = BoxPrompt.on_slice((11, 9, 27, 25), 7, Plane(2))
    two = PromptsFile(tuple(ObjectPrompts(number, (box,), f"Ball {number}") for number in (1, 2)))
    save_prompts(tmp_path / "two.json", two)
    assert segment(volume_file, "--prompts", tmp_path / "two.json", "--output", tmp_path / "two.nii.gz") == 0
    assert "belong to two segments" in caplog.text
    assert len(read_labels(tmp_path / "two.nii.gz").segments) == 1
    assert segment(volume_file, "--prompts", tmp_path / "two.json", "--output", tmp_path / "two.seg.nrrd") == 0
    assert [one.name for one in read_labels(tmp_path / "two.seg.nrrd").segments] == ["Ball 1", "Ball 2"]


def test_interrupting_before_the_work_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("SegmentAnythingMedLib.demo.run_demo", interrupt)
    assert cli.main(["demo", "--output", str(tmp_path)]) == 130
    assert "Interrupted; nothing was written" in capsys.readouterr().err


def test_a_model_that_is_not_there_ends_with_3(
    volume_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMENT_ANYTHING_MED_MODELS", str(tmp_path / "models"))
    for name, sentence in (("sam2.1-tiny", "https://"), ("gpt", "use one of")):
        assert segment(volume_file, *BOX, "--model", name, "--output", tmp_path / "b.nrrd") == 3
        assert sentence in capsys.readouterr().err


def test_debug_shows_the_traceback(volume_file: str, tmp_path: Path) -> None:
    with pytest.raises(SegmentAnythingMedError):
        segment(volume_file, "--debug", "--output", tmp_path / "b.nrrd")


def test_interrupting_writes_what_is_done_and_ends_with_4(tmp_path: Path, ball: np.ndarray) -> None:
    tall = np.repeat(np.repeat(ball[7:8], 400, axis=0) * 150, 4, axis=1).repeat(4, axis=2)
    write_volume(tmp_path / "tall.nrrd", Volume.from_array(tall.astype(np.uint8)))
    command = [sys.executable, "-m", "SegmentAnythingMedLib", "segment", "tall.nrrd", "--slice", "200", "--box",
               "44", "36", "110", "102", "--output", "b.nrrd", "--json"]  # fmt: skip
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    threading.Timer(60, process.kill).start()
    while process.poll() is None:
        if Path(f"/proc/{process.pid}/stat").exists() and _cpu_seconds(process.pid) > 2.0:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.05)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    report = json.loads(output)
    assert report["cancelled"] and "Cancelled: b.nrrd holds the slices that were done" in errors
    filled = read_labels(tmp_path / "b.nrrd").segments[0].mask.any(axis=(1, 2)).sum()
    assert filled == len(report["objects"][0]["slices"]) < 400


def _cpu_seconds(pid: int) -> float:
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def test_models_are_listed_with_licence_and_whether_they_are_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEGMENT_ANYTHING_MED_MODELS", str(tmp_path))
    assert cli.main(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["classic"]["ready"] and not rows["sam2.1-tiny"]["ready"] and rows["medsam2"]["research_only"]
    assert cli.main(["models", "list"]) == 0
    assert "research only" in capsys.readouterr().out


def test_models_info_tells_all_of_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "info", "sam2.1-tiny"]) == 0
    shown = capsys.readouterr().out
    assert "Apache-2.0" in shown and "https://" in shown and "Ravi" in shown
    assert cli.main(["models", "info", "nothing"]) == 3


def test_the_demo_segments_the_phantom_and_says_how_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--output", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dice"] > 0.85 and report["organ"] == "left kidney"
    assert all(Path(file).stat().st_size > 0 for file in report["files"])


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "segment" in capsys.readouterr().out

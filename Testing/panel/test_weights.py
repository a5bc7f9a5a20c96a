"""Getting, importing and removing weights from a panel: what is asked, what is shown, and what runs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from SegmentAnythingMedLib.errors import OutputError, SegmentAnythingMedError
from SegmentAnythingMedLib.models.card import converted_file
from SegmentAnythingMedLib.models.weights.task import Outcome, Task
from SegmentAnythingMedLib.panel.weights import Finished, Weights
from SegmentAnythingMedLib.panel.weights_content import Stage, WeightsContent
from SegmentAnythingMedLib.panel.weights_process import News, Step, Stopped, WeightsProcess
from Testing.models.weights_server import make_certificate, serving

ROOT = Path(__file__).resolve().parents[2]
OWN = {"name": "mine", "title": "Mine", "family": "sam2", "licence": "MIT", "file": "mine.safetensors", "size_mb": 1}


class Script:
    """A task that says what the test lets it say."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.news: list[News] = []
        self.is_cancelled = False

    def __call__(self, task: Task) -> Script:
        self.tasks.append(task)
        self.is_cancelled = False
        return self

    def poll(self) -> list[News]:
        news, self.news = self.news, []
        return news

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def weights(tmp_path: Path, script: Script, now: list[float]) -> Weights:
    return Weights(tmp_path, start=script, clock=lambda: now[0])


def put(folder: Path, name: str, size: int = 3_000_000) -> None:
    (folder / name).write_bytes(bytes(size))


def hear(weights: Weights, *news: News) -> WeightsContent:
    weights._running.news += news
    weights.poll()
    return weights.content


def test_the_licence_size_source_and_research_only_are_shown_before_anything_is_asked(
    weights: Weights, script: Script, tmp_path: Path
) -> None:
    weights.offer("medsam2")
    text = "\n".join(weights.content.lines)
    assert "CC-BY-SA-4.0" in text and "156 MB" in text and "https://huggingface.co/" in text and str(tmp_path) in text
    assert weights.content.warning.startswith("FOR RESEARCH ONLY") and weights.content.warning not in text
    assert (weights.content.yes, weights.content.no) == ("Accept and download", "Not now")
    assert script.tasks == []
    weights.say_no()
    assert weights.content == WeightsContent() and script.tasks == []
    weights.say_yes()
    assert script.tasks == [], "what is not shown cannot be accepted"


def test_a_download_shows_progress_and_the_time_left_and_finishes(
    weights: Weights, script: Script, now: list[float], tmp_path: Path
) -> None:
    weights.offer("medsam2")
    weights.say_yes()
    assert script.tasks == [Task("download", str(tmp_path), "medsam2", licence_accepted=True)]
    assert weights.content.lines == ("Asking huggingface.co for medsam2.",) and weights.content.is_running
    assert hear(weights, Step(20_000_000, 160_000_000)).progress == 0.125
    now[0] = 10.0
    content = hear(weights, Step(60_000_000, 160_000_000))
    assert content.lines == ("Downloading medsam2: 60 of 160 MB, 25 s left.",)
    assert hear(weights, Step(160_000_000, 160_000_000)).lines == ("medsam2 is here; its hash is checked.",)
    hear(weights, Outcome("medsam2"))
    assert weights.content == WeightsContent() and not weights.is_running
    assert weights.take_finished() == (Finished("download", "medsam2"),)
    assert not weights.poll()


def test_a_server_that_does_not_tell_the_size_gets_a_bar_without_end(weights: Weights) -> None:
    weights.offer("medsam2")
    weights.say_yes()
    content = hear(weights, Step(5_500_000, None))
    assert content.progress is None and content.lines == ("Downloading medsam2: 5.5 MB.",)


def test_a_cancelled_download_says_what_is_kept_and_goes_on(weights: Weights, script: Script, tmp_path: Path) -> None:
    weights.offer("medsam2")
    weights.say_yes()
    weights.say_no()
    assert script.is_cancelled and weights.content.stage is Stage.STOPPING and weights.is_running
    hear(weights, Step(1, 9))
    assert weights.content.stage is Stage.STOPPING, "a late step does not bring the bar back"
    put(tmp_path, "MedSAM2_latest.pt.part", 48_000_000)
    content = hear(weights, Stopped())
    assert content.lines[0].startswith("Stopped. 48 MB of medsam2 are kept") and content.yes == "Go on"
    weights.say_yes()
    assert [task.licence_accepted for task in script.tasks] == [True, True]
    hear(weights, Stopped())
    weights.say_no()
    weights.offer("medsam2")
    assert any("48 MB of an earlier download are here" in line for line in weights.content.lines)


def test_what_went_wrong_is_a_sentence_and_can_be_tried_again(weights: Weights, script: Script) -> None:
    weights.offer("medsam2")
    weights.say_yes()
    content = hear(weights, Stopped("huggingface.co does not answer: look at the network and try again."))
    assert content.is_error and content.lines[0].startswith("huggingface.co does not answer")
    assert (content.yes, content.no) == ("Try again", "Close")
    weights.say_yes()
    assert len(script.tasks) == 2 and not weights.content.is_error


def test_a_second_wish_waits_for_the_first(weights: Weights, script: Script, tmp_path: Path) -> None:
    weights.offer("medsam2")
    weights.say_yes()
    shown = weights.content
    weights.offer("edgetam")
    weights.import_file(tmp_path / "x.pt")
    with pytest.raises(SegmentAnythingMedError, match="Wait until the weights are here"):
        weights.use_folder(tmp_path / "other")
    assert weights.content == shown and len(script.tasks) == 1


def test_a_model_without_an_address_says_what_to_do(weights: Weights, script: Script, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(OWN))
    weights.refresh()
    weights.offer("mine")
    assert "ask whoever made it for mine.safetensors" in weights.content.lines[0]
    assert (weights.content.yes, weights.content.no) == ("", "Close")
    weights.offer("classic")  # needs none
    weights.offer("nobody")
    weights.say_yes()
    assert script.tasks == []


def test_removing_asks_first_and_only_what_lies_in_the_folder(weights: Weights, script: Script, tmp_path: Path) -> None:
    weights.offer_removal("medsam2")
    assert weights.content == WeightsContent() and not weights.can_remove("medsam2") and not weights.can_remove("x")
    put(tmp_path, "MedSAM2_latest.pt")
    put(converted_file(tmp_path / "MedSAM2_latest.pt").parent, "MedSAM2_latest.pt.safetensors")
    weights.offer_removal("medsam2")
    assert "(6.0 MB)" in weights.content.lines[0] and "downloaded again" in weights.content.lines[0]
    assert weights.content.no == "Keep" and script.tasks == []
    weights.say_yes()
    assert script.tasks == [Task("remove", str(tmp_path), "medsam2")]
    hear(weights, Outcome("medsam2"))
    assert weights.take_finished() == (Finished("remove", "medsam2"),)


def test_an_imported_file_says_what_it_was_taken_for_and_can_be_used(
    weights: Weights, script: Script, tmp_path: Path
) -> None:
    weights.import_file("/stick/mine.pt")
    assert script.tasks == [Task("import", str(tmp_path), file="/stick/mine.pt")]
    own = {**OWN, "input_size": 512, "preprocessing": "imagenet-stretch", "research_only": True}
    (tmp_path / "mine.noted.json").write_text(json.dumps(own))
    content = hear(weights, Outcome("mine", "SAM 2.1 tiny", assumed=True))
    text = "\n".join(content.lines)
    assert "mine.pt is SAM 2.1 tiny" in text and "Licence: MIT" in text and "input 512 pixels" in text
    assert content.warning == "For research only." and content.yes == "Use it"
    assert weights.take_finished() == (Finished("import", "mine"),)
    weights.say_yes()
    assert weights.take_finished() == (Finished("use", "mine"),) and weights.content == WeightsContent()


def test_an_import_that_is_cancelled_or_refused_leaves_nothing_behind(weights: Weights, script: Script) -> None:
    weights.import_file("/stick/mine.pt")
    weights.say_no()
    assert hear(weights, Stopped()) == WeightsContent()
    weights.import_file("/stick/mine.pt")
    content = hear(weights, Stopped("mine.pt is a web page, not weights."))
    assert content.is_error and content.yes == ""


def test_only_what_to_ask_for_is_said_to_those_who_may_not_change_anything(tmp_path: Path, script: Script) -> None:
    weights = Weights(tmp_path, may_change=False, start=script)
    put(tmp_path, "MedSAM2_latest.pt")
    weights.offer("edgetam")
    assert "models download edgetam" in weights.content.lines[0] and weights.content.yes == ""
    weights.say_yes()
    weights.offer_removal("medsam2")
    weights.import_file("/etc/passwd")
    weights.convert("medsam2")
    assert script.tasks == []


def test_another_folder_is_looked_into_at_once_and_nothing_is_moved(weights: Weights, tmp_path: Path) -> None:
    put(tmp_path, "MedSAM2_latest.pt")
    new = tmp_path / "share" / "models"
    weights.use_folder(new)
    assert new.is_dir() and weights.folder == new and not weights.can_remove("medsam2")
    assert (tmp_path / "MedSAM2_latest.pt").is_file()
    put(tmp_path, "a file")
    with pytest.raises(OutputError, match="cannot be made"):
        weights.use_folder(tmp_path / "a file" / "models")
    assert weights.folder == new


def test_an_original_is_converted_behind_the_scenes_and_gives_way(
    weights: Weights, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    weights.convert("medsam2")
    assert script.tasks == [], "it is not here"
    put(tmp_path, "MedSAM2_latest.pt")
    weights.convert("medsam2")
    assert script.tasks == [], "without torch nothing changes"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    weights.convert("medsam2")
    weights.convert("medsam2")
    assert [task.kind for task in script.tasks] == ["convert"] and weights.content == WeightsContent()
    weights.offer_removal("medsam2")
    weights.say_yes()
    assert [task.kind for task in script.tasks] == ["convert", "remove"]


# -- with the real process ---------------------------------------------------------------------------------------------


def until(weights: Weights, condition: Callable[[WeightsContent], bool]) -> WeightsContent:
    end = time.monotonic() + 30
    while not condition(weights.content):
        assert time.monotonic() < end, weights.content
        started = time.monotonic()
        weights.poll()
        assert time.monotonic() - started < 5, "polling waits for nothing"
        time.sleep(0.01)
    return weights.content


def a_safetensors_file(size: int = 1_000_000) -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.mark.skipif(sys.platform == "win32", reason="the certificate is trusted by an environment variable of OpenSSL")
def test_a_real_download_is_cancelled_goes_on_and_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "models"
    folder.mkdir()
    with serving(make_certificate(tmp_path)) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        server.content = a_safetensors_file()
        server.break_after, server.hangs = 300_000, True
        card = OWN | {"url": f"{server.url}/x", "sha256": hashlib.sha256(server.content).hexdigest()}
        (folder / "mine.json").write_text(json.dumps(card))
        weights = Weights(folder)
        weights.offer("mine")
        assert server.asked == []
        weights.say_yes()
        part = folder / "mine.safetensors.part"
        until(weights, lambda content: content.progress is not None and part.stat().st_size == 300_000)
        weights.say_no()
        content = until(weights, lambda content: content.stage is Stage.STOPPED)
        assert part.stat().st_size == 300_000 and "0.3 MB of mine are kept" in content.lines[0]
        server.break_after, server.hangs = None, False
        weights.say_yes()
        until(weights, lambda content: content.stage is Stage.IDLE)
        assert server.asked[-1]["Range"] == "bytes=300000-"
    assert (folder / "mine.safetensors").read_bytes() == server.content
    assert weights.take_finished() == (Finished("download", "mine"),)
    weights.offer_removal("mine")
    weights.say_yes()
    until(weights, lambda content: content.stage is Stage.IDLE)
    assert [path.name for path in folder.iterdir()] == ["mine.json"]


def test_a_real_import_of_a_wrong_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    source = tmp_path / "page.pt"
    source.write_text("<html>sign in</html>")
    weights = Weights(tmp_path / "models")
    weights.import_file(source)
    content = until(weights, lambda content: not content.is_running)
    assert content.is_error and "is a web page" in content.lines[0]


def test_a_python_that_cannot_be_started_or_dies_is_a_sentence(tmp_path: Path) -> None:
    task = Task("remove", str(tmp_path), "medsam2")
    for python, words in ((str(tmp_path / "nowhere"), "cannot be started"), ("/bin/false", "ended without a word")):
        if not Path(python).exists() and words.startswith("ended"):
            continue
        weights = Weights(tmp_path, start=lambda _, python=python: WeightsProcess(task, python))
        weights.import_file("x")
        content = until(weights, lambda content: not content.is_running)
        assert content.is_error and words in content.lines[0]


def test_the_panel_imports_neither_torch_nor_numbers_of_networks() -> None:
    script = "import sys; import SegmentAnythingMedLib.panel.weights; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="looks at processes as Linux has them")
def test_a_task_ends_with_its_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "SegmentAnythingMedLib.models.weights.task"]
    pipe = subprocess.PIPE
    with serving(make_certificate(tmp_path)) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        server.content = a_safetensors_file()
        server.break_after, server.hangs = 1000, True
        (tmp_path / "mine.json").write_text(json.dumps(OWN | {"url": f"{server.url}/x"}))
        task = {"kind": "download", "folder": str(tmp_path), "name": "mine", "licence_accepted": True}
        with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["done"] == 0
            process.stdin.close()
            assert json.loads(process.stdout.read().splitlines()[-1]) == {"cancelled": True}
            assert process.wait(10) == 0

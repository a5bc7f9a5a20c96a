from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from SegmentAnythingMedLib import cli
from SegmentAnythingMedLib.errors import ModelFileError, OutputError
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.models.weights.importing import import_weights, remove_weights
from SegmentAnythingMedLib.models.weights.structure import sha256_of
from Testing.models.weights_files import folder, save_pt, shapes_of
from Testing.models.weights_server import make_certificate, serving

__all__ = ["folder"]
ROOT = Path(__file__).resolve().parents[2]


def test_a_read_only_folder_lists_and_loads_but_import_and_remove_say_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import_weights(save_pt(tmp_path / "MedSAM2_latest.pt", shapes_of("tiny")), ModelRegistry())
    source = save_pt(tmp_path / "b.pt", shapes_of("tiny"), 1.0)

    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", fail)
    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(OutputError, match="Read-only file system.*another folder"):
        import_weights(source, ModelRegistry())
    with pytest.raises(OutputError, match="Read-only file system.*SEGMENT_ANYTHING_MED_MODELS"):
        remove_weights("medsam2", ModelRegistry())
    assert cli.main(["models", "list"]) == 0 and str(folder / "MedSAM2_latest.pt") in capsys.readouterr().out
    assert ModelRegistry().load("medsam2", device="cpu").card.name == "medsam2"


def test_only_download_touches_the_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []

    def refuse(*_: object, **__: object) -> None:
        opened.append("socket")
        raise OSError("no network in this test")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    source = save_pt(tmp_path / "MedSAM2_latest.pt", shapes_of("tiny"))
    for words in (["list"], ["info", "medsam2"], ["import", str(source)], ["list", "--json"]):
        assert cli.main(["models", *words]) == 0
    ModelRegistry().load("medsam2", device="cpu")
    assert cli.main(["models", "remove", "medsam2"]) == 0
    assert not opened
    assert cli.main(["models", "download", "medsam2", "--accept-licence"]) == 3
    assert opened and "connection to huggingface.co failed" in capsys.readouterr().err


def test_the_command_line_imports_lists_and_removes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_pt(tmp_path / "mine.pt", shapes_of("tiny"))
    assert cli.main(["models", "import", str(source), "--name", "ours"]) == 0
    said = capsys.readouterr().out
    assert "SAM 2.1 tiny" in said and "'ours'" in said and "for research only" in said and "No card fits" in said
    assert cli.main(["models", "list", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == "ours")
    assert row["ready"] and row["path"] == str(folder / "ours.pt") and row["research_only"] and row["size_mb"] > 0
    assert cli.main(["models", "info", "ours"]) == 0
    said = capsys.readouterr().out
    assert "research only   yes" in said and str(folder / "ours.pt") in said and sha256_of(source) in said
    assert cli.main(["models", "remove", "ours"]) == 0
    assert cli.main(["models", "info", "ours"]) == 3


@pytest.mark.parametrize("answer", ["n\n", "", "y\n"])
def test_the_licence_is_shown_and_asked_for_on_a_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    assert cli.main(["models", "download", "medsam2"]) == 3
    said = capsys.readouterr()
    assert "CC-BY-SA-4.0" in said.out and "FOR RESEARCH ONLY" in said.out and "[y/n]" in said.out
    assert ("was not accepted" in said.err) == (answer != "y\n")


def test_without_a_terminal_the_licence_must_be_accepted_by_option(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert cli.main(["models", "download", "medsam2"]) == 3
    said = capsys.readouterr()
    assert "CC-BY-SA-4.0" in said.out and "add --accept-licence" in said.err and not list(folder.iterdir())


def test_control_c_says_that_the_part_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("SegmentAnythingMedLib.models.weights.download.open_url", interrupt)
    assert cli.main(["models", "download", "medsam2", "--accept-licence"]) == 4
    assert "what came is kept" in capsys.readouterr().err


def test_a_model_without_weights_or_without_address_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "download", "classic", "--accept-licence"]) == 3
    assert "needs no weights" in capsys.readouterr().err
    own = {"name": "mine", "title": "Mine", "family": "sam2", "licence": "MIT", "file": "mine.pt"}
    (folder / "mine.json").write_text(json.dumps(own))
    assert cli.main(["models", "download", "mine", "--accept-licence"]) == 3
    assert "has no address" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal for a child")
def test_a_download_stopped_with_control_c_goes_on_and_the_model_loads_while_its_hash_holds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(make_certificate(tmp_path)) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        server.content = save_pt(tmp_path / "x.pt", shapes_of("tiny")).read_bytes()
        server.break_after, server.hangs = 100_000, True
        card = {"name": "mine", "title": "Mine", "family": "sam2", "licence": "MIT", "file": "mine.pt"}
        card |= {"url": f"{server.url}/x", "input_size": 256, "preprocessing": "imagenet", "size_mb": 1}
        (folder / "mine.json").write_text(json.dumps(card))
        command = [sys.executable, "-m", "SegmentAnythingMedLib", "models", "download", "mine", "--accept-licence"]
        # Where the tests run in the background, a shell has Ctrl-C ignored, and a child would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
            signal.signal(signal.SIGINT, before)
            part, until = folder / "mine.pt.part", time.monotonic() + 30
            while (not part.exists() or part.stat().st_size < 100_000) and time.monotonic() < until:
                time.sleep(0.02)
            run.send_signal(signal.SIGINT)
            said = run.communicate(timeout=60)[1]
        assert run.returncode == 4 and "goes on from there" in said, said
        assert part.stat().st_size == 100_000 and not (folder / "mine.pt").exists()
        server.break_after, server.hangs = None, False
        assert cli.main(["models", "download", "mine", "--accept-licence"]) == 0
        assert server.asked[-1]["Range"] == "bytes=100000-" and "was noted" in capsys.readouterr().out
        asked = len(server.asked)
        assert cli.main(["models", "download", "mine"]) == 0 and len(server.asked) == asked
    assert "is here already" in capsys.readouterr().out
    assert ModelRegistry().load("mine", device="cpu").card.sha256 == sha256_of(tmp_path / "x.pt")
    save_pt(folder / "mine.pt", shapes_of("tiny"), value=1.0)
    with pytest.raises(ModelFileError, match="has sha256"):
        ModelRegistry().load("mine", device="cpu")

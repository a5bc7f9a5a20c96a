from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from SegmentAnythingMedLib.errors import ModelFileError, ModelUnavailableError, OutputError
from SegmentAnythingMedLib.models.card import ModelCard
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.models.weights.download import Download, DownloadProgress
from Testing.models.weights_server import Behaviour, make_certificate, serving

ROOT = Path(__file__).resolve().parents[2]


def _weights(seed: int = 0, size: int = 1_000_000) -> bytes:
    """A small safetensors file."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes([seed]) * size


WEIGHTS = _weights()


@pytest.fixture
def server() -> Iterator[Behaviour]:
    with serving() as behaviour:
        behaviour.content = WEIGHTS
        yield behaviour


@pytest.fixture
def card(server: Behaviour) -> ModelCard:
    return ModelCard(
        "mine", "Mine", "sam2", "MIT", file="mine.safetensors", url=f"{server.url}/start", size_mb=1.0,
        sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    )  # fmt: skip


def download(card: ModelCard, folder: Path, **options: object) -> Download:
    return Download(card, folder, True, plain_http_on_loopback=True, **options)  # type: ignore[arg-type]


def test_a_file_is_fetched_checked_and_in_place_with_progress_to_its_end(card: ModelCard, tmp_path: Path) -> None:
    seen: list[DownloadProgress] = []
    path = download(card, tmp_path / "new").run(seen.append)
    assert path is not None and path.read_bytes() == WEIGHTS
    done = [one.done for one in seen]
    assert len(done) > 2 and done == sorted(done) and done[0] == 0 and seen[-1].fraction == 1.0
    assert [one.name for one in path.parent.iterdir()] == ["mine.safetensors"]


def test_without_the_licence_nothing_is_asked(card: ModelCard, server: Behaviour, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="licence of 'mine' was not accepted"):
        Download(card, tmp_path, False, plain_http_on_loopback=True)
    assert not server.asked and not list(tmp_path.iterdir())


def test_a_broken_download_goes_on_where_it_broke(card: ModelCard, server: Behaviour, tmp_path: Path) -> None:
    server.break_after = 300_000
    with pytest.raises(ModelUnavailableError, match="broke off.*try again"):
        download(card, tmp_path).run()
    assert not (tmp_path / card.file).exists() and download(card, tmp_path).part.stat().st_size == 300_000
    server.break_after = None
    seen: list[DownloadProgress] = []
    path = download(card, tmp_path).run(seen.append)
    assert path is not None and path.read_bytes() == WEIGHTS and seen[0].done == 300_000
    assert server.asked[-1]["Range"] == "bytes=300000-" and server.asked[-1]["If-Range"] == '"one"'


def test_a_part_of_a_file_that_changed_since_is_not_continued(
    card: ModelCard, server: Behaviour, tmp_path: Path
) -> None:
    server.break_after = 300_000
    with pytest.raises(ModelUnavailableError):
        download(card, tmp_path).run()
    server.content, server.etag, server.break_after = _weights(7), '"two"', None
    path = download(replace(card, sha256=""), tmp_path).run()
    assert path is not None and path.read_bytes() == _weights(7)


def test_a_part_of_unknown_version_is_continued_only_if_the_hash_will_tell(
    card: ModelCard, server: Behaviour, tmp_path: Path
) -> None:
    (tmp_path / "mine.safetensors.part").write_bytes(WEIGHTS[:1000])
    download(replace(card, sha256=""), tmp_path).run()
    assert "Range" not in server.asked[-1]
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    (tmp_path / "mine.safetensors.part").write_bytes(WEIGHTS[:1000])
    download(card, tmp_path).run()
    assert server.asked[-1]["Range"] == "bytes=1000-" and (tmp_path / card.file).read_bytes() == WEIGHTS


def test_a_server_without_ranges_sends_all_again(card: ModelCard, server: Behaviour, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors.part").write_bytes(b"x" * 1000)
    server.knows_ranges = False
    path = download(card, tmp_path).run()
    assert path is not None and path.read_bytes() == WEIGHTS


def test_a_part_that_is_complete_is_only_checked(card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors.part").write_bytes(WEIGHTS)
    assert [one.done for one in download(card, tmp_path).steps()] == [len(WEIGHTS)]
    assert (tmp_path / card.file).read_bytes() == WEIGHTS


def test_a_cancel_from_another_thread_keeps_the_part(card: ModelCard, tmp_path: Path) -> None:
    running = download(card, tmp_path)
    arrived, may_go_on = threading.Event(), threading.Event()
    result: list[Path | None] = []

    def pause(progress: DownloadProgress) -> None:
        if progress.done:
            arrived.set()
            may_go_on.wait(5)

    thread = threading.Thread(target=lambda: result.append(running.run(pause)))
    thread.start()
    assert arrived.wait(5)
    running.cancel()
    may_go_on.set()
    thread.join(5)
    assert result == [None] and 0 < running.part.stat().st_size < len(WEIGHTS)
    assert download(card, tmp_path).run() is not None


def test_a_cancel_that_comes_too_late_still_gives_the_file(card: ModelCard, tmp_path: Path) -> None:
    running = download(card, tmp_path)
    assert running.run() == running.target
    running.cancel()
    again = download(card, tmp_path / "b")
    assert again.run(lambda progress: again.cancel() if progress.fraction == 1.0 else None) is None
    assert again.part.stat().st_size == len(WEIGHTS) and download(card, tmp_path / "b").run() is not None


def test_a_generator_that_is_closed_keeps_the_part(card: ModelCard, tmp_path: Path) -> None:
    running = download(card, tmp_path)
    steps = running.steps()
    assert next(steps).done == 0 and next(steps).done > 0
    steps.close()
    assert running.part.stat().st_size > 0 and not running.target.exists()


def test_a_wrong_hash_is_deleted_and_never_in_place(card: ModelCard, server: Behaviour, tmp_path: Path) -> None:
    server.content = _weights(9)
    with pytest.raises(ModelFileError, match=f"sha256 {hashlib.sha256(_weights(9)).hexdigest()}.*deleted"):
        download(card, tmp_path).run()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_file_larger_than_its_card_allows_is_refused(
    card: ModelCard, server: Behaviour, tmp_path: Path, tells_length: bool
) -> None:
    server.content, server.tells_length = _weights(size=1_200_000), tells_length
    with pytest.raises(ModelFileError, match="larger than the 1 MB its card allows"):
        download(card, tmp_path).run()
    assert not list(tmp_path.iterdir())


def test_a_web_page_in_place_of_weights_is_refused(card: ModelCard, server: Behaviour, tmp_path: Path) -> None:
    server.content = b"<!DOCTYPE html><html>Sign in</html>"
    with pytest.raises(ModelFileError, match="is a web page"):
        download(replace(card, sha256=""), tmp_path).run()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "sentence"), [(401, "sign in"), (403, "sign in"), (404, "no longer has"), (503, "status 503.*later")]
)
def test_a_refusal_of_the_server_says_what_to_do(
    card: ModelCard, server: Behaviour, tmp_path: Path, status: int, sentence: str
) -> None:
    server.status = status
    with pytest.raises(ModelUnavailableError, match=sentence):
        download(card, tmp_path).run()


def test_a_redirect_is_followed_with_the_range(card: ModelCard, server: Behaviour, tmp_path: Path) -> None:
    server.redirect = f"{server.url}/elsewhere"
    (tmp_path / "mine.safetensors.part").write_bytes(WEIGHTS[:1000])
    assert download(card, tmp_path).run() is not None
    assert server.asked[-1]["path"] == "/elsewhere" and server.asked[-1]["Range"] == "bytes=1000-"


@pytest.mark.parametrize("place", ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x"])
def test_a_redirect_away_from_https_is_refused(card: ModelCard, server: Behaviour, tmp_path: Path, place: str) -> None:
    server.redirect = place
    with pytest.raises(ModelUnavailableError, match="safe.*only https"):
        download(card, tmp_path).run()


def test_http_is_refused_unless_a_test_allows_it(card: ModelCard, server: Behaviour, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="only https"):
        Download(card, tmp_path, True).run()
    assert not server.asked
    with pytest.raises(ModelUnavailableError, match="only https"):
        download(replace(card, url="http://example.org/x"), tmp_path).run()


def test_a_silent_server_is_given_up(card: ModelCard, server: Behaviour, tmp_path: Path) -> None:
    server.silent = True
    with pytest.raises(ModelUnavailableError, match="does not answer"):
        download(card, tmp_path, timeout_s=0.2).run()


def test_a_server_that_is_not_there_is_a_sentence(card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"connection to 127\.0\.0\.1 failed.*try again"):
        download(replace(card, url="http://127.0.0.1:9/x"), tmp_path).run()


def test_https_works_with_a_trusted_certificate_and_not_without_and_the_hash_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(make_certificate(tmp_path)) as server:
        server.content = WEIGHTS
        card = ModelCard("mine", "Mine", "sam2", "MIT", file="mine.safetensors", url=f"{server.url}/x", size_mb=1.0)
        with pytest.raises(ModelUnavailableError, match="no certificate this machine trusts"):
            Download(card, tmp_path / "a", True).run()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        path = Download(card, tmp_path / "b", True).run()
        assert path is not None and path.read_bytes() == WEIGHTS
        noted = ModelRegistry([tmp_path / "b"], tmp_path / "b").card("mine")
        assert noted == replace(card, sha256=hashlib.sha256(WEIGHTS).hexdigest())
        server.redirect, card = "http://127.0.0.1/x", replace(card, url=f"{server.url}/start")
        with pytest.raises(ModelUnavailableError, match="only https"):
            Download(card, tmp_path / "c", True).run()


def test_a_full_disk_is_a_sentence_before_anything_is_written(
    card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000})())
    with pytest.raises(OutputError, match="0 MB free, 'mine' needs 1 MB more"):
        download(card, tmp_path).run()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_a_sentence(
    card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OutputError, match=f"{os.strerror(number)}.*SEGMENT_ANYTHING_MED_MODELS"):
        download(card, tmp_path).run()


def test_a_folder_that_is_a_file_is_a_sentence(card: ModelCard, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        download(card, tmp_path / "models").run()


def test_a_second_download_of_the_same_file_is_noticed(card: ModelCard, tmp_path: Path) -> None:
    first, second = download(card, tmp_path), download(card, tmp_path)
    steps = first.steps()
    next(steps), next(steps)
    second_steps = second.steps()
    with pytest.raises(OutputError, match="Another download writes"):
        for _ in range(20):
            next(second_steps)
            next(steps)
    steps.close()
    second_steps.close()
    assert not first.target.exists()


def test_of_two_processes_that_fetch_the_same_file_one_goes_on_undisturbed(card: ModelCard, tmp_path: Path) -> None:
    """Without a hash to tell, bytes of both in one file would be weights nobody made."""
    card = replace(card, sha256="")
    steps = download(card, tmp_path).steps()
    next(steps), next(steps)
    script = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from SegmentAnythingMedLib.errors import OutputError\n"
        "from SegmentAnythingMedLib.models.card import ModelCard\n"
        "from SegmentAnythingMedLib.models.weights.download import Download\n"
        "card = ModelCard('mine', 'Mine', 'sam2', 'MIT', file='mine.safetensors', url=sys.argv[1], size_mb=1.0)\n"
        "try: Download(card, Path(sys.argv[2]), True, plain_http_on_loopback=True).run()\n"
        "except OutputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, card.url, str(tmp_path)]
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Another download writes" in other.stdout
    for _ in steps:
        pass
    assert (tmp_path / "mine.safetensors").read_bytes() == WEIGHTS


def test_what_two_wrote_where_nothing_can_be_locked_is_not_continued(
    card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("SegmentAnythingMedLib.models.weights.partial._is_locked_by_us", lambda _: True)
    card = replace(card, sha256="")
    first = download(card, tmp_path)
    with pytest.raises(OutputError, match="Another download writes"):
        for number, _ in enumerate(first.steps()):
            if number == 1:
                with first.part.open("ab") as stream:
                    stream.write(b"of another")
    assert download(card, tmp_path).run().read_bytes() == WEIGHTS


def test_an_address_that_is_none_is_a_sentence(card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="is no address"):
        download(replace(card, url="https://[1"), tmp_path).run()


def test_the_downloader_needs_the_standard_library_only() -> None:
    script = (
        "import sys; before = set(sys.modules)\n"
        "import SegmentAnythingMedLib.models.weights.download\n"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(tops - set(sys.stdlib_module_names) - {'SegmentAnythingMedLib'}))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

"""Weights in the browser: licence first, progress, cancel, import by upload, remove; nothing for users elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser.app_page import AppPage, Server, wait_until

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.models.registry import default_model
from SegmentAnythingMedLib.web.session_app import SessionConfig
from Testing.models.weights_server import Behaviour, make_certificate
from Testing.models.weights_server import serving as serving_weights

SIZE = 1_000_000
CARD = {"name": "mine", "title": "Mine", "family": "classic", "licence": "MIT", "file": "mine.safetensors"}
CARD |= {"size_mb": 1, "research_only": True, "citation": "Nobody 2025"}


def a_safetensors_file(size: int = SIZE) -> bytes:
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def source(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behaviour]:
    """A server of weights that stops in the middle and waits; its certificate is trusted by the app."""
    folder = tmp_path_factory.mktemp("certificate")
    with pytest.MonkeyPatch.context() as patch, serving_weights(make_certificate(folder)) as behaviour:
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        patch.setenv("SSL_CERT_FILE", str(folder / "cert.pem"))
        patch.setenv("SEGMENT_ANYTHING_MED_MODELS", str(models))
        behaviour.content = a_safetensors_file()
        behaviour.break_after, behaviour.hangs = 400_000, True
        (models / "mine.json").write_text(json.dumps(CARD | {"url": f"{behaviour.url}/x"}))
        yield behaviour


@pytest.fixture(scope="module")
def weights_server(source: Behaviour, serving: Callable[..., Server]) -> Server:
    return serving("--sessions", 2)


@pytest.fixture(scope="module")
def app(weights_server: Server, new_page: Callable[..., AppPage]) -> AppPage:
    page = new_page(weights_server.url)
    page.until("get('weights') && get('models').length")
    return page


def words(page: AppPage) -> str:
    return page.tab.locator("[data-text=weights]").inner_text()


def test_weights_are_offered_fetched_cancelled_gone_on_with_used_and_removed(
    app: AppPage, models: Path, source: Behaviour
) -> None:
    box = app.tab.locator("[data-field=model]")
    box.select_option("mine")
    app.until("get('weights').yes === 'Accept and download'")
    assert "Licence: MIT" in words(app) and "FOR RESEARCH ONLY" in words(app) and "Nobody 2025" in words(app)
    assert box.input_value() == default_model() and source.asked == []
    app.press("weights-no")
    app.until("get('weights').lines.length === 0")
    box.select_option("mine")
    app.press("weights-yes")
    part = models / "mine.safetensors.part"
    wait_until(lambda: part.is_file() and part.stat().st_size == 400_000)
    app.until("get('weights').running")
    app.press("weights-no")
    app.until("get('weights').yes === 'Go on'")
    assert "0.4 MB of mine are kept" in words(app)
    source.break_after, source.hangs = None, False
    app.press("weights-yes")
    app.until("panel.model === 'mine' && get('weights').lines.length === 0")
    assert source.asked[-1]["Range"] == "bytes=400000-"
    assert (models / "mine.safetensors").read_bytes() == source.content
    app.tab.locator("details.fine summary").click()
    app.tab.locator("[data-remove=mine]").click()
    app.until("get('weights').yes === 'Delete'")
    app.press("weights-yes")
    app.until("panel.model !== 'mine' && !get('models').find((one) => one.name === 'mine').ready")
    assert not (models / "mine.safetensors").exists() and app.errors == []


def test_a_file_from_the_users_disk_is_imported_or_refused(
    app: AppPage, models: Path, weights_server: Server, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from Testing.models.weights_files import save_safetensors, shapes_of

    upload = app.tab.locator("[data-upload=weights]")
    page = tmp_path / "page.pt"
    page.write_text("<html>sign in</html>")
    upload.set_input_files(str(page))
    app.until("get('weights').isError")
    assert "page.pt is a web page" in words(app)
    app.press("weights-no")
    (tmp_path / "notes.txt").write_text("x")
    upload.set_input_files(str(tmp_path / "notes.txt"))
    app.until("panel.status.includes('notes.txt is no weights file')")
    upload.set_input_files(str(save_safetensors(tmp_path / "liver.safetensors", shapes_of("edgetam"))))
    app.until("get('weights').yes === 'Use it'")
    assert "liver.safetensors is EdgeTAM" in words(app) and (models / "liver.safetensors").is_file()
    wait_until(lambda: not list(weights_server.folder.rglob("upload-*")))
    app.press("weights-no")
    assert app.errors == []


def test_users_of_another_machine_are_told_whom_to_ask(tmp_path: Path) -> None:
    pytest.importorskip("trame_slicer")
    from SegmentAnythingMedLib.panel.weights import Weights
    from SegmentAnythingMedLib.web.weights_panel import WeightsPanel, check_weights_name

    told: list[str] = []
    controller = SimpleNamespace(link=SimpleNamespace(model="classic"), tell=told.append, set_model=told.append)
    panel = WeightsPanel(Weights(tmp_path, may_change=False), controller)
    panel.choose("medsam2")
    panel.say_yes()
    assert "Ask whoever runs it" in panel.values["lines"][0] and panel.values["yes"] == ""
    assert str(tmp_path) not in json.dumps(panel.values) and not any(row["removable"] for row in panel.models)
    with pytest.raises(VolumeError, match="imported by whoever runs this server"):
        panel.check_may_import()
    panel.choose("classic")
    assert told == ["classic"]
    for name in ("a.pt", "B.SAFETENSORS"):
        check_weights_name(name)
    with pytest.raises(VolumeError, match="a.exe is no weights file"):
        check_weights_name("a.exe")


def test_a_session_may_change_weights_only_if_the_gate_says_so() -> None:
    line = json.dumps({"secret": "s", "folder": "f", "files": ["a"], "max_upload_mb": 4})
    assert SessionConfig.parse(line) == SessionConfig("s", "f", ("a",), 4, may_change_weights=False)


def test_only_a_server_of_its_own_machine_lets_its_users_change_weights() -> None:
    maker = pytest.importorskip("SegmentAnythingMedLib.web.serving").session_maker
    from SegmentAnythingMedLib.web.security import Exposure

    remote = Exposure("0.0.0.0", certificate="c", key="k", token="t" * 20)
    assert [maker(one)((), 1).config_of("f").may_change_weights for one in (Exposure(), remote)] == [True, False]


def test_uploads_leave_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("trame_slicer")
    from SegmentAnythingMedLib.panel.weights import Weights
    from SegmentAnythingMedLib.panel.weights_process import Stopped
    from SegmentAnythingMedLib.web.weights_panel import WeightsPanel

    news: list[object] = []
    task = SimpleNamespace(poll=lambda: [news.pop()] if news else [], cancel=lambda: None)
    panel = WeightsPanel(Weights(tmp_path / "models", start=lambda _: task), SimpleNamespace())
    folder = tmp_path / "upload-1"
    folder.mkdir()
    (folder / "a.pt").write_bytes(b"x")
    panel.import_upload(folder / "a.pt")
    panel.look()
    assert folder.is_dir()
    news.append(Stopped("a.pt is empty: get the file again."))
    panel.look()
    assert not folder.exists() and panel.values["isError"]
    shutil.rmtree(tmp_path / "models", ignore_errors=True)

"""Sessions: apart from each other, alive when their worker dies, ended when nobody uses them, and never on the net."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from browser.app_page import AppPage, Server, is_running, remote_addresses, wait_until
from browser.test_workflow import draw_box

_LOOPBACK = {"00000000", "0100007F", "0" * 32, "0" * 24 + "01000000", "0000000000000000FFFF00000100007F"}


def test_two_sessions_do_not_see_each_other(
    page: AppPage, new_page: Callable[..., AppPage], server: Server, tmp_path: Path
) -> None:
    other = new_page(server.url)
    other.until("panel.volume")
    assert urlsplit(other.tab.url).path != urlsplit(page.tab.url).path
    draw_box(page)
    other.upload(_text(tmp_path / "notes.nrrd", "no volume"))
    other.until("panel.status.includes('notes.nrrd')")
    assert other.panel["segments"] == [] and other.panel["quality"] is None
    assert not any("notes" in message for message in page.panel["messages"])
    pids = server.descendants("web.session_app")
    assert len(pids) == 2
    workers = server.descendants("worker.process")
    assert len(workers) == 1, "only the session with a prompt needs a worker"
    other.close()


def test_a_killed_worker_is_started_again_and_the_user_is_told(page: AppPage, server: Server) -> None:
    draw_box(page)
    (worker,) = server.descendants("worker.process")
    os.kill(worker, signal.SIGKILL)
    page.until("panel.messages.some((one) => one.includes('The worker was started again'))")
    page.press("propagate-both")
    page.until("panel.state === 'reviewing' && strip.count > 15")
    assert server.descendants("worker.process") != [worker]


def test_nothing_is_asked_of_another_host(session: AppPage, server: Server) -> None:
    hosts = {urlsplit(url).netloc for url in session.requests if urlsplit(url).scheme in ("http", "https", "ws", "wss")}
    assert hosts == {f"127.0.0.1:{server.port}"}
    processes = [server.process.pid, *server.descendants()]
    assert len(processes) >= 2
    for pid in processes:
        assert remote_addresses(pid) <= _LOOPBACK


def test_uploads_that_are_wrong_get_a_sentence(page: AppPage, server: Server, tmp_path: Path) -> None:
    outside = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/passwd\n\n"
    for name, content, words in (
        ("broken.nii", "not a volume", "broken.nii"),
        ("outside.nrrd", outside, "voxels in another file"),
        ("program.exe", "MZ", "cannot be opened here"),
        ("large.nrrd", "x" * (5 << 20), "4 MB"),
        ("scene.mrb", "PK no zip", "no Slicer scene bundle"),
        ("prompts.json", "[]", "prompts.json"),
    ):
        page.upload(_text(tmp_path / name, content))
        page.until(f"!panel.busy && panel.status.includes('{words}')")
    panel = page.panel
    assert panel["volumes"] and panel["state"] != "failed"
    assert not any(str(server.folder) in message for message in panel["messages"]), "paths of the server are not told"


def test_files_of_a_session_are_private(page: AppPage, server: Server, volume_file: Path) -> None:
    count = len(page.panel["volumes"])
    page.upload(volume_file)
    page.until(f"!panel.busy && panel.volumes.length === {count + 1}")
    (folder, *_) = [path for path in server.folder.rglob("upload-*") if any(path.iterdir())]
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o177 == 0 for path in folder.iterdir())


def test_an_unused_session_ends_with_its_worker_and_files(
    new_page: Callable[..., AppPage], serving: Callable[..., Server], volume_file: Path
) -> None:
    server = serving(volume_file, "--idle-minutes", 0.1)
    page = new_page(server.url)
    page.until("panel.volume")
    draw_box(page)
    processes = server.descendants()
    assert server.descendants("worker.process")
    page.tab.wait_for_selector(".ended")
    wait_until(lambda: not any(map(is_running, processes)))
    wait_until(lambda: not list(server.folder.glob("segment-anything-med-*")))
    assert page.tab.request.get(page.tab.url).status == 404
    page.close()
    assert server.stop() == 0


def _text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path

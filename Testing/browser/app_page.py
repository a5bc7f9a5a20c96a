"""The app as a user has it: a server, a page, clicks in views, and what the panel says."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DEADLINE_MS = 60_000


class Server:
    """A running ``segment-anything-med web``.

    Parameters
    ----------
    process
        Just started.
    folder
        Of its temporary files.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.url = process.stdout.readline().strip().rpartition(" ")[2]

    @property
    def port(self) -> int:
        return int(self.url.partition("//")[2].partition("/")[0].rpartition(":")[2])

    @property
    def token(self) -> str:
        return self.url.partition("token=")[2]

    @property
    def errors(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "errors.txt").read_text()

    def stop(self) -> int:
        """Ctrl-C; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        finally:
            self.process.stdout.close()

    def descendants(self, containing: str = "") -> list[int]:
        """Numbers of the processes below it whose command line has some words."""
        return [pid for pid in _below(self.process.pid) if containing in _command(pid)]


class AppPage:
    """A browser with the app open in it.

    Parameters
    ----------
    context
        Of playwright; its cookies are its own.
    url
        With the token.
    """

    def __init__(self, context: Any, url: str) -> None:
        self._context = context
        self.errors: list[str] = []
        self.requests: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.tab = context.new_page()
        self.tab.set_default_timeout(DEADLINE_MS)
        self.tab.on("websocket", lambda socket: self.requests.append(socket.url))
        self.tab.goto(url)
        self.tab.wait_for_selector(".panel")

    def open_again(self, address: str) -> Any:
        """Another tab of the same browser."""
        tab = self._context.new_page()
        tab.goto(address)
        return tab

    def close(self) -> None:
        self._context.close()

    @property
    def panel(self) -> dict[str, Any]:
        """What the panel shows, as values."""
        return self.tab.evaluate("() => window.trame.state.get('panel')")

    @property
    def status(self) -> str:
        return self.tab.locator("[data-text=status]").inner_text()

    def until(self, expression: str) -> None:
        """Wait until something holds of ``panel``, ``strip`` and ``sliders``, in the browser's language."""
        script = (
            "() => { const get = (key) => window.trame.state.get(key);"
            f" const panel = get('panel'), strip = get('strip'), sliders = get('sliders'); return !!({expression}); }}"
        )
        try:
            self.tab.wait_for_function(script)
        except Exception as error:
            raise AssertionError(f"{expression} never held; the panel: {self.panel}") from error

    def trigger(self, name: str, *values: object) -> None:
        """Send the session a message, as the page's own code does, or as nobody should."""
        self.tab.evaluate("([name, values]) => window.trame.trigger(name, values)", [name, list(values)])

    def look_only(self) -> None:
        """Whatever a test before has begun: back to looking."""
        for _ in range(2):  # the first ends placing, the second a propagation
            self.trigger("act", "stop")
        self.until("!panel.placing && panel.state !== 'propagating' && !panel.busy")

    def press(self, action: str) -> None:
        """A button of the panel."""
        self.tab.locator(f"[data-action={action}]").click()

    def place(self, tag: str, across: float, down: float) -> tuple[float, float]:
        """Pixels of the page at a place in a view, 0 to 1 of its picture."""
        box = self.tab.locator(f".view[data-view={tag}] .picture").bounding_box()
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def point_at(self, tag: str, across: float, down: float) -> None:
        """Move the mouse into a view."""
        x, y = self.place(tag, across, down)
        self.tab.mouse.move(x - 4, y - 4)
        self.tab.mouse.move(x, y)

    def click(self, tag: str, across: float, down: float) -> None:
        """Click in a view."""
        self.point_at(tag, across, down)
        self.tab.mouse.down()
        self.tab.mouse.up()

    def drag(self, tag: str, *places: tuple[float, float]) -> None:
        """Draw through places of a view with the button held."""
        self.point_at(tag, *places[0])
        self.tab.mouse.down()
        for place in places[1:]:
            self.tab.mouse.move(*self.place(tag, *place), steps=8)
        self.tab.mouse.up()

    def pixels(self, tag: str) -> np.ndarray:
        """(rows, columns, 3 or 4) uint8 of a view, as it is seen now."""
        import SimpleITK

        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "view.png")
            self.tab.locator(f".view[data-view={tag}] .picture").screenshot(path=path)
            return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))

    def key(self, tag: str, key: str) -> None:
        """Press a key with the mouse over a view."""
        self.point_at(tag, 0.5, 0.5)
        self.tab.wait_for_function(f"() => document.activeElement.closest('.view[data-view={tag}]') !== null")
        self.tab.keyboard.press(key)

    def download(self, kind: str, folder: Path) -> Path:
        """What the menu Save gives."""
        with self.tab.expect_download() as started:
            self.tab.evaluate(f"() => {{ window.trame.utils.sam.download('{kind}'); }}")
        path = folder / started.value.suggested_filename
        started.value.save_as(path)
        return path

    def upload(self, *paths: Path) -> None:
        """Choose files in the menu Open."""
        self.tab.locator("[data-upload=files]").set_input_files([str(path) for path in paths])


def _below(pid: int) -> Iterator[int]:
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            yield child
            yield from _below(child)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """Whether a process lives; one that ended and was not asked for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def remote_addresses(pid: int) -> set[str]:
    """Hexadecimal addresses of the other ends of a process's TCP and UDP sockets."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                found.add(fields[2].partition(":")[0])
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Look again and again until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)

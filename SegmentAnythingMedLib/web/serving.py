"""Running the browser app until it is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiohttp import web

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.web.gate import Gate
from SegmentAnythingMedLib.web.security import Exposure, RefusedError
from SegmentAnythingMedLib.web.session_process import SessionProcess
from SegmentAnythingMedLib.web.sessions import SessionLimits, Sessions


@dataclass(frozen=True)
class WebOptions:
    """What the command line says.

    Parameters
    ----------
    files
        Opened in every session: volumes, DICOM folders, .seg.nrrd, .mrb, prompts.
    exposure
        Where to listen.
    limits
        Of sessions.
    has_browser
        Whether to open the user's browser.
    """

    files: tuple[str, ...] = ()
    exposure: Exposure = Exposure()
    limits: SessionLimits = SessionLimits()
    has_browser: bool = True


def serve(options: WebOptions, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or a request to terminate; all sessions end with it.

    Parameters
    ----------
    options
        What to open and where to listen.
    tell
        Called with sentences for the user.

    Raises
    ------
    VolumeError
        If a file is not there.
    RefusedError
        If the address cannot be used.
    """
    missing = next((name for name in options.files if not Path(name).exists()), None)
    if missing is not None:
        raise VolumeError(f"{missing} is not there.")
    asyncio.run(_serve(options, options.exposure.tls(), tell))


async def _serve(options: WebOptions, tls: ssl.SSLContext | None, tell: Callable[[str], None]) -> None:
    files = tuple(str(Path(name).resolve()) for name in options.files)
    gate = Gate(options.exposure, Sessions(files, options.limits, session_maker(options.exposure)))
    runner = web.AppRunner(gate.app(), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, options.exposure.host, options.exposure.port, ssl_context=tls).start()
        except OSError as error:
            raise RefusedError(
                f"Port {options.exposure.port} of {options.exposure.host} cannot be used ({error.strerror}): choose "
                "another --port."
            ) from error
        gate.listens_on(runner.addresses[0][1])
        tell(f"The app runs at {gate.url}")
        tell("Press Ctrl-C to end it.")
        if options.has_browser and can_show_pages():
            await asyncio.to_thread(webbrowser.open, gate.url)
        await _interrupted()
    finally:
        await runner.cleanup()


def session_maker(exposure: Exposure) -> Callable[[tuple[str, ...], int], SessionProcess]:
    """Makes sessions whose users may change the weights of this machine only if nobody else can reach them."""
    return partial(SessionProcess, may_change_weights=exposure.is_local)


async def _interrupted() -> None:
    """Wait for Ctrl-C or a request to terminate."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows: asyncio.run turns Ctrl-C into a cancellation itself
        loop.add_signal_handler(signal.SIGINT, asked.set)
        loop.add_signal_handler(signal.SIGTERM, asked.set)
    with contextlib.suppress(asyncio.CancelledError):
        await asked.wait()


def can_show_pages() -> bool:
    """Whether this machine has a browser with a screen."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True

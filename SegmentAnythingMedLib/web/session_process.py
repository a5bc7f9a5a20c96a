"""The gate's side of one session: its process, its folder, and when it was last used."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import sys
import tempfile
import time as clock
from dataclasses import asdict
from pathlib import Path

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.web.session_app import READY, SessionConfig
from SegmentAnythingMedLib.worker.environment import worker_environment

START_S = 120.0
_STOP_S = 8.0

logger = logging.getLogger(__name__)


class SessionProcess:
    """A session from its start to its end.

    Parameters
    ----------
    files
        Opened at the start.
    max_upload_mb
        Most that one upload may have.
    may_change_weights
        Whether its user may download, import and remove weights.
    """

    def __init__(self, files: tuple[str, ...], max_upload_mb: int, may_change_weights: bool = False) -> None:
        self.name = secrets.token_hex(16)
        self.secret = secrets.token_hex(32)
        self.port = 0
        self.browsers = 0
        self.used = clock.monotonic()
        self._files = files
        self._max_upload_mb = max_upload_mb
        self._may_change_weights = may_change_weights
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start it without waiting."""
        self._starting = asyncio.create_task(self._start())

    @property
    def is_ready(self) -> bool:
        return self.port > 0 and self.is_alive

    @property
    def is_alive(self) -> bool:
        """Whether it is starting or running."""
        if self._process is None:
            return self._starting is not None and not self._starting.done()
        return self._process.returncode is None

    @property
    def has_failed(self) -> bool:
        return self._starting is not None and self._starting.done() and self.port == 0

    def touch(self) -> None:
        """The user did something."""
        self.used = clock.monotonic()

    @property
    def idle_s(self) -> float:
        return clock.monotonic() - self.used

    async def stop(self) -> None:
        """Let go of it: it ends its worker, and its folder is removed."""
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        await asyncio.gather(*([self._starting] if self._starting is not None else []), return_exceptions=True)
        process = self._process
        if process is not None and process.returncode is None:
            process.stdin.close()
            try:
                # while it still imports it has nothing to end
                await asyncio.wait_for(process.wait(), _STOP_S if self.port else 0.0)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = None

    def config_of(self, folder: str) -> SessionConfig:
        """What the process is told; ``folder`` is its own."""
        return SessionConfig(self.secret, folder, self._files, self._max_upload_mb, self._may_change_weights)

    async def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="segment-anything-med-"))
        config = self.config_of(str(self._folder))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "SegmentAnythingMedLib.web.session_app",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=worker_environment(),
            start_new_session=True,  # Ctrl-C is for the gate, which then ends its sessions
        )
        self._process.stdin.write(json.dumps(asdict(config)).encode() + b"\n")
        await self._process.stdin.drain()
        try:
            self.port = await asyncio.wait_for(self._port(), START_S)
        except TimeoutError as error:
            raise SegmentAnythingMedError("The session did not start in time.") from error
        self.touch()

    async def _port(self) -> int:
        async for line in self._process.stdout:
            words = line.decode(errors="replace").strip()
            if words.startswith(READY):
                self._reading = asyncio.create_task(self._drain())
                return int(words.rpartition(" ")[2])
        raise SegmentAnythingMedError("The session ended while it was starting: see the messages above.")

    async def _drain(self) -> None:
        """Read on, or the session stops when the pipe is full."""
        async for _line in self._process.stdout:
            pass

"""One browser session's process: its own scene, worker and trame server, on the loopback, for the gate alone.

The gate starts it with a line of JSON on standard input (`SessionConfig`). Standard input then stays open; when it is
closed, because the gate ends the session or has died, the process ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trame_server import Server

    from SegmentAnythingMedLib.web.session import Session

READY = "segment-anything-med session"
"""Begins the line on standard output that says the port."""


@dataclass(frozen=True)
class SessionConfig:
    """What the gate tells the session.

    Parameters
    ----------
    secret
        Every request must carry it; only the gate knows it.
    folder
        The session's own folder, which the gate makes and removes.
    files
        Opened at the start.
    max_upload_mb
        Most that one upload may have.
    may_change_weights
        Whether this user may download, import and remove weights: only where the app serves its own machine.
    """

    secret: str
    folder: str
    files: tuple[str, ...] = ()
    max_upload_mb: int = 2048
    may_change_weights: bool = False

    @classmethod
    def parse(cls, line: str) -> SessionConfig:
        values = json.loads(line)
        return cls(**values | {"files": tuple(values["files"])})


def main() -> None:
    """Run the session until the gate lets go of it."""
    config = SessionConfig.parse(sys.stdin.readline())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    sys.argv = sys.argv[:1]  # trame reads the command line by itself
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    from vtkmodules.vtkCommonCore import vtkObject

    from SegmentAnythingMedLib.web.session import Session

    vtkObject.GlobalWarningDisplayOff()  # VTK warns of each resize
    server = _server()
    session = Session(server, config)
    server.controller.on_server_ready.add(lambda **_: _ready(server, session, config))
    try:
        server.start(
            port=0, host="127.0.0.1", open_browser=False, show_connection_info=False, timeout=0, disable_logging=True
        )
    finally:
        session.close()


def _server() -> Server:
    from trame.app import get_server

    server = get_server("segment-anything-med")
    server.client_type = "vue3"
    return server


def _ready(server: Server, session: Session, config: SessionConfig) -> None:
    tasks = [session.run(), session.open([Path(name) for name in config.files]), _end_with_gate(server)]
    session.keep(*(asyncio.get_running_loop().create_task(task) for task in tasks))
    sys.stdout.write(f"{READY} {server.port}\n")
    sys.stdout.flush()


async def _end_with_gate(server: Server) -> None:
    """Stop the server when standard input ends."""
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


if __name__ == "__main__":
    main()

"""All sessions of a gate: at most so many, and none longer than it is used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.web.session_process import SessionProcess

CLOSED_TAB_S = 300.0
"""How long a session lives on whose page was closed."""

_LOOK_S = 1.0

logger = logging.getLogger(__name__)


class FullError(SegmentAnythingMedError):
    """No further session can be opened now."""


@dataclass(frozen=True)
class SessionLimits:
    """How many sessions there may be, and for how long.

    Parameters
    ----------
    most
        Sessions at a time; each takes a few hundred megabytes beside its volume.
    idle_s
        A session that nobody used for so long ends.
    max_upload_mb
        Most that one upload may have.
    """

    most: int = 4
    idle_s: float = 7200.0
    max_upload_mb: int = 2048


class Sessions:
    """Makes and ends sessions.

    Parameters
    ----------
    files
        Opened in each.
    limits
        See `SessionLimits`.
    make
        Makes a session's process.
    """

    def __init__(
        self,
        files: tuple[str, ...],
        limits: SessionLimits,
        make: Callable[[tuple[str, ...], int], SessionProcess] = SessionProcess,
    ) -> None:
        self._files = files
        self._limits = limits
        self._make = make
        self._sessions: dict[str, SessionProcess] = {}
        self._spare: SessionProcess | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: str) -> SessionProcess | None:
        """A session by its name."""
        return self._sessions.get(name)

    def prepare(self) -> None:
        """Start a session before somebody asks for it: it takes seconds."""
        self._spare = self._started()

    def open(self) -> SessionProcess:
        """A new session.

        Raises
        ------
        FullError
            If there are as many as may be.
        """
        if len(self._sessions) >= self._limits.most:
            raise FullError(
                f"{self._limits.most} sessions are open already: close one and wait five minutes, or start the server "
                "with a larger --sessions."
            )
        spare, self._spare = self._spare, None
        session = spare if spare is not None and spare.is_alive else self._started()
        session.touch()
        self._sessions[session.name] = session
        return session

    async def watch(self) -> None:
        """End sessions that are not used any more, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for session in [one for one in self._sessions.values() if self._is_over(one)]:
                del self._sessions[session.name]
                await session.stop()

    async def close(self) -> None:
        """End all."""
        ending = [*self._sessions.values(), *([self._spare] if self._spare is not None else [])]
        self._sessions.clear()
        self._spare = None
        await asyncio.gather(*(session.stop() for session in ending))

    def _is_over(self, session: SessionProcess) -> bool:
        patience = self._limits.idle_s if session.browsers else min(CLOSED_TAB_S, self._limits.idle_s)
        return not session.is_alive or session.has_failed or session.idle_s > patience

    def _started(self) -> SessionProcess:
        session = self._make(self._files, self._limits.max_upload_mb)
        session.start()
        return session

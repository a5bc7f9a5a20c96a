"""The worker process: ``python -m SegmentAnythingMedLib.worker.process``, started and spoken to by `WorkerClient`.

Standard output carries the protocol, so it is taken away from everybody else before any library is loaded: what they
print goes to standard error, which the host keeps.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from SegmentAnythingMedLib.worker.workbench import Registry


def main(arguments: Sequence[str] | None = None, registry: Registry | None = None) -> int:
    """Serve the host at the other end of standard input and output.

    Parameters
    ----------
    arguments
        ``--memory-mb N`` limits the address space (not on Windows).
    registry
        Where models come from; by default the library's.
    """
    parser = argparse.ArgumentParser(description="Worker of Segment Anything Med; started by the program itself.")
    parser.add_argument("--memory-mb", type=int, default=0)
    chosen = parser.parse_args(arguments)
    commands, events = take_standard_streams()
    faulthandler.enable()
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    lower_priority()

    from SegmentAnythingMedLib.worker.server import Server

    if chosen.memory_mb:
        limit_memory(chosen.memory_mb)
    Server(commands, events, registry).serve()
    return 0


def take_standard_streams() -> tuple[io.FileIO, io.FileIO]:
    """Private copies of standard input and output; prints go to standard error and nothing can be read from input."""
    commands, events = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (commands, events):
            msvcrt.setmode(descriptor, os.O_BINARY)
    return io.FileIO(commands, "rb"), io.FileIO(events, "wb")


def lower_priority() -> None:
    """Let the host's windows go first on a small machine (on Windows the host asks for it)."""
    if hasattr(os, "nice"):
        os.nice(5)


def limit_memory(megabytes: int) -> None:
    """Refuse memory beyond this address space, where the system can."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, resource.RLIM_INFINITY))


if __name__ == "__main__":
    sys.exit(main())

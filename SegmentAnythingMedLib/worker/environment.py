"""The environment of the worker process: where it imports from, and how many threads its arithmetic takes."""

from __future__ import annotations

import os
from pathlib import Path

import SegmentAnythingMedLib

_THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def worker_environment(import_path: str | Path | None = None, threads: int | None = None) -> dict[str, str]:
    """Environment variables of the child: this process's own, with ours.

    Parameters
    ----------
    import_path
        Folder that holds the library; by default the one it was imported from.
    threads
        None leaves one core to the host and respects counts the user has set.
    """
    environment = dict(os.environ)
    library = str(import_path) if import_path is not None else str(Path(SegmentAnythingMedLib.__file__).parents[1])
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([library, inherited] if inherited else [library])
    environment |= {"PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
    counts = dict.fromkeys(_THREAD_COUNTS, str(threads or max(1, (os.cpu_count() or 2) - 1)))
    return environment | counts if threads else counts | environment

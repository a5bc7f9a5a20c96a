"""Accuracy of a model on every scored structure: several processes, one row per structure, resumable."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.benchmark.datasets import Case, CaseOpener, Structure
from SegmentAnythingMedLib.benchmark.run_file import RunFile, source_digest
from SegmentAnythingMedLib.benchmark.scoring import Row, score_session
from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.models.base import SliceModel
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.session import VolumeSession

logger = logging.getLogger(__name__)

PROTOCOL = 1
_CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class Study:
    """What is asked of a model on every structure.

    Parameters
    ----------
    name
        Of the file of rows, ``<name>-<model>.jsonl``.
    score
        A function of a module, so that other processes find it.
    sources
        Files of this folder that decide the scores, beside those of every study.
    """

    name: str = "accuracy"
    score: Callable[[Case, VolumeSession], Row] = score_session
    sources: tuple[str, ...] = ()


ACCURACY = Study()


class Runner:
    """Scores structures one by one, keeping the model and the last volume's session (with its image features)."""

    def __init__(self, data: Path, make_model: Callable[[], SliceModel], study: Study = ACCURACY) -> None:
        self._opener = CaseOpener(data)
        self._make_model = make_model
        self._study = study
        self._model: SliceModel | None = None
        self._session: VolumeSession | None = None

    def score(self, structure: Structure) -> dict[str, Any]:
        """The row of a structure; a failure becomes a row with ``error``, so that the run goes on."""
        fields = asdict(structure)
        row: dict[str, Any] = {name: fields[name] for name in ("id", "dataset", "patient", "kind", "two_d")}
        try:
            self._model = self._model or self._make_model()
            case = self._opener.open(structure)
            if self._session is None or self._session.volume is not case.volume:
                self._session = VolumeSession(case.volume, self._model, cache_bytes=_CACHE_BYTES)
            row |= self._study.score(case, self._session).as_json()
        except (SegmentAnythingMedError, ValueError, IndexError, ArithmeticError, RuntimeError, TypeError) as error:
            logger.exception("%s failed", structure.id)
            row["error"] = f"{type(error).__name__}: {error}"
            self._session = None
        return row


def run_accuracy(
    structures: list[Structure],
    data: Path,
    output: Path,
    model: str = "classic",
    *,
    jobs: int = 2,
    make_model: Callable[[], SliceModel] | None = None,
    fresh: bool = False,
    study: Study = ACCURACY,
) -> list[dict[str, Any]]:
    """Score structures and return all their rows, those of an earlier run that was cut short included.

    Parameters
    ----------
    structures
        What to score.
    data
        The data folder.
    output
        Folder; rows go to ``<study>-<model>.jsonl``.
    model
        Name in the registry.
    jobs
        Processes, each with one thread; 1 runs in this one.
    make_model
        Replaces the registry (then ``jobs`` must be 1).
    fresh
        Forget rows of an earlier run.
    study
        What is asked.
    """
    path = output / f"{study.name}-{model}.jsonl"
    if fresh:
        path.unlink(missing_ok=True)
    file = RunFile(path, run_header(model, study))
    todo = [structure for structure in structures if structure.id not in file.done]
    started = time.perf_counter()
    for number, row in enumerate(_scored(todo, data, model, jobs, make_model, study), start=1):
        file.append(row)
        left = (time.perf_counter() - started) / number * (len(todo) - number)
        score = row.get("scores", {}).get("slice_box", float("nan"))
        sys.stderr.write(f"[{number}/{len(todo)}] {row['id']}: slice {score:.3f}, {left / 60:.1f} min left\n")
    wanted = {structure.id for structure in structures}
    order = {structure.id: place for place, structure in enumerate(structures)}
    return sorted((row for row in file.rows if row["id"] in wanted), key=lambda row: order[row["id"]])


def run_header(model: str, study: Study = ACCURACY) -> dict[str, Any]:
    """What makes the rows of a model: its name and weights, this protocol, and the code that decides scores."""
    card = next((card for card in ModelRegistry().cards if card.name == model), None)
    header = {"model": model, "protocol": PROTOCOL}
    header["source"] = source_digest(card.family if card else model, study.sources)
    return header | ({"weights": card.sha256[:8]} if card and card.sha256 else {})


def _scored(
    todo: list[Structure], data: Path, model: str, jobs: int, make_model: Callable[[], SliceModel] | None, study: Study
) -> Iterator[dict[str, Any]]:
    if jobs == 1 or make_model is not None or len(todo) < 2:
        runner = Runner(data, make_model or (lambda: ModelRegistry().load(model)), study)
        for structure in todo:
            yield runner.score(structure)
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # two threads on busy cores are several times slower than one
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start, initargs=(data, model, study)) as pool:
        longest_first = sorted(todo, key=lambda structure: structure.size_ijk is None)
        futures = [pool.submit(_score_in_child, structure) for structure in longest_first]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_runner: Runner | None = None


def _start(data: Path, model: str, study: Study) -> None:
    global _runner
    _runner = Runner(data, lambda: ModelRegistry().load(model), study)


def _score_in_child(structure: Structure) -> dict[str, Any]:
    return _runner.score(structure)

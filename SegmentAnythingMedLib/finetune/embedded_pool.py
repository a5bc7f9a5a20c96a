"""Stacks to draw examples from: shards on disk of which a changing few are in memory, and processes that write more."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.finetune.embedded_examples import SLICES, Example, draw_example
from SegmentAnythingMedLib.finetune.embedded_unroll import Batch
from SegmentAnythingMedLib.finetune.stack import Stack, load_stacks, save_stacks
from SegmentAnythingMedLib.models.embedded_crop import FINE_SIZE, INPUT_SIZE

SOURCE_SHARES = {"synthetic": 0.56, "brain": 0.11, "sts": 0.18, "superpixel": 0.09, "nuclei": 0.03, "derm": 0.03}
"""How often each kind of shard is drawn from, by the first word of its file's name; of those there are."""
COARSE_SIZE = 64
"""Network pixels of batches that teach the same at a quarter of the cost; no object is ever outlined at this size."""
EARLY_SIZES = {COARSE_SIZE: 0.70, INPUT_SIZE: 0.26, FINE_SIZE: 0.04}
LATE_SIZES = {COARSE_SIZE: 0.08, INPUT_SIZE: 0.86, FINE_SIZE: 0.06}
"""Shares of batches by their size; `FINE_SIZE` is for large objects."""
EARLY_EXAMPLES = 150_000
"""Examples of the whole training with `EARLY_SIZES`."""
EASY_EXAMPLES = 6_000
"""Examples of the whole training that are drawn from the first tenth of the synthetic shards (obvious contrast)."""
BYTES_PER_EXAMPLE = (2 * SLICES + 4) * INPUT_SIZE**2
_RESCAN_SECONDS = 30.0


class StackPool:
    """Shards of a folder; at most ``loaded`` of each source are in memory, one is replaced every ``turnover`` draws.

    Parameters
    ----------
    folder
        ``<source>_*.npz`` files of `save_stacks`; new ones are noticed.
    loaded
        Shards in memory per source.
    turnover
        Draws from a source before one of its shards is replaced.
    shares
        As `SOURCE_SHARES`.
    """

    def __init__(
        self, folder: Path, loaded: int = 6, turnover: int = 300, shares: Mapping[str, float] = SOURCE_SHARES
    ) -> None:
        self._folder, self._loaded, self._turnover, self._shares = folder, loaded, turnover, shares
        self._files: dict[str, list[Path]] = {}
        self._kept: dict[str, dict[Path, list[Stack]]] = {}
        self._draws: dict[str, int] = {}
        self._scanned = -np.inf

    def draw(self, random: np.random.Generator, easy: bool = False) -> Stack:
        """A random stack; ``easy`` takes it from the first tenth of the synthetic shards."""
        self._scan()
        sources = ["synthetic"] if easy and "synthetic" in self._files else sorted(self._files)
        shares = np.array([self._shares.get(source, 0.02) for source in sources])
        source = sources[random.choice(len(sources), p=shares / shares.sum())]
        files = self._files[source]
        kept = self._kept.setdefault(source, {})
        if easy:
            files = files[: max(1, len(files) // 10)]
        wanted = min(self._loaded, len(files))
        self._draws[source] = self._draws.get(source, 0) + 1
        if len(files) > wanted and self._draws[source] % self._turnover == 0 and kept:
            del kept[sorted(kept)[random.integers(len(kept))]]
        allowed = [path for path in sorted(kept) if not easy or path in files]
        while len(allowed) < wanted:
            missing = [path for path in files if path not in kept]
            path = missing[random.integers(len(missing))]
            kept[path] = load_stacks(path)
            allowed.append(path)
            if len(kept) > self._loaded:
                del kept[next(iter(kept))]
        shard = kept[allowed[random.integers(len(allowed))]]
        return shard[random.integers(len(shard))]

    def _scan(self) -> None:
        if time.monotonic() - self._scanned < _RESCAN_SECONDS:
            return
        self._files = {}
        for path in sorted(self._folder.glob("[!.]*.npz")):
            self._files.setdefault(path.name.partition("_")[0], []).append(path)
        if not self._files:
            raise SegmentAnythingMedError(f"{self._folder} holds no shards of stacks: write some first.")
        self._scanned = time.monotonic()


def draw_batch(pool: StackPool, number: int, seed: int, size: int, seen: int) -> Batch:
    """The batch of a number: the same for the same number and seed, as long as the pool is.

    Parameters
    ----------
    pool
        Where stacks come from.
    number, seed
        Which batch.
    size
        Examples at `INPUT_SIZE`; half as many more at `COARSE_SIZE`, half as many at `FINE_SIZE`.
    seen
        Examples of the training before this batch: the curriculum.
    """
    random = np.random.default_rng([seed, number])
    shares = EARLY_SIZES if seen < EARLY_EXAMPLES else LATE_SIZES
    side = int(random.choice(list(shares), p=list(shares.values())))
    wanted = {COARSE_SIZE: size + size // 2, INPUT_SIZE: size, FINE_SIZE: max(2, size // 2)}[side]
    examples: list[Example] = []
    while len(examples) < wanted:
        found = draw_example(pool.draw(random, seen < EASY_EXAMPLES), random, side)
        if found is not None:
            examples.append(found)
    return Batch.of(examples)


def batches(folder: Path, first: int, seed: int, size: int, workers: int, passes: int) -> Iterator[Batch]:
    """Batches from number ``first`` on, for ever; in order without workers, else made by so many processes.

    ``passes`` is how many examples of the training's count each example of a batch stands for.
    """
    numbers = _Numbers(folder, first, seed, size, passes)
    if workers == 0:
        yield from numbers
        return
    yield from DataLoader(numbers, batch_size=None, num_workers=_that_fit(workers, size), prefetch_factor=2)


class _Numbers(IterableDataset):
    """The batches of one process: every n-th of them where there are n."""

    def __init__(self, folder: Path, first: int, seed: int, size: int, passes: int) -> None:
        self._folder, self._first, self._seed, self._size, self._passes = folder, first, seed, size, passes

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        number, step = self._first, 1
        if info is not None:
            number, step = self._first + info.id, info.num_workers
            torch.set_num_threads(1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler saves and goes on
        pool = StackPool(self._folder, loaded=4 if info is None else 3)
        while True:
            yield draw_batch(pool, number, self._seed, self._size, number * self._size * self._passes)
            number += step


def _that_fit(workers: int, size: int) -> int:
    """As many workers as their waiting batches fit half of the shared memory, through which they are handed over."""
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return workers
    waiting = 3 * (size + size // 2) * BYTES_PER_EXAMPLE
    return max(1, min(workers, int(shutil.disk_usage(shared).free / 2 / waiting)))


def _write_for_ever(folder: Path, process: int, processes: int, seed: int, per_shard: int) -> None:
    """Write shards until ended; the numbers of the shards tell processes apart, those that exist are kept."""
    from SegmentAnythingMedLib.finetune.synthetic import make_stack

    if hasattr(os, "nice"):
        os.nice(5)
    shard, parent = process, multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        path = folder / f"synthetic_{seed}_{shard:06d}.npz"
        if not path.exists():
            # Obvious contrast first, as the file names sort: the pool's easy tenth.
            difficulty = 0.3 if shard < processes else 1.0
            first = (seed * 1_000_000 + shard) * per_shard
            save_stacks(path, [make_stack(first + k, difficulty=difficulty) for k in range(per_shard)])
        shard += processes


def start_writers(folder: Path, processes: int, seed: int, per_shard: int = 20) -> list[multiprocessing.Process]:
    """Processes of one thread each that fill a folder with synthetic shards; they end with this process."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    started = []
    for process in range(processes):
        one = context.Process(target=_write_for_ever, args=(folder, process, processes, seed, per_shard), daemon=True)
        one.start()
        started.append(one)
    return started

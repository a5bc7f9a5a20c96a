"""Trains the embedded model for a given time, from where the last run stopped, on a CPU or a GPU.

``python -m SegmentAnythingMedLib.finetune.train_embedded --minutes 60 --output DIR`` leaves in DIR: state.pt,
average.pt and the optimizer's moments (to go on from), embedded.onnx, log.jsonl, figures.json and curve.png. Without
``--data`` it writes synthetic stacks to DIR/stacks on all cores first, and goes on doing so while it trains.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SegmentAnythingMedLib.resources import resource_path

log = logging.getLogger(__name__)

SAVE_SECONDS = 240.0
LOG_SECONDS = 60.0
MEASURE_SECONDS = 3600.0
"""The first measurement comes after a quarter of this; each takes a few minutes on one core."""
HEAD_START_SECONDS = 75.0
"""For which stacks are written before training starts, where none are there yet."""
LEAST_SHARDS = 4
RATE = 1.7e-3
"""Learning rate for batches of 8; grows with the fourth root of the batch (0.0034 for 128)."""
RESERVE_SECONDS = 60.0
"""Kept at the end of a run on a GPU for the last measurement and the export, so that all fits the time asked for."""


@dataclass(frozen=True)
class Run:
    """What a run was asked for.

    Parameters
    ----------
    minutes
        Of the run; on a CPU the last measurement and the export come after it.
    output, stacks
        Folders of the run and of the shards.
    device
        "cpu" or "cuda".
    batch
        Examples per batch at the common size.
    workers
        Processes that draw examples; 0 draws them between the steps.
    writers
        Processes that write stacks.
    held_out
        Folder of validation shards, or None.
    compiled
        Whether `torch.compile` makes the training step.
    start
        Released weights to go on from where ``output`` holds no checkpoint, or None.
    """

    minutes: float
    output: Path
    stacks: Path
    device: str
    batch: int
    workers: int
    writers: int
    held_out: Path | None
    compiled: bool
    start: Path | None


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m SegmentAnythingMedLib.finetune.train_embedded", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of shards; default OUTPUT/stacks, written by the run itself")
    parser.add_argument("--extra", type=Path, help="folder of shards (real images) to use beside the run's own")
    parser.add_argument("--held-out", type=Path, help="folder of shards to measure on beside held-out synthetic ones")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=0, help="examples per batch; 0 chooses 8 (CPU) or 128 (GPU)")
    parser.add_argument("--workers", type=int, help="processes that draw examples; default all on a GPU, 0 on a CPU")
    parser.add_argument("--compile", action="store_true", help="compile the step: needs a C++ compiler, half the time")
    parser.add_argument(
        "--start", default="released", help="an embedded.onnx to go on from; 'released' (default) or 'nothing'"
    )
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(chosen.threads)
    import torch

    torch.set_num_threads(chosen.threads)
    device = chosen.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = os.cpu_count() or 1
    gpu = device == "cuda"
    writers = 0 if chosen.data else (max(cores // 5, 1) if gpu else 1)
    run = Run(
        chosen.minutes,
        chosen.output,
        chosen.data or chosen.output / "stacks",
        device,
        chosen.batch or (128 if gpu else 8),
        chosen.workers if chosen.workers is not None else (max(cores - writers - 2, 1) if gpu else 0),
        writers,
        chosen.held_out,
        chosen.compile,
        _start(chosen.start),
    )
    run.stacks.mkdir(parents=True, exist_ok=True)
    chosen.output.mkdir(parents=True, exist_ok=True)
    for path in _shards(chosen.extra) if chosen.extra else ():
        shutil.copyfile(path, run.stacks / path.name)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(run, chosen.seed)


def train(run: Run, seed: int = 0) -> dict[str, Any]:
    """Run, and return the last figures; none if it was told to end (SIGTERM), which saves the state first."""
    import torch

    from SegmentAnythingMedLib.finetune.embedded_network import EmbeddedConfig
    from SegmentAnythingMedLib.finetune.embedded_pool import EARLY_EXAMPLES, StackPool, batches, draw_batch
    from SegmentAnythingMedLib.finetune.embedded_trainer import PASSES, Trainer, TrainingSettings

    start = time.monotonic()
    end = start + 60 * run.minutes - (RESERVE_SECONDS if run.device == "cuda" else 0)
    _have_stacks(run, seed, start)
    settings = TrainingSettings(seed=seed, rate=RATE * (run.batch / 8) ** 0.25)
    trainer = Trainer(settings, EmbeddedConfig(), torch.device(run.device), run.compiled)
    resumed = trainer.resume(run.output)
    if not resumed and run.start is not None:
        # The average of the released weights is what is started from; a batch at the common size rebuilds its norms.
        trainer.restart(run.start, draw_batch(StackPool(run.stacks), 0, seed, 16, EARLY_EXAMPLES))
    log.info("%s at %d examples on %s", "resumed" if resumed else "started", trainer.examples, run.device)
    clocks = _Clocks(time.monotonic(), trainer.examples)
    earlier = trainer.seconds
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    for batch in batches(run.stacks, trainer.batches, seed, run.batch, run.workers, sum(PASSES) // 2):
        now = time.monotonic()
        trainer.train_batch(batch, (now - start) / max(end - start, 1.0))
        trainer.seconds = int(earlier + now - start)
        if clocks.due("log", LOG_SECONDS):
            rate = clocks.per_second(trainer.examples)
            _append(run.output, {"examples": trainer.examples, "seconds": trainer.seconds} | trainer.take_log() | rate)
        if clocks.due("save", SAVE_SECONDS):
            trainer.save(run.output)
        if clocks.due("measure", MEASURE_SECONDS, MEASURE_SECONDS / 4):
            _measure(trainer, run)
        if now >= end or ended:
            break
    trainer.save(run.output)
    return {} if ended else _measure(trainer, run)


def _start(asked: str) -> Path | None:
    """The file to go on from, if it is there."""
    if asked == "nothing":
        return None
    if asked != "released":
        return Path(asked)
    released = resource_path("Weights") / "embedded.onnx"
    return released if released.is_file() else None


class _Clocks:
    """When something is due again."""

    def __init__(self, now: float, examples: int) -> None:
        self._start = now
        self._last: dict[str, float] = {}
        self._counted = (now, examples)

    def due(self, name: str, seconds: float, first: float | None = None) -> bool:
        now = time.monotonic()
        since = self._last.get(name)
        waited = now - self._start >= (seconds if first is None else first) if since is None else now - since >= seconds
        if waited:
            self._last[name] = now
        return waited

    def per_second(self, examples: int) -> dict[str, float]:
        """Examples per second since the last call."""
        then, before = self._counted
        self._counted = (time.monotonic(), examples)
        return {"per_second": round((examples - before) / max(self._counted[0] - then, 1e-6), 2)}


def _have_stacks(run: Run, seed: int, start: float) -> None:
    """Start writers where the run has its own stacks, and wait for the first of them."""
    from SegmentAnythingMedLib.finetune.embedded_pool import start_writers

    if not run.writers:
        return
    there = len(list(run.stacks.glob("synthetic_*.npz")))
    many = run.device == "cuda" and there < 100
    if many:
        helpers = start_writers(run.stacks, os.cpu_count() or 1, seed + 1)
        while (
            time.monotonic() - start < HEAD_START_SECONDS
            or len(list(run.stacks.glob("synthetic_*.npz"))) < LEAST_SHARDS
        ):
            time.sleep(1.0)
        for helper in helpers:
            helper.terminate()
            helper.join()
    # Names differ by seed, so that nothing is written twice: a later run goes on with new stacks.
    start_writers(run.stacks, run.writers, seed + 2 + there)
    while not any(run.stacks.glob("synthetic_*.npz")):
        time.sleep(1.0)


def _shards(folder: Path) -> Iterator[Path]:
    return folder.glob("[!.]*.npz")


def _append(folder: Path, record: dict[str, Any]) -> None:
    log.info("%s", json.dumps(record))
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _measure(trainer: Any, run: Run) -> dict[str, Any]:
    """Measure the averaged weights, draw the curve, and export them."""
    from SegmentAnythingMedLib.finetune.embedded_validation import measure
    from SegmentAnythingMedLib.finetune.export_embedded import export

    network = trainer.averaged_network()
    figures = measure(network.to(run.device), run.held_out)
    figures |= {"examples": trainer.examples, "seconds": trainer.seconds}
    _append(run.output, {"measured": figures} | {"examples": trainer.examples, "seconds": trainer.seconds})
    (run.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    notes = {"examples": str(trainer.examples), "weighing": json.dumps(figures["weighing"])}
    export(network.cpu(), run.output / "embedded.onnx", notes=notes)
    try:
        from SegmentAnythingMedLib.finetune.embedded_curve import draw_curve
    except ModuleNotFoundError as error:
        log.warning("The learning curve is not drawn: %s", error)
    else:
        draw_curve(run.output / "log.jsonl", run.output / "curve.png")
    return figures


if __name__ == "__main__":
    main()

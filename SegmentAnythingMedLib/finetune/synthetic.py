"""Synthetic stacks: random anatomy-like scenes seen by random scanners, for training the embedded model.

``python -m SegmentAnythingMedLib.finetune.synthetic --count 2000 --output DIR`` writes shards (run it again to go on);
``--picture FILE.png`` draws examples.
"""

from __future__ import annotations

import argparse
import logging
import os
from functools import partial
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.finetune.stack import KINDS, Stack, save_stacks
from SegmentAnythingMedLib.finetune.synthetic_canvas import Canvas
from SegmentAnythingMedLib.finetune.synthetic_fields import chance, log_uniform
from SegmentAnythingMedLib.finetune.synthetic_imaging import image_of, middle_planes
from SegmentAnythingMedLib.finetune.synthetic_layouts import LAYOUTS, chaos, view
from SegmentAnythingMedLib.finetune.synthetic_visibility import visible_regions

log = logging.getLogger(__name__)

SHARES = {"CT": 0.34, "MR": 0.34, "PET": 0.08, "US": 0.12, "RGB": 0.08, "XR": 0.04}
STACKS_PER_SHARD = 50
_LEAST_AREA = 12  # pixels on its largest slice: a disc of 4 pixels


def make_stack(
    seed: int, *, depth: int = 12, size: int = 192, kind: str | None = None, difficulty: float = 1.0
) -> Stack:
    """A random stack, always the same for the same arguments.

    Parameters
    ----------
    seed
        Not negative.
    depth, size
        Slices, and pixels along both sides of a slice.
    kind
        One of `stack.KINDS`; None draws one with `SHARES`.
    difficulty
        0 (obvious contrast, little noise) to 1 (from obvious to barely visible).

    Returns
    -------
    Stack
        uint8 image and labels; at least one structure.
    """
    if kind is not None and kind not in KINDS:
        raise SegmentAnythingMedError(f"Kind {kind!r} is not known: use one of {', '.join(KINDS)}.")
    if not 0 <= difficulty <= 1:
        raise SegmentAnythingMedError(f"difficulty is {difficulty}: it must be from 0 to 1.")
    rng = np.random.default_rng(seed)
    drawn = kind or str(rng.choice(list(SHARES), p=list(SHARES.values())))
    for attempt in range(10):
        stack = _draw(rng, drawn, depth, size, difficulty, plain=attempt > 3)
        if stack is not None:
            return stack
    raise SegmentAnythingMedError(f"Nothing was drawn for seed {seed}, {depth} slices of {size} pixels: enlarge them.")


def _draw(rng: np.random.Generator, kind: str, depth: int, size: int, difficulty: float, plain: bool) -> Stack | None:
    layouts = LAYOUTS[kind]
    layout = chaos if plain else list(layouts)[rng.choice(len(layouts), p=list(layouts.values()))]
    spacing = log_uniform(rng, 0.4, 2.0)
    ratio = log_uniform(rng, 0.02, 1.5) if kind in ("RGB", "XR") else log_uniform(rng, 1.0, 8.0)
    # Thick slices see what lies between their middles: draw half-way planes too, and average.
    thick = depth > 1 and ratio > 1.5 and chance(rng, 0.45)
    weights = (0.25, 0.5, 0.25) if thick else (1.0,)
    planes = 2 * depth + 1 if thick else depth
    canvas = Canvas(view(rng, layout, planes, size, ratio * size / 192 / (2 if thick else 1)))
    layout(rng, canvas)
    image, imaged = image_of(rng, canvas, kind, difficulty, weights)
    regions = middle_planes(canvas.regions, weights)
    if imaged is not None:
        regions = regions * (imaged > 0)
    labels, parents = _labels(canvas, regions, visible_regions(image, regions))
    if not labels.any():
        return None
    image, labels = _oriented(rng, np.rint(image * 255).astype(np.uint8), labels, kind)
    return Stack(image, labels, (spacing * ratio, spacing, spacing), kind, "synthetic", parents)


def _labels(canvas: Canvas, regions: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
    """Number the targets that are large enough and visible; what is nested in one and is none itself belongs to it."""
    areas = np.stack([np.bincount(plane.reshape(-1), minlength=256) for plane in regions]).max(axis=0)
    kept = [
        n for n, region in enumerate(canvas.table) if n and region.target and areas[n] >= _LEAST_AREA and visible[n]
    ]
    number = {region: label for label, region in enumerate(kept, start=1)}
    table = np.zeros(256, np.uint8)
    parents = {}
    for n, region in enumerate(canvas.table):
        container = region.parent
        while container is not None and container not in number:
            container = canvas.table[container].parent
        if n in number:
            table[n] = number[n]
            if container is not None:
                parents[number[n]] = number[container]
        elif container is not None:
            table[n] = number[container]
    return table[regions], parents


def _oriented(
    rng: np.random.Generator, image: np.ndarray, labels: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Flip and turn: half the time as drawn, or else any of the orientations; a probe stays on top."""
    turns = int(rng.integers(4)) if chance(rng, 0.4) and kind != "US" else 0
    mirrored, reversed_order = chance(rng, 0.5), chance(rng, 0.5)
    for_both = []
    for array in (image, labels):
        array = np.rot90(array, turns, axes=(1, 2))
        array = array[:, :, ::-1] if mirrored else array
        for_both.append(np.ascontiguousarray(array[::-1] if reversed_order else array))
    return for_both[0], for_both[1]


def _write_shard(index: int, count: int, seed: int, output: Path, easy: float) -> Path:
    """One shard of stacks; left alone if it is there already."""
    path = output / f"synthetic_{seed}_{index:05d}.npz"
    if not path.exists():
        first = index * STACKS_PER_SHARD
        seeds = range(first, min(first + STACKS_PER_SHARD, count))
        stacks = [make_stack(seed * 10_000_000 + n, difficulty=0.3 if n < easy * count else 1.0) for n in seeds]
        save_stacks(path, stacks)
    return path


def write_shards(count: int, seed: int, output: Path, jobs: int = 1, easy: float = 0.1) -> None:
    """Write ``count`` stacks as shards of `STACKS_PER_SHARD`; the first ``easy`` share has high contrast (curriculum).

    Shards that exist are kept, so an interrupted run goes on where it stopped.
    """
    output.mkdir(parents=True, exist_ok=True)
    write = partial(_write_shard, count=count, seed=seed, output=output, easy=easy)
    indices = range(-(-count // STACKS_PER_SHARD))
    if jobs == 1:
        for path in map(write, indices):
            log.info("%s", path)
        return
    import multiprocessing

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # read by the new processes: more threads on busy cores waste 7 times the time
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for path in pool.imap(write, indices):
            log.info("%s", path)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m SegmentAnythingMedLib.finetune.synthetic", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="stacks to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for the shards")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each of one thread")
    parser.add_argument("--picture", type=Path, help="draw examples to this .png")
    chosen = parser.parse_args(arguments)
    if not chosen.output and not chosen.picture:
        parser.error("give --output DIR, --picture FILE.png, or both")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if chosen.picture:
        from SegmentAnythingMedLib.finetune.synthetic_picture import draw_examples

        draw_examples(chosen.picture, seed=chosen.seed)
    if chosen.output:
        write_shards(chosen.count, chosen.seed, chosen.output, chosen.jobs)


if __name__ == "__main__":
    main()

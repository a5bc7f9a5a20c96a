"""Arrangements of solids that resemble other pictures: vessel trees, cells, skin, layers under a probe, projections."""

from __future__ import annotations

import numpy as np

from SegmentAnythingMedLib.finetune import synthetic_shapes as shapes
from SegmentAnythingMedLib.finetune.synthetic_bodies import heart_at
from SegmentAnythingMedLib.finetune.synthetic_canvas import Canvas
from SegmentAnythingMedLib.finetune.synthetic_fields import chance, log_uniform, smooth_noise
from SegmentAnythingMedLib.finetune.synthetic_grounds import lesions, partition, somewhere


def vessels(rng: np.random.Generator, canvas: Canvas) -> None:
    """Trees of tubes on a textured ground: angiograms, retina."""
    partition(rng, canvas, int(rng.integers(1, 5)), ["soft", "soft", "muscle", "organ"], 2.0)
    if chance(rng, 0.4):
        disc = shapes.superquadric((0, 0, 0), (50, 0.95, 0.95), np.eye(3, dtype=np.float32))
        crop = canvas.grid.whole()
        canvas.paint_mask(crop.region, disc.field(crop) > 1, "air", target=False)
    for _ in range(int(rng.integers(1, 5))):
        start = somewhere(rng, canvas, rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8), 0.1, 0.1)
        heading = rng.normal(0, 1, 3) * (0.7, 1, 1)
        tree, radius = None, log_uniform(rng, 0.015, 0.08)
        for tube in shapes.branches(rng, start, heading, rng.uniform(0.3, 0.7), radius, 3, rng.uniform(0.1, 1)):
            found = canvas.paint(tube, "vessel", avoid=canvas.of_tissue("air"), region=tree)
            tree = found if tree is None else tree
    for _ in range(int(rng.integers(0, 3))):
        spot = somewhere(rng, canvas, rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), 0.1, 0.1)
        canvas.paint(shapes.random_solid(rng, spot, log_uniform(rng, 0.05, 0.25), 1.0), "lesion")


def cell_culture(rng: np.random.Generator, canvas: Canvas) -> None:
    """Many small roundish things of one kind, some touching, some with a nucleus."""
    partition(rng, canvas, int(rng.integers(1, 4)), ["soft"], 2.0)
    radius = log_uniform(rng, 0.03, 0.2)
    count = int(min(90, 0.9 / radius**2 * rng.uniform(0.05, 0.5)) + 2)
    nucleus = chance(rng, 0.3)
    for _ in range(count):
        spot = somewhere(rng, canvas, rng.uniform(-1, 1), rng.uniform(-1, 1), 0, 2 * radius)
        radii = np.array([2, rng.uniform(0.55, 1), 1]) * radius * rng.uniform(0.7, 1.2)
        cell = shapes.superquadric(spot, radii, shapes.turned(rng), rng.uniform(0, 0.4), rng.uniform(0, 0.4))
        cell = shapes.rough(rng, cell, 0.12, 0.6 * radius)
        if nucleus:
            canvas.shell(cell, "wall", "content", rng.uniform(0.2, 0.5))
        else:
            canvas.paint(cell, "content")


def spot(rng: np.random.Generator, canvas: Canvas) -> None:
    """One large irregular thing on a plain or blotchy ground, with hairs across."""
    partition(rng, canvas, int(rng.integers(1, 4)), ["soft"], 1.5)
    size = log_uniform(rng, 0.15, 0.85)
    thing = canvas.paint(
        shapes.rough(
            rng, shapes.random_solid(rng, (0, rng.normal(0, 0.2), rng.normal(0, 0.2)), size, 4.0), 0.15, 0.3 * size
        ),
        "lesion",
    )
    lesions(rng, canvas, thing, int(rng.integers(0, 3)), 0.5 * size)
    for _ in range(int(rng.integers(0, 6))):
        start = (0, rng.uniform(-1, 1), rng.uniform(-1, 1))
        path = shapes.wandering(rng, start, (0, *rng.normal(0, 1, 2)), rng.uniform(0.3, 1.2), 5, 0.1)
        canvas.paint(shapes.tube(path, [0.008] * 6), "bone", target=False)


def layers(rng: np.random.Generator, canvas: Canvas) -> None:
    """Layers under a probe: skin, fat, muscle, fascia; vessels, cysts, an organ, a bone with its shadow."""
    crop = canvas.grid.whole()
    depth = -1.0
    for tissue in rng.permutation(["fat", "muscle", "soft", "muscle", "organ"])[: rng.integers(2, 6)]:
        wave = np.float32(rng.uniform(0.02, 0.15)) * smooth_noise(rng, canvas.grid.shape, (1, 2, 3))
        canvas.paint_mask(crop.region, crop.y + wave > depth, str(tissue), target=chance(rng, 0.6))
        line = np.abs(crop.y + wave - depth) < rng.uniform(0.005, 0.02)
        canvas.paint_mask(crop.region, line, "fascia", target=False)
        depth += rng.uniform(0.15, 0.6)
    for _ in range(int(rng.integers(1, 6))):
        size = log_uniform(rng, 0.06, 0.5)
        place = somewhere(rng, canvas, rng.uniform(-0.6, 0.7), rng.uniform(-0.6, 0.6), 0, size)
        shape = shapes.random_solid(rng, place, size, 1.0)
        tissue = str(rng.choice(["fluid", "lesion", "organ", "vessel", "bone"], p=[0.3, 0.3, 0.2, 0.14, 0.06]))
        if chance(rng, 0.4):
            canvas.shell(shape, "wall", tissue, rng.uniform(0.4, 0.85))
        else:
            lesions(rng, canvas, canvas.paint(shape, tissue), int(rng.integers(0, 2)), 0.4 * size)
    if chance(rng, 0.25):
        heart_at(rng, canvas, 0.1, 0.0, rng.uniform(0.4, 0.8))


def projection(rng: np.random.Generator, canvas: Canvas) -> None:
    """A chest in projection: dark lungs, a bright heart, ribs and spine across them."""
    turn = np.eye(3, dtype=np.float32)
    outline = shapes.superquadric((0, 0.3, 0), (50, 1.6, rng.uniform(0.9, 1.1)), turn, 0.5)
    trunk = canvas.paint(outline, "soft", target=False)
    only = [trunk] if trunk is not None else None
    for sign in (-1, 1):
        center = (0, rng.normal(-0.08, 0.05), sign * rng.uniform(0.4, 0.48))
        lung = shapes.superquadric(
            center,
            (50, rng.uniform(0.55, 0.75), rng.uniform(0.28, 0.36)),
            shapes.turned(rng, 0.0, sign * 0.12),
            0.35,
            taper=0.2,
        )
        dome = shapes.superquadric((0, center[1] + 0.75, center[2]), (50, 0.35, 0.4), turn)
        canvas.paint(shapes.rough(rng, shapes.without(lung, dome), 0.06, 0.25), "lung", only=only)
    place = (0, rng.uniform(0.1, 0.3), rng.choice([-1, 1]) * rng.uniform(0.05, 0.18))
    canvas.paint(
        shapes.rough(
            rng, shapes.superquadric(place, (50, 0.3, rng.uniform(0.25, 0.4)), shapes.turned(rng, 0)), 0.06, 0.2
        ),
        "organ",
    )
    canvas.cast(shapes.superquadric((0, 0, 0), (50, 2, rng.uniform(0.08, 0.13)), turn, 0.8), rng.uniform(0.1, 0.3))
    for level in np.arange(-0.9, 0.7, rng.uniform(0.14, 0.2)):
        for sign in (-1, 1):
            path = [
                (0, level - 0.1, sign * 0.1),
                (0, level, sign * 0.5),
                (0, level + 0.2, sign * 0.78),
                (0, level + 0.3, sign * 0.6),
            ]
            canvas.cast(shapes.tube(path, [0.035] * 4), rng.uniform(0.08, 0.2))
        canvas.cast(shapes.superquadric((0, level, 0), (50, 0.08, 0.09), turn, 0.7), 0.15)
    for sign in (-1, 1):
        canvas.cast(shapes.tube([(0, -0.7, sign * 0.08), (0, -0.85, sign * 0.8)], [0.035] * 2), 0.3)
        for vessel in shapes.branches(rng, (0, -0.05, sign * 0.15), (0, 0.3, sign), 0.25, 0.03, 3, 0.0):
            canvas.cast(vessel, rng.uniform(0.03, 0.12))
    for _ in range(int(rng.integers(0, 3))):
        spot_at = (0, rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.6))
        canvas.paint(shapes.random_solid(rng, spot_at, log_uniform(rng, 0.04, 0.15), 5.0), "lesion")


def chaos(rng: np.random.Generator, canvas: Canvas) -> None:
    """Any shapes on any ground, nested, ringed, overlapping."""
    names = ["organ", "soft", "muscle", "fat", "fluid", "gland", "wall", "content"]
    partition(rng, canvas, int(rng.integers(1, 12)), names, log_uniform(rng, 1.5, 7))
    for _ in range(int(rng.integers(3, 16))):
        size = log_uniform(rng, 0.03, 0.5)
        place = somewhere(rng, canvas, rng.uniform(-0.85, 0.85), rng.uniform(-0.85, 0.85), 0, size)
        kind = rng.choice(["solid", "tube", "sheet", "tree"], p=[0.66, 0.2, 0.07, 0.07])
        tissue = str(rng.choice([*names, "lesion", "vessel", "bone"]))
        if kind == "tree":
            tree = None
            for tube in shapes.branches(rng, place, rng.normal(0, 1, 3), 0.35, 0.1 * size + 0.015, 2, 1.0):
                found = canvas.paint(tube, tissue, region=tree)
                tree = found if tree is None else tree
            continue
        if kind == "sheet":
            canvas.paint(
                shapes.sheet(rng, place, max(0.2, size), log_uniform(rng, 0.01, 0.06), shapes.turned(rng, 0.5)), tissue
            )
            continue
        if kind == "tube":
            heading = rng.normal(0, 1, 3) * (rng.choice([0.3, 3]), 1, 1)
            path = shapes.wandering(rng, place, heading, rng.uniform(0.3, 1.8), 6, rng.uniform(0.05, 0.4))
            shape = shapes.tube(path, log_uniform(rng, 0.015, 0.16) * rng.uniform(0.7, 1.2, 7))
        else:
            shape = shapes.random_solid(rng, place, size, rng.uniform(0.5, 2))
        if chance(rng, 0.25):
            canvas.shell(shape, tissue, str(rng.choice(names)), rng.uniform(0.15, 0.85))
        else:
            found = canvas.paint(shape, tissue)
            if chance(rng, 0.25):
                lesions(rng, canvas, found, int(rng.integers(1, 4)), 0.4 * size)

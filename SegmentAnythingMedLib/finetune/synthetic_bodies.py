"""Arrangements of solids that resemble parts of the body in cross section."""

from __future__ import annotations

import numpy as np

from SegmentAnythingMedLib.finetune import synthetic_shapes as shapes
from SegmentAnythingMedLib.finetune.synthetic_canvas import Canvas
from SegmentAnythingMedLib.finetune.synthetic_fields import chance, log_uniform
from SegmentAnythingMedLib.finetune.synthetic_grounds import cells, column, lesions, partition, somewhere


def abdomen(rng: np.random.Generator, canvas: Canvas) -> None:
    """A cross section of a trunk below the lungs."""
    height = rng.uniform(0.62, 0.85)
    _, muscle, cavity = body(rng, canvas, height)
    back = height - 0.42 + rng.normal(0, 0.03)
    spine(rng, canvas, back)
    side = rng.choice([-1, 1])
    inside = [cavity]
    for sign in (-1, 1):
        line = column(rng, canvas, back + 0.02, sign * rng.uniform(0.22, 0.3), 0.15)
        canvas.paint(shapes.tube(line, [rng.uniform(0.06, 0.11)] * 5), "muscle", only=[cavity, muscle])
    for _ in range(int(rng.integers(1, 5))):
        _gut(rng, canvas, inside)
    order = list(rng.permutation(["liver", "spleen", "kidneys", "gut", "pancreas", "stomach", "bladder"]))
    organs = order[: int(rng.integers(4, 8))]
    for organ in organs:
        _organ(rng, canvas, organ, side, back, inside)
    for place, tissue in ((0.06, "vessel"), (-0.07, "vessel")):
        line = column(rng, canvas, back - 0.19, place + rng.normal(0, 0.02), 0.08, 0.01)
        radius = rng.uniform(0.035, 0.07)
        shape = shapes.tube(line, [radius] * 5)
        if chance(rng, 0.25):
            canvas.shell(shape, "wall", tissue, rng.uniform(0.3, 0.75))
        else:
            canvas.paint(shape, tissue)
    if chance(rng, 0.5):
        ribs(rng, canvas, height)


def thorax(rng: np.random.Generator, canvas: Canvas) -> None:
    """A cross section at the level of lungs and heart."""
    height = rng.uniform(0.6, 0.8)
    _, muscle, cavity = body(rng, canvas, height)
    back = height - 0.4
    spine(rng, canvas, back)
    for sign in (-1, 1):
        center = (0, -0.02 + rng.normal(0, 0.03), sign * rng.uniform(0.42, 0.48))
        radii = (rng.uniform(0.8, 3), height * rng.uniform(0.6, 0.72), rng.uniform(0.3, 0.4))
        turn = shapes.turned(rng, 0.1, sign * rng.uniform(0, 0.25))
        lung = canvas.paint(shapes.superquadric(center, radii, turn, 0.3), "lung", only=[cavity, muscle])
        if lung is None:
            continue
        for _ in range(int(rng.integers(1, 4))):
            start = (rng.uniform(canvas.grid.low[0], canvas.grid.high[0]), 0, sign * 0.15)
            heading = (rng.normal(0, 0.5), rng.normal(0, 0.8), sign)
            for vessel in shapes.branches(rng, start, heading, 0.25, rng.uniform(0.015, 0.035), 3, 0.6):
                canvas.paint(vessel, "vessel", only=[lung], parent=lung, target=False)
        lesions(rng, canvas, lung, int(rng.integers(0, 4)), 0.07)
        if chance(rng, 0.3):
            canvas.paint(
                shapes.superquadric((0, height * 0.6, sign * 0.45), (5, 0.25, 0.4), turn), "fluid", only=[lung]
            )
    heart_at(rng, canvas, -0.15, rng.uniform(0.05, 0.2) * rng.choice([-1, 1]), rng.uniform(0.25, 0.4), [cavity])
    for y, x in ((back - 0.22, 0.1), (-0.3, 0.02), (-0.3, -0.1)):
        line = column(rng, canvas, y, x + rng.normal(0, 0.03), 0.1, 0.02)
        canvas.shell(shapes.tube(line, [rng.uniform(0.04, 0.08)] * 5), "wall", "vessel", rng.uniform(0.5, 0.9))
    windpipe = shapes.tube(column(rng, canvas, back - 0.3, 0, 0.1, 0.01), [rng.uniform(0.04, 0.06)] * 5)
    canvas.shell(windpipe, "wall", "gas", 0.7)
    ribs(rng, canvas, height)


def heart(rng: np.random.Generator, canvas: Canvas) -> None:
    """A close view of a heart between lungs, liver and chest wall."""
    partition(rng, canvas, int(rng.integers(3, 6)), ["lung", "fat", "muscle", "organ", "soft"], 1.5)
    heart_at(rng, canvas, rng.normal(0, 0.1), rng.normal(0, 0.1), rng.uniform(0.35, 0.75))


def limb(rng: np.random.Generator, canvas: Canvas) -> None:
    """Muscles with septa of fat round one or two bones; often a large tumour."""
    turn = np.eye(3, dtype=np.float32)
    center = (0, rng.normal(0, 0.1), rng.normal(0, 0.1))
    squareness = rng.uniform(0, 0.3)
    wide, high = rng.uniform(0.75, 1.2), rng.uniform(0.75, 1.1)
    outline = shapes.superquadric(center, (50, high, wide), turn, squareness)
    fat = canvas.paint(shapes.rough(rng, outline, 0.08, 0.5), "fat", target=chance(rng, 0.5)) or 0
    thick = rng.uniform(0.08, 0.35)
    inner = shapes.superquadric(center, (50, high - thick, wide - thick), turn, squareness)
    crop = canvas.grid.whole()
    compartments = inner.field(crop) < 1
    cells(rng, canvas, crop, compartments, int(rng.integers(4, 12)), "muscle", rng.uniform(0.01, 0.06), fat)
    for _ in range(int(rng.integers(1, 3))):
        line = column(rng, canvas, rng.normal(0, 0.15), rng.normal(0, 0.25), 0.15, 0.02)
        shape = shapes.rough(rng, shapes.tube(line, [rng.uniform(0.08, 0.2)] * 5), 0.1, 0.2)
        canvas.shell(shape, "bone", "marrow", rng.uniform(0.4, 0.8))
    for _ in range(int(rng.integers(1, 5))):
        line = column(rng, canvas, rng.normal(0, 0.35), rng.normal(0, 0.35), 0.3, 0.05)
        canvas.paint(shapes.tube(line, [log_uniform(rng, 0.015, 0.05)] * 5), "vessel")
    if chance(rng, 0.75):
        size = log_uniform(rng, 0.12, 0.55)
        spot = somewhere(rng, canvas, center[1], center[2], 0.3, 2 * size)
        shape = shapes.rough(rng, shapes.random_solid(rng, spot, size, rng.uniform(0.8, 2.5)), 0.1, size)
        tumour = canvas.paint(shape, "lesion", avoid=[0])
        lesions(rng, canvas, tumour, int(rng.integers(0, 5)), 0.4 * size)


def head(rng: np.random.Generator, canvas: Canvas) -> None:
    """Skull, folded cortex, ventricles, deep nuclei, lesions."""
    turn = np.eye(3, dtype=np.float32)
    wide, high = rng.uniform(0.65, 0.85), rng.uniform(0.8, 1.0)
    deep = rng.uniform(0.8, 1.4)
    center = np.array([rng.uniform(-0.5, 0.5), 0.0, 0.0])
    scalp = canvas.paint(shapes.superquadric(center, (deep, high, wide), turn, 0.2), "fat", target=chance(rng, 0.4))
    skull = shapes.superquadric(center, np.array([deep, high, wide]) - 0.06, turn, 0.2)
    bone = canvas.paint(skull, "bone", parent=scalp, target=chance(rng, 0.4))
    bone_width = rng.uniform(0.03, 0.09)
    inner = shapes.superquadric(center, np.array([deep, high, wide]) - 0.06 - bone_width, turn, 0.2)
    canvas.paint(inner, "csf", target=False)
    folds = rng.uniform(0.05, 0.12)
    brain = shapes.superquadric(center, np.array([deep, high, wide]) - 0.09 - bone_width, turn, 0.2)
    grey = canvas.paint(shapes.rough(rng, brain, 0.08, folds), "grey", parent=bone)
    if grey is None:
        return
    core = shapes.rough(rng, brain, rng.uniform(0.1, 0.25), folds)
    white = canvas.paint(core, "white", core=rng.uniform(0.6, 0.8), only=[grey], parent=grey)
    for sign in (-1, 1):
        spot = center + (rng.normal(0, 0.1), -0.02, sign * 0.1)
        horn = shapes.superquadric(
            spot, (0.3, 0.07, rng.uniform(0.2, 0.4)), shapes.turned(rng, 0.2, np.pi / 2 + sign * 0.2), bend=sign * 0.4
        )
        canvas.paint(horn, "csf", avoid=[0])
        for _ in range(int(rng.integers(0, 3))):
            spot = center + (rng.normal(0, 0.15), rng.normal(0.05, 0.12), sign * rng.uniform(0.12, 0.3))
            canvas.paint(shapes.random_solid(rng, spot, rng.uniform(0.05, 0.13), 1.2), "grey", avoid=[0], parent=white)
    falx = shapes.sheet(rng, center, 0.8, 0.012, shapes.turned(rng, 0.02, np.pi / 2))
    canvas.paint(falx, "csf", only=[grey], target=False)
    lesions(rng, canvas, white, int(rng.integers(0, 4)), 0.2)


def pelvis(rng: np.random.Generator, canvas: Canvas) -> None:
    """A gland of zones between organs of nearly its own grey value."""
    partition(rng, canvas, int(rng.integers(3, 7)), ["fat", "muscle", "fat", "soft", "muscle"], 2.0)
    size = rng.uniform(0.18, 0.45)
    place = somewhere(rng, canvas, 0, 0, 0.1, size)
    gland = shapes.superquadric(
        place, (size, 0.75 * size, size), shapes.turned(rng, 0.1, 0.0), rng.uniform(0, 0.5), taper=rng.normal(0, 0.15)
    )
    gland = shapes.rough(rng, gland, 0.08, 0.5 * size)
    above = np.asarray(place) + (rng.choice([-1, 1]) * size, -1.1 * size, rng.normal(0, 0.1))
    bladder = shapes.rough(
        rng, shapes.superquadric(above, (size, 0.6 * size, 1.1 * size), shapes.turned(rng, 0.1, 0.0)), 0.05, size
    )
    canvas.shell(bladder, "wall", "fluid", rng.uniform(0.6, 0.9))
    line = column(rng, canvas, place[1] + 1.3 * size, place[2], 0.2, 0.04)
    canvas.shell(
        shapes.tube(line, rng.uniform(0.3, 0.6, 5) * size),
        "wall",
        rng.choice(["gas", "content", "fluid"]),
        rng.uniform(0.3, 0.8),
    )
    outer = canvas.paint(gland, "gland")
    if outer is not None:
        shifted = np.asarray(place) - (0, 0.15 * size, 0)
        zone = shapes.superquadric(shifted, (0.8 * size, 0.5 * size, 0.65 * size), shapes.turned(rng, 0.1, 0.0))
        inner = canvas.paint(shapes.rough(rng, zone, 0.15, 0.3 * size), "gland", only=[outer], parent=outer)
        lesions(rng, canvas, inner if chance(rng, 0.5) else outer, int(rng.integers(0, 3)), 0.3 * size)
    for sign in (-1, 1):
        spot = (0, place[1] + rng.normal(0, 0.1), place[2] + sign * rng.uniform(2, 2.6) * size)
        bone = shapes.rough(rng, shapes.random_solid(rng, spot, 0.7 * size, 2.0), 0.1, 0.3)
        canvas.shell(bone, "bone", "marrow", rng.uniform(0.6, 0.85))


def body(rng: np.random.Generator, canvas: Canvas, height: float) -> tuple[int, int, int]:
    """Skin, fat, muscle and the cavity: regions (fat, muscle, cavity)."""
    center, turn = (0.0, 0.0, 0.0), np.eye(3, dtype=np.float32)
    far = 50.0
    squareness = rng.uniform(0.1, 0.6)
    outline = shapes.superquadric(center, (far, height, 1.0), turn, squareness)
    outline = shapes.rough(rng, outline, 0.02, 0.4)
    fat = canvas.paint(outline, "fat", target=chance(rng, 0.5))
    fatness = rng.uniform(0.04, 0.3)
    shift = (0.0, rng.normal(0, 0.03), 0.0)
    flesh = shapes.superquadric(shift, (far, height - fatness, 1 - fatness), turn, squareness)
    muscle = canvas.paint(shapes.rough(rng, flesh, 0.05, 0.2), "muscle", parent=fat, target=chance(rng, 0.5))
    wall = rng.uniform(0.04, 0.13)
    inner = (0.0, -0.05 + rng.normal(0, 0.02), 0.0)
    cavity = shapes.superquadric(inner, (far, height - fatness - 1.3 * wall, 1 - fatness - wall), turn, squareness)
    filling = "fat" if chance(rng, 0.8) else "soft"
    space = canvas.paint(shapes.rough(rng, cavity, 0.05, 0.3), filling, target=False)
    return fat or 0, muscle or 0, space or 0


def spine(rng: np.random.Generator, canvas: Canvas, y: float) -> None:
    """Vertebra with marrow, canal with cord, processes."""
    size = rng.uniform(0.1, 0.17)
    x = rng.normal(0, 0.03)
    line = column(rng, canvas, y, x, 0.1, 0.01)
    turn = np.eye(3, dtype=np.float32)
    for side in (-1, 1):
        process = shapes.superquadric((line[2, 0], y + 1.5 * size, x + side * size), (9, 0.25 * size, size), turn)
        canvas.paint(shapes.rough(rng, process, 0.4, size), "bone", target=False)
    back = shapes.superquadric((0, y + 2.2 * size, x), (9, 0.9 * size, 0.3 * size), turn, 0.5)
    canvas.paint(back, "bone", target=False)
    shape = shapes.rough(rng, shapes.tube(line, [size] * 5), 0.08, size)
    cortex, _ = canvas.shell(shape, "bone", "marrow", rng.uniform(0.7, 0.9))
    line = line + (0, 1.25 * size, 0)
    canal = shapes.tube(line, [0.5 * size] * 5)
    canvas.shell(canal, "fluid", "soft", rng.uniform(0.25, 0.6))


def ribs(rng: np.random.Generator, canvas: Canvas, height: float) -> None:
    """Pieces of rib round the cavity."""
    reach = rng.uniform(0.76, 0.88)
    for angle in np.arange(0, 2 * np.pi, rng.uniform(0.35, 0.8)) + rng.uniform(0, 1):
        if abs(np.sin(angle) + 1) < 0.2:
            continue
        center = (
            rng.uniform(canvas.grid.low[0], canvas.grid.high[0]),
            reach * height * np.sin(angle),
            reach * np.cos(angle),
        )
        slant = shapes.turned(rng, 0.4, np.arctan2(height * np.cos(angle), -np.sin(angle)))
        shape = shapes.superquadric(center, (0.07, 0.022, rng.uniform(0.05, 0.12)), slant)
        canvas.shell(shape, "bone", "marrow", 0.4, target=chance(rng, 0.3))


def heart_at(
    rng: np.random.Generator, canvas: Canvas, y: float, x: float, size: float, only: list[int] | None = None
) -> None:
    """Both ventricles in short axis: a ring, its lumen with papillary muscles, and a crescent."""
    deep = rng.uniform(1.0, 2.2) * size
    center = np.array(somewhere(rng, canvas, y, x, 0.03, deep * 0.8))
    angle = rng.uniform(0, 2 * np.pi)
    sack = shapes.superquadric(center, (1.3 * deep, 1.05 * size, 1.25 * size), shapes.turned(rng, 0.1))
    if chance(rng, 0.7):
        canvas.paint(sack, "fat", only=only, target=False)
    away = np.array([0, np.sin(angle), np.cos(angle)])
    right = shapes.superquadric(
        center + away * 0.55 * size, (0.9 * deep, 0.6 * size, 0.75 * size), shapes.turned(rng, 0.05, angle + np.pi / 2)
    )
    canvas.shell(right, "wall", "vessel", rng.uniform(0.75, 0.92))
    radius = rng.uniform(0.5, 0.62) * size
    left = shapes.superquadric(
        center - away * 0.3 * size, (deep, radius, radius * rng.uniform(0.9, 1.1)), shapes.turned(rng, 0.1)
    )
    left = shapes.rough(rng, left, 0.04, 0.4 * size)
    ring, lumen = canvas.shell(left, "wall", "vessel", rng.uniform(0.3, 0.68))
    if lumen is not None:
        for turn in rng.uniform(0, 2 * np.pi, 2):
            spot = center - away * 0.3 * size + np.array([0, np.sin(turn), np.cos(turn)]) * radius * 0.5
            knob = shapes.superquadric(spot, (0.6 * deep, 0.16 * radius, 0.2 * radius), shapes.turned(rng, 0.1))
            canvas.paint(knob, "wall", only=[lumen], parent=lumen, target=False)
    if ring is not None and chance(rng, 0.3):
        lesions(rng, canvas, ring, 1, 0.5 * radius)


def _organ(rng: np.random.Generator, canvas: Canvas, organ: str, side: int, back: float, inside: list[int]) -> None:
    everything = [*inside, *canvas.of_tissue("soft", "content", "wall", "gas", "fluid")]
    only = everything if chance(rng, 0.7) else inside
    if organ == "liver":
        center = somewhere(rng, canvas, -0.08, side * 0.42, 0.06, 0.6)
        main = shapes.superquadric(center, (0.6, 0.42, 0.45), shapes.turned(rng, 0.1), rng.uniform(0, 0.5))
        left = np.asarray(center) + (0, -0.22, -side * 0.35)
        lobe = shapes.superquadric(left, (0.4, 0.16, 0.42), shapes.turned(rng, 0.1, -side * 0.3))
        shape = shapes.rough(rng, shapes.joined([main, lobe], 0.4), 0.1, 0.25)
        found = canvas.paint(shape, "organ", only=only)
        if found is not None:
            for _ in range(int(rng.integers(0, 3))):
                heading = (rng.normal(0, 0.4), rng.normal(0, 1), side)
                for vessel in shapes.branches(rng, center, heading, 0.3, rng.uniform(0.02, 0.045), 2, 0.5):
                    canvas.paint(vessel, "vessel", only=[found], parent=found, target=False)
            lesions(rng, canvas, found, int(rng.integers(0, 4)), 0.1)
    elif organ == "spleen":
        center = somewhere(rng, canvas, 0.12, -side * 0.62, 0.05, 0.35)
        shape = shapes.superquadric(center, (0.35, 0.14, 0.27), shapes.turned(rng, 0.2, np.pi / 2 - 0.3), bend=0.4)
        found = canvas.paint(shapes.rough(rng, shape, 0.1, 0.15), "organ", only=only)
        lesions(rng, canvas, found, int(rng.integers(0, 2)), 0.06)
    elif organ == "kidneys":
        size = rng.uniform(0.12, 0.19)
        for sign in (-1, 1):
            center = somewhere(rng, canvas, back - 0.02, sign * 0.45, 0.05, 0.3)
            radii = (2 * size, 0.75 * size, size)
            shape = shapes.superquadric(center, radii, shapes.turned(rng, 0.15, sign * 0.9), bend=rng.uniform(0, 0.6))
            found = canvas.paint(shapes.rough(rng, shape, 0.06, 0.08), "organ", only=only)
            if found is not None and chance(rng, 0.6):
                tissue = rng.choice(["organ", "fat", "fluid"])
                inner = shapes.rough(rng, shape, 0.2, 0.05)
                canvas.paint(inner, tissue, core=rng.uniform(0.25, 0.5), only=[found], parent=found)
            lesions(rng, canvas, found, int(rng.integers(0, 2)), 0.08)
    elif organ == "pancreas":
        center = somewhere(rng, canvas, back - 0.33, -side * 0.05, 0.04, 0.12)
        path = shapes.wandering(rng, center, (0.25, -0.25, -side), rng.uniform(0.45, 0.7), 5, 0.16)
        path[:, 0] = center[0] + (path[:, 0] - center[0]) * 0.5
        widths = np.interp(range(6), [0, 2, 5], [rng.uniform(0.06, 0.1), 0.05, 0.04])
        canvas.paint(shapes.rough(rng, shapes.tube(path, widths), 0.3, 0.06), "organ", only=everything)
    elif organ == "gut":
        _gut(rng, canvas, everything)
    else:
        y, x = (-0.15, -side * 0.35) if organ == "stomach" else (-0.2, 0.0)
        center = somewhere(rng, canvas, y, x, 0.07, 0.3)
        shape = shapes.random_solid(rng, center, rng.uniform(0.15, 0.32), 1.2)
        content = rng.choice(["fluid", "content", "gas"], p=[0.5, 0.3, 0.2])
        if chance(rng, 0.6):
            canvas.shell(shape, "wall", content, rng.uniform(0.6, 0.85), only=only)
        else:
            canvas.paint(shape, content, only=only)


def _gut(rng: np.random.Generator, canvas: Canvas, only: list[int]) -> None:
    """Loops of bowel, with content, gas and walls, pressed together."""
    radius = rng.uniform(0.05, 0.13)
    content = rng.choice(["fluid", "content", "soft", "gas"], p=[0.25, 0.35, 0.25, 0.15])
    y, x = rng.uniform(-0.45, 0.1), rng.uniform(-0.5, 0.5)
    for _ in range(int(rng.integers(2, 11))):
        start = somewhere(rng, canvas, y, x, 0.24, 0.15)
        path = shapes.wandering(rng, start, rng.normal(0, 1, 3) * (0.6, 1, 1), rng.uniform(0.05, 0.7), 5, 0.35)
        shape = shapes.tube(path, radius * rng.uniform(0.7, 1.2, 6))
        canvas.shell(shape, "wall", content, rng.uniform(0.45, 0.8), only=only)

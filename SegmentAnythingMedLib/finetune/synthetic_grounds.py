"""What layouts share: where solids lie, the ground they lie on, and the lesions in them."""

from __future__ import annotations

import numpy as np

from SegmentAnythingMedLib.finetune import synthetic_shapes as shapes
from SegmentAnythingMedLib.finetune.synthetic_canvas import Canvas
from SegmentAnythingMedLib.finetune.synthetic_fields import Crop, chance, log_uniform, smooth_noise


def somewhere(rng: np.random.Generator, canvas: Canvas, y: float, x: float, spread: float, radius: float = 0.2):
    """A centre near (y, x), at a depth where a solid of that radius is at least partly in view."""
    low, high = canvas.grid.low[0], canvas.grid.high[0]
    margin = 0.7 * radius
    return (rng.uniform(low - margin, high + margin), y + rng.normal(0, spread), x + rng.normal(0, spread))


def column(rng: np.random.Generator, canvas: Canvas, y: float, x: float, slope: float, bow: float = 0.05) -> np.ndarray:
    """(5, 3) points of a line that runs through the stack."""
    low, high = canvas.grid.low[0] - 0.3, canvas.grid.high[0] + 0.3
    z = np.linspace(low, high, 5)
    slopes = rng.normal(0, slope, 2)
    wave = np.cumsum(rng.normal(0, bow, (5, 2)), axis=0)
    return np.column_stack([z, y + slopes[0] * z + wave[:, 0], x + slopes[1] * z + wave[:, 1]])


def lesions(rng: np.random.Generator, canvas: Canvas, organ: int | None, count: int, radius: float) -> None:
    """Nodules inside a structure, some with a different core or rim."""
    if organ is None or count == 0:
        return
    places = np.argwhere(canvas.regions[:, ::4, ::4] == organ)
    for _ in range(count if len(places) else 0):
        k, j, i = places[rng.integers(len(places))]
        spot = (k, min(4 * j, canvas.grid.shape[1] - 1), min(4 * i, canvas.grid.shape[2] - 1))
        center = [float(axis[spot]) for axis in (canvas.grid.z, canvas.grid.y, canvas.grid.x)]
        size = radius * log_uniform(rng, 0.3, 1.2)
        shape = shapes.random_solid(rng, center, size, 1.0)
        found = canvas.paint(shape, "lesion", only=[organ], parent=organ)
        if found is not None and chance(rng, 0.25):
            canvas.paint(shape, rng.choice(["fluid", "lesion"]), core=rng.uniform(0.2, 0.7), only=[found], parent=found)


def partition(rng: np.random.Generator, canvas: Canvas, count: int, tissues: list[str], frequency: float) -> None:
    """Cut the whole ground into irregular areas or cells of some tissues."""
    crop = canvas.grid.whole()
    tissue = [str(rng.choice(tissues)) for _ in range(count)]
    if count == 1:
        canvas.table[0].tissue = tissue[0]
        return
    if chance(rng, 0.25):
        cells(rng, canvas, crop, None, 2 * count + 2, tissues, rng.choice([0.0, 0.02]), None)
        return
    spans = canvas.grid.high - canvas.grid.low
    numbers = tuple(max(1, min(24, round(frequency * span / 2))) for span in spans)
    best = smooth_noise(rng, crop.shape, numbers)
    winner = np.zeros(crop.shape, np.uint8)
    for n in range(1, count):
        other = smooth_noise(rng, crop.shape, numbers) + np.float32(rng.normal(0, 0.5))
        ahead = other > best
        winner[ahead] = n
        np.maximum(best, other, out=best)
    for n in range(count):
        canvas.paint_mask(crop.region, winner == n, tissue[n], target=chance(rng, 0.3))


def cells(
    rng: np.random.Generator,
    canvas: Canvas,
    crop: Crop,
    inside: np.ndarray | None,
    count: int,
    tissue: str | list[str],
    gap: float,
    parent: int | None,
) -> None:
    """Voronoi cells with gaps of the ground between them."""
    low, high = canvas.grid.low, canvas.grid.high
    nearest = np.full(crop.shape, 1e9, np.float32)
    second = nearest.copy()
    owner = np.zeros(crop.shape, np.uint8)
    stretch = np.float32(rng.uniform(0.1, 1))
    bent = np.float32(log_uniform(rng, 0.02, 0.25))
    frequency = rng.uniform(3, 8)
    sway = [bent * smooth_noise(rng, crop.shape, (min(8, crop.shape[0] / 4), frequency, frequency)) for _ in range(2)]
    across, down = crop.x + sway[0], crop.y + sway[1]
    for n in range(count):
        z, y, x = (np.float32(rng.uniform(*ends)) for ends in zip(low, high, strict=True))
        distance = (across - x) ** 2 + (down - y) ** 2 + stretch * (crop.z - z) ** 2
        closer = distance < nearest
        if gap:
            second = np.where(closer, nearest, np.minimum(second, distance))
        owner[closer] = n
        np.minimum(nearest, distance, out=nearest)
    wide = (np.sqrt(second) - np.sqrt(nearest) > gap) if gap else np.ones(crop.shape, bool)
    if inside is not None:
        wide &= inside
    for n in range(count):
        name = tissue if isinstance(tissue, str) else str(rng.choice(tissue))
        canvas.paint_mask(crop.region, wide & (owner == n), name, parent=parent, target=chance(rng, 0.7))

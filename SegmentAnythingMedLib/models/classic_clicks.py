"""Clicks and scribbles: their pixels, the regions that grow from them, and the corrections they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.models.classic_crop import (
    FAR,
    Crop,
    Frame,
    equivalent_radius_mm,
    grown_box,
    mask_box,
    signed_distance_mm,
)
from SegmentAnythingMedLib.models.classic_intensity import Appearance
from SegmentAnythingMedLib.prompts import SlicePrompts
from SegmentAnythingMedLib.rasterize import curve_mask

_CLICK_LEVELS = np.geomspace(0.02, 0.35, 11)
"""Differences in grey value (of 0 to 1) at which a region is grown from a click."""
_CLICK_FIELDS = (1.0, 0.3)
"""Fields of view in which regions are grown, as shares of the slice: large organs and small lesions."""
_CLICK_SMOOTHING = 1.0
"""Gaussian sigma in crop pixels: regions leak less through noise."""
_GROWTH = 1.1
"""A level whose region is not this much larger than the last one's is skipped."""
_RING = 0.4
"""Width of the surroundings that a region is compared with, in radii."""
_TOUCHING_PENALTY = 2.0
"""A region that touches half of the field's border is background."""
_DISC_SHARE = 0.15
"""Radius of the answer where nothing stands out, as a share of the small field."""
_MAX_OVERLAP = 0.7
"""Intersection over union above which two candidates count as the same scale."""
MAX_CANDIDATES = 3

CORRECTION_REACH = 1.5
"""Reach of a click in multiples of its distance to the wrong border: a click is set in the middle of an error."""
CORRECTION_CONTRAST = 0.12
"""Difference in grey value (of 0 to 1) over which a correction's influence falls to 0.6."""
_CORRECTED = 3.0
_CHANGEABLE = 4.0
"""Log-odds at a corrected pixel before smoothing, and the firmest that an earlier answer stays under clicks."""


@dataclass(frozen=True, eq=False)
class Seeds:
    """Pixels of the slice whose label the user gave: (N, 2) row and column of each side, inside the slice."""

    positive: np.ndarray
    negative: np.ndarray

    @classmethod
    def of(cls, prompts: SlicePrompts, shape: tuple[int, int]) -> Seeds:
        """From points and scribbles; a pixel claimed by both sides is background."""
        pixels = np.clip(np.rint(prompts.points_rc), 0, np.asarray(shape) - 1).astype(int).reshape(-1, 2)
        sides = {side: [pixels[prompts.positive == side]] for side in (True, False)}
        for curve, side in prompts.scribbles:
            sides[bool(side)].append(np.argwhere(curve_mask(curve, shape)))
        return cls(np.concatenate(sides[True]), np.concatenate(sides[False]))

    @property
    def is_empty(self) -> bool:
        return not len(self.positive) and not len(self.negative)

    @property
    def reach(self) -> tuple[slice, slice]:
        """Rows and columns that hold all; there must be some."""
        low, high = (edge(np.concatenate([self.positive, self.negative]), axis=0) for edge in (np.min, np.max))
        return slice(int(low[0]), int(high[0]) + 1), slice(int(low[1]), int(high[1]) + 1)

    def on(self, frame: Frame) -> np.ndarray:
        """(h, w) int8 of a crop: 1 object, -1 background, 0 free; free where both sides share a crop pixel."""
        return _covered(frame, self.positive).astype(np.int8) - _covered(frame, self.negative)

    def positive_on(self, frame: Frame) -> np.ndarray:
        """(h, w) bool of a crop: where the object was clicked or painted."""
        return _covered(frame, self.positive)

    def write(self, logits: np.ndarray) -> None:
        """Give every seed its label on (rows, columns) logits of the slice, in place."""
        logits[self.positive[:, 0], self.positive[:, 1]] = FAR
        logits[self.negative[:, 0], self.negative[:, 1]] = -FAR


def _covered(frame: Frame, points_rc: np.ndarray) -> np.ndarray:
    """(h, w) bool: crop pixels that hold one of (N, 2) slice pixels."""
    at = np.rint(frame.to_crop(points_rc)).astype(int)
    at = at[((at >= 0) & (at < np.asarray(frame.size))).all(axis=1)]
    covered = np.zeros(frame.size, dtype=bool)
    covered[at[:, 0], at[:, 1]] = True
    return covered


def grow_regions(channels: np.ndarray, spacing_mm: tuple[float, float], seeds: Seeds) -> list[tuple[Frame, np.ndarray]]:
    """Regions of different scale that hold the positive seeds, best first.

    Regions grow with the tolerated difference in grey value (Adams and Bischof, "Seeded region growing", 1994); the
    ones that differ most from what is just round them, are compact and do not run out of the slice are kept.

    Returns
    -------
    list of (Frame, np.ndarray)
        At most `MAX_CANDIDATES` frames round a region, with the (h, w) bool region.
    """
    fields = [_field(channels, spacing_mm, seeds, share) for share in _CLICK_FIELDS]
    scored = [(score, crop, region) for crop in fields for score, region in _levels(crop, seeds)]
    best_first = sorted(scored, key=lambda found: -found[0])
    wholes = (crop.frame.give_mask(region) for _, crop, region in best_first)
    chosen = [mask for _, mask in islice(distinct(wholes), MAX_CANDIDATES)] or [_small_disc(fields[-1], seeds)]
    frames = [Frame.round_box(whole.shape, spacing_mm, mask_box(whole)) for whole in chosen]
    return [(frame, frame.take_mask(whole)) for frame, whole in zip(frames, chosen, strict=True)]


def distinct(masks: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """The masks that differ enough from all found before them, with their number."""
    chosen: list[np.ndarray] = []
    for row, mask in enumerate(masks):
        shared = (np.count_nonzero(mask & other) < _MAX_OVERLAP * np.count_nonzero(mask | other) for other in chosen)
        if all(shared):
            chosen.append(mask)
            yield row, mask


def _field(channels: np.ndarray, spacing_mm: tuple[float, float], seeds: Seeds, share: float) -> Crop:
    """A share of the slice, centred on the positive seeds."""
    shape = channels.shape[1:]
    reach_mm = share / 2 * max(shape[0] * spacing_mm[0], shape[1] * spacing_mm[1])
    reach = np.tile(reach_mm / np.asarray(spacing_mm), 2) * (-1, -1, 1, 1)
    box = np.concatenate([seeds.positive.min(axis=0), seeds.positive.max(axis=0)]) + reach
    return Crop.of(channels, Frame.round_box(shape, spacing_mm, box, margin=0.0))


def _levels(crop: Crop, seeds: Seeds) -> list[tuple[float, np.ndarray]]:
    """Score and region for every level, until the region is the background."""
    smooth = ndimage.gaussian_filter(crop.channels, (0, _CLICK_SMOOTHING, _CLICK_SMOOTHING), mode="nearest")
    at = seeds.positive_on(crop.frame)
    reference = np.median(smooth[:, at], axis=1)[:, None, None]
    difference = np.sqrt(((smooth - reference) ** 2).sum(axis=0))
    found: list[tuple[float, np.ndarray]] = []
    last = 0
    for level in _CLICK_LEVELS:
        region = _connected((difference <= level) | at, at)
        if region.sum() <= _GROWTH * last:
            continue
        last = int(region.sum())
        separability, compactness, border, _ = region_clues(crop, region)
        if _TOUCHING_PENALTY * border >= 1:
            break
        found.append((separability * compactness * (1 - _TOUCHING_PENALTY * border), region))
    return found


def _small_disc(crop: Crop, seeds: Seeds) -> np.ndarray:
    """(rows, columns) a disc round the seeds: the answer where nothing stands out."""
    at = seeds.positive_on(crop.frame)
    away = ndimage.distance_transform_edt(~at, sampling=crop.frame.step_mm)
    return crop.frame.give_mask(at | (away <= _DISC_SHARE * _largest(crop)))


def _connected(mask: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The parts of a mask that hold a seed, without thin bridges and holes."""
    labels, count = ndimage.label(_opened(mask) | at)
    kept = np.zeros(count + 1, dtype=bool)
    kept[labels[at]] = True
    region = kept[labels]
    if not region.any():
        return region
    held = grown_box(mask_box(region).astype(int), (1, 1))
    region[held] = ~outside(~region[held])
    return region


def outside(free: np.ndarray) -> np.ndarray:
    """(h, w) bool: the connected parts of an (h, w) mask that reach its border."""
    labels, count = ndimage.label(free)
    reaching = np.zeros(count + 1, dtype=bool)
    reaching[border_values(labels)] = True
    reaching[0] = False
    return reaching[labels]


def _opened(mask: np.ndarray) -> np.ndarray:
    """Binary opening with a cross, as by `scipy.ndimage` in a tenth of its time; nothing lies beyond the border."""
    eroded = np.zeros_like(mask)
    middle = mask[1:-1, 1:-1]
    eroded[1:-1, 1:-1] = middle & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    opened = eroded.copy()
    opened[1:] |= eroded[:-1]
    opened[:-1] |= eroded[1:]
    opened[:, 1:] |= eroded[:, :-1]
    opened[:, :-1] |= eroded[:, 1:]
    return opened


def border_values(values: np.ndarray) -> np.ndarray:
    """Of the pixels along the four sides of an (h, w) array."""
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def region_clues(crop: Crop, region: np.ndarray) -> np.ndarray:
    """(4,) what speaks for a (h, w) region being an object, each 0 to 1.

    How far its values differ from those just round it, how compact it is (depth over the radius of the disc of the
    same area), how much of the crop's border it touches, and how much of the crop it fills.
    """
    step = crop.frame.step_mm
    radius = equivalent_radius_mm(region, step)
    limit, width = _largest(crop), max(_RING * radius, 2 * min(step))
    distance = np.clip(signed_distance_mm(region, step, width), -limit, limit)
    ring = (distance >= -width) & ~region
    separability = Appearance.measure(crop.bins, region, ring).separability
    border = border_values(region).mean()
    return np.array([separability, min(float(distance.max()) / radius, 1.0), float(border), float(region.mean())])


def corrected(crop: Crop, logits: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Log-odds after the seeds that contradict an answer changed it round them.

    A wrong pixel says that the error round it is about as wide as its distance to the answer's border, and looks
    like it. Farther away nothing changes.

    Parameters
    ----------
    logits
        (h, w) the answer so far.
    seeds
        (h, w) int8: 1 object, -1 background, 0 free.
    """
    result = np.clip(logits, -_CHANGEABLE, _CHANGEABLE)
    distance = np.clip(signed_distance_mm(logits > 0, crop.frame.step_mm), -_largest(crop), _largest(crop))
    for sign in (1, -1):
        wrong = (seeds == sign) & (sign * logits <= 0)
        parts, count = ndimage.label(wrong, structure=np.ones((3, 3)))
        for part in range(1, count + 1):
            result = result + sign * _influence(crop, parts == part, distance, result)
    return result


def _influence(crop: Crop, part: np.ndarray, distance: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """(h, w) positive change of log-odds round the pixels of one click or scribble."""
    step = crop.frame.step_mm
    reach = max(CORRECTION_REACH * float(np.abs(distance[part]).max()), min(step))
    away = ndimage.distance_transform_edt(~part, sampling=step) / reach
    values = np.median(crop.channels[:, part], axis=1)[:, None, None]
    unlike = ((crop.channels - values) ** 2).sum(axis=0) / CORRECTION_CONTRAST**2
    needed = float(np.abs(logits[part]).max()) + _CORRECTED
    return needed * np.exp(-0.5 * (away**2 + unlike))


def _largest(crop: Crop) -> float:
    return max(size * step for size, step in zip(crop.frame.size, crop.frame.step_mm, strict=True))

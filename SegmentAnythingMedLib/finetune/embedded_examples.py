"""Training examples: a structure followed through neighbouring slices in one window, and the first prompt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.finetune import embedded_prompting as prompting
from SegmentAnythingMedLib.finetune.stack import Stack
from SegmentAnythingMedLib.models.embedded_crop import INPUT_SIZE, LEAST_PIXELS, Frame, mask_box

SLICES = 5
"""Slices of an example."""
LEAST_AREA = 25
"""Network pixels at `INPUT_SIZE` that the structure covers at least on its first slice."""
GOES_ON_REFUSED = 0.6
"""Share of structures refused because they do not end within the walk: the end is what is hardest to learn."""
FAR_MEMORIES = 0.6
"""Share of MEMORY examples whose first slice lies further from the others, as a key slice does at use."""
NEAR_THE_END = 0.5
"""Share of these that pass the structure's end."""
_TRIES = 20


class Start(IntEnum):
    """How the model is first told about a structure."""

    BOX = 0
    CLICK = 1
    MEMORY = 2  # the true mask of the first slice is remembered; the second is to be outlined
    REFINE = 3  # a wrong mask of the first slice is to be refined


START_SHARES = {Start.BOX: 0.36, Start.CLICK: 0.40, Start.MEMORY: 0.15, Start.REFINE: 0.09}
_OBJECT_SHARE = {
    Start.BOX: (0.34, 0.66),
    Start.CLICK: (0.10, 1.8),
    Start.MEMORY: (0.32, 0.66),
    Start.REFINE: (0.34, 0.75),
}
"""Longer side of the structure as a share of the window's side; at use it is 0.5 but for clicks, whose windows can be
too small: the network must see such windows to judge its answers there."""
CENTERED_CLICKS = 0.8
"""Share of click windows that lie round a point deep inside the structure, as at use."""


@dataclass(frozen=True, eq=False)
class Example:
    """One structure.

    Parameters
    ----------
    images
        (S, h, w) uint8.
    masks
        (S, h, w) uint8, 0 or 1; all 0 where the structure has ended.
    prompt
        (3, h, w) float32: region, positive and negative map on the first slice.
    given
        (h, w) float32: mask that comes with the example, remembered (MEMORY) or to be refined (REFINE); else 0.
    start
        How the model is first told.
    single
        Whether the prompt is one positive click and nothing else: several answers are possible.
    count
        Slices that are really there; the rest repeats the last.
    stride
        Slices of the stack from one to the next.
    gap
        Slices of the stack from the first to the second; ``stride`` unless the first is a key slice further off. Then
        the second is remembered, too, and the third is to be outlined.
    """

    images: np.ndarray
    masks: np.ndarray
    prompt: np.ndarray
    given: np.ndarray
    start: Start
    single: bool
    count: int
    stride: int
    gap: int


def draw_example(stack: Stack, random: np.random.Generator, size: int = INPUT_SIZE) -> Example | None:
    """A random structure of a stack as an example; None if the stack holds none of a useful size."""
    for _ in range(_TRIES):
        start = Start(random.choice(len(START_SHARES), p=list(START_SHARES.values())))
        if start is Start.MEMORY and len(stack.image) == 1:
            continue
        far = start is Start.MEMORY and random.random() < FAR_MEMORIES
        slices, stride = _walk(len(stack.image), random, len(stack.image) if far else SLICES)
        gap = stride
        masks = _follow(stack, slices, start, random)
        if masks is None:
            continue
        if not far and slices[0] != slices[-1] and masks[-1].any() and random.random() < GOES_ON_REFUSED:
            continue
        if far:
            kept = _far(masks, len(set(slices)), random)
            masks, slices, gap = masks[kept], [slices[k] for k in kept], kept[1] * stride
        frame = _window(masks[0], stack.spacing_mm[1:], start, size, random)
        seen = frame.take(masks) >= 0.5
        if np.count_nonzero(seen[0]) < LEAST_AREA * (size / INPUT_SIZE) ** 2:
            continue
        turn = int(random.integers(8))
        images = _turned(_recolored(frame.take(stack.pixels(slices)), random), turn)
        return _example(images, _turned(seen, turn), start, len(set(slices)), (stride, gap), random)
    return None


def _example(
    images: np.ndarray, seen: np.ndarray, start: Start, count: int, steps: tuple[int, int], random: np.random.Generator
) -> Example:
    size = seen.shape[-1]
    prompt = np.zeros((3, size, size), dtype=np.float32)
    given = np.zeros((size, size), dtype=np.float32)
    single = False
    if start is Start.BOX:
        prompt = prompting.enclosing_prompt(seen[0], random)
    elif start is Start.CLICK:
        prompt, single = prompting.clicking_prompt(seen[0], random)
    elif start is Start.MEMORY:
        given = prompting.remembered_mask(seen[0], random)
    else:
        given = prompting.wrong_mask(seen[0], random)
    pixels = np.rint(images * 255).astype(np.uint8)
    return Example(pixels, seen.astype(np.uint8), prompt, given, start, single, count, *steps)


def _walk(depth: int, random: np.random.Generator, length: int = SLICES) -> tuple[list[int], int]:
    """Indices of ``length`` neighbouring slices in a random direction; near the stack's end the last is repeated."""
    stride = 2 if depth > 6 and length == SLICES and random.random() < 0.25 else 1
    first, step = int(random.integers(depth)), int(random.choice([-1, 1]))
    ahead = (depth - 1 - first if step > 0 else first) // stride
    behind = (first if step > 0 else depth - 1 - first) // stride
    if ahead < SLICES - 1 and behind > ahead:
        step, ahead = -step, behind
    return [first + step * stride * min(k, ahead) for k in range(length)], stride


def _far(masks: np.ndarray, count: int, random: np.random.Generator) -> list[int]:
    """Places in a walk of ``count`` slices: the first, and `SLICES` - 1 neighbouring ones further on."""
    last = int(np.flatnonzero(masks[:count].any((1, 2)))[-1])
    near = last < count - 1 and random.random() < NEAR_THE_END
    low = max(1, last - 2) if near else 1
    second = int(random.integers(low, max(min(last, count - 2), low) + 1))
    return [0, *(min(second + k, count - 1) for k in range(SLICES - 1))]


def _follow(stack: Stack, slices: list[int], start: Start, random: np.random.Generator) -> np.ndarray | None:
    """(S, H, W) float32 masks of a structure that is on the first slice, followed by overlap; None if there is none."""
    counts = np.bincount(stack.labels[slices[0]].reshape(-1))
    counts[0] = 0
    labels = np.flatnonzero(counts >= 12)
    if not len(labels):
        return None
    label = int(random.choice(labels))
    # A box round a ring means the filled disc to everyone; clicks can tell.
    nested = random.random() < (0.9 if start is Start.BOX else 0.6)
    inner = stack.descendants(label) if nested else set()
    chosen = np.isin(stack.labels[slices], [label, *inner])
    components, count = ndimage.label(chosen[0])
    if count == 0:
        return None
    if count == 1 or random.random() < 0.12:
        mask = chosen[0]
    else:
        sizes = np.bincount(components.reshape(-1))[1:].astype(float)
        mask = components == 1 + random.choice(count, p=sizes / sizes.sum())
    if np.count_nonzero(mask) < 12 or mask.mean() > 0.45:
        return None
    masks = np.zeros(chosen.shape, dtype=np.float32)
    masks[0] = mask
    for k in range(1, len(slices)):
        if slices[k] == slices[k - 1]:
            masks[k] = masks[k - 1]
            continue
        components, _ = ndimage.label(chosen[k])
        met = np.unique(components[(masks[k - 1] > 0) & chosen[k]])
        masks[k] = np.isin(components, met[met > 0])
    return masks


def _window(
    mask: np.ndarray, spacing_mm: tuple[float, float], start: Start, size: int, random: np.random.Generator
) -> Frame:
    """A window round the mask as at use, but off centre, of varying size, and with pixels a little off square."""
    aspect = float(np.exp(random.normal() * 0.1))
    spacing = (spacing_mm[0] * aspect, spacing_mm[1] / aspect)
    row0, column0, row1, column1 = mask_box(mask)
    longer = max((row1 - row0 + 1) * spacing[0], (column1 - column0 + 1) * spacing[1])
    low, high = _OBJECT_SHARE[start]
    share = float(np.exp(random.uniform(np.log(low), np.log(high))))
    side_mm = max(longer / share, LEAST_PIXELS * max(spacing))
    if start is Start.CLICK and (share > 0.8 or random.random() < CENTERED_CLICKS):
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        deep = np.argwhere(depth >= random.uniform(0.2, 1.0) * depth.max())
        point = deep[random.integers(len(deep))] + random.uniform(-0.06, 0.06, 2) * side_mm / spacing
        return Frame((float(point[0]), float(point[1])), side_mm, spacing, size)
    room = (side_mm - longer) / 2 * (0.9 if start is Start.CLICK else 0.35)
    shift = random.uniform(-room, room, 2) / spacing
    center = ((row0 + row1) / 2 + shift[0], (column0 + column1) / 2 + shift[1])
    return Frame(center, side_mm, spacing, size)


def _recolored(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Other windows, gammas, polarity and noise, the same on all slices."""
    if random.random() < 0.6:
        low, high = random.uniform(-0.1, 0.25), random.uniform(0.65, 1.1)
        images = np.clip((images - low) / (high - low), 0, 1)
    if random.random() < 0.4:
        images = np.clip(images, 0, 1) ** np.exp(random.normal() * 0.35)
    if random.random() < 0.25:
        images = 1 - images
    if random.random() < 0.2:
        noise = random.standard_normal(images.shape, dtype=np.float32)
        images = images + np.float32(random.uniform(0, 0.06)) * noise
    return np.clip(images, 0, 1).astype(np.float32, copy=False)


def _turned(maps: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight rotations and reflections by right angles."""
    maps = np.rot90(maps, turn % 4, axes=(-2, -1))
    return np.ascontiguousarray(maps[..., ::-1] if turn >= 4 else maps)

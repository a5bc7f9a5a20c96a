"""What the user says: points, boxes, scribbles, lassos and masks, each on a slice plane of a volume, in IJK.

Prompts are values. `on_slice` turns the prompts of one object on one slice into slice pixels, which is what models
see. The JSON file that saves and replays them is written by `SegmentAnythingMedLib.prompts_file`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry


@dataclass(frozen=True)
class PointPrompt:
    """A click at a continuous IJK position; positive = belongs to the object, negative = does not."""

    point_ijk: tuple[float, float, float]
    positive: bool = True
    plane: Plane = field(default_factory=Plane)
    kind: ClassVar[str] = "point"

    @property
    def points_ijk(self) -> np.ndarray:
        return np.array([self.point_ijk], dtype=np.float64)

    @property
    def label(self) -> str:
        return f"{'point' if self.positive else 'negative point'} at {_text(self.point_ijk)}"


@dataclass(frozen=True)
class BoxPrompt:
    """A rectangle by two opposite corners in IJK; both corners are voxel centres inside the box."""

    corners_ijk: tuple[tuple[float, float, float], tuple[float, float, float]]
    plane: Plane = field(default_factory=Plane)
    kind: ClassVar[str] = "box"

    @property
    def points_ijk(self) -> np.ndarray:
        return np.array(self.corners_ijk, dtype=np.float64)

    @property
    def label(self) -> str:
        return f"box {_text(self.corners_ijk[0])} to {_text(self.corners_ijk[1])}"

    @classmethod
    def on_slice(cls, box: tuple[float, float, float, float], index: int, plane: Plane) -> BoxPrompt:
        """Box from inclusive corners in IJK order without the depth axis.

        Parameters
        ----------
        box
            ``(I0, J0, I1, J1)`` when the plane's depth axis is K, ``(I0, K0, I1, K1)`` for J, ``(J0, K0, J1, K1)``
            for I.
        index
            Slice along the depth axis.
        plane
            A plane along an IJK axis.
        """
        if plane.axis is None:
            raise PromptError("A box on an oblique plane needs its two corners in IJK.")
        first, second = list(box[:2]), list(box[2:])
        first.insert(plane.axis, float(index))
        second.insert(plane.axis, float(index))
        return cls((tuple(first), tuple(second)), plane)


@dataclass(frozen=True)
class ScribblePrompt:
    """A drawn open curve of at least two IJK points; positive paints the object, negative the background."""

    curve_ijk: tuple[tuple[float, float, float], ...]
    positive: bool = True
    plane: Plane = field(default_factory=Plane)
    kind: ClassVar[str] = "scribble"

    @property
    def points_ijk(self) -> np.ndarray:
        return np.array(self.curve_ijk, dtype=np.float64)

    @property
    def label(self) -> str:
        return f"{'' if self.positive else 'negative '}scribble from {_text(self.curve_ijk[0])}"


@dataclass(frozen=True)
class LassoPrompt:
    """A closed curve of at least three IJK points drawn round the object."""

    curve_ijk: tuple[tuple[float, float, float], ...]
    plane: Plane = field(default_factory=Plane)
    kind: ClassVar[str] = "lasso"

    @property
    def points_ijk(self) -> np.ndarray:
        return np.array(self.curve_ijk, dtype=np.float64)

    @property
    def label(self) -> str:
        return f"lasso through {_text(self.curve_ijk[0])}"


@dataclass(frozen=True, eq=False)
class MaskPrompt:
    """A mask drawn or confirmed on a slice.

    Parameters
    ----------
    mask
        (rows, columns) bool, on the pixels of the slice.
    index
        Slice along the plane.
    plane
        The slice's plane.
    """

    mask: np.ndarray
    index: int
    plane: Plane = field(default_factory=Plane)
    kind: ClassVar[str] = "mask"

    @property
    def label(self) -> str:
        return f"mask on slice {self.index}"


Prompt = PointPrompt | BoxPrompt | ScribblePrompt | LassoPrompt | MaskPrompt


@dataclass(frozen=True, eq=False)
class SlicePrompts:
    """The prompts of one object on one slice, in continuous slice pixels (row, column).

    Parameters
    ----------
    points_rc
        (N, 2) float64.
    positive
        (N,) bool.
    box_rc
        ``(row0, column0, row1, column1)`` with row0 <= row1 and column0 <= column1, or None. Corners are pixel
        centres inside the box.
    scribbles
        ``((M, 2) curve, positive)`` each.
    lasso_rc
        (M, 2) closed curve or None.
    mask
        (rows, columns) bool: a mask the user drew or confirmed, or None.
    """

    points_rc: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    positive: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool))
    box_rc: tuple[float, float, float, float] | None = None
    scribbles: tuple[tuple[np.ndarray, bool], ...] = ()
    lasso_rc: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def is_empty(self) -> bool:
        return (
            not len(self.points_rc)
            and self.box_rc is None
            and not self.scribbles
            and self.mask is None
            and self.lasso_rc is None
        )

    @property
    def is_only_negative(self) -> bool:
        """There are prompts, and none says where the object is."""
        positive = self.positive.any() or any(inside for _, inside in self.scribbles)
        elsewhere = self.box_rc is not None or self.lasso_rc is not None or self.mask is not None
        return not self.is_empty and not positive and not elsewhere

    @property
    def is_single_click(self) -> bool:
        """One positive point and nothing else: several answers are possible."""
        alone = self.box_rc is None and not self.scribbles and self.lasso_rc is None and self.mask is None
        return alone and len(self.points_rc) == 1 and bool(self.positive[0])

    @property
    def marks(self) -> frozenset[tuple[object, ...]]:
        """Clicks and scribbles, each with its side, to tell whether other prompts hold the same."""
        clicks = zip(map(tuple, self.points_rc.tolist()), self.positive.tolist(), strict=True)
        curves = ((tuple(map(tuple, np.asarray(curve).tolist())), bool(side)) for curve, side in self.scribbles)
        return frozenset(("click", *one) for one in clicks) | frozenset(("scribble", *one) for one in curves)

    def encloses_as(self, other: SlicePrompts) -> bool:
        """Whether both have the same box and the same lasso, or neither has any."""
        mine, theirs = self.lasso_rc, other.lasso_rc
        same_lasso = (mine is None) == (theirs is None) and (mine is None or np.array_equal(mine, theirs))
        return self.box_rc == other.box_rc and same_lasso


def slice_index(prompt: Prompt, slices: SliceGeometry) -> int:
    """The slice a prompt lies on.

    Raises
    ------
    PromptError
        If the prompt is empty, outside the volume, not flat on one slice, or drawn on another plane.
    """
    if prompt.plane != slices.plane:
        raise PromptError(f"The {prompt.label} was drawn on {prompt.plane}, not on {slices.plane}.")
    if isinstance(prompt, MaskPrompt):
        return _checked_mask_index(prompt, slices)
    try:
        points = prompt.points_ijk
    except (TypeError, ValueError) as error:
        raise PromptError(f"The {prompt.kind} prompt needs (I, J, K) positions: {error}.") from error
    if points.ndim != 2 or points.shape[1:] != (3,) or not np.isfinite(points).all():
        raise PromptError(f"The {prompt.kind} prompt needs finite (I, J, K) positions, got {points.tolist()}.")
    needed = {"scribble": 2, "lasso": 3}.get(prompt.kind, 1)
    if len(points) < needed:
        raise PromptError(f"A {prompt.kind} needs at least {needed} points, got {len(points)}.")
    outside = ~slices.volume.contains(points)
    if outside.any():
        last = ", ".join(f"{axis} 0 to {n - 1}" for axis, n in zip("IJK", slices.volume.size_ijk, strict=True))
        bad = _text(points[int(np.argmax(outside))])
        raise PromptError(f"The {prompt.label} is outside the volume at {bad}: valid are {last}.")
    depth, pixels = slices.pixels_from_ijk(points)
    index = int(np.rint(np.median(depth)))
    if np.abs(depth - index).max() > 0.5 + 1e-6:
        spread = f"{depth.min():.1f} to {depth.max():.1f}"
        raise PromptError(f"The {prompt.label} is not on one slice: it spans {spread} of the {slices.plane}.")
    if isinstance(prompt, BoxPrompt) and np.abs(pixels[0] - pixels[1]).min() < 1e-6 and min(slices.shape) > 1:
        raise PromptError(f"The {prompt.label} is empty: give two opposite corners that differ in row and column.")
    return min(max(index, 0), slices.count - 1)


def on_slice(prompts: Iterable[Prompt], slices: SliceGeometry, index: int) -> SlicePrompts:
    """Prompts of one object that lie on slice ``index``, merged and in slice pixels.

    The last box, lasso and mask win; points and scribbles add up.
    """
    points: list[np.ndarray] = []
    positive: list[bool] = []
    scribbles: list[tuple[np.ndarray, bool]] = []
    box = lasso = mask = None
    for prompt in prompts:
        if prompt.plane != slices.plane or slice_index(prompt, slices) != index:
            continue
        if isinstance(prompt, MaskPrompt):
            mask = np.asarray(prompt.mask, dtype=bool)
            continue
        _, pixels = slices.pixels_from_ijk(prompt.points_ijk)
        if isinstance(prompt, PointPrompt):
            points.append(pixels[0])
            positive.append(prompt.positive)
        elif isinstance(prompt, BoxPrompt):
            box = tuple(float(x) for x in (*pixels.min(axis=0), *pixels.max(axis=0)))
        elif isinstance(prompt, ScribblePrompt):
            scribbles.append((pixels, prompt.positive))
        else:
            lasso = pixels
    return SlicePrompts(
        np.array(points, dtype=np.float64).reshape(-1, 2),
        np.array(positive, dtype=bool),
        box,
        tuple(scribbles),
        lasso,
        mask,
    )


def _checked_mask_index(prompt: MaskPrompt, slices: SliceGeometry) -> int:
    index = int(prompt.index)
    if not 0 <= index < slices.count:
        raise PromptError(f"The {prompt.label} is outside the volume: {slices.plane} run from 0 to {slices.count - 1}.")
    if np.shape(prompt.mask) != slices.shape:
        raise PromptError(f"The {prompt.label} has shape {np.shape(prompt.mask)}, but slices here are {slices.shape}.")
    return index


def _text(point: Iterable[float]) -> str:
    return "(" + ", ".join(f"{float(x):g}" for x in point) + ")"

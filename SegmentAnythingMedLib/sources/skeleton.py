"""The skeleton of a mask as a graph: thin lines, where they fork and end, and the branches between.

Skeleton pixels with more than two skeleton neighbours that touch are a joint if three branches or more meet there, a
fork; with fewer they are only a corner of a line. Taking the joints away leaves the branches. Short branches with a
free end are spurs, which thinning makes from bumps of the mask; they are cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_AROUND = np.ones((3, 3), int)


@dataclass(frozen=True, eq=False)
class Branch:
    """A line between two joints or ends.

    Parameters
    ----------
    pixels
        (N, 2) int, in their order along the line.
    length_mm
        From the first pixel to the last, and to the joints that it touches.
    joints
        Numbers of the joints that its ends touch; twice the same for a loop.
    """

    pixels: np.ndarray
    length_mm: float
    joints: tuple[int, ...]

    @property
    def middle(self) -> tuple[int, int]:
        """Pixel half way."""
        row, column = self.pixels[len(self.pixels) // 2]
        return int(row), int(column)


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Thin lines and what they are made of.

    Parameters
    ----------
    lines
        (rows, columns) bool, one pixel wide.
    joints
        (rows, columns) int: pixels of joint n have n, from 1; elsewhere 0.
    branches
        All lines between.
    """

    lines: np.ndarray
    joints: np.ndarray
    branches: tuple[Branch, ...]

    @classmethod
    def of_mask(cls, mask: np.ndarray, spacing_mm: tuple[float, float], spur_mm: float = 0.0) -> Skeleton:
        """Skeleton of a (rows, columns) bool mask, without spurs.

        Parameters
        ----------
        mask
            (rows, columns) bool.
        spacing_mm
            Size of a pixel along a row step and along a column step.
        spur_mm
            A branch with a free end is a spur if it is not longer than this plus the mask's half width at its joint.
        """
        from scipy import ndimage

        depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1]
        skeleton = cls.of_lines(thinned(mask), spacing_mm)
        while spurs := [one for one in skeleton.branches if skeleton._is_spur(one, depth, spur_mm)]:
            shortest = {one.joints[0]: one for one in sorted(spurs, key=lambda one: -one.length_mm)}
            left = skeleton.lines.copy()
            for spur in shortest.values():
                left[tuple(spur.pixels.T)] = False
            skeleton = cls.of_lines(thinned(left), spacing_mm)
        return skeleton

    @classmethod
    def of_lines(cls, lines: np.ndarray, spacing_mm: tuple[float, float]) -> Skeleton:
        """The graph of (rows, columns) bool lines that are thin already."""
        from scipy import ndimage

        neighbours = ndimage.convolve(lines.astype(int), _AROUND, mode="constant") - 1
        joints, _ = ndimage.label(lines & (neighbours > 2), structure=_AROUND)
        met = [joint for branch in _branches(lines, joints, spacing_mm) for joint in branch.joints]
        joints = np.where(np.isin(joints, [joint for joint in set(met) if met.count(joint) > 2]), joints, 0)
        return cls(lines, joints, _branches(lines, joints, spacing_mm))

    @property
    def forks(self) -> list[tuple[int, int]]:
        """A pixel of every joint."""
        return [self._pixel_of(joint) for joint in np.unique(self.joints[self.joints > 0])]

    @property
    def ends(self) -> list[tuple[int, int]]:
        """Pixels with one neighbour or none."""
        from scipy import ndimage

        neighbours = ndimage.convolve(self.lines.astype(int), _AROUND, mode="constant") - 1
        return [(int(row), int(column)) for row, column in np.argwhere(self.lines & (neighbours < 2))]

    def _pixel_of(self, joint: int) -> tuple[int, int]:
        """The pixel of a joint that is nearest to its middle."""
        pixels = np.argwhere(self.joints == joint)
        row, column = pixels[int(np.argmin(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=1)))]
        return int(row), int(column)

    def _is_spur(self, branch: Branch, depth: np.ndarray, spur_mm: float) -> bool:
        if len(branch.joints) != 1:
            return False
        return branch.length_mm <= spur_mm + depth[self._pixel_of(branch.joints[0])]


def thinned(mask: np.ndarray) -> np.ndarray:
    """(rows, columns) bool: the mask's skeleton, one pixel wide.

    ITK's binary thinning leaves stairs, on which every pixel has three neighbours; their corners are taken away.
    """
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    lines = sitk.GetArrayFromImage(sitk.BinaryThinning(image)) > 0
    for row, column in np.argwhere(lines):
        if _is_corner(lines[row - 1 : row + 2, column - 1 : column + 2]):
            lines[row, column] = False
    return lines[1:-1, 1:-1]


def _is_corner(around: np.ndarray) -> bool:
    """Whether the middle of 3 x 3 pixels can go: its two or more neighbours touch each other, and no hole is made."""
    ring = around.ravel()[[0, 1, 2, 5, 8, 7, 6, 3]]
    if np.count_nonzero(ring) < 2 or ring[1::2].all():
        return False
    ring[::2] |= ring[1::2] & np.roll(ring[1::2], 1)  # two sides touch across the corner between them
    return np.count_nonzero(ring & ~np.roll(ring, 1)) == 1


def _branches(lines: np.ndarray, joints: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[Branch, ...]:
    """What is left of the lines without the joints."""
    from scipy import ndimage

    parts, count = ndimage.label(lines & (joints == 0), structure=_AROUND)
    boxes = ndimage.find_objects(parts)
    return tuple(_branch(parts, joints, number + 1, boxes[number], spacing_mm) for number in range(count))


def _branch(
    parts: np.ndarray, joints: np.ndarray, number: int, where: tuple[slice, slice], spacing_mm: tuple[float, float]
) -> Branch:
    """One part of the lines as a branch."""
    offset = np.array([side.start for side in where])
    pixels = _in_order(np.argwhere(parts[where] == number)) + offset
    steps = np.diff(pixels, axis=0) * np.asarray(spacing_mm)
    met: list[int] = []
    reach = 0.0
    for row, column in pixels[[0, -1]] if len(pixels) > 1 else pixels:
        top, left = max(row - 1, 0), max(column - 1, 0)
        near = joints[top : row + 2, left : column + 2]
        for joint in sorted(set(near[near > 0].tolist())):
            away = (np.argwhere(near == joint) + (top, left) - (row, column)) * np.asarray(spacing_mm)
            met.append(joint)
            reach += float(np.hypot(*away.T).min())
    return Branch(pixels, float(np.hypot(*steps.T).sum()) + reach, tuple(met))


def _in_order(pixels: np.ndarray) -> np.ndarray:
    """(N, 2) pixels of one line, sorted along it from an end; a ring starts anywhere."""
    left = {(int(row), int(column)) for row, column in pixels}
    at = min(left, key=lambda one: (sum(other in left for other in _round(one)), one))
    order = [at]
    left.discard(at)
    while left:
        near = [one for one in _round(at) if one in left]
        at = near[0] if near else min(left, key=lambda one: abs(one[0] - at[0]) + abs(one[1] - at[1]))
        order.append(at)
        left.discard(at)
    return np.array(order)


def _round(pixel: tuple[int, int]) -> list[tuple[int, int]]:
    """The eight pixels round one, those beside it first."""
    row, column = pixel
    beside = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return beside + [(row + a, column + b) for a in (-1, 1) for b in (-1, 1)]

"""The mask of a slice, small enough to be remembered for every slice of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.errors import PromptError

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class MaskMemory:
    """The mask of a slice, bit-packed within its box.

    Parameters
    ----------
    shape
        Rows and columns of the slice.
    box_rc
        First and last row and column ``(row0, column0, row1, column1)``, inclusive; None if the mask is empty.
    packed
        Bits of the mask in that box, row by row.
    spacing_mm
        Size of a pixel.
    area
        Pixels of the mask.
    present
        False where the object counts as gone: such a mask prompts nothing.
    """

    shape: tuple[int, int]
    box_rc: Box | None
    packed: np.ndarray
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    area: int = 0
    present: bool = True

    @classmethod
    def of(cls, mask: np.ndarray, spacing_mm: tuple[float, float] = (1.0, 1.0), present: bool = True) -> MaskMemory:
        """From a (rows, columns) bool mask."""
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return cls(mask.shape, None, np.empty(0, np.uint8), spacing_mm, 0, present)
        box = int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])
        block = mask[inside(box)]
        return cls(mask.shape, box, np.packbits(block), spacing_mm, int(np.count_nonzero(block)), present)

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + 64

    @property
    def is_empty(self) -> bool:
        return self.box_rc is None

    @property
    def block(self) -> np.ndarray:
        """(h, w) bool: the mask in its box."""
        if self.box_rc is None:
            return np.zeros((0, 0), dtype=bool)
        size = self.box_rc[2] - self.box_rc[0] + 1, self.box_rc[3] - self.box_rc[1] + 1
        return np.unpackbits(self.packed, count=size[0] * size[1]).reshape(size).astype(bool)

    @property
    def mask(self) -> np.ndarray:
        """(rows, columns) bool: the mask on the whole slice."""
        whole = np.zeros(self.shape, dtype=bool)
        if self.box_rc is not None:
            whole[inside(self.box_rc)] = self.block
        return whole

    @cached_property
    def deepest_rc(self) -> tuple[float, float] | None:
        """The pixel (row, column) farthest in mm from the mask's border and the slice's; None if it is empty."""
        if self.box_rc is None:
            return None
        depth = ndimage.distance_transform_edt(np.pad(self.block, 1), sampling=self.spacing_mm)[1:-1, 1:-1]
        row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
        return float(self.box_rc[0] + row), float(self.box_rc[1] + column)

    def grown_box(self, share: float, margin_mm: float = 0.0) -> tuple[float, float, float, float]:
        """The box with ``share`` of its longer side and ``margin_mm`` more on each side, within the slice."""
        if self.box_rc is None:
            raise PromptError("An empty mask has no box: draw one on the slice.")
        low, high = np.array(self.box_rc[:2], dtype=np.float64), np.array(self.box_rc[2:], dtype=np.float64)
        spacing = np.array(self.spacing_mm)
        margin = (share * ((high - low + 1) * spacing).max() + margin_mm) / spacing
        low, high = np.maximum(low - margin, 0.0), np.minimum(high + margin, np.array(self.shape) - 1.0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def shared_pixels(self, mask: np.ndarray) -> int:
        """Pixels that a (rows, columns) bool mask has in common with this one."""
        return 0 if self.box_rc is None else int(np.count_nonzero(mask[inside(self.box_rc)] & self.block))


def mask_similarity(a: MaskMemory, b: MaskMemory) -> float:
    """Dice coefficient of two remembered masks, scaled to -1 (nothing in common) to 1; 1 if both are empty."""
    if a.is_empty and b.is_empty:
        return 1.0
    if a.is_empty or b.is_empty or a.shape != b.shape:
        return -1.0
    return 4.0 * a.shared_pixels(b.mask) / (a.area + b.area) - 1.0


def inside(box_rc: Box) -> tuple[slice, slice]:
    """The pixels of a box of inclusive corners, to index a (rows, columns) array."""
    return slice(box_rc[0], box_rc[2] + 1), slice(box_rc[1], box_rc[3] + 1)

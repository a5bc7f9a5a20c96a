"""The map of regions that synthetic anatomy is painted on: each has a tissue, a container and perhaps a label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from SegmentAnythingMedLib.finetune.synthetic_fields import Grid
from SegmentAnythingMedLib.finetune.synthetic_shapes import Shape

MAX_REGIONS = 250


@dataclass
class Region:
    """A painted region: its tissue, the region that lay under it, its parent structure, and whether it is a target."""

    tissue: str
    under: int
    parent: int | None
    target: bool


class Canvas:
    """Regions of a view, painted one over another.

    Attributes
    ----------
    regions
        (D, H, W) uint8, the index of each voxel's region in ``table``; region 0 is what was there before.
    table
        All regions.
    shade
        (D, H, W) float32, added to the picture but belonging to no region (ribs in a projection); None while unused.
    """

    def __init__(self, grid: Grid, ground: str = "air") -> None:
        self.grid = grid
        self.regions = np.zeros(grid.shape, np.uint8)
        self.table = [Region(ground, 0, None, False)]
        self.shade: np.ndarray | None = None

    def paint(
        self,
        shape: Shape,
        tissue: str,
        *,
        only: Iterable[int] | None = None,
        avoid: Iterable[int] = (),
        core: float = 1.0,
        parent: int | None = None,
        target: bool = True,
        region: int | None = None,
    ) -> int | None:
        """Paint a solid and return its region; None if nothing of it is in view.

        Parameters
        ----------
        only, avoid
            Paint over these regions alone, or over all but these.
        core
            Field value taken as the surface: below 1 paints the inner part.
        parent
            The structure it is nested in.
        region
            Add to this region in place of a new one.
        """
        crop = self.grid.crop(shape.low, shape.high)
        if crop is None or (region is None and len(self.table) >= MAX_REGIONS):
            return None
        return self.paint_mask(crop.region, shape.field(crop) < core, tissue, only, avoid, parent, target, region)

    def paint_mask(
        self,
        where: tuple[slice, slice, slice],
        inside: np.ndarray,
        tissue: str,
        only: Iterable[int] | None = None,
        avoid: Iterable[int] = (),
        parent: int | None = None,
        target: bool = True,
        region: int | None = None,
    ) -> int | None:
        """`paint` for a mask of a part of the view."""
        if region is None and len(self.table) >= MAX_REGIONS:
            return None
        here = self.regions[where]
        allowed = np.zeros(256, bool) if only is not None else np.ones(256, bool)
        if only is not None:
            allowed[list(only)] = True
        allowed[list(avoid)] = False
        if not allowed.all():
            inside = inside & allowed[here]
        counts = np.bincount(here[inside], minlength=1)
        if not counts.any():
            return None
        if region is None:
            region = len(self.table)
            self.table.append(Region(tissue, int(counts.argmax()), parent, target))
        here[inside] = region
        return region

    def shell(self, shape: Shape, wall: str, lumen: str, core: float, **how) -> tuple[int | None, int | None]:
        """A wall and the lumen nested in it."""
        crop = self.grid.crop(shape.low, shape.high)
        if crop is None:
            return None, None
        field = shape.field(crop)
        outer = self.paint_mask(crop.region, field < 1, wall, **how)
        if outer is None:
            return None, None
        return outer, self.paint_mask(crop.region, field < core, lumen, only=[outer], parent=outer)

    def cast(self, shape: Shape, amount: float) -> None:
        """Add a projection's shadow of a solid, thicker in its middle, without a region."""
        crop = self.grid.crop(shape.low, shape.high)
        if crop is None:
            return
        if self.shade is None:
            self.shade = np.zeros(self.grid.shape, np.float32)
        self.shade[crop.region] += np.float32(amount) * np.sqrt(np.maximum(0, 1 - shape.field(crop)))

    def of_tissue(self, *tissues: str) -> list[int]:
        """Indices of the regions of some tissues."""
        return [n for n, region in enumerate(self.table) if region.tissue in tissues]

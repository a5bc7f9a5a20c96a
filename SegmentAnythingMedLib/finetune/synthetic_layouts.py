"""Which arrangement of solids each kind of image shows, how often, and how much of it is in view."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from SegmentAnythingMedLib.finetune.synthetic_bodies import abdomen, head, heart, limb, pelvis, thorax
from SegmentAnythingMedLib.finetune.synthetic_canvas import Canvas
from SegmentAnythingMedLib.finetune.synthetic_fields import Grid, chance, log_uniform, make_grid
from SegmentAnythingMedLib.finetune.synthetic_scenes import cell_culture, chaos, layers, projection, spot, vessels

Layout = Callable[[np.random.Generator, Canvas], None]

LAYOUTS: dict[str, dict[Layout, float]] = {
    "CT": {abdomen: 0.42, thorax: 0.16, limb: 0.1, pelvis: 0.06, head: 0.03, chaos: 0.17, vessels: 0.06},
    "MR": {abdomen: 0.22, limb: 0.13, pelvis: 0.12, head: 0.13, heart: 0.13, chaos: 0.22, vessels: 0.05},
    "PET": {abdomen: 0.3, thorax: 0.2, limb: 0.15, head: 0.1, chaos: 0.25},
    "US": {layers: 0.7, heart: 0.1, pelvis: 0.1, chaos: 0.1},
    "RGB": {cell_culture: 0.3, spot: 0.3, vessels: 0.2, chaos: 0.2},
    "XR": {projection: 1.0},
}
"""Which layouts an image kind shows, and how often."""


def view(rng: np.random.Generator, layout: Layout, depth: int, size: int, slice_step: float) -> Grid:
    """A random field of view that suits a layout."""
    wide = {abdomen: 0.5, thorax: 0.6, limb: 0.55, head: 0.6}.get(layout)
    zoom, center = 1.0, (0.0, 0.0)
    if wide is not None:
        zoom = log_uniform(rng, wide, 1.15) if chance(rng, 0.75) else log_uniform(rng, 0.75 * wide, wide)
        slack = max(0.0, 0.8 - zoom)
        center = (rng.uniform(-slack, slack), rng.uniform(-slack, slack))
    jitter = rng.uniform(0, 0.015) if chance(rng, 0.12) else 0.0
    return make_grid(
        rng,
        depth,
        size,
        slice_step,
        zoom=zoom,
        center=center,
        warp=rng.uniform(0, 1.3),
        jitter=jitter,
        oblique=0.5 if slice_step >= 1 else 0,
    )

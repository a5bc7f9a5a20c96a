"""Phantom patients as cases: the same organs in different people, on grids that differ."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.phantom import make_phantom
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.sources.cases import labelled_case
from SegmentAnythingMedLib.sources.source import Given
from SegmentAnythingMedLib.volume import Volume

SPLEEN, KIDNEY, LIVER = 1, 2, 3
NAMES = {SPLEEN: "spleen", KIDNEY: "kidney", LIVER: "liver"}
_ORGANS = {"spleen": SPLEEN, "right kidney": KIDNEY, "left kidney": KIDNEY, "liver": LIVER}


@cache
def patient(seed: int, kind: str = "CT") -> tuple[Volume, np.ndarray]:
    """A volume and its label map of `NAMES`; odd patients lie on a flipped, finer and more tilted grid."""
    if seed % 2:
        phantom = make_phantom(
            kind, (144, 116, 26), (2.2, 2.2, 5.5), tilt_deg=(-6.0, 4.0, 9.0), flip=(True, False, True), seed=seed
        )
    else:
        phantom = make_phantom(kind, (128, 104, 26), (2.5, 2.5, 5.5), seed=seed)
    labels = np.zeros(phantom.volume.geometry.shape_kji, np.uint8)
    for name, value in _ORGANS.items():
        labels[phantom.structure(name).mask()] = value
    return phantom.volume, labels


@cache
def case(seed: int, kind: str = "CT") -> Given:
    """A patient's axial slices with the label map, to learn from."""
    volume, labels = patient(seed, kind)
    return labelled_case(volume, labels, Plane.named("axial", volume.geometry))


def unlabelled(seed: int) -> Given:
    """A patient's axial slices as a user opens them."""
    return replace(case(seed), labels=None, kept={})


def outlined(seed: int, prompts: tuple[Prompt, ...], value: int) -> float:
    """Dice of the classic model's answer to the prompts of one slice, with the part of the organ that was clicked."""
    volume, _ = patient(seed)
    session = VolumeSession(volume, ModelRegistry().load("classic", "cpu"))
    (key,) = {session.add_prompt(1, prompt) for prompt in prompts}
    parts, _ = ndimage.label(case(seed).labels_on(key.index) == value)
    _, clicked = case(seed).slices.pixels_from_ijk(np.array(prompts[1].point_ijk))
    return dice(session.segment_slice(1, key).mask, parts == parts[tuple(np.rint(clicked).astype(int))])

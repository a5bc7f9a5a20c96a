"""Lines that were measured elsewhere: a Slicer markups file (.mrk.json), or numbers in a named frame, to voxels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import VolumeGeometry

FRAMES = ("ijk", "lps", "ras")
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_SLICER_FRAMES = {"LPS": "lps", "RAS": "ras", "0": "ras", "1": "lps"}

Line = tuple[tuple[float, float, float], tuple[float, float, float]]


def line_ijk(ends: Sequence[Sequence[float]], frame: str, geometry: VolumeGeometry) -> Line:
    """A line's two ends as continuous IJK.

    Parameters
    ----------
    ends
        Two points of three numbers.
    frame
        ``ijk``: voxel indices, ``lps`` or ``ras``: millimetres.
    geometry
        The volume's; its world is LPS, as `read_volume` gives it.

    Raises
    ------
    PromptError
        If these are not two finite points, or the frame is not known.
    """
    if frame not in FRAMES:
        raise PromptError(f"The frame {frame!r} of a line is not known: use one of {', '.join(FRAMES)}.")
    try:
        points = np.array(ends, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.shape != (2, 3) or not np.isfinite(points).all():
        raise PromptError(f"A line needs two points of three finite numbers, got {ends}.")
    if frame != "ijk":
        points = geometry.ijk_from_world(points * _RAS_TO_LPS if frame == "ras" else points)
    first, second = (tuple(float(x) for x in point) for point in points)
    return first, second


def read_lines(path: str | Path, geometry: VolumeGeometry) -> tuple[Line, ...]:
    """All lines of a Slicer markups file, as continuous IJK of a volume.

    Raises
    ------
    PromptError
        If the file cannot be read, or holds no line with two placed points.
    """
    try:
        markups = json.loads(Path(path).read_text(encoding="utf-8-sig"))["markups"]
        lines = [one for one in markups if one.get("type") == "Line"]
        found = [
            (
                [
                    point["position"]
                    for point in one["controlPoints"]
                    if point.get("positionStatus", "defined") == "defined"
                ],
                _SLICER_FRAMES[str(one.get("coordinateSystem", "LPS"))],
            )
            for one in lines
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PromptError(
            f"The markups file {path} cannot be read: {error!r}. Save the line from Slicer again."
        ) from error
    if not found:
        raise PromptError(f"The markups file {path} holds no line: save a ruler (Line) from Slicer's Markups module.")
    return tuple(line_ijk(ends, frame, geometry) for ends, frame in found)

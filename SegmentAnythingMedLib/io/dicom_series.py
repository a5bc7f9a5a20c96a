"""Frames sorted into volumes: never two orientations, b-values, echoes or image types in one, time points as T."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io.dicom_frames import Frame

logger = logging.getLogger(__name__)

_SAME_POSITION_MM = 0.01
_MAX_UNEVEN = 0.1
"""Gaps that differ by more than this part of the usual one are missing slices, not rounding."""
_WORTH_A_WARNING = 0.01
_STACKS = {"CT", "MR", "PT", "NM", "OT"}


@dataclass(frozen=True)
class Series:
    """One volume in a DICOM folder.

    Parameters
    ----------
    identifier
        What to pass as ``series``, e.g. ``6`` or ``6:b=50``.
    description
        For a person: series description, what sets it apart, modality, size.
    """

    identifier: str
    description: str
    modality: str
    frames: tuple[Frame, ...] = field(repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)


def sorted_into_series(frames: Iterable[Frame]) -> tuple[Series, ...]:
    """All volumes that the frames make, in the order of series number."""
    by_series: dict[tuple[str, ...], list[Frame]] = {}
    seen = set()
    for frame in frames:
        if (frame.uid, frame.index) in seen:
            continue
        seen.add((frame.uid, frame.index))
        key = (frame.series_uid,) if frame.series_uid else ("", frame.series_number, frame.description)
        by_series.setdefault(key, []).append(frame)
    order = sorted(by_series, key=lambda key: (_as_number(by_series[key][0].series_number), key))
    numbers = [by_series[key][0].series_number for key in order]
    found = []
    for place, key in enumerate(order):
        first = by_series[key][0]
        unique = first.series_number and numbers.count(first.series_number) == 1
        base = first.series_number if unique else first.series_uid or f"#{place + 1}"
        for suffix, part in _split(by_series[key]):
            found.append(_series(base, suffix, part))
    return tuple(found)


def _as_number(text: str) -> float:
    return float(text) if text.lstrip("-").isdigit() else np.inf


def _series(base: str, suffix: str, frames: list[Frame]) -> Series:
    first = frames[0]
    positions = len(_positions(frames)) if first.position else len(frames) if _is_stack(frames) else 1
    times = max(1, len(frames) // positions)
    size = f"{first.columns}x{first.rows}x{positions}" + (f", {times} time points" if times > 1 else "")
    what = " ".join(text for text in (first.description or "no description", suffix.replace(":", " ").strip()) if text)
    names = (base, first.series_number, first.series_uid, first.description)
    return Series(base + suffix, f"{what}, {first.modality}, {size}", first.modality, tuple(frames), names)


def _split(frames: list[Frame]) -> list[tuple[str, list[Frame]]]:
    """``(identifier suffix, frames)`` of each volume inside one series."""
    parts = _by(frames, lambda f: (f.rows, f.columns, f.samples), "size")
    parts = _each(parts, lambda part: _by(part, lambda f: f.path if not f.position else "", "image"))
    parts = _each(parts, lambda part: _by(part, lambda f: tuple(np.round(f.orientation, 2) + 0.0), "plane"))
    parts = _each(parts, lambda part: _by(part, lambda f: tuple(np.round(f.spacing, 3)), "spacing"))
    parts = _each(parts, lambda part: _where_repeated(part, lambda f: f.b_value, "b"))
    parts = _each(parts, lambda part: _where_repeated(part, lambda f: f.echo_ms and round(f.echo_ms, 1), "echo"))
    return _each(parts, lambda part: _where_repeated(part, lambda f: f.image_type, "type"))


def _each(
    parts: list[tuple[str, list[Frame]]], split: Callable[[list[Frame]], list[tuple[str, list[Frame]]]]
) -> list[tuple[str, list[Frame]]]:
    return [(suffix + more, smaller) for suffix, part in parts for more, smaller in split(part)]


def _by(frames: list[Frame], key: Callable[[Frame], object], kind: str) -> list[tuple[str, list[Frame]]]:
    groups: dict[object, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(key(frame), []).append(frame)
    if len(groups) == 1:
        return [("", frames)]
    ordered = sorted(groups.items(), key=lambda item: (item[0] is None, item[0] if item[0] is not None else 0))
    shown = _shown([value for value, _ in ordered], kind)
    return [(f":{kind}={text}", group) for text, (_, group) in zip(shown, ordered, strict=True)]


def _where_repeated(frames: list[Frame], key: Callable[[Frame], object], kind: str) -> list[tuple[str, list[Frame]]]:
    """Split only if several images share a position: differing values over a stack of slices are harmless."""
    if not frames[0].position or len(_positions(frames)) == len(frames):
        return [("", frames)]
    return _by(frames, key, kind)


def _shown(values: list[object], kind: str) -> list[str]:
    """Short texts that tell the values apart, without spaces."""
    if kind in ("b", "echo"):
        return ["none" if value is None else f"{value:g}" for value in values]
    if kind == "type":
        common = set.intersection(*(set(value) for value in values))
        texts = ["/".join(part for part in value if part not in common) or "other" for value in values]
        if len(set(texts)) == len(texts):
            return [text.replace(" ", "_") for text in texts]
    return [str(number + 1) for number in range(len(values))]


def _is_stack(frames: list[Frame]) -> bool:
    """Frames without positions and times are slices of a CT or MR; of an ultrasound or angiography they are a film."""
    return frames[0].modality in _STACKS and frames[0].time_s is None


def _depths(frames: Iterable[Frame]) -> np.ndarray:
    frames = list(frames)
    return np.array([f.position for f in frames]) @ frames[0].normal


def _positions(frames: list[Frame]) -> list[list[Frame]]:
    """Frames grouped by position along the normal, ascending."""
    depths = _depths(frames)
    order = np.argsort(depths, kind="stable")
    groups = [[frames[order[0]]]]
    for before, now in zip(order[:-1], order[1:], strict=True):
        if depths[now] - depths[before] > _SAME_POSITION_MM:
            groups.append([])
        groups[-1].append(frames[now])
    return groups


def stacked(series: Series) -> tuple[VolumeGeometry, list[list[Frame]]]:
    """Grid in LPS, and the frames as [time point][slice].

    Raises
    ------
    VolumeError
        If slices are missing or unevenly spaced, or time points are incomplete.
    """
    first = series.frames[0]
    if not first.position:
        frames = sorted(series.frames, key=lambda f: f.index)
        points = [frames] if _is_stack(frames) else [[f] for f in frames]
        spacing = (first.spacing[1], first.spacing[0], first.thickness)
        return VolumeGeometry.from_spacing((first.columns, first.rows, len(points[0])), spacing), points
    positions = [sorted(group, key=lambda f: f.order) for group in _positions(list(series.frames))]
    counts = [len(group) for group in positions]
    if min(counts) != max(counts):
        where = positions[int(np.argmin(counts))][0].position
        raise VolumeError(
            f"Series {series.identifier} is incomplete: {min(counts)} image(s) at position {_mm(where)} but "
            f"{max(counts)} elsewhere; export the complete series."
        )
    step = _step([group[0] for group in positions], series.identifier)
    matrix = np.eye(4)
    matrix[:3, 0] = np.array(first.orientation[:3]) * first.spacing[1]
    matrix[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    matrix[:3, 2] = step
    matrix[:3, 3] = positions[0][0].position
    geometry = VolumeGeometry(matrix, (first.columns, first.rows, len(positions)))
    return geometry, [list(point) for point in zip(*positions, strict=True)]


def _step(slices: list[Frame], identifier: str) -> np.ndarray:
    """(3,) displacement from slice to slice, sheared where the gantry was tilted."""
    normal = slices[0].normal
    if len(slices) == 1:
        return normal * slices[0].thickness
    points = np.array([f.position for f in slices])
    gaps = np.diff(points @ normal)
    usual = float(np.median(gaps))
    uneven = np.abs(gaps - usual) / usual
    if uneven.max() > _MAX_UNEVEN:
        worst = int(np.argmax(uneven))
        raise VolumeError(
            f"Series {identifier} has a gap of {gaps[worst]:.2f} mm between the slices at {_mm(points[worst])} and "
            f"{_mm(points[worst + 1])} where others are {usual:.2f} mm apart: export the complete series."
        )
    step = (points[-1] - points[0]) / (len(points) - 1)
    off_line = np.linalg.norm(points - points[0] - np.arange(len(points))[:, None] * step, axis=1).max()
    if off_line > max(_MAX_UNEVEN * usual, 0.5 * min(slices[0].spacing)):
        raise VolumeError(
            f"The slices of series {identifier} lie up to {off_line:.2f} mm off a straight line: choose another series."
        )
    if uneven.max() > _WORTH_A_WARNING:
        logger.warning("series %s: slice gaps vary by %.1f %%; an even grid is used", identifier, 100 * uneven.max())
    return step


def _mm(point: Iterable[float]) -> str:
    return "(" + ", ".join(f"{x:.1f}" for x in point) + ") mm"


def times_of(points: list[list[Frame]]) -> tuple[float, ...]:
    """Seconds of each time point from the first; () if unknown or not increasing."""
    if len(points) == 1 or any(frame.time_s is None for point in points for frame in point):
        return ()
    times = [min(frame.time_s for frame in point) for point in points]
    return tuple(t - times[0] for t in times) if (np.diff(times) > 0).all() else ()

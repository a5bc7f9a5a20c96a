"""Scored structures: the committed list, where their data lie, and how one is opened."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.benchmark.upsampling import upsample_labels, upsample_volume
from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry, VolumeGeometry
from SegmentAnythingMedLib.io import Labels, read_labels, read_volume
from SegmentAnythingMedLib.volume import Volume

DATA_VARIABLE = "SEGMENT_ANYTHING_MED_DATA"
STRUCTURES_FILE = Path(__file__).with_name("structures.json")
KINDS = ("compact", "vessel", "multi")
SCALE_DATASET = "scale"
"""The structure on 512x512x300 voxels: in every run, never in a mean (its patient is in totalseg_ct)."""

_COARSER = 1.1


@dataclass(frozen=True)
class Structure:
    """One labelled structure of one volume (and time point).

    Parameters
    ----------
    id
        ``dataset/image/name``, unique; seeds the jitter of its boxes.
    dataset
        Row of the tables.
    patient
        Unit of the bootstrap; the same person's CT, MR and PET share it.
    kind
        ``compact``, or reported apart: ``vessel`` (by name) and ``multi`` (by components); see `catalog.kind_of`.
    volume, labels
        Paths relative to the data folder.
    label
        Value in the label map.
    name
        Of the structure; in a .seg.nrrd it chooses the segment.
    time
        Time point of 4D volumes.
    two_d
        A single image, or labels on a single slice: scored on its slice only.
    axis
        Depth axis of the slices, where the labels were not drawn on the natural plane.
    size_ijk
        Upsampled to this size before use (linear, labels nearest).
    """

    id: str
    dataset: str
    patient: str
    kind: str
    volume: str
    labels: str
    label: int
    name: str
    time: int = 0
    two_d: bool = False
    axis: int | None = None
    size_ijk: tuple[int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """An opened structure: the volume (one time point) and the true (K, J, I) bool mask on its grid."""

    structure: Structure
    volume: Volume
    truth: np.ndarray

    @property
    def slices(self) -> SliceGeometry:
        return slices_of(self.volume.geometry, self.structure.axis)


def data_folder(chosen: str | Path | None = None) -> Path:
    """The data folder: ``chosen``, else the environment variable; `SegmentAnythingMedError` says what to set."""
    where = chosen or os.environ.get(DATA_VARIABLE)
    if not where:
        raise SegmentAnythingMedError(f"No benchmark data: give --data FOLDER or set {DATA_VARIABLE}.")
    folder = Path(where).expanduser()
    if not folder.is_dir():
        raise SegmentAnythingMedError(f"The benchmark data folder {folder} does not exist: correct --data.")
    return folder


def load_structures(path: Path = STRUCTURES_FILE, datasets: Iterable[str] = ()) -> list[Structure]:
    """The rows of a structures file, of all or some datasets.

    Raises
    ------
    SegmentAnythingMedError
        If a row is not valid, an id occurs twice, or a dataset is not in the file.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))["structures"]
    try:
        found = [Structure(**{**row, "size_ijk": tuple(row.get("size_ijk") or ()) or None}) for row in rows]
    except TypeError as error:
        raise SegmentAnythingMedError(f"{path.name} has a row that is not valid: {error}.") from error
    for row in found:
        if row.kind not in KINDS:
            raise SegmentAnythingMedError(f"{path.name}: {row.id} is of the unknown kind {row.kind!r}.")
    ids = [row.id for row in found]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise SegmentAnythingMedError(f"{path.name} lists {twice[0]} twice.")
    wanted = list(datasets)
    known = list(dict.fromkeys(row.dataset for row in found))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SegmentAnythingMedError(f"Dataset {unknown[0]!r} is not known: use {', '.join(known)}.")
    return [row for row in found if not wanted or row.dataset in wanted]


class CaseOpener:
    """Opens structures one after another and keeps the last volume and label file, which neighbours share."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._key: tuple = ()
        self._volume: Volume | None = None
        self._labels: Labels | None = None

    def open(self, structure: Structure) -> Case:
        """Read a structure's volume and truth.

        Raises
        ------
        SegmentAnythingMedError
            If a file is missing or damaged, or the label is not there.
        """
        key = (structure.volume, structure.labels, structure.time, structure.size_ijk)
        if key != self._key:
            self._key, self._volume, self._labels = (), None, None
            volume = read_volume(self._data / structure.volume)
            labels = read_labels(self._data / structure.labels, volume, time=structure.time)
            volume = volume.at_time(structure.time)
            if structure.size_ijk:
                volume = upsample_volume(volume, structure.size_ijk)
                labels = upsample_labels(labels, volume.geometry, [structure.label])
            self._key, self._volume, self._labels = key, volume, labels
        return Case(structure, self._volume, chosen_mask(self._labels, structure))


def chosen_mask(labels: Labels, structure: Structure) -> np.ndarray:
    """(K, J, I) bool of the structure's segment."""
    found = [segment for segment in labels.segments if segment.value == structure.label]
    if len(found) > 1:
        found = [segment for segment in found if segment.name == structure.name]
    if not found:
        raise SegmentAnythingMedError(f"{structure.labels} has no label {structure.label} ({structure.name}).")
    return found[0].mask


def natural_plane(geometry: VolumeGeometry) -> Plane:
    """The plane the slices were acquired in: across the axis that is coarser than both others, else axial."""
    if min(geometry.size_ijk) == 1:
        return Plane(int(np.argmin(geometry.size_ijk)))
    order = np.argsort(geometry.spacing_mm)
    if geometry.spacing_mm[order[2]] > _COARSER * geometry.spacing_mm[order[1]]:
        return Plane(int(order[2]))
    return Plane.named("axial", geometry)


def slices_of(geometry: VolumeGeometry, axis: int | None = None) -> SliceGeometry:
    """The stack of slices a structure is scored on: along ``axis``, else of the natural plane."""
    return SliceGeometry(geometry, natural_plane(geometry) if axis is None else Plane(axis))


def extent(mask: np.ndarray, slices: SliceGeometry) -> np.ndarray:
    """Number of voxels of a (K, J, I) mask on each slice."""
    depth = 2 - slices.plane.axis
    return np.count_nonzero(mask, axis=tuple(axis for axis in range(3) if axis != depth))

"""`read_fused`: several files of one patient as channels of one volume; DICOM files that say otherwise are refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.fusion import fuse_volumes
from SegmentAnythingMedLib.io.images import read_volume
from SegmentAnythingMedLib.volume import Volume

logger = logging.getLogger(__name__)


def read_fused(first: Volume, paths: Sequence[str | Path]) -> Volume:
    """A volume with further files as its channels; see `fuse_volumes`.

    Parameters
    ----------
    first
        Gives the grid.
    paths
        Files or DICOM folders with one series.

    Raises
    ------
    SeriesChoiceError
        If a folder holds several volumes.
    VolumeError
        If a file cannot be read or be a channel, or is of another patient than the first.
    GeometryError
        If one lies elsewhere than the first.
    """
    others = [read_volume(path) for path in paths]
    for other in others:
        _check_same_patient(first, other)
    return fuse_volumes([first, *others])


def _check_same_patient(first: Volume, other: Volume) -> None:
    """Refuse another patient's images, and warn of another frame of reference; only DICOM files can say."""
    if not (first.source_files and other.source_files):
        return
    (patient, frame), (other_patient, other_frame) = _identity(first), _identity(other)
    if patient and other_patient and patient != other_patient:
        raise VolumeError(f"{other.name!r} is of another patient than {first.name!r} by its Patient ID: choose again.")
    if frame and other_frame and frame != other_frame:
        logger.warning(
            "%r and %r have different frames of reference: they must have been registered.", other.name, first.name
        )


def _identity(volume: Volume) -> tuple[str, str]:
    """Patient ID and Frame of Reference UID of a volume's first file, empty where not given."""
    import pydicom

    tags = ["PatientID", "FrameOfReferenceUID"]
    try:
        header = pydicom.dcmread(volume.source_files[0], stop_before_pixels=True, specific_tags=tags)
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise VolumeError(f"A file of {volume.name!r} cannot be read any more: check the folder.") from error
    return tuple(str(header.get(tag) or "") for tag in tags)

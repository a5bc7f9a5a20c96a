"""What may be uploaded: known formats, one file that holds all it needs, nothing that points outside it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from SegmentAnythingMedLib.errors import VolumeError

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".ima")
SUFFIXES = (".seg.nrrd", ".mrb", ".json", *VOLUME_SUFFIXES)
"""Formats that can be uploaded; a file without an ending is taken for DICOM."""

_HEADER_BYTES = 1 << 20
_ARCHIVE_FACTOR = 20
_MOST_NAME_BYTES = 160
"""File systems take 255; an ending and a number may be added."""
_FILE_ATTRIBUTES = re.compile(r"fileName|fileListMember\d*|uri|uriListMember\d*", re.IGNORECASE)


def safe_name(name: str) -> str:
    """A file name without folders, control characters and what shells or headers give a meaning to."""
    base = re.split(r"[\\/]", name)[-1]
    clean = re.sub(r"[^\w.\- ]", "_", base).encode(errors="replace")[-_MOST_NAME_BYTES:]
    return clean.decode(errors="ignore").strip(". ") or "file"


def check_name(name: str) -> None:
    """Refuse a format that cannot be read from one file.

    Raises
    ------
    VolumeError
        With the formats that can be.
    """
    lower = name.lower()
    has_ending = "." in lower and not re.fullmatch(r"[\d.]+", lower)
    if has_ending and not lower.endswith(SUFFIXES):
        raise VolumeError(
            f"{name} cannot be opened here: choose NIfTI, NRRD, MHA, a picture, DICOM files, .seg.nrrd, .mrb or "
            "prompts (.json)."
        )


def check_content(path: Path, limit_bytes: int) -> None:
    """Refuse a file that points to other files or servers, or unpacks to much more than was sent.

    Parameters
    ----------
    path
        The file as it was uploaded.
    limit_bytes
        Most that an upload may have.

    Raises
    ------
    VolumeError
        With what is wrong.
    """
    lower = path.name.lower()
    if lower.endswith(".nrrd"):
        _check_header(path, rb"^data ?file\s*:", "voxels in another file")
    elif lower.endswith(".mha"):
        _check_header(path, rb"^\s*ElementDataFile\s*=\s*(?!LOCAL\b)", "voxels in another file")
    elif lower.endswith(".mrb"):
        _check_archive(path, limit_bytes * _ARCHIVE_FACTOR)


def _check_header(path: Path, pattern: bytes, what: str) -> None:
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES)
    if re.search(pattern, header.partition(b"\n\n")[0], re.IGNORECASE | re.MULTILINE):
        raise VolumeError(f"{path.name} has its {what}: save it as one file and upload that.")


def _check_archive(path: Path, limit_bytes: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > limit_bytes:
                raise VolumeError(f"{path.name} unpacks to more than {limit_bytes >> 20} MB: upload the volume alone.")
            for entry in entries:
                lower = entry.filename.lower()
                if lower.endswith(".mrml"):
                    _check_scene(archive.read(entry), path.name)
                elif lower.endswith((".nhdr", ".mhd", ".vtm", ".seq.mrb")):
                    raise VolumeError(f"{path.name} holds {entry.filename}, which can point to other files.")
                elif lower.endswith(".nrrd"):
                    with archive.open(entry) as stream:
                        header = stream.read(_HEADER_BYTES).partition(b"\n\n")[0]
                    if re.search(rb"^data ?file\s*:", header, re.IGNORECASE | re.MULTILINE):
                        raise VolumeError(f"{path.name} holds {entry.filename}, whose voxels are in another file.")
            if not any(entry.filename.lower().endswith(".mrml") for entry in entries):
                raise VolumeError(f"{path.name} holds no scene: save it again with 3D Slicer.")
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise VolumeError(f"{path.name} is damaged or no Slicer scene bundle: save it again with 3D Slicer.") from error


def _check_scene(text: bytes, name: str) -> None:
    """Refuse a scene that reads anything but the files beside it."""
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise VolumeError(f"{name} holds a scene with definitions of its own, which 3D Slicer never writes.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise VolumeError(f"{name} holds a damaged scene: save it again with 3D Slicer.") from error
    for element in root.iter():
        for key, value in element.attrib.items():
            if _FILE_ATTRIBUTES.fullmatch(key) and value and not _is_beside(value):
                raise VolumeError(f"{name} points to {value}, outside the bundle: save it again with 3D Slicer.")


def _is_beside(value: str) -> bool:
    path = PurePosixPath(value.replace("%2E", ".").replace("%2e", ".").replace("%2F", "/").replace("%2f", "/"))
    has_drive = re.match(r"[A-Za-z]:|\\", value) is not None
    return not (path.is_absolute() or ".." in path.parts or "://" in value or has_drive)

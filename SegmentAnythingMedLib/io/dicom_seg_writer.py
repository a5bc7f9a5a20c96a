"""Labels as DICOM SEG (binary) through highdicom, with references to every image of the source series."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, OutputError
from SegmentAnythingMedLib.io.dicom_frames import frames_of, quiet_pydicom
from SegmentAnythingMedLib.io.dicom_seg import dicom_lab_from_rgb
from SegmentAnythingMedLib.io.labels import DEFAULT_TERMINOLOGY, Labels, Segment, check_same_grid
from SegmentAnythingMedLib.volume import Volume

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

_MAKER = "Segment Anything Med"
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_ON_SLICE = 0.1


def dicom_seg(labels: Labels, volume: Volume | None, version: str = "0.1") -> Segmentation:
    """The DICOM SEG object, ready to be saved.

    Parameters
    ----------
    labels
        On the volume's grid.
    volume
        The volume that was segmented; its ``source_files`` are read for patient, study and references.

    Raises
    ------
    OutputError
        If highdicom is not installed, the volume did not come from DICOM, its files are gone, lack identifiers or do
        not cover the grid, or there is nothing to write.
    """
    check_source(volume)
    import highdicom

    try:
        check_same_grid(labels.geometry, volume.geometry)
    except GeometryError as error:
        raise OutputError(f"DICOM SEG must be on the grid of the source series. {error}") from error
    used = [segment for segment in labels.segments if segment.mask.any()]
    if not used:
        raise OutputError("There is no segment with a voxel, and a DICOM SEG cannot be empty: segment something first.")
    with quiet_pydicom():
        images, slices = _source_images(volume)
        pixels = np.stack([segment.mask[slices] for segment in used], axis=-1).astype(np.uint8)
        try:
            return highdicom.seg.Segmentation(
                source_images=images,
                pixel_array=pixels,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_description(segment, number) for number, segment in enumerate(used, start=1)],
                series_instance_uid=highdicom.UID(),
                series_number=1000 + int(images[0].get("SeriesNumber") or 0) % 9000,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=_MAKER,
                manufacturer_model_name=_MAKER,
                software_versions=version,
                device_serial_number="0",
                content_label="SEGMENTATION",
                specific_character_set="ISO_IR 192",
                series_description=f"{_MAKER} segmentation",
            )
        except (AttributeError, ValueError, TypeError, KeyError) as error:
            raise OutputError(
                f"The source files do not allow a DICOM SEG ({error}): write .seg.nrrd instead."
            ) from error


def check_source(volume: Volume | None) -> None:
    """Raise an `OutputError` unless the volume came from DICOM, has a position, and highdicom is installed."""
    if volume is None or not volume.source_files:
        raise OutputError("DICOM SEG needs the DICOM files of the source series: write .seg.nrrd or .nii.gz instead.")
    if not volume.has_orientation:
        raise OutputError(
            "The source files do not say where the image lies in the patient (ultrasound and X-ray seldom do), which "
            "DICOM SEG needs: write .seg.nrrd instead."
        )
    if importlib.util.find_spec("highdicom") is None:
        raise OutputError("DICOM SEG needs the package highdicom: install it, or write .seg.nrrd instead.")


def _source_images(volume: Volume) -> tuple[list[Dataset], list[int]]:
    """Source datasets of the first time point, and the slice that each of their frames shows, in order."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    found: dict[int, tuple[Dataset, int]] = {}
    datasets = []
    for path in volume.source_files:
        try:
            dataset = dcmread(path, stop_before_pixels=True)
        except (OSError, InvalidDicomError, EOFError) as error:
            raise OutputError(
                f"The source file {Path(path).name} cannot be read any more: put it back first."
            ) from error
        missing = [keyword for keyword in _NEEDED if not dataset.get(keyword)]
        if missing:
            raise OutputError(f"The source files have no {missing[0]}, which DICOM SEG needs: write .seg.nrrd instead.")
        datasets.append(dataset)
        for frame in frames_of(dataset, path):
            if frame.position:
                index = volume.geometry.ijk_from_world(np.array(frame.position))[2]
                if abs(index - round(index)) < _ON_SLICE:
                    found.setdefault(round(index), (dataset, frame.index))
    count = volume.geometry.size_ijk[2]
    if not found or (len(datasets) > 1 and sorted(found) != list(range(count))):
        raise OutputError("The source files do not show every slice of the volume: write .seg.nrrd instead.")
    if len(datasets) == 1 and int(datasets[0].get("NumberOfFrames") or 1) > 1:
        order = sorted((frame, k) for k, (_, frame) in found.items())
        if [frame for frame, _ in order] != list(range(int(datasets[0].NumberOfFrames))):
            raise OutputError("The source file shows some slices several times: write .seg.nrrd instead.")
        return datasets, [k for _, k in order]
    return [found[k][0] for k in range(count)], list(range(count))


def _description(segment: Segment, number: int) -> SegmentDescription:
    import highdicom

    parts = (segment.terminology or DEFAULT_TERMINOLOGY).split("~") + [""] * 7
    tissue = _code(DEFAULT_TERMINOLOGY.split("~")[1])
    region = _code(parts[5])
    lightness, a, b = np.array(dicom_lab_from_rgb(segment.color)) / 65535 * [100, 255, 255] - [0, 128, 128]
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:64] or f"Segment {number}",
        segmented_property_category=_code(parts[1]) or tissue,
        segmented_property_type=_code(parts[2]) or tissue,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=_MAKER, version="1", family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence")
        ),
        tracking_id=f"{number} {segment.name}"[:64],
        tracking_uid=highdicom.UID(),
        anatomic_regions=[region] if region else None,
        display_color=highdicom.color.CIELabColor(lightness, a, b),
    )


def _code(text: str) -> CodedConcept | None:
    import highdicom

    scheme, value, meaning = (text.split("^") + ["", "", ""])[:3]
    return highdicom.sr.CodedConcept(value, scheme, meaning[:64]) if scheme and value and meaning else None

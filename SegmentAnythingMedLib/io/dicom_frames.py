"""DICOM headers as frames: one image plane each, single-frame and (enhanced) multi-frame files alike."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.io.voxels import human_bytes

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

_LEAST_FRAME_BYTES = 16
"""A compressed frame is an item of its own: 8 bytes of header, and more than a start and an end of image."""
_MAX_DEFLATE_RATIO = 1040


@dataclass(frozen=True)
class Frame:
    """One image plane of a DICOM file. Positions and directions are LPS in millimetres; () where the file has none."""

    path: str
    index: int
    uid: str
    series_uid: str
    series_number: str
    description: str
    modality: str
    rows: int
    columns: int
    samples: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    thickness: float
    slope: float
    intercept: float
    stored_range: tuple[int, int] | None
    inverted: bool
    b_value: float | None = None
    echo_ms: float | None = None
    image_type: tuple[str, ...] = ()
    order: tuple[float, ...] = field(default=(), repr=False)
    time_s: float | None = None
    has_spacing: bool = True
    has_thickness: bool = True

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit normal of the plane, right-handed with the row and column directions."""
        return np.cross(self.orientation[:3], self.orientation[3:])


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Real files break small rules of the standard all the time; pydicom's warnings about them help nobody here.

    Some come as warnings, some through its logger.
    """
    pydicom_logger = logging.getLogger("pydicom")
    level = pydicom_logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)\b")
        pydicom_logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            pydicom_logger.setLevel(level)


def frames_of(dataset: Dataset, path: str) -> list[Frame]:
    """All frames of a file; [] if it holds no image (segmentations and structure sets are no images)."""
    if "Rows" not in dataset or "Columns" not in dataset or dataset.get("Modality") in ("SEG", "PR", "SR", "RTSTRUCT"):
        return []
    count = int(dataset.get("NumberOfFrames") or 1)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    stack = _stack_positions(dataset, count)
    frames = []
    for index in range(count):
        groups = [per_frame[index] if index < len(per_frame) else {}, shared]
        frames.append(_frame(_Groups(dataset, groups), path, index, stack))
    return frames


class _Groups:
    """Look an attribute up in the frame's functional groups, the shared ones, then the dataset itself."""

    def __init__(self, dataset: Dataset, groups: list) -> None:
        self.dataset, self.groups = dataset, groups

    def get(self, keyword: str, *sequences: str) -> object:
        for group in self.groups:
            for sequence in sequences:
                items = group.get(sequence)
                value = items[0].get(keyword) if items else None
                if value is not None and value != "":
                    return value
        value = self.dataset.get(keyword)
        return None if value == "" else value

    def number(self, keyword: str, *sequences: str) -> float | None:
        return _number(self.get(keyword, *sequences))

    def numbers(self, count: int, keyword: str, *sequences: str) -> tuple[float, ...]:
        value = self.get(keyword, *sequences)
        if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) < count:
            return ()
        numbers = tuple(_number(v) for v in value[:count])
        return () if None in numbers else numbers


def _frame(groups: _Groups, path: str, index: int, stack: list[tuple[float, ...]]) -> Frame:
    dataset = groups.dataset
    position = stack[index] if stack else groups.numbers(3, "ImagePositionPatient", "PlanePositionSequence")
    orientation = groups.numbers(6, "ImageOrientationPatient", "PlaneOrientationSequence")
    if not position or not orientation:
        position = orientation = ()
    transform = ("PixelValueTransformationSequence",)
    floating = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset or not dataset.get("BitsStored")
    thickness = groups.number("SpacingBetweenSlices", "PixelMeasuresSequence")
    thickness = thickness or groups.number("SliceThickness", "PixelMeasuresSequence")
    spacing = _pixel_spacing(groups)
    slope = groups.number("RescaleSlope", *transform)
    time_s, order = _time(groups, index)
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    return Frame(
        path=path,
        index=index,
        uid=str(dataset.get("SOPInstanceUID") or path),
        series_uid=str(dataset.get("SeriesInstanceUID") or ""),
        series_number=str(dataset.get("SeriesNumber") if dataset.get("SeriesNumber") is not None else ""),
        description=str(dataset.get("SeriesDescription") or "").strip(),
        modality=str(dataset.get("Modality") or ""),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        samples=3 if photometric == "PALETTE COLOR" else int(dataset.get("SamplesPerPixel") or 1),
        position=position,
        orientation=orientation,
        spacing=spacing or (1.0, 1.0),
        thickness=abs(thickness or 1.0),
        slope=slope if slope else 1.0,
        intercept=groups.number("RescaleIntercept", *transform) or 0.0,
        stored_range=None if floating else _stored_range(dataset),
        inverted=photometric == "MONOCHROME1",
        b_value=_b_value(groups),
        echo_ms=groups.number("EffectiveEchoTime", "MREchoSequence") or groups.number("EchoTime"),
        image_type=_image_type(groups),
        order=order,
        time_s=time_s,
        has_spacing=spacing is not None,
        has_thickness=bool(thickness),
    )


def _number(value: object) -> float | None:
    """A finite number from whatever a tag holds: numbers, text, bytes of a private tag of unknown VR."""
    if isinstance(value, bytes):
        value = (
            np.frombuffer(value, "<f8")[0]
            if len(value) == 8 and not value.strip().isdigit()
            else value.decode("ascii", "ignore")
        )
    try:
        number = float(str(value).strip(" \0"))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _pixel_spacing(groups: _Groups) -> tuple[float, float] | None:
    """Distance between rows and between columns in mm; None where unknown."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = groups.numbers(2, keyword, "PixelMeasuresSequence")
        if spacing and min(spacing) > 0:
            return spacing
    for region in groups.dataset.get("SequenceOfUltrasoundRegions") or []:
        deltas = _number(region.get("PhysicalDeltaY")), _number(region.get("PhysicalDeltaX"))
        in_cm = region.get("PhysicalUnitsXDirection") == 3 and region.get("PhysicalUnitsYDirection") == 3
        if in_cm and all(deltas) and region.get("RegionSpatialFormat") in (1, None):
            return abs(deltas[0]) * 10, abs(deltas[1]) * 10
    return None


def check_frame_count(dataset: Dataset, path: Path) -> None:
    """Raise `VolumeError` if a multi-frame file claims more pixels than it can hold; nothing is read for this."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames <= 1 or "Rows" not in dataset or "Columns" not in dataset:
        return
    held = path.stat().st_size
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    is_known = syntax is not None and syntax.is_transfer_syntax
    if is_known and syntax.is_compressed and not syntax.is_deflated:
        least = frames * _LEAST_FRAME_BYTES
    else:
        is_halved = dataset.get("PhotometricInterpretation") == "YBR_FULL_422"
        values = 2 if is_halved else int(dataset.get("SamplesPerPixel") or 1)
        bits = frames * int(dataset.Rows) * int(dataset.Columns) * values * int(dataset.get("BitsAllocated") or 1)
        least = bits // (8 * _MAX_DEFLATE_RATIO if is_known and syntax.is_deflated else 8)
    if least > held:
        raise VolumeError(
            f"{path.name} claims {frames} frames of {dataset.Columns}x{dataset.Rows} pixels (at least "
            f"{human_bytes(least)}), more than a file of {human_bytes(held)} can hold: it is truncated or damaged, "
            "copy or export it again."
        )


def _stored_range(dataset: Dataset) -> tuple[int, int]:
    bits = int(dataset.BitsStored)
    if dataset.get("PixelRepresentation"):
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _stack_positions(dataset: Dataset, count: int) -> list[tuple[float, ...]]:
    """Frame positions of old multi-frame objects: offsets of a dose grid, slice numbers of nuclear medicine."""
    detector = (dataset.get("DetectorInformationSequence") or [{}])[0]
    origin = dataset.get("ImagePositionPatient") or detector.get("ImagePositionPatient")
    axes = dataset.get("ImageOrientationPatient") or detector.get("ImageOrientationPatient")
    offsets = dataset.get("GridFrameOffsetVector")
    slices, step = dataset.get("SliceVector"), _number(dataset.get("SpacingBetweenSlices"))
    if not offsets and slices and step:
        offsets = [(int(s) - 1) * step for s in slices]
    if not origin or not axes or not offsets or len(offsets) != count:
        return []
    normal = np.cross([float(a) for a in axes[:3]], [float(a) for a in axes[3:]])
    return [tuple(np.array(origin, dtype=float) + normal * float(offset)) for offset in offsets]


def _b_value(groups: _Groups) -> float | None:
    """Diffusion weighting in s/mm2: standard tag, private tags of the vendors, or the sequence name (ep_b50t)."""
    value = groups.number("DiffusionBValue", "MRDiffusionSequence")
    if value is not None or groups.dataset.get("Modality") != "MR":
        return value
    dataset, maker = groups.dataset, str(groups.dataset.get("Manufacturer") or "").upper()
    private = {"SIEMENS": (0x0019, 0x100C), "PHILIPS": (0x2001, 0x1003), "GE": (0x0043, 0x1039)}
    tag = next((tag for name, tag in private.items() if maker.startswith(name)), None)
    if tag and tag in dataset:
        value = dataset[tag].value
        if isinstance(value, bytes) and b"\\" in value:
            value = value.split(b"\\")[0]
        elif not isinstance(value, (bytes, str)) and hasattr(value, "__len__") and len(value):
            value = value[0]
        value = _number(value)
        if value is not None:
            return value % 100000  # GE adds 1e9
    found = re.search(r"(?:^|[_*])b(\d+)", str(dataset.get("SequenceName") or ""))
    return float(found[1]) if found else None


def _image_type(groups: _Groups) -> tuple[str, ...]:
    value = groups.get("FrameType", "MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
    value = value or groups.dataset.get("ImageType") or ()
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value)


def _time(groups: _Groups, index: int) -> tuple[float | None, tuple[float, ...]]:
    """Time in seconds, and a key that sorts the frames of one position in time."""
    content = "FrameContentSequence"
    trigger = groups.number("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence")
    trigger = trigger if trigger is not None else groups.number("TriggerTime")
    temporal = groups.number("TemporalPositionIndex", content) or groups.number("TemporalPositionIdentifier")
    offset = groups.number("TemporalPositionTimeOffset", "TemporalPositionSequence")
    acquired = _seconds(
        groups.get("FrameAcquisitionDateTime", content) or groups.get("FrameReferenceDateTime", content)
    )
    acquired = acquired if acquired is not None else _seconds(groups.dataset.get("AcquisitionTime"))
    reference = groups.number("FrameReferenceTime") if groups.dataset.get("Modality") == "PT" else None
    number = groups.number("FrameAcquisitionNumber", content) or groups.number("AcquisitionNumber")
    frame_time = groups.number("FrameTime")
    candidates = [offset, trigger and trigger / 1000, reference and reference / 1000, acquired]
    if frame_time and not groups.get("ImagePositionPatient", "PlanePositionSequence"):
        candidates.insert(0, frame_time * index / 1000)
    time_s = next((c for c in candidates if c is not None), None)
    keys = [temporal, trigger, reference, number, acquired, groups.number("InstanceNumber"), float(index)]
    return time_s, tuple(0.0 if key is None else key for key in keys)


def _seconds(value: object) -> float | None:
    """Seconds since midnight of a DICOM time or date-time."""
    text = str(value or "")
    found = re.fullmatch(r"(?:\d{8})?(\d{2})(\d{2})(\d{2})(\.\d+)?(?:[+-]\d{4})?", text.strip())
    return None if found is None else int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3] + (found[4] or ""))


def damage() -> tuple[type[Exception], ...]:
    """What pydicom raises on damaged files."""
    from pydicom.errors import BytesLengthException

    return (
        BytesLengthException,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        NotImplementedError,
        OverflowError,
    )


def file_frames(path: Path, *, force: bool = False) -> list[Frame]:
    """Frames of a file, [] if it is not DICOM or holds no image.

    With ``force`` a file without DICOM's signature is read, and one that claims too many frames is a `VolumeError`
    (in a folder it is left out).
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    with quiet_pydicom():
        try:
            dataset = dcmread(path, stop_before_pixels=True, force=force)
            check_frame_count(dataset, path)
            return frames_of(dataset, str(path))
        except InvalidDicomError:
            return []
        except VolumeError:
            if force:
                raise
            logger.warning("a DICOM file that claims more frames than it can hold is left out")
            return []
        except damage():
            logger.warning("a DICOM file with a damaged header is left out")
            return []

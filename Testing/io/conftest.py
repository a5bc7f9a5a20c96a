"""Small volumes on difficult grids, and DICOM files made from nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from SegmentAnythingMedLib.geometry import VolumeGeometry


def rotation(degrees_xyz: tuple[float, float, float]) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", degrees_xyz, degrees=True).as_matrix()


GRIDS = {
    "tilted": (rotation((10, -20, 33)), (0.7, 0.9, 3.5)),
    "flipped": (np.diag([-1.0, 1.0, -1.0]), (0.5, 0.5, 2.0)),
    "left-handed": (np.diag([1.0, -1.0, 1.0]) @ rotation((5, 5, 5)), (1.0, 2.0, 0.4)),
    "permuted": (np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]], dtype=float), (1.0, 0.8, 5.0)),
}


@pytest.fixture(params=GRIDS)
def a_grid(request: pytest.FixtureRequest) -> VolumeGeometry:
    """6 x 5 x 4 voxels in LPS, tilted, flipped or permuted, and anisotropic."""
    directions, spacing = GRIDS[request.param]
    return VolumeGeometry.from_spacing((6, 5, 4), spacing, directions, (-12.5, 80.25, 301.0))


@pytest.fixture
def a_sheared_grid() -> VolumeGeometry:
    matrix = np.diag([0.7, 0.7, 3.0, 1.0])
    matrix[1, 2] = 0.9
    return VolumeGeometry(matrix, (6, 5, 4))


@pytest.fixture
def voxels() -> np.ndarray:
    """(4, 5, 6) int16, every voxel another value."""
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 20


@pytest.fixture
def write_slice(tmp_path: Path) -> Callable[..., Path]:
    """Writes one CT or MR image plane; keywords overrule its tags, ``pixels`` its stored values."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    series, study, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    written = []

    def write(position: tuple[float, float, float], pixels: np.ndarray | None = None, **tags: object) -> Path:
        pixels = np.full((4, 6), len(written), np.int16) if pixels is None else pixels
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        defaults = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": generate_uid(),
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "FrameOfReferenceUID": frame_of_reference,
            "PatientName": "Doe^Jane",
            "PatientID": "1",
            "PatientBirthDate": "",
            "PatientSex": "",
            "StudyDate": "20200101",
            "StudyTime": "120000",
            "StudyID": "1",
            "AccessionNumber": "",
            "ReferringPhysicianName": "",
            "Modality": "CT",
            "Manufacturer": "nobody",
            "SeriesNumber": 3,
            "SeriesDescription": "made up",
            "InstanceNumber": len(written) + 1,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "ImagePositionPatient": list(position),
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [0.5, 0.75],
            "SliceThickness": 2,
            "PatientPosition": "HFS",
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "BitsAllocated": 8 * pixels.itemsize,
            "BitsStored": 8 * pixels.itemsize,
            "HighBit": 8 * pixels.itemsize - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
        }
        for keyword, value in (defaults | tags).items():
            if value is not None:
                setattr(dataset, keyword, value)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PixelData = pixels.tobytes()
        path = tmp_path / "dicom" / f"{len(written):03d}"
        path.parent.mkdir(exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        written.append(path)
        return path

    return write

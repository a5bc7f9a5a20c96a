"""A server of the browser app, Chromium, and a volume with an ellipsoid that is tilted and anisotropic."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from browser.app_page import AppPage, Server

from SegmentAnythingMedLib.demo import missing_web_package
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io import write_volume
from SegmentAnythingMedLib.volume import Volume

ROOT = Path(__file__).resolve().parents[2]
SIZE_IJK = (72, 60, 40)


def tilted_geometry(size_ijk: tuple[int, int, int]) -> VolumeGeometry:
    """Tilted by 14 degrees about x, J flipped, voxels of 1.0 x 1.3 x 2.5 mm; world LPS."""
    angle = np.radians(14)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return VolumeGeometry.from_spacing(size_ijk, (1.0, 1.3, 2.5), turn @ np.diag([1.0, -1.0, 1.0]), (7.0, -9.0, 11.0))


def ellipsoid(size_ijk: tuple[int, int, int]) -> np.ndarray:
    """(K, J, I) bool: an ellipsoid in the middle, 0.3 of the volume's size in each direction."""
    i, j, k = (np.arange(n) for n in size_ijk)
    radii = [0.3 * n for n in size_ijk]
    middle = [(n - 1) / 2 for n in size_ijk]
    return (
        ((k[:, None, None] - middle[2]) / radii[2]) ** 2
        + ((j[:, None] - middle[1]) / radii[1]) ** 2
        + ((i - middle[0]) / radii[0]) ** 2
    ) < 1


def write_ellipsoid(path: Path, size_ijk: tuple[int, int, int] = SIZE_IJK, noise: float = 8.0) -> Path:
    """A noisy volume file with a brighter ellipsoid."""
    random = np.random.default_rng(3).normal(0, noise, size_ijk[::-1])
    voxels = (100.0 * ellipsoid(size_ijk) + random).astype(np.int16)
    write_volume(path, Volume.from_array(voxels, tilted_geometry(size_ijk)))
    return path


@pytest.fixture(scope="session")
def volume_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ellipsoid(tmp_path_factory.mktemp("volume") / "ellipsoid.nrrd")


def write_dicom(folder: Path, size_ijk: tuple[int, int, int] = (48, 40, 16)) -> Path:
    """A CT series of the ellipsoid, tilted and anisotropic, a file a slice, in its own folder."""
    pydicom = pytest.importorskip("pydicom", reason="pip install pydicom")
    ct, made = pydicom.uid.CTImageStorage, [pydicom.uid.generate_uid() for _ in range(3)]
    matrix, spacing = tilted_geometry(size_ijk).ijk_to_world, (1.0, 1.3, 2.5)
    noise = np.random.default_rng(5).normal(0, 8, size_ijk[::-1])
    for k, pixels in enumerate((100.0 * ellipsoid(size_ijk) + noise).astype(np.int16)):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = ct
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = pydicom.uid.generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = made
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Doe^Jane", "1", "", ""
        one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20200101", "120000", "1", ""
        one.ReferringPhysicianName, one.Modality, one.Manufacturer, one.SeriesNumber = "", "CT", "nobody", 3
        one.SeriesDescription, one.InstanceNumber, one.PatientPosition = "phantom", k + 1, "HFS"
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.ImagePositionPatient = [round(float(x), 6) for x in (matrix @ (0, 0, k, 1))[:3]]
        axes = [*(matrix[:3, 0] / spacing[0]), *(matrix[:3, 1] / spacing[1])]
        one.ImageOrientationPatient = [round(float(x), 9) for x in axes]
        one.PixelSpacing, one.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.Rows, one.Columns = pixels.shape
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.PixelData = pixels.tobytes()
        one.save_as(folder / f"IM{k:04d}", enforce_file_format=True)
    return folder


@pytest.fixture(scope="session")
def dicom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dicom(tmp_path_factory.mktemp("dicom"))


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers with arguments of ``segment-anything-med web``, and ends them."""
    missing = missing_web_package()
    if missing:
        pytest.skip(missing)
    made: list[Server] = []

    def start(*arguments: object) -> Server:
        # a folder of its own for temporary files: the tests look into it
        folder = tmp_path_factory.mktemp("server")
        command = [sys.executable, "-u", "-m", "SegmentAnythingMedLib", "web", "--no-browser", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        with (folder / "errors.txt").open("w") as errors:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        made.append(Server(process, folder))
        return made[-1]

    yield start
    for server in made:
        server.stop()


@pytest.fixture(scope="session")
def server(serving: Callable[..., Server], volume_file: Path, dicom_folder: Path) -> Server:
    """One server for most tests: each of their pages is a session with the ellipsoid and a DICOM series in it."""
    return serving(volume_file, dicom_folder, "--sessions", 8, "--max-upload-mb", 4)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium, or the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def new_page(browser: object) -> Iterator[Callable[..., AppPage]]:
    """Opens the app in a browser that knows nothing yet."""
    made: list[AppPage] = []

    def make(url: str, **options: object) -> AppPage:
        made.append(AppPage(browser.new_context(viewport={"width": 1400, "height": 900}, **options), url))
        return made[-1]

    yield make
    for page in made:
        page.close()


@pytest.fixture(scope="session")
def session(new_page: Callable[..., AppPage], server: Server) -> AppPage:
    """A session with the ellipsoid, for all tests that do not need their own: it takes seconds to start."""
    page = new_page(server.url)
    page.until("panel.volumes.length === 2 && !panel.busy && sliders.Red")
    return page


@pytest.fixture
def page(session: AppPage) -> Iterator[AppPage]:
    """The session, with the ellipsoid chosen and no segment yet, whatever tests before have left."""
    session.tab.set_viewport_size({"width": 1400, "height": 900})
    session.look_only()
    first, second, *_ = (one["id"] for one in session.panel["volumes"])
    for volume in (first, second, first):  # choosing another volume lets go of the segmentation
        session.tab.locator("[data-field=volume]").select_option(volume)
        session.until(f"panel.volume === '{volume}'")
    session.until("panel.segments.length === 0 && sliders.Red")
    yield session
    assert session.errors == []

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


def write_ellipsoid(path: Path, size_ijk: tuple[int, int, int] = SIZE_IJK) -> Path:
    """A noisy volume file with a brighter ellipsoid."""
    noise = np.random.default_rng(3).normal(0, 8, size_ijk[::-1])
    voxels = (100.0 * ellipsoid(size_ijk) + noise).astype(np.int16)
    write_volume(path, Volume.from_array(voxels, tilted_geometry(size_ijk)))
    return path


@pytest.fixture(scope="session")
def volume_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ellipsoid(tmp_path_factory.mktemp("volume") / "ellipsoid.nrrd")


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
def server(serving: Callable[..., Server], volume_file: Path) -> Server:
    """One server for most tests: each of their pages is a session with the ellipsoid in it."""
    return serving(volume_file, "--sessions", 8, "--max-upload-mb", 4)


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
    page.until("panel.volume && sliders.Red")
    return page


@pytest.fixture
def page(session: AppPage) -> Iterator[AppPage]:
    """The session, with the ellipsoid chosen and a new segment."""
    session.tab.set_viewport_size({"width": 1400, "height": 900})
    first = session.panel["volumes"][0]["id"]
    session.tab.locator("[data-field=volume]").select_option(first)
    session.until(f"panel.volume === '{first}' && !panel.placing")
    if session.panel["segments"]:
        count = len(session.panel["segments"])
        session.press("add-segment")
        session.until(f"panel.segments.length === {count + 1} && panel.quality === null && !panel.candidate")
    yield session
    assert session.errors == []

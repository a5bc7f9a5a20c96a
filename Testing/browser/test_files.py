"""Files of all kinds: DICOM series, segmentations, scenes, and names that want to do harm."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser.app_page import AppPage, Server, wait_until
from browser.conftest import SIZE_IJK, ellipsoid, tilted_geometry, write_ellipsoid
from browser.test_workflow import draw_box

from SegmentAnythingMedLib.io import Labels, Segment, labels_on_grid, read_labels, read_volume, write_labels
from SegmentAnythingMedLib.propagation import dice


def half_ellipsoid(size_ijk: tuple[int, int, int]) -> np.ndarray:
    """(K, J, I) bool: the ellipsoid where I, J and K are small, so that a flip is noticed."""
    k, j, i = np.mgrid[: size_ijk[2], : size_ijk[1], : size_ijk[0]]
    return ellipsoid(size_ijk) & (i + j + k < sum(size_ijk) // 2 - 1)


def choose(page: AppPage, name: str) -> None:
    """Work on the volume with this name."""
    (found,) = [one["id"] for one in page.panel["volumes"] if one["name"] == name]
    page.tab.locator("[data-field=volume]").select_option(found)
    page.until(f"panel.volume === '{found}'")


def test_a_dicom_folder_of_the_command_line_becomes_a_dicom_seg(
    page: AppPage, dicom_folder: Path, tmp_path: Path
) -> None:
    source = read_volume(dicom_folder)
    choose(page, source.name)
    draw_box(page)
    page.press("propagate-both")
    page.until("panel.state === 'reviewing' && strip.count > 6")
    page.press("accept")
    page.until("panel.status.startsWith('Accepted')")
    saved = page.download("dcm", tmp_path)
    labels = read_labels(saved, source)
    assert labels.geometry.matches(source.geometry)
    assert dice(labels.segments[0].mask > 0, ellipsoid(source.geometry.size_ijk)) > 0.85


def test_a_segmentation_is_opened_after_its_volume_and_shown_in_3d(page: AppPage, tmp_path: Path) -> None:
    geometry, mask = tilted_geometry(SIZE_IJK), ellipsoid(SIZE_IJK)
    left = np.where(np.arange(SIZE_IJK[0]) < SIZE_IJK[0] // 2, mask, False)
    segments = (
        Segment("Whole", mask.astype(np.uint8), 1, (0.2, 0.4, 0.6)),
        Segment("Left half", left.astype(np.uint8) * 2, 2, (1.0, 0.0, 0.0)),
    )
    path = tmp_path / "two.seg.nrrd"
    write_labels(path, Labels(geometry, segments))
    page.upload(path)
    page.until("panel.segments.length === 2 && panel.status.includes('two.seg.nrrd: 2 segments')")
    assert [one["name"] for one in page.panel["segments"]] == ["Whole", "Left half"]
    assert page.panel["segments"][1]["color"] == "#ff0000"
    page.until("panel.progress === null")
    assert _reddish(page) > 40, "the red half stands in the 3D view"
    again = read_labels(page.download("seg.nrrd", tmp_path))
    for found, segment in zip(again.segments, segments, strict=True):
        np.testing.assert_array_equal(found.mask > 0, segment.mask > 0)


def test_a_scene_bundle_is_opened_with_its_volume_and_segments(page: AppPage, tmp_path: Path) -> None:
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    page.upload(_bundle(tmp_path))
    page.until("panel.volumes.find((one) => one.id === panel.volume).name === 'in a scene'")
    page.until("panel.segments.some((one) => one.name === 'Kept') && panel.progress === null")
    saved = read_labels(page.download("seg.nrrd", tmp_path))
    # a scene may be saved with its slices in the other order: the same voxels at the same places
    on_grid = labels_on_grid(saved, tilted_geometry((40, 36, 20)))
    np.testing.assert_array_equal(on_grid.segments[0].mask, half_ellipsoid((40, 36, 20)))
    page.press("add-segment")
    page.until("panel.segments.length === 2 && panel.quality === null")
    draw_box(page)


@pytest.mark.parametrize(
    "name",
    ["<img src=x onerror=alert(1)>.nrrd", "{{panel}}${7*7}.nrrd", "..\\..\\x.nrrd", "漢" * 120 + ".nrrd", "-rf *.nrrd"],
)
def test_a_name_that_wants_to_do_harm_is_only_a_name(page: AppPage, server: Server, name: str, tmp_path: Path) -> None:
    content = write_ellipsoid(tmp_path / "small.nrrd", (20, 18, 12)).read_bytes()
    count = len(page.panel["volumes"])
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.tab.locator("[data-upload=files]").set_input_files([file])
    page.until(f"!panel.busy && panel.volumes.length === {count + 1}")
    shown = page.panel["volumes"][-1]["name"]
    assert not set(shown) & set("<>{}$\\/*") and len(shown.encode()) < 255
    assert page.tab.locator("[data-field=volume] img").count() == 0
    assert page.tab.locator("[data-field=volume] option").last.inner_text() == shown


def test_an_upload_that_breaks_off_leaves_nothing(page: AppPage, server: Server) -> None:
    before = {path for path in server.folder.rglob("upload-*") if any(path.iterdir())}
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in page.tab.context.cookies())
    head = (
        f"POST {urlsplit(page.tab.url).path}upload HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Origin: http://127.0.0.1:{server.port}\r\nCookie: {cookies}\r\nContent-Length: 3000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="half.nrrd"\r\n\r\nNRRD'
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + b"0" * 100_000)
        page.until("panel.busy === 'Receiving files'")
    page.until("!panel.busy")
    wait_until(lambda: {path for path in server.folder.rglob("upload-*") if any(path.iterdir())} == before)


@pytest.mark.parametrize("path", ["download/../../etc/passwd", "download/exe", "..%2f..%2fetc%2fpasswd", "%00"])
def test_paths_that_are_not_the_apps_give_nothing(page: AppPage, server: Server, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Authorization": f"Bearer {server.token}"}
    connection.request("GET", urlsplit(page.tab.url).path + path, headers=headers)
    answer = connection.getresponse()
    assert 400 <= answer.status < 500 and b"root:" not in answer.read()
    connection.close()


def _reddish(page: AppPage) -> int:
    """Pixels of the 3D view that are much redder than green or blue, when they have come."""
    count = 0

    def look() -> bool:
        nonlocal count
        picture = page.pixels("ThreeD").astype(int)
        count = int(((picture[..., 0] > 120) & (picture[..., 0] > 2 * picture[..., 1:3].max(axis=-1))).sum())
        return count > 40

    wait_until(look)
    return count


def _bundle(folder: Path) -> Path:
    """A .mrb with a tilted volume and a segmentation of one segment."""
    from mrml.host import MrmlHost, set_labels

    from SegmentAnythingMedLib.mrml.new_segment import ensure_segment, make_segmentation
    from SegmentAnythingMedLib.web.volume_nodes import LPS_TO_RAS, add_volume

    (folder / "made").mkdir()
    host = MrmlHost(folder / "made")
    volume = read_volume(write_ellipsoid(folder / "in a scene.nrrd", (40, 36, 20)))
    node = add_volume(host.scene, volume)
    volume_matrix = LPS_TO_RAS @ volume.geometry.ijk_to_world
    segmentation = make_segmentation(host.scene, node, "saved")
    set_labels(segmentation, ensure_segment(segmentation, "Kept"), half_ellipsoid((40, 36, 20)), volume_matrix)
    host.save(folder / "scene.mrb")
    host.scene.Clear(True)
    return folder / "scene.mrb"

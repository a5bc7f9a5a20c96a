"""Parts that need no browser: the strip, the page's buttons and keys, what may be uploaded, 4D volumes as sequences."""

from __future__ import annotations

import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from browser.conftest import tilted_geometry

from SegmentAnythingMedLib.errors import VolumeError
from SegmentAnythingMedLib.mrml.controller_review import SliceReview
from SegmentAnythingMedLib.panel.actions import ACTIONS
from SegmentAnythingMedLib.web.quality_strip import HEIGHT, strip_of
from SegmentAnythingMedLib.web.upload_checks import check_content, check_name, safe_name


def a_slice(index: int, **fields: object) -> SliceReview:
    return SliceReview(index, **({"quality": 0.9, "presence": 5.0, "overlap": 0.9} | fields))


def test_a_place_on_the_strip_is_the_slice_drawn_there() -> None:
    strip = strip_of([a_slice(index) for index in range(30, 70)], shown=41)
    assert (strip.first, strip.count) == (30, 40)
    assert [strip.slice_at(fraction) for fraction in (0.0, 0.26, 0.999, 1.0, -1.0)] == [30, 40, 69, 69, 30]
    assert strip.good.count("M") == 40 and strip.shown.count("M") == 1


def test_weak_slices_stand_out_and_empty_ones_have_no_bar() -> None:
    slices = [
        a_slice(5, prompted=True),
        a_slice(6, quality=0.3, is_weak=True),
        a_slice(7, is_empty=True),
        a_slice(8, confirmed=True),
    ]
    strip = strip_of(slices)
    assert strip.weak.count("M") == 1 and f"v-{HEIGHT}.0" in strip.weak
    assert strip.given.count("M") == 2 and strip.good == ""
    assert strip.count == 12, "a few slices do not fill the strip"


def test_without_slices_there_is_no_strip() -> None:
    assert strip_of([]).slice_at(0.5) is None


def test_every_action_has_a_button_and_every_key_an_action() -> None:
    text = resources.files("SegmentAnythingMedLib.web").joinpath("static", "page.html").read_text("utf-8")
    buttons = {action.name for action in ACTIONS if f"<!-- button {action.name} -->" in text}
    assert {action.name for action in ACTIONS} - buttons == {"stop"}, "stop is the key Escape"
    page = pytest.importorskip("SegmentAnythingMedLib.web.page", reason="trame-slicer is not installed")
    assert "<!--" not in page.page()
    shortcuts = page.shortcuts()
    assert set(shortcuts.values()) == {action.name for action in ACTIONS if action.key}
    assert shortcuts["Escape"] == "stop" and "Shift+n" in shortcuts


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\scans\\ct.nii.gz", "ct.nii.gz"),
        ('a"b\r\n<c>.nrrd', "a_b___c_.nrrd"),
        ("...", "file"),
        ("Röntgen 1.nii", "Röntgen 1.nii"),
    ],
)
def test_names_lose_folders_and_what_could_harm(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["ct.nii.gz", "a.seg.nrrd", "IM0001", "1.2.840.113", "scan.DCM", "prompts.json"])
def test_known_formats_may_be_uploaded(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd", "a.vtk", "a.html", "a.nii.exe"])
def test_other_formats_may_not(name: str) -> None:
    with pytest.raises(VolumeError, match="cannot be opened here"):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.nrrd", b"NRRD0004\ntype: short\ndatafile: /etc/passwd\n\n"),
        ("a.seg.nrrd", b"NRRD0004\nData File: LIST\n/etc/passwd\n\n"),
        ("a.mha", b"ObjectType = Image\nElementDataFile = /etc/passwd\n"),
    ],
)
def test_headers_that_point_to_other_files_are_refused(name: str, header: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(header)
    with pytest.raises(VolumeError, match="voxels in another file"):
        check_content(tmp_path / name, 1 << 20)


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        ('<MRML><S fileName="/etc/passwd"></S></MRML>', "outside the bundle"),
        ('<MRML><S fileName="../a.nrrd"></S></MRML>', "outside the bundle"),
        ('<MRML><S uri="http://example.org/a.nrrd"></S></MRML>', "outside the bundle"),
        ('<MRML><S fileListMember0="%2e%2e%2Fa.nrrd"></S></MRML>', "outside the bundle"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><MRML></MRML>', "definitions of its own"),
        ("<MRML>", "damaged scene"),
    ],
)
def test_scenes_that_reach_outside_their_bundle_are_refused(scene: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mrb"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/a.mrml", scene)
    with pytest.raises(VolumeError, match=words):
        check_content(path, 1 << 20)


def test_a_bundle_that_unpacks_to_far_more_than_was_sent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mrb"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/a.mrml", '<MRML><S fileName="Data/a.nrrd"></S></MRML>')
        archive.writestr("a/Data/a.nrrd", b"\0" * (21 << 20))
    check_content(path, 2 << 20)
    with pytest.raises(VolumeError, match="unpacks to more"):
        check_content(path, 1 << 20)


def test_a_volume_of_a_file_keeps_its_place_and_comes_back_on_the_files_grid() -> None:
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    from SegmentAnythingMedLib.mrml.frame import VolumeFrame
    from SegmentAnythingMedLib.volume import Volume
    from SegmentAnythingMedLib.web.volume_nodes import LPS_TO_RAS, add_volume

    geometry = tilted_geometry((5, 4, 3))
    volume = Volume.from_array(np.arange(60, dtype=np.int16).reshape(3, 4, 5), geometry)
    scene = slicer.vtkMRMLScene()
    frame = VolumeFrame.of(add_volume(scene, volume))
    corner = np.array([4.0, 3.0, 2.0])
    np.testing.assert_allclose(
        frame.ras_from_ijk(corner), LPS_TO_RAS[:3, :3] @ geometry.world_from_ijk(corner), atol=1e-9
    )
    scene.Clear(True)

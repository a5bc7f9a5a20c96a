"""Volumes of one patient as channels of one: their place and windows, what is refused, and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from SegmentAnythingMedLib import cli
from SegmentAnythingMedLib.errors import GeometryError, SegmentAnythingMedError, VolumeError
from SegmentAnythingMedLib.fusion import fuse_volumes, overlap
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io import fused as fused_files
from SegmentAnythingMedLib.io import read_fused, read_labels, read_volume, write_volume
from SegmentAnythingMedLib.phantom import make_phantom
from SegmentAnythingMedLib.phantom_shapes import rotation
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.windowing import choose_window


def grid(
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    tilt: tuple[float, float, float],
    center: tuple[float, float, float] = (0.0, 0.0, 0.0),
    shear: float = 0.0,
) -> VolumeGeometry:
    """A tilted grid round a world point; with a shear like that of a tilted gantry."""
    directions = rotation(tilt) @ np.array([[1.0, 0, 0], [0, -1, shear], [0, 0, 1]])
    middle = (directions * spacing) @ ((np.array(size) - 1) / 2)
    return VolumeGeometry.from_spacing(size, spacing, directions, tuple(np.array(center) - middle))


def ramp(geometry: VolumeGeometry, name: str = "ramp", **fields: object) -> Volume:
    """A volume whose values are a linear function of the place in the world, which linear sampling gives exactly."""
    k, j, i = np.indices(geometry.shape_kji)
    world = geometry.world_from_ijk(np.stack([i, j, k], axis=-1))
    return Volume.from_array((world @ (1.0, -2.0, 3.0) + 500).astype(np.float32), geometry, name=name, **fields)


TILTED = grid((20, 16, 12), (1.0, 1.3, 4.0), (12.0, -20.0, 30.0))


@pytest.mark.parametrize(
    "other",
    [
        grid((40, 40, 40), (3.0, 2.5, 2.0), (0.0, 0.0, 0.0)),
        grid((30, 30, 40), (4.1, 4.1, 3.3), (-35.0, 10.0, 80.0)),
        grid((40, 40, 60), (2.0, 2.0, 2.0), (5.0, 0.0, 0.0), shear=0.3),
    ],
    ids=["straight", "turned", "sheared"],
)
def test_every_channel_lies_where_the_first_lies(other: VolumeGeometry) -> None:
    first = ramp(TILTED, "a")
    fused = fuse_volumes([first, ramp(other, "b"), ramp(other, "c")])
    assert fused.voxels.shape == (1, 3, 12, 16, 20) and fused.voxels.dtype == np.float32
    assert fused.geometry is first.geometry and fused.name == "a + b + c"
    for channel in (1, 2):
        np.testing.assert_allclose(fused.array(channel=channel), first.array(), atol=2e-3)


def test_beyond_a_channel_and_at_holes_in_it_its_smallest_value_stands(caplog: pytest.LogCaptureFixture) -> None:
    part = grid((6, 6, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    values = np.full((6, 6, 6), 7.0, np.float32)
    values[0, 0, 0], values[3, 3, 3] = 2.0, np.nan
    whole = Volume.from_array(np.zeros((30, 30, 30), np.int16), grid((30, 30, 30), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    fused = fuse_volumes([whole, Volume.from_array(values, part, name="part")])
    channel = fused.array(channel=1)
    assert channel[0, 0, 0] == 2.0 and channel[14, 14, 14] == pytest.approx(7.0)
    assert np.isfinite(channel).all()
    assert "'part' covers" in caplog.text


def test_volumes_that_lie_apart_are_refused_with_a_sentence() -> None:
    elsewhere = ramp(grid((20, 16, 12), (1.0, 1.3, 4.0), (0.0, 0.0, 0.0), center=(900.0, 0.0, 0.0)), "PET")
    with pytest.raises(GeometryError, match=r"'PET' does not lie where 'CT' lies \(0% in common, middles 900 mm apart"):
        fuse_volumes([ramp(TILTED, "CT"), elsewhere])


def test_a_small_volume_inside_a_large_one_is_no_stranger() -> None:
    small, large = (
        grid((5, 5, 5), (1.0, 1.0, 1.0), (9.0, 0.0, 0.0)),
        grid((49, 49, 49), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0)),
    )
    assert overlap(small, large) == 1.0 and overlap(large, small) < 0.01
    assert fuse_volumes([ramp(large), ramp(small)]).channel_count == 2


def test_only_single_volumes_with_a_place_become_channels() -> None:
    good = ramp(TILTED, "good")
    many = replace(good, voxels=np.repeat(good.voxels, 3, axis=0), name="cine")
    color = replace(good, voxels=np.repeat(good.voxels, 3, axis=1), name="photo")
    nowhere = replace(good, has_orientation=False, name="picture")
    for bad, words in ((many, "3 time points"), (color, "several values"), (nowhere, "where it lies")):
        with pytest.raises(VolumeError, match=words):
            fuse_volumes([good, bad])
    with pytest.raises(VolumeError, match="One to 3"):
        fuse_volumes([good] * 4)
    assert fuse_volumes([many]) is many


def test_memory_that_is_not_there_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("SegmentAnythingMedLib.fusion.free_memory_bytes", lambda: 1000)
    with pytest.raises(VolumeError, match="crop 'ramp' first"):
        fuse_volumes([ramp(TILTED), ramp(TILTED)])


# -- windows ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ct_and_pet() -> Volume:
    rng = np.random.default_rng(0)
    ct = rng.normal(40, 20, (6, 20, 20)).astype(np.float32)
    ct[:, :6] = -1000
    pet = np.where(rng.random((6, 20, 20)) < 0.5, 0.0, rng.gamma(2.0, 1.5, (6, 20, 20))).astype(np.float32)
    first = Volume.from_array(ct, modality=Modality.CT, name="CT")
    return fuse_volumes([first, Volume.from_array(pet, modality=Modality.PET, name="PET")])


def test_every_channel_has_its_own_automatic_window(ct_and_pet: Volume) -> None:
    window = choose_window(ct_and_pet)
    assert (window.low[0], window.high[0]) == (-160.0, 240.0)
    assert 0 <= window.low[1] < 1 and 5 < window.high[1] < 30
    assert window.name == "soft-tissue,percentile"


def test_a_preset_is_for_the_first_channel_and_names_with_commas_for_each(ct_and_pet: Volume) -> None:
    automatic = choose_window(ct_and_pet)
    lung = choose_window(ct_and_pet, "lung")
    assert (lung.low[0], lung.high[0]) == (-1350.0, 150.0) and lung.high[1] == automatic.high[1]
    each = choose_window(ct_and_pet, "auto,10/5")
    assert (each.low, each.high) == ((-160.0, 0.0), (240.0, 10.0))
    assert choose_window(ct_and_pet, "percentile").name == "percentile,percentile"
    with pytest.raises(SegmentAnythingMedError, match="for 3 channels, the volume has 2"):
        choose_window(ct_and_pet, "auto,auto,auto")
    with pytest.raises(SegmentAnythingMedError, match="'spleen' is not known"):
        choose_window(ct_and_pet, "auto,spleen")


def test_a_windows_name_can_be_used_again(ct_and_pet: Volume) -> None:
    first = choose_window(ct_and_pet, "lung")
    again = choose_window(ct_and_pet, first.name)
    assert (again.low, again.high) == (first.low, first.high)


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def hidden_ball(tmp_path: Path) -> np.ndarray:
    """CT.nii.gz, tilted, without any trace of the ball that PET.nii.gz shows on a coarser, straight grid."""
    rng = np.random.default_rng(0)
    ct_grid = grid((48, 44, 14), (1.5, 1.5, 3.0), (6.0, -9.0, 4.0))
    pet_grid = grid((40, 40, 26), (2.5, 2.5, 2.5), (0.0, 0.0, 0.0))

    def ball(geometry: VolumeGeometry) -> np.ndarray:
        k, j, i = np.indices(geometry.shape_kji)
        return np.linalg.norm(geometry.world_from_ijk(np.stack([i, j, k], axis=-1)) - (5, -4, 2), axis=-1) < 12

    ct = rng.normal(40, 6, ct_grid.shape_kji).astype(np.int16)
    pet = np.where(ball(pet_grid), 8.0, 1.0) + rng.normal(0, 0.2, pet_grid.shape_kji)
    write_volume(tmp_path / "CT.nii.gz", Volume.from_array(ct, ct_grid))
    write_volume(tmp_path / "PET.nii.gz", Volume.from_array(pet.astype(np.float32), pet_grid))
    return ball(ct_grid)


def segment(folder: Path, ball: np.ndarray, *more: object) -> tuple[int, float]:
    k, j, i = (round(float(places.mean())) for places in np.nonzero(ball))
    code = cli.main(
        ["segment", str(folder / "CT.nii.gz"), "--window", "soft-tissue", "--model", "classic",
         "--point", str(i), str(j), str(k), "--output", str(folder / "out.nii.gz"), *map(str, more)]
    )  # fmt: skip
    mask = read_labels(folder / "out.nii.gz").segments[0].mask if code == 0 else np.zeros_like(ball)
    return code, dice(mask, ball)


def test_what_only_the_second_volume_shows_is_carried_through_the_fused_one(
    tmp_path: Path, hidden_ball: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    _, alone = segment(tmp_path, hidden_ball)
    capsys.readouterr()
    code, fused = segment(tmp_path, hidden_ball, "--fuse", tmp_path / "PET.nii.gz", "--json")
    assert code == 0 and fused > 0.85 and alone < 0.5, (alone, fused)
    assert json.loads(capsys.readouterr().out)["window"] == "soft-tissue,percentile"
    assert read_labels(tmp_path / "out.nii.gz").geometry.matches(read_volume(tmp_path / "CT.nii.gz").geometry)


def test_a_volume_of_elsewhere_ends_with_one_sentence(
    tmp_path: Path, hidden_ball: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = ramp(grid((9, 9, 9), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0), center=(0.0, 500.0, 0.0)))
    write_volume(tmp_path / "stranger.nii.gz", stranger)
    code, _ = segment(tmp_path, hidden_ball, "--fuse", tmp_path / "stranger.nii.gz")
    message = capsys.readouterr().err
    assert code == 2 and "does not lie where" in message and message.count("\n") == 1
    assert not (tmp_path / "out.nii.gz").exists()


def test_a_fused_volume_is_no_output(
    tmp_path: Path, hidden_ball: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = segment(tmp_path, hidden_ball, "--fuse", tmp_path / "PET.nii.gz", "--output", tmp_path / "PET.nii.gz")
    assert code == 2 and "is a volume to fuse" in capsys.readouterr().err


# -- a body and real patients ----------------------------------------------------------------------------------------


def test_one_body_scanned_twice_falls_onto_itself() -> None:
    ct = make_phantom("CT", (48, 40, 12), (6.0, 6.0, 14.0), tilt_deg=(10.0, -8.0, 5.0), flip=(True, False, True))
    pet = make_phantom("PET", (64, 64, 48), (6.0, 6.0, 5.0), tilt_deg=(0.0, 0.0, 0.0))
    fused = fuse_volumes([ct.volume, pet.volume]).array(channel=1)
    direct = make_phantom("PET", geometry=ct.volume.geometry).volume.array()
    assert np.corrcoef(fused.ravel(), direct.ravel())[0, 1] > 0.9
    assert abs(np.corrcoef(fused[::-1].ravel(), direct.ravel())[0, 1]) < 0.8


@pytest.mark.parametrize("patient", ["STS_001", "STS_019"])
def test_a_tumour_drawn_on_ct_is_where_the_fused_pet_is_hot(dev_data: Path, patient: str) -> None:
    folder = dev_data / "ibsi_sts" / patient
    fused = read_fused(
        read_volume(folder / "CT_image.nii.gz"), [folder / f"{m}_image.nii.gz" for m in ("PET", "MR_T1")]
    )
    tumour = read_labels(folder / "CT_mask.nii.gz").segments[0].mask
    pet, mr = fused.array(channel=1), fused.array(channel=2)
    assert pet[tumour].mean() > 3 * np.median(pet[~tumour])
    assert (mr[tumour] > mr.min()).mean() > 0.9


def test_another_patients_dicom_is_refused_by_its_identity(dev_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dev_data / "ibsi_sts_dicom" / "STS_001"
    ct = read_volume(folder / "CT")
    assert read_fused(ct, [folder / "PET"]).channel_count == 2
    identity = fused_files._identity
    monkeypatch.setattr(
        fused_files, "_identity", lambda volume: identity(volume) if volume is ct else ("another", identity(volume)[1])
    )
    with pytest.raises(VolumeError, match="another patient"):
        read_fused(ct, [folder / "PET"])

from __future__ import annotations

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.volume import Modality, Volume
from SegmentAnythingMedLib.windowing import CT_PRESETS, WINDOW_NAMES, Window, choose_window


@pytest.fixture
def a_ct() -> Volume:
    values = np.array([-1000, -100, 40, 60, 300, 1200], dtype=np.int16)
    return Volume.from_array(np.resize(values, (3, 4, 5)), modality=Modality.CT)


def test_a_window_maps_its_limits_to_black_and_white() -> None:
    pixels = np.array([[-500.0, -160.0, 40.0, 240.0, 900.0]])
    np.testing.assert_allclose(Window.from_level(400, 40).apply(pixels), [[0, 0, 0.5, 1, 1]])


def test_not_a_number_becomes_black_and_infinity_white() -> None:
    shown = Window((0.0,), (1.0,)).apply(np.array([[np.nan, -np.inf, np.inf, 0.25]]))
    np.testing.assert_array_equal(shown, [[0, 0, 1, 0.25]])


def test_the_users_voxels_are_never_changed(a_ct: Volume) -> None:
    before = a_ct.voxels.copy()
    choose_window(a_ct, "auto").apply(a_ct.voxels[0])
    np.testing.assert_array_equal(a_ct.voxels, before)


def test_each_channel_has_its_own_window() -> None:
    window = Window((0.0, 100.0), (1.0, 300.0))
    np.testing.assert_allclose(window.apply(np.array([[[0.5]], [[150.0]]])), [[[0.5]], [[0.25]]])


@pytest.mark.parametrize("name", CT_PRESETS)
def test_ct_presets_are_known_by_name(a_ct: Volume, name: str) -> None:
    window = choose_window(a_ct, name)
    assert window.name == name and window.low[0] < window.high[0]


def test_auto_takes_the_modality(a_ct: Volume) -> None:
    assert choose_window(a_ct).name == "soft-tissue"
    assert choose_window(Volume.from_array(a_ct.array(), modality=Modality.MR)).name == "percentile"


def test_auto_recognises_hounsfield_units_by_value() -> None:
    rng = np.random.default_rng(0)
    body = np.where(rng.random((8, 16, 16)) < 0.5, rng.normal(50, 15, (8, 16, 16)), -1000).astype(np.float32)
    assert choose_window(Volume.from_array(body)).name == "soft-tissue"
    assert choose_window(Volume.from_array(np.abs(body))).name == "percentile"


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_eight_bit_images_stay_as_they_are(dtype: type) -> None:
    volume = Volume.from_array(np.array([[[0, 1]]], dtype=dtype) * dtype(1))
    window = choose_window(volume)
    assert window.name == "identity" and window.high[0] == (255 if dtype is np.uint8 else 1)


def test_color_images_stay_as_they_are() -> None:
    volume = Volume(
        np.zeros((1, 3, 1, 4, 4), np.uint8), Volume.from_array(np.zeros((1, 4, 4))).geometry, Modality.COLOR
    )
    assert choose_window(volume).name == "identity"


def test_percentiles_look_at_the_foreground_only() -> None:
    voxels = np.zeros((10, 10, 10), dtype=np.uint16)
    voxels[:2] = np.linspace(100, 200, 200).reshape(2, 10, 10)
    window = choose_window(Volume.from_array(voxels))
    assert 100 <= window.low[0] < 102 and 198 < window.high[0] <= 200


def test_outliers_and_infinities_do_not_set_the_window() -> None:
    voxels = np.random.default_rng(0).uniform(10, 20, (20, 20, 20)).astype(np.float32)
    voxels[0, 0, :3] = 1e9, np.inf, np.nan
    assert choose_window(Volume.from_array(voxels)).high[0] < 21


@pytest.mark.parametrize("value", [0.0, 7.0, -1000.0])
def test_a_constant_volume_is_mid_grey(value: float) -> None:
    volume = Volume.from_array(np.full((2, 3, 4), value, dtype=np.float32))
    np.testing.assert_allclose(choose_window(volume, "percentile").apply(volume.voxels[0]), 0.5)


def test_a_volume_without_any_finite_value_is_black() -> None:
    volume = Volume.from_array(np.full((2, 3, 4), np.nan, dtype=np.float32))
    for name in WINDOW_NAMES:
        assert not choose_window(volume, name).apply(volume.voxels[0]).any()


def test_a_width_and_level_can_be_typed(a_ct: Volume) -> None:
    assert choose_window(a_ct, "400/40").low == (-160.0,)


@pytest.mark.parametrize("name", ["spleen", "400", "0/40", "a/b", "inf/3"])
def test_an_unknown_window_lists_the_known_ones(a_ct: Volume, name: str) -> None:
    with pytest.raises(SegmentAnythingMedError, match=r"soft-tissue|finite limits"):
        choose_window(a_ct, name)

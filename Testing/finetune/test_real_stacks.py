"""Readers of real training data, on tiny files of the same layout."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.finetune.brain_stacks import BrainStacks
from SegmentAnythingMedLib.finetune.real_stacks import (
    DATA_VARIABLE,
    RealStacks,
    split_of,
    training_folder,
    write_shards,
)
from SegmentAnythingMedLib.finetune.stack import load_stacks
from SegmentAnythingMedLib.finetune.superpixels import SuperpixelStacks, stable_regions


def write(path, array, spacing=(1.0, 1.0, 1.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[: image.GetDimension()])
    SimpleITK.WriteImage(image, str(path))


@pytest.fixture
def training_data(tmp_path):
    """Two sarcoma patients, brain maps, nuclei and skin lesions, 40 pixels wide."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "train"
    mask = np.zeros((16, 40, 44), np.uint8)
    mask[4:9, 8:20, 10:22] = 1
    scan = np.where(mask > 0, 120, -80).astype(np.int16)
    scan[:, 25:35, 25:37] = 500
    scan += rng.integers(-5, 6, scan.shape).astype(np.int16)
    for patient in ("STS_1", "STS_2", "STS_3", "STS_4"):
        write(folder / "ibsi_sts" / patient / "CT_image.nii.gz", scan, (1.3, 1.4, 3.0))
        write(folder / "ibsi_sts" / patient / "CT_mask.nii.gz", mask, (1.3, 1.4, 3.0))
    brain = np.zeros((40, 40, 40), np.uint16)
    brain[5:35, 5:35, 5:35] = 506
    brain[8:32, 8:32, 8:20], brain[8:32, 8:32, 20:32] = 2, 41
    brain[14:26, 14:26, 12:18], brain[14:26, 14:26, 22:28] = 10, 49
    for n in range(4):
        write(folder / "synthseg_labels" / f"seg_{n}.nii.gz", brain)
        cells = np.zeros((50, 60), np.uint16)
        cells[10:20, 10:20], cells[30:40, 35:50] = 300, 2
        write(folder / "nuclei_dsb2018" / "images" / f"{n}.png", (cells > 0).astype(np.uint8) * 40)
        write(folder / "nuclei_dsb2018" / "instances" / f"{n}.png", cells)
        lesion = (np.hypot(*np.mgrid[-30:30, -45:45]) < 15).astype(np.uint8) * 255
        write(folder / "derm_isic" / "masks" / f"ISIC_{n}.png", lesion)
        colors = SimpleITK.GetImageFromArray(np.stack([255 - lesion // 2] * 3, axis=-1), isVector=True)
        (folder / "derm_isic" / "images").mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(colors, str(folder / "derm_isic" / "images" / f"ISIC_{n}.jpg"))
    return folder


def test_patients_are_parted_the_same_way_every_time():
    names = [f"patient {n}" for n in range(20)]
    train, validation = split_of(names, "train", 3), split_of(names[::-1], "validation", 3)
    assert len(validation) == 3
    assert sorted(train + validation) == sorted(names)
    assert validation != split_of(names, "validation", 4)


def test_data_for_testing_is_refused(tmp_path, monkeypatch):
    (tmp_path / "dev" / "more").mkdir(parents=True)
    with pytest.raises(SegmentAnythingMedError, match="testing"):
        RealStacks(tmp_path / "dev" / "more")
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(SegmentAnythingMedError, match=DATA_VARIABLE):
        training_folder()


def test_the_folder_is_taken_from_the_environment(training_data, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(training_data))
    assert RealStacks(sources=("sts",)).patients["sts"]


def test_a_sarcoma_is_windowed_as_the_product_does_and_cropped_round_the_tumour(training_data):
    reader = RealStacks(training_data, sources=("sts",))
    for seed in range(5):
        stack = reader.draw(np.random.default_rng(seed), depth=6, size=30)
        assert stack.image.shape[0] <= 6
        assert max(stack.image.shape[1:]) <= 30
        assert stack.structures() == [1]
        assert any(value == pytest.approx(3.0) for value in stack.spacing_mm)
        inside = np.median(stack.pixels()[stack.labels == 1])
        assert inside == pytest.approx((120 + 160) / 400, abs=0.02)  # soft tissue: width 400, level 40


def test_each_nucleus_is_a_structure_of_one_slice(training_data):
    stack = RealStacks(training_data, sources=("nuclei",)).draw(np.random.default_rng(0))
    assert stack.labels.shape == (1, 50, 60)
    assert stack.structures() == [1, 2]
    assert stack.kind == "RGB"
    assert stack.image.max() > 200  # dark pictures are stretched


def test_a_skin_lesion_keeps_its_shape(training_data):
    stack = RealStacks(training_data, sources=("derm",)).draw(np.random.default_rng(0), size=48)
    assert stack.structures() == [1]
    assert stack.pixels()[stack.labels == 1].mean() < stack.pixels()[stack.labels == 0].mean()


def test_brain_maps_become_images_of_random_contrast(training_data):
    reader = BrainStacks(training_data)
    first, again = (reader.draw(np.random.default_rng(5), depth=4, size=64) for _ in range(2))
    other = reader.draw(np.random.default_rng(6), depth=4, size=64)
    assert np.array_equal(first.image, again.image)
    assert first.image.shape == (4, 64, 64)
    assert first.structures()
    assert other.source == "brain"
    assert not np.array_equal(first.image, other.image)


def test_superpixels_are_whole_even_regions():
    pixels = np.full((3, 48, 48), 0.3, np.float32)
    pixels[:, 8:20, 8:20] = 0.8
    pixels[1:, 26:40, 24:42] = 0.1
    labels = stable_regions(pixels)
    found = [np.unique(labels[1, 14, 14]).item(), np.unique(labels[1, 32, 32]).item()]
    assert 0 not in found
    assert len(set(found)) == 2
    for label, true in zip(found, (pixels > 0.7, pixels < 0.2), strict=True):
        both = (labels == label) & true
        assert 2 * both.sum() / ((labels == label).sum() + true.sum()) > 0.85


def test_superpixels_avoid_tumours(training_data):
    stack = SuperpixelStacks(training_data).draw(np.random.default_rng(1), depth=6)
    bone = stack.pixels() > 0.98
    assert stack.structures()
    assert (stack.labels > 0)[bone].mean() > 0.5


def test_shards_are_named_after_their_source_and_kept(training_data, tmp_path):
    reader = RealStacks(training_data, sources=("nuclei",))
    write_shards("nuclei", reader.draw, 3, tmp_path / "out", seed=1, per_shard=2)
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == ["nuclei_1_00000.npz", "nuclei_1_00001.npz"]
    assert [len(load_stacks(path)) for path in paths] == [2, 1]

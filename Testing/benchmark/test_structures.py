from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from SegmentAnythingMedLib.benchmark.catalog import kind_of
from SegmentAnythingMedLib.benchmark.datasets import (
    DATA_VARIABLE,
    SCALE_DATASET,
    CaseOpener,
    data_folder,
    load_structures,
    natural_plane,
)
from SegmentAnythingMedLib.benchmark.upsampling import upsample_labels, upsample_volume
from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.io import Labels
from SegmentAnythingMedLib.volume import Volume


def test_the_committed_list_is_valid_and_names_every_dataset_the_issue_asks_for() -> None:
    rows = load_structures()
    asked = {"sts_ct", "sts_mr", "sts_pet", "totalseg_ct", "totalseg_mr", "sct_spine", "msd_hippocampus", "slicerio"}
    assert asked <= {row.dataset for row in rows}
    assert len({row.id for row in rows}) == len(rows)
    assert not any(Path(row.volume).is_absolute() or Path(row.labels).is_absolute() for row in rows)


def test_one_structure_has_512_by_512_by_300_voxels() -> None:
    assert [row.size_ijk for row in load_structures(datasets=[SCALE_DATASET])] == [(512, 512, 300)]


def test_an_unknown_dataset_is_named_with_the_known_ones() -> None:
    with pytest.raises(SegmentAnythingMedError, match="'brats' is not known: use sts_ct"):
        load_structures(datasets=["brats"])


def test_a_row_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "structures.json"
    path.write_text(json.dumps({"structures": [{"id": "a", "colour": 3}]}))
    with pytest.raises(SegmentAnythingMedError, match="not valid"):
        load_structures(path)


def test_without_a_data_folder_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(SegmentAnythingMedError, match=f"--data FOLDER or set {DATA_VARIABLE}"):
        data_folder()
    with pytest.raises(SegmentAnythingMedError, match="does not exist"):
        data_folder("/no/such/folder")


def test_a_structure_of_every_dataset_can_be_opened(dev_data: Path) -> None:
    rows = load_structures()
    firsts = {row.dataset: row for row in reversed(rows) if row.dataset != SCALE_DATASET}
    opener = CaseOpener(dev_data)
    for row in firsts.values():
        case = opener.open(row)
        assert case.truth.shape == case.volume.geometry.shape_kji
        assert case.truth.any()


def test_every_listed_file_is_there(dev_data: Path) -> None:
    rows = load_structures()
    missing = [path for row in rows for path in (row.volume, row.labels) if not (dev_data / path).exists()]
    assert not missing


def test_kinds_follow_the_name_and_the_components() -> None:
    two = np.zeros((6, 6, 12), dtype=bool)
    two[1:5, 1:5, 1:5] = True
    assert kind_of("liver", two) == "compact"
    assert kind_of("aorta", two) == "vessel"
    two[1:5, 1:5, 8:10] = True
    assert kind_of("liver", two) == "multi"


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((1, 1, 5), 2), ((5, 1, 1), 0), ((1, 1, 1), 2), ((4.7, 4.7, 3.3), 2), ((1, 1.05, 1), 2)],
)
def test_the_natural_plane_is_across_the_one_coarse_axis_else_axial(spacing: tuple, axis: int) -> None:
    assert natural_plane(VolumeGeometry.from_spacing((8, 9, 10), spacing)).axis == axis


def test_upsampling_keeps_the_place_and_the_volume_of_an_object() -> None:
    geometry = VolumeGeometry.from_spacing((8, 6, 4), (2.0, 2.0, 5.0), np.diag([-1.0, 1.0, 1.0]), (7.0, 8.0, 9.0))
    mask = np.zeros((4, 6, 8), dtype=bool)
    mask[1:3, 1:4, 2:6] = True
    volume = upsample_volume(Volume.from_array(mask * np.int16(100), geometry), (16, 18, 8))
    fine = upsample_labels(Labels.from_masks({"a": mask}, geometry), volume.geometry, [1]).segments[0].mask
    assert fine.sum() * volume.geometry.voxel_volume_mm3 == pytest.approx(mask.sum() * geometry.voxel_volume_mm3)
    coarse = geometry.world_from_ijk(np.argwhere(mask)[:, ::-1]).mean(axis=0)
    assert volume.geometry.world_from_ijk(np.argwhere(fine)[:, ::-1]).mean(axis=0) == pytest.approx(coarse)
    assert volume.array()[fine].mean() > 70 > 10 > volume.array()[~fine].mean()

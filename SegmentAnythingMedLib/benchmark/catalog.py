"""Makes and checks ``structures.json``: which labels of the development data are scored, and how they are sorted.

Rules, applied once when the file is made:

- Left out: fewer than `MIN_VOXELS` voxels, fewer than `MIN_SLICES` slices along the natural plane, or a largest slice
  of fewer than `MIN_PIXELS` pixels or only one pixel wide.
- ``vessel``: the name holds one of `VESSEL_WORDS`.
- ``multi``: more than one 26-connected component and the largest holds less than `MAIN_SHARE` of the voxels.
- ``compact``: all others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.benchmark.datasets import (
    SCALE_DATASET,
    STRUCTURES_FILE,
    CaseOpener,
    Structure,
    extent,
    slices_of,
)
from SegmentAnythingMedLib.benchmark.simulated_user import largest_component
from SegmentAnythingMedLib.benchmark.totalseg_names import CT_NAMES, MR_NAMES
from SegmentAnythingMedLib.benchmark.upsampling import SCALE_SIZE
from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.geometry import SliceGeometry
from SegmentAnythingMedLib.io import read_labels, read_volume

MIN_VOXELS = 50
MIN_SLICES = 3
MIN_PIXELS = 9
MAIN_SHARE = 0.9
VESSEL_WORDS = ("aorta", "vein", "vena", "artery", "vessel", "trunk")

_MAX_PER_PICTURE = 5
_SCALED = "totalseg_ct/example_ct/kidney_right"
_XRAY_NAMES = {150: "lung one", 200: "lung other", 250: "heart"}
_HIPPOCAMPUS = {1: "anterior", 2: "posterior"}


@dataclass(frozen=True)
class Pair:
    """A volume and its labels, before anything is read; ``names`` by label value."""

    dataset: str
    patient: str
    image: str
    volume: str
    labels: str
    names: dict[int, str] = field(default_factory=dict)
    time: int = 0
    two_d: bool = False
    axis: int | None = None
    skip: tuple[int, ...] = ()


def pairs(data: Path) -> Iterator[Pair]:
    """All labelled images of the development data, in the order of the tables."""
    for patient in sorted(path.name for path in (data / "ibsi_sts").iterdir()):
        for dataset, stem in (("sts_ct", "CT"), ("sts_mr", "MR_T1"), ("sts_pet", "PET")):
            base = f"ibsi_sts/{patient}/{stem}"
            yield Pair(dataset, patient, patient, f"{base}_image.nii.gz", f"{base}_mask.nii.gz", {1: "tumour"})
    for image, patient, suffix in (("example_ct", "ts-a", ".nii.gz"), ("example_ct_sm", "ts-a", ".nii.gz"),
                                   ("example_ct_dicom", "ts-b", "")):  # fmt: skip
        labels = f"totalseg/{image}_seg.nii.gz"
        yield Pair("totalseg_ct", patient, image, f"totalseg/{image}{suffix}", labels, CT_NAMES)
    base = "totalseg/example_mr_sm"
    yield Pair("totalseg_mr", "ts-mr", "example_mr_sm", f"{base}.nii.gz", f"{base}_seg.nii.gz", MR_NAMES)
    for image, labels, name in (
        ("t1w", "t1w_seg-manual", "cord"), ("t2", "t2_seg-manual", "cord"), ("t2s", "t2s_seg", "cord"),
        ("t2s", "t2s_gmseg_manual", "grey matter"), ("mt0", "mt0_seg", "cord"),
        ("t2s_uncropped", "t2s_uncropped_gmseg_manual", "grey matter uncropped"),
    ):  # fmt: skip
        patient = "sct-b" if image == "t2s_uncropped" else "sct-a"
        files = f"sct_spine/{image}.nii.gz", f"sct_spine/{labels}.nii.gz"
        yield Pair("sct_spine", patient, image, *files, {1: name})
    for path in sorted((data / "msd_hippocampus/images").glob("*.nii.gz")):
        patient = path.name.removesuffix(".nii.gz")
        files = f"msd_hippocampus/images/{path.name}", f"msd_hippocampus/labels/{path.name}"
        yield Pair("msd_hippocampus", patient, patient, *files, _HIPPOCAMPUS)
    yield Pair("slicerio", "slicerio", "CTChest4", "slicerio/CTChest4.nrrd", "slicerio/Segmentation.seg.nrrd")
    for name in ("brain1", "brain2", "breast1"):
        base = f"pyradiomics/{name}"
        yield Pair("pyradiomics", name, name, f"{base}_image.nrrd", f"{base}_label.nrrd", {1: "lesion"})
    yield Pair("itksnap_mr", "itksnap-mr", "MRIcrop", "itksnap/MRIcrop-orig.gipl.gz", "itksnap/MRIcrop-seg.gipl.gz")
    for time in (0, 3, 6, 9):
        for value, name in ((1, "chamber one"), (2, "chamber two")):
            files = "itksnap/img4d_11f.nii.gz", f"itksnap/seg4d_11f_label{value}.nii.gz"
            image = f"img4d_11f_t{time}"
            yield Pair("itksnap_us", "itksnap-us", image, *files, {value: name}, time, two_d=True, axis=0)
    yield from _pictures(data)


def _pictures(data: Path) -> Iterator[Pair]:
    for dataset, images, masks, names, skip in (
        ("endo_cvc612_seq", "frames", "masks", {255: "polyp"}, ()),
        ("derm_isic", "images", "masks", {255: "lesion"}, ()),
        ("xray_jsrt", "images", "masks", _XRAY_NAMES, ()),
        ("nuclei_dsb2018", "images", "instances", {}, ()),
        ("smear_wbc1", "images", "masks", {255: "nucleus"}, (128,)),
    ):
        for path in sorted((data / dataset / images).iterdir()):
            patient = "endo" if dataset.startswith("endo") else path.stem
            files = f"{dataset}/{images}/{path.name}", f"{dataset}/{masks}/{path.stem}.png"
            yield Pair(dataset, patient, path.stem, *files, names, two_d=True, skip=skip)


def kind_of(name: str, mask: np.ndarray) -> str:
    """``vessel``, ``multi`` or ``compact``, by the rules above."""
    if any(word in name.lower() for word in VESSEL_WORDS):
        return "vessel"
    return "multi" if largest_component(mask)[1] < MAIN_SHARE * np.count_nonzero(mask) else "compact"


def is_scored(mask: np.ndarray, slices: SliceGeometry, two_d: bool) -> bool:
    """Whether a structure is large enough, by the rules above."""
    counts = extent(mask, slices)
    largest = slices.extract(mask, int(np.argmax(counts)))
    wide = min(np.count_nonzero(largest.any(axis=axis)) for axis in (0, 1)) > 1
    return bool(
        counts.sum() >= MIN_VOXELS and counts.max() >= MIN_PIXELS and wide
        and (two_d or np.count_nonzero(counts) >= MIN_SLICES)
    )  # fmt: skip


def scan(pair: Pair, data: Path) -> list[Structure]:
    """The scored structures of one labelled image."""
    volume = read_volume(data / pair.volume)
    labels = read_labels(data / pair.labels, volume, time=pair.time)
    slices = slices_of(volume.geometry, pair.axis)
    found: list[tuple[int, Structure]] = []
    for segment in labels.segments:
        own = segment.name if pair.labels.endswith(".seg.nrrd") else f"label {segment.value}"
        name = pair.names.get(segment.value, own)
        mask = segment.mask
        if segment.value in pair.skip or not mask.any() or not is_scored(mask, slices, pair.two_d):
            continue
        row = Structure(
            f"{pair.dataset}/{pair.image}/{name}", pair.dataset, pair.patient, kind_of(name, mask),
            pair.volume, pair.labels, int(segment.value), name, pair.time, pair.two_d, pair.axis,
        )  # fmt: skip
        found.append((int(mask.sum()), row))
    if pair.two_d and len(found) > _MAX_PER_PICTURE:
        found = sorted(found, key=lambda item: -item[0])[:_MAX_PER_PICTURE]
    return [row for _, row in found]


def regenerate(data: Path, path: Path = STRUCTURES_FILE) -> list[Structure]:
    """Scan the data and write the structures file."""
    rows = [row for pair in pairs(data) for row in scan(pair, data)]
    source = next(row for row in rows if row.id == _SCALED)
    scaled = f"{SCALE_DATASET}/{source.id.split('/', 1)[1]} 512x512x300"
    rows.append(replace(source, id=scaled, dataset=SCALE_DATASET, size_ijk=SCALE_SIZE))
    lines = [json.dumps(_without_defaults(row)) for row in rows]
    text = '{"version": 1, "structures": [\n' + ",\n".join(lines) + "\n]}\n"
    path.write_text(text, encoding="utf-8")
    return rows


def validate(rows: list[Structure], data: Path) -> list[str]:
    """What is wrong with the rows, one line each: files that are missing, labels that are empty or sorted otherwise."""
    opener, problems = CaseOpener(data), []
    for row in rows:
        try:
            case = opener.open(row)
        except SegmentAnythingMedError as error:
            problems.append(f"{row.id}: {error}")
            continue
        if not case.truth.any() or not is_scored(case.truth, case.slices, row.two_d):
            problems.append(f"{row.id}: too small to be scored ({int(case.truth.sum())} voxels)")
        elif row.size_ijk is None and kind_of(row.name, case.truth) != row.kind:
            problems.append(f"{row.id}: listed as {row.kind}, but it is {kind_of(row.name, case.truth)}")
    return problems


def _without_defaults(row: Structure) -> dict[str, object]:
    defaults = {"time": 0, "two_d": False, "axis": None, "size_ijk": None}
    return {key: value for key, value in asdict(row).items() if key not in defaults or value != defaults[key]}

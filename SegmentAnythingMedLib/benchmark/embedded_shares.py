"""How much the network and the solver should count where an outline is carried: whole volumes that no one trained on.

``python -m SegmentAnythingMedLib.benchmark.embedded_shares --data TRAIN [--weights embedded.onnx] [--shares 0 0.5 1]``
carries outlines through the sarcomas of the validation patients and through organs of the phantom, and prints the
mean Dice for every pair of shares. The development data stay out: nothing is chosen on them.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from SegmentAnythingMedLib.finetune.real_stacks import RealStacks, sarcoma
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.models.classic import ClassicModel
from SegmentAnythingMedLib.models.embedded import EmbeddedModel
from SegmentAnythingMedLib.models.embedded_opinions import TwoOpinions, Weighing
from SegmentAnythingMedLib.models.embedded_runtime import OnnxRun
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.phantom import make_phantom
from SegmentAnythingMedLib.prompts import BoxPrompt
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.resources import resource_path
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.volume import Volume

SERIES = ("CT", "MR_T1", "PET")
KINDS = ("CT", "MR")
ORGANS = ("liver", "spleen", "right kidney", "stomach", "pancreas", "gallbladder", "aorta", "colon", "left ventricle")
AROUND = 60
"""Pixels kept round a sarcoma."""
Case = tuple[str, Volume, np.ndarray, str]


def cases(data: Path) -> Iterator[Case]:
    """Group, volume, (K, J, I) bool structure in one piece, and the window of the volume."""
    found = RealStacks(data, "validation", ("sts",))
    for patient, series in itertools.product(found.patients["sts"], SERIES):
        folder = data / "ibsi_sts" / patient
        if (folder / f"{series}_image.nii.gz").exists():
            pixels, mask, spacing = sarcoma(folder, series)
            mask = _largest_piece(mask > 0)
            at = np.argwhere(mask.any(0))
            low, high = np.maximum(at.min(0) - AROUND, 0), at.max(0) + AROUND
            cut = (slice(None), slice(low[0], high[0]), slice(low[1], high[1]))
            grey = np.rint(pixels[cut] * 255).astype(np.uint8)
            geometry = VolumeGeometry.from_spacing(grey.shape[::-1], spacing[::-1])
            yield f"sarcoma {series}", Volume.from_array(grey, geometry), mask[cut], "identity"
    for kind in KINDS:
        phantom = make_phantom(kind)
        for organ in ORGANS:
            yield f"phantom {kind}", phantom.volume, phantom.structure(organ).mask(), "auto"


def carried(case: Case, model: TwoOpinions, by_box: bool, extent_given: bool) -> float:
    """Dice of an outline carried from the largest slice, from a box or from the true mask."""
    _, volume, truth, window = case
    session = VolumeSession(volume, model, window=window)
    plane = session.plane("K")
    areas = truth.sum((1, 2))
    index, there = int(areas.argmax()), np.flatnonzero(areas)
    if by_box:
        rows, columns = np.nonzero(truth[index])
        box = tuple(int(side) for side in (columns.min(), rows.min(), columns.max(), rows.max()))
        session.segment_slice(1, session.add_prompt(1, BoxPrompt.on_slice(box, index, plane)))
    else:
        session.confirm_slice(1, session.slice_key(plane, index), truth[index])
    limits = {"first": int(there[0]), "last": int(there[-1])} if extent_given else {}
    for _ in session.propagate([1], plane=plane, **limits):
        pass
    return dice(session.labelmap(1), truth)


def measure(data: Path, weights: Path, shares: Sequence[tuple[float, float, float]]) -> dict[tuple, dict[str, float]]:
    """Mean over groups, by (share of the network on tracked slices, in presence, presence offset)."""
    card = replace(ModelRegistry().card("embedded"), sha256="")
    run = OnnxRun(weights, 1)
    stored = Weighing.from_json(run.note("weighing"))
    found: defaultdict[tuple, defaultdict[str, defaultdict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for case in cases(data):
        for tracked, presence, offset in shares:
            weighing = replace(stored, tracked_share=tracked, presence_share=presence, presence_offset=offset)
            model = TwoOpinions(EmbeddedModel(card, run), ClassicModel(card), weighing)
            for title, by_box, extent in (("box", True, False), ("mask", False, False), ("mask, extent", False, True)):
                found[tracked, presence, offset][title][case[0]].append(carried(case, model, by_box, extent))
    return {
        setting: {title: float(np.mean([np.mean(v) for v in groups.values()])) for title, groups in titles.items()}
        for setting, titles in found.items()
    }


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])) if count else mask


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m SegmentAnythingMedLib.benchmark.embedded_shares", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the training data")
    parser.add_argument("--weights", type=Path, default=resource_path("Weights") / "embedded.onnx")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.25, 0.5, 1.0], help="on tracked slices")
    parser.add_argument("--presence", type=float, nargs="+", default=[0.2], help="in presence")
    parser.add_argument("--offsets", type=float, nargs="+", default=[0.0, 0.4])
    chosen = parser.parse_args(arguments)
    settings = list(itertools.product(chosen.shares, chosen.presence, chosen.offsets))
    print(f"{'tracked':>8}{'presence':>9}{'offset':>7}{'box':>9}{'mask':>7}{'mask, extent':>14}")
    for setting, row in measure(chosen.data, chosen.weights, settings).items():
        print("{:8.2f}{:9.2f}{:7.2f}".format(*setting), "{box:8.3f}{mask:7.3f}{mask, extent:14.3f}".format(**row))


if __name__ == "__main__":
    main()

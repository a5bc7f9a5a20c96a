"""Draw what the embedded model cannot do, for docs/embedded-model.md: python docs/draw_embedded_limits.py [FILE.png]"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.phantom import Phantom, make_phantom
from SegmentAnythingMedLib.prompts import BoxPrompt, PointPrompt
from SegmentAnythingMedLib.propagation import dice
from SegmentAnythingMedLib.session import VolumeSession
from SegmentAnythingMedLib.windowing import choose_window

PROMPT, TRUTH, RESULT = "#00e5ff", "#ffb000", "#7dff5c"
FILE = Path(__file__).resolve().parent / "embedded-limits.png"
MARGIN_MM = 22.0


@dataclass(frozen=True)
class Case:
    """A structure of the phantom, how it is prompted, and which slice is shown."""

    title: str
    kind: str
    organ: str
    by_click: bool = False
    worst: bool = False


CASES = (
    Case("A thin organ that runs\nobliquely: box", "CT", "pancreas"),
    Case("the same carried,\nthe worst slice", "CT", "pancreas", worst=True),
    Case("A ring in a box:\nthe filled disc", "MR", "gallbladder wall"),
    Case("A bowed tube in one box:\nwhat it encloses", "CT", "colon"),
    Case("One click: a part\nof the organ", "MR", "right kidney", by_click=True),
    Case("The organ's contents change,\nthe worst slice", "CT", "stomach", worst=True),
)


def draw(axes: Axes, case: Case, phantom: Phantom) -> None:
    """Prompt the largest slice, carry the outline where asked for, and show one slice."""
    session = VolumeSession(phantom.volume, ModelRegistry().load("embedded"))
    plane = session.plane("axial")
    slices = session.slices(plane)
    truth = phantom.structure(case.organ).mask()
    shown = [slices.extract(truth, index) for index in range(slices.count)]
    areas = [int(mask.sum()) for mask in shown]
    index = int(np.argmax(areas))
    rows, columns = np.nonzero(shown[index])
    box = (columns.min(), rows.min(), columns.max(), rows.max())
    if case.by_click:
        depth = ndimage.distance_transform_edt(np.pad(shown[index], 1))[1:-1, 1:-1]
        click = np.array(np.unravel_index(depth.argmax(), depth.shape), dtype=float)
        at = slices.ijk_from_pixels(index, click)
        prompt = PointPrompt(tuple(float(one) for one in at), True, plane)
    else:
        prompt = BoxPrompt.on_slice(tuple(int(side) for side in box), index, plane)
    key = session.add_prompt(1, prompt)
    found = {index: session.segment_slice(1, key).mask}
    if case.worst:
        there = np.flatnonzero(areas)
        for result in session.propagate([1], plane=plane, first=int(there[0]), last=int(there[-1])):
            found[result.key.index] = result.mask
        large = [at for at in found if at != index and areas[at] > 0.3 * areas[index]]
        index = min(large, key=lambda at: dice(found[at], shown[at]))
    show(axes, slices.extract(picture(phantom), index), slices.spacing_mm, shown[index], found[index])
    if not case.worst and not case.by_click:
        axes.plot(*frame(rows, columns), color=PROMPT, lw=1.2)
    if case.by_click:
        axes.plot(click[1], click[0], "o", ms=5, mfc=PROMPT, mec="black", mew=0.6)
    axes.set_title(f"{case.title}\n{case.organ}, Dice {dice(found[index], shown[index]):.2f}", fontsize=8, loc="left")


def picture(phantom: Phantom) -> np.ndarray:
    """(K, J, I) grey values from 0 to 1."""
    return choose_window(phantom.volume).apply(phantom.volume.array()[None])[0]


def frame(rows: np.ndarray, columns: np.ndarray) -> tuple[list[int], list[int]]:
    top, left, bottom, right = rows.min(), columns.min(), rows.max(), columns.max()
    return [left, right, right, left, left], [top, top, bottom, bottom, top]


def show(axes: Axes, pixels: np.ndarray, spacing: tuple[float, float], truth: np.ndarray, found: np.ndarray) -> None:
    """The slice round both masks, with their borders."""
    axes.imshow(pixels, cmap="gray", aspect=spacing[0] / spacing[1], vmin=0, vmax=1)
    for mask, color, style in ((truth, TRUTH, "--"), (found, RESULT, "-")):
        if mask.any():
            axes.contour(mask, [0.5], colors=color, linewidths=1.2, linestyles=style)
    rows, columns = np.nonzero(truth | found)
    margin = MARGIN_MM / np.array(spacing)
    axes.set_xlim(max(columns.min() - margin[1], 0), min(columns.max() + margin[1], truth.shape[1] - 1))
    axes.set_ylim(min(rows.max() + margin[0], truth.shape[0] - 1), max(rows.min() - margin[0], 0))
    axes.axis("off")


def main() -> None:
    """Draw all cases."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    phantoms: dict[str, Phantom] = {}
    for axes, case in zip(figure.subplots(2, 3).flat, CASES, strict=True):
        phantoms.setdefault(case.kind, make_phantom(case.kind))
        draw(axes, case, phantoms[case.kind])
    figure.suptitle("dashed: true border; green: answer; cyan: prompt", fontsize=9)
    figure.savefig(target, dpi=110)
    with Image.open(target) as drawn:
        drawn.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(target, optimize=True)


if __name__ == "__main__":
    main()

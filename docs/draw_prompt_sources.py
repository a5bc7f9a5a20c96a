"""Draw the picture of docs/prompt-sources.md: python docs/draw_prompt_sources.py [FILE.png]"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from SegmentAnythingMedLib.features import FeatureCache
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.models.base import Prediction, Recall
from SegmentAnythingMedLib.models.registry import ModelRegistry
from SegmentAnythingMedLib.phantom import Phantom, make_phantom
from SegmentAnythingMedLib.prompts import BoxPrompt, MaskPrompt, PointPrompt, Prompt, SlicePrompts, on_slice
from SegmentAnythingMedLib.sources.skeleton import Skeleton
from SegmentAnythingMedLib.sources.source import Given, load_source
from SegmentAnythingMedLib.windowing import choose_window

ROUGH, PROMPT, NEGATIVE, RESULT = "#ffb000", "#00e5ff", "#ff4d4d", "#7dff5c"
FILE = Path(__file__).resolve().parent / "prompt-sources.png"


class Scene:
    """Slices of a phantom with the classic model."""

    def __init__(self, phantom: Phantom, plane: str) -> None:
        self.phantom = phantom
        volume = phantom.volume
        self.slices = SliceGeometry(volume.geometry, Plane.named(plane, volume.geometry))
        model = ModelRegistry().load("classic")
        cache = FeatureCache(volume, choose_window(volume), model)

        def predict(index: int, prompts: SlicePrompts, multimask: bool = False) -> Prediction:
            return model.predict(cache.get(self.slices, index), prompts, Recall(), None, multimask)

        self.given = Given(self.slices, image=lambda index: cache.image(self.slices, index), predict=predict)

    def on(self, name: str, index: int) -> np.ndarray:
        """(rows, columns) bool: an organ."""
        return self.slices.extract(self.phantom.structure(name).mask(), index)

    def largest(self, name: str) -> int:
        """Slice that shows most of an organ."""
        mask = self.phantom.structure(name).mask()
        return max(range(self.slices.count), key=lambda index: self.slices.extract(mask, index).sum())

    def with_labels(self, drawn: np.ndarray, index: int) -> Given:
        """What a source gets if a (rows, columns) mask or label map is drawn on a slice."""
        labels = np.zeros(self.phantom.volume.geometry.shape_kji, np.uint8)
        self.slices.paste(drawn.astype(np.uint8), index, labels)
        return replace(self.given, labels=labels, index=index)

    def answer(self, prompts: Iterable[Prompt], index: int) -> np.ndarray:
        """The classic model's mask."""
        return self.given.predict(index, on_slice(prompts, self.slices, index)).masks[0]


def show(axes: Axes, scene: Scene, index: int, title: str, prompts: Iterable[Prompt], flip: bool = False) -> None:
    """A slice with prompts."""
    pixels = scene.given.image(index).pixels[0]
    rows, columns = scene.slices.spacing_mm
    axes.imshow(pixels, cmap="gray", aspect=rows / columns, vmin=0, vmax=1, origin="lower" if flip else "upper")
    axes.set_title(title, fontsize=9, loc="left")
    axes.axis("off")
    for one in prompts:
        if isinstance(one, MaskPrompt):
            outline(axes, one.mask, RESULT)
            continue
        _, at = scene.slices.pixels_from_ijk(one.points_ijk)
        if isinstance(one, PointPrompt):
            axes.plot(*at[0, ::-1], "o", ms=4, mfc=PROMPT if one.positive else NEGATIVE, mec="black", mew=0.6, zorder=5)
        elif isinstance(one, BoxPrompt):
            (top, left), (bottom, right) = at
            axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=PROMPT, lw=1.2)


def outline(axes: Axes, mask: np.ndarray, color: str, style: str = "-") -> None:
    """The border of a (rows, columns) mask."""
    axes.contour(mask, [0.5], colors=color, linewidths=1.2, linestyles=style)


def closer(axes: Axes, mask: np.ndarray, margin: int, flip: bool = False) -> None:
    """Show only a mask and what is round it."""
    rows, columns = np.nonzero(mask)
    limits = rows.min() - margin, rows.max() + margin
    axes.set(xlim=(columns.min() - 1.3 * margin, columns.max() + 1.3 * margin), ylim=limits if flip else limits[::-1])


def rough_mask(axes: Axes, scene: Scene) -> None:
    index = scene.largest("right kidney")
    rough = np.roll(ndimage.binary_erosion(scene.on("right kidney", index), iterations=3), (2, 2), (0, 1))
    found = load_source("rough_mask:margin=0.08").prompts(scene.with_labels(rough, index))
    show(axes, scene, index, "rough_mask: mask -> box and clicks", found)
    outline(axes, rough, ROUGH, "--")
    outline(axes, scene.answer(found, index), RESULT)
    closer(axes, rough, 25)


def ruler(axes: Axes, scene: Scene) -> None:
    index = scene.largest("liver lesion")
    at = np.argwhere(scene.on("liver lesion", index)).astype(float)
    apart = np.linalg.norm(at[:, None] - at[None], axis=-1)
    ends = at[list(np.unravel_index(int(np.argmax(apart)), apart.shape))]
    ijk = scene.slices.ijk_from_pixels(index, ends)
    found = load_source("ruler:negative=yes").prompts(replace(scene.given, lines_ijk=(tuple(map(tuple, ijk)),)))
    show(axes, scene, index, "ruler: one line -> box and clicks", found)
    axes.plot(*ends.T[::-1], color=ROUGH, lw=1.2)
    outline(axes, scene.answer(found, index), RESULT)
    closer(axes, scene.on("liver lesion", index), 25)


def vessel(axes: Axes, scene: Scene) -> None:
    name, index, mask = max(
        (
            (name, index, scene.on(name, index))
            for name in ("aorta", "inferior vena cava")
            for index in range(scene.slices.count)
        ),
        key=lambda one: (len(Skeleton.of_mask(one[2], scene.slices.spacing_mm, 3.0).forks), one[2].sum()),
    )
    found = load_source("vessel:ends=4").prompts(scene.with_labels(mask, index))
    show(axes, scene, index, f"vessel: {name} -> fork, mid-points, ends", found, flip=True)
    outline(axes, mask, ROUGH, "--")
    closer(axes, mask, 12, flip=True)


def saliency(axes: Axes, scene: Scene) -> None:
    index = scene.largest("liver lesion")
    given = replace(scene.given, index=index)
    show(axes, scene, index, "saliency on MR: ranks 1 to 3", ())
    for rank in (1, 2, 3):
        (click,) = load_source("saliency", rank=rank).prompts(given)
        _, (row, column) = scene.slices.pixels_from_ijk(np.array(click.point_ijk))
        axes.plot(column, row, "o", ms=4, mfc=PROMPT, mec="black", mew=0.6)
        axes.text(column + 3, row - 3, str(rank), color=PROMPT, fontsize=9)


def everything(before: Axes, after: Axes, scene: Scene) -> None:
    index = scene.largest("right kidney")
    names = ("liver", "spleen", "right kidney", "left kidney", "stomach", "spine")
    truth = np.zeros(scene.slices.shape, np.uint8)
    for number, name in enumerate(names, start=1):
        truth[scene.on(name, index)] = number
    coarse = truth[3::7, 3::7].repeat(7, 0).repeat(7, 1)
    coarse = np.pad(coarse, [(0, 7), (0, 7)])[: truth.shape[0], : truth.shape[1]]
    given = scene.with_labels(coarse, index)
    snapped = load_source("everything:quality=0.3,stability=0.6").snapped(given, index)
    show(before, scene, index, "everything, before: a coarse segmentation", ())
    show(after, scene, index, "everything, after the vote", ())
    for number in range(1, len(names) + 1):
        outline(before, coarse == number, ROUGH)
        outline(after, snapped == number, RESULT)


def main(path: Path) -> None:
    ct = Scene(make_phantom("CT", (192, 160, 28), (1.6, 1.6, 8.0)), "axial")
    mr = Scene(make_phantom("MR", (192, 160, 28), (1.6, 1.6, 8.0)), "axial")
    legs = Scene(make_phantom("CT", (110, 60, 90), (2.0, 2.0, 2.0), center_mm=(0.0, 0.0, -75.0)), "coronal")
    figure = Figure(figsize=(10.5, 6.0), dpi=80, layout="constrained", facecolor="white")
    axes = figure.subplots(2, 3).ravel()
    panels: list[tuple[Callable[..., None], tuple[object, ...]]] = [
        (rough_mask, (axes[0], ct)),
        (ruler, (axes[1], ct)),
        (vessel, (axes[2], legs)),
        (saliency, (axes[3], mr)),
        (everything, (axes[4], axes[5], ct)),
    ]
    for draw, given in panels:
        draw(*given)
    figure.savefig(path)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(200, Image.Quantize.FASTOCTREE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)

"""A picture of examples: each kind of image, with and without the outlines of its structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from SegmentAnythingMedLib.finetune.synthetic import make_stack

_ROWS = ("CT", "CT", "MR", "MR", "PET", "US", ("RGB", "XR"))


def draw_examples(path: Path, seed: int = 0, columns: int = 5) -> None:
    """Write a .png of ``columns`` pairs (slice, slice with outlines) for each kind."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * columns, len(_ROWS)), dpi=110, facecolor="black")
    axes = figure.subplots(len(_ROWS), 2 * columns, squeeze=False)
    number = seed
    for row, kinds in zip(axes, _ROWS, strict=True):
        for n in range(columns):
            kind = kinds if isinstance(kinds, str) else kinds[n % len(kinds)]
            stack = make_stack(number, kind=kind)
            number += 1
            shown = int(np.argmax([len(np.unique(plane)) for plane in stack.labels]))
            for axis in row[2 * n : 2 * n + 2]:
                axis.imshow(stack.image[shown], cmap="gray", vmin=0, vmax=255)
                axis.axis("off")
            for label in np.unique(stack.labels[shown])[1:]:
                color = colormaps["hsv"](label * 0.381966 % 1)
                row[2 * n + 1].contour(stack.labels[shown] == label, [0.5], colors=[color], linewidths=0.5)
            row[2 * n].text(4, 20, kind, color="yellow", fontsize=6)
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    from PIL import Image

    # A palette halves the file.
    Image.open(path).convert("RGB").quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )

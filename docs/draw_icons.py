"""Draw the icon of the extension and those of its buttons into Resources/Icons: python docs/draw_icons.py [FOLDER]

Everything is drawn on a canvas of 24 x 24 units, y upwards. Buttons are shown at 24 pixels and drawn at 48, for screens
with two pixels to a point. The colours have a luminance near 0.18, to stand out of white as much as out of black.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle

UNITS = 24.0
GREEN, RED, BLUE, ORANGE, GREY = "#2b9348", "#dd4b3e", "#3d85c6", "#d9730d", "#7d8894"
FOLDER = Path(__file__).resolve().parent.parent / "Resources" / "Icons"


def draw(path: Path, picture: Callable[[Axes], None], pixels: int) -> None:
    """Write one square PNG with a transparent ground."""
    figure = Figure(figsize=(1, 1), dpi=pixels, facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, UNITS), ylim=(0, UNITS), aspect="equal")
    axes.axis("off")
    picture(axes)
    figure.savefig(path, transparent=True, metadata={"Software": None})


def width(units: float) -> float:
    """Line width in points, of a line that is so many units wide: the canvas is one inch wide."""
    return units * 72 / UNITS


def line(
    axes: Axes, points: np.ndarray, colour: str, units: float = 2.2, dashes: tuple[float, float] | None = None
) -> None:
    (drawn,) = axes.plot(
        *np.asarray(points, dtype=float).T,
        color=colour,
        linewidth=width(units),
        solid_capstyle="round",
        dash_capstyle="butt",
        solid_joinstyle="round",
    )
    if dashes is not None:
        drawn.set_dashes(dashes)


def blob(center: tuple[float, float], radii: tuple[float, float], dent: float = 0.16) -> np.ndarray:
    """(64, 2) closed outline of an organ-like shape."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = 1 + dent * np.cos(2 * angle - 0.9) + 0.5 * dent * np.sin(3 * angle)
    return np.stack(
        [center[0] + radii[0] * radius * np.cos(angle), center[1] + radii[1] * radius * np.sin(angle)], axis=1
    )


def kidney(center: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """(64, 2) closed outline of a bean with its hollow upwards."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = 1 - 0.36 * np.exp(-(((angle - np.pi / 2) / 0.55) ** 2))
    return np.stack(
        [center[0] + radii[0] * radius * np.cos(angle), center[1] + radii[1] * radius * np.sin(angle)], axis=1
    )


def arc(center: tuple[float, float], radius: float, start: float, stop: float) -> np.ndarray:
    """(48, 2) points of an arc, in degrees."""
    angle = np.radians(np.linspace(start, stop, 48))
    return np.stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)], axis=1)


def extension(axes: Axes) -> None:
    """Three slices of a volume; a kidney-like object goes down through them from the click on the uppermost."""
    for height, plane, edge, inside in (
        (5.7, "#2b5582", "#a9cdec", "#d06a0c"),
        (11.2, "#2f6ba6", "#bcd9f1", "#ee8417"),
        (17.9, "#3b82c4", "#dcecf9", "#ffa12e"),
    ):
        corners = np.array([(12, height + 5.4), (23.3, height), (12, height - 5.4), (0.7, height)])
        axes.add_patch(Polygon(corners, facecolor=plane, edgecolor=edge, linewidth=width(0.7), joinstyle="round"))
        axes.add_patch(Polygon(kidney((12, height), (6.4, 3.0)), facecolor=inside, edgecolor="none"))
    line(axes, [(9.9, 17.2), (14.1, 17.2)], "white", 1.5)
    line(axes, [(12.0, 15.7), (12.0, 18.7)], "white", 1.5)


def point(axes: Axes) -> None:
    _disc(axes, GREEN, upright=True)


def background_point(axes: Axes) -> None:
    _disc(axes, RED, upright=False)


def _disc(axes: Axes, colour: str, upright: bool) -> None:
    axes.add_patch(Circle((12, 12), 9.4, facecolor=colour, edgecolor="none"))
    line(axes, [(7.2, 12), (16.8, 12)], "white", 2.6)
    if upright:
        line(axes, [(12, 7.2), (12, 16.8)], "white", 2.6)


def box(axes: Axes) -> None:
    axes.add_patch(Rectangle((4.5, 5.5), 15, 13, fill=False, edgecolor=BLUE, linewidth=width(2.0)))
    for corner in ((4.5, 5.5), (19.5, 5.5), (4.5, 18.5), (19.5, 18.5)):
        axes.add_patch(Rectangle((corner[0] - 2.2, corner[1] - 2.2), 4.4, 4.4, facecolor=BLUE, edgecolor="none"))


def scribble(axes: Axes) -> None:
    _wave(axes, GREEN)


def background_scribble(axes: Axes) -> None:
    _wave(axes, RED)


def _wave(axes: Axes, colour: str) -> None:
    along = np.linspace(0, 1, 80)
    line(axes, np.stack([3.5 + 17 * along, 12 + (3 + 4.5 * along) * np.sin(along * 4.6 * np.pi)], axis=1), colour, 2.6)


def lasso(axes: Axes) -> None:
    line(axes, 3.2 + arc((8.8, 10.6), 7.4, -112, 212) * (1.0, 0.92), BLUE, 2.3, dashes=(2.1, 0.9))
    line(axes, [(7.2, 6.2), (6.0, 4.4), (6.9, 2.4)], BLUE, 2.3)
    axes.add_patch(Circle((7.3, 6.6), 2.1, facecolor=BLUE, edgecolor="none"))


def from_segment(axes: Axes) -> None:
    axes.add_patch(Polygon(blob((8.2, 14.6), (5.9, 6.0)), facecolor=ORANGE, edgecolor="none"))
    line(axes, [(13.2, 9.6), (16.6, 6.6)], BLUE, 2.6)
    axes.add_patch(Polygon([(21.8, 2.0), (13.6, 4.2), (19.2, 10.4)], facecolor=BLUE, edgecolor="none"))


def backward(axes: Axes) -> None:
    _through_slices(axes, left=True, right=False)


def both(axes: Axes) -> None:
    _through_slices(axes, left=True, right=True)


def forward(axes: Axes) -> None:
    _through_slices(axes, left=False, right=True)


def _through_slices(axes: Axes, left: bool, right: bool) -> None:
    """The slice of the prompt as a bar, and where the object grows from it."""
    middle = 12.0 if left and right else 19.5 if left else 4.5
    line(axes, [(middle, 3.5), (middle, 20.5)], ORANGE, 2.6)
    if right:
        _triangle(axes, middle + 2.6, 21.8, BLUE)
    if left:
        _triangle(axes, middle - 2.6, 2.2, BLUE)


def _triangle(axes: Axes, base: float, tip: float, colour: str) -> None:
    """An arrow head on the way from base to tip, with a shaft where there is room for one."""
    length = min(8.0, abs(tip - base))
    neck = tip - np.sign(tip - base) * length
    axes.add_patch(Polygon([(neck, 12 - 5.6), (neck, 12 + 5.6), (tip, 12)], facecolor=colour, edgecolor="none"))
    if neck != base:
        line(axes, [(base + np.sign(tip - base) * 1.3, 12), (neck, 12)], colour, 3.0)


def accept(axes: Axes) -> None:
    line(axes, [(4.2, 12.0), (9.6, 6.0), (19.8, 18.2)], GREEN, 3.4)


def discard(axes: Axes) -> None:
    line(axes, [(5.4, 5.4), (18.6, 18.6)], RED, 3.4)
    line(axes, [(5.4, 18.6), (18.6, 5.4)], RED, 3.4)


def undo(axes: Axes) -> None:
    _turn(axes, mirrored=False)


def redo(axes: Axes) -> None:
    _turn(axes, mirrored=True)


def _turn(axes: Axes, mirrored: bool) -> None:
    path = np.vstack([[(7.0, 15.6), (13.4, 15.6)], arc((13.4, 10.4), 5.2, 90, -90), [(13.4, 5.2), (8.4, 5.2)]])
    head = np.array([(2.4, 15.6), (8.8, 20.6), (8.8, 10.6)])
    if mirrored:
        path, head = path * (-1, 1) + (UNITS, 0), head * (-1, 1) + (UNITS, 0)
    line(axes, path, GREY, 2.6)
    axes.add_patch(Polygon(head, facecolor=GREY, edgecolor="none"))


BUTTONS = (
    point, background_point, box, scribble, background_scribble, lasso, from_segment,
    backward, both, forward, accept, discard, undo, redo,
)  # fmt: skip


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder / "SegmentAnythingMed.png", extension, 128)
    for button in BUTTONS:
        draw(folder / f"{button.__name__}.png", button, 48)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)

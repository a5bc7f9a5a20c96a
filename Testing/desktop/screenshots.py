"""Pictures of the panel in its states, light and dark: ``PYTHONPATH=.:Testing python -m desktop.screenshots``.

They go into Resources/Screenshots, or into the folder that is named.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import vtk
from desktop.desk import Desk
from desktop.standins import pythonqt
from mrml.host import MrmlHost
from PySide6 import QtGui, QtWidgets

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.phantom import Phantom, make_phantom
from SegmentAnythingMedLib.prompts import BoxPrompt

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 420
FAILURE = "The worker stopped working 3 times within a minute: choose another model, or press Restart worker."
ORGAN = "left kidney"
"""Some of its slices are weak, some are not."""


def palette(is_dark: bool) -> QtGui.QPalette:
    """Slicer's light and dark styles, in their main colours."""
    if not is_dark:
        made = QtGui.QPalette(QtGui.QColor(240, 240, 240), QtGui.QColor(240, 240, 240))
        made.setColor(QtGui.QPalette.Highlight, QtGui.QColor(61, 125, 202))
        return made
    window, base, text = QtGui.QColor(50, 50, 50), QtGui.QColor(38, 38, 38), QtGui.QColor(225, 225, 225)
    made = QtGui.QPalette(QtGui.QColor(62, 62, 62), window)
    for role in ("WindowText", "Text", "ButtonText", "ToolTipText"):
        made.setColor(getattr(QtGui.QPalette, role), text)
        made.setColor(QtGui.QPalette.Disabled, getattr(QtGui.QPalette, role), QtGui.QColor(130, 130, 130))
    made.setColor(QtGui.QPalette.Base, base)
    made.setColor(QtGui.QPalette.Highlight, QtGui.QColor(61, 125, 202))
    return made


def grab(desk: Desk, path: Path) -> None:
    """Write the panel at its usual width."""
    desk.panel.show()
    panel = desk.widget.parent
    panel.setFixedWidth(WIDTH)
    for _ in range(3):
        desk.qt_app.processEvents()
    panel.setFixedHeight(max(panel.sizeHint().height(), panel.minimumSizeHint().height()))
    for _ in range(3):
        desk.qt_app.processEvents()
    image = with_few_colors(panel.grab().toImage().convertToFormat(QtGui.QImage.Format_RGB888))
    image.save(str(path), "PNG", 0)
    logger.info("%s: %d KB", path.name, path.stat().st_size // 1000)


def with_few_colors(image: QtGui.QImage) -> QtGui.QImage:
    """The picture in its 256 most frequent colours, a quarter of the size; others become the nearest of them."""
    rows, columns, stride = image.size().height(), image.size().width(), image.bytesPerLine()
    pixels = np.frombuffer(image.constBits(), np.uint8).reshape(rows, stride)[:, : columns * 3].reshape(-1, 3)
    colors, which, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    table = colors[np.argsort(-counts)[:256]].astype(int)
    nearest = np.array([np.abs(table - color).sum(axis=1).argmin() for color in colors.astype(int)], np.uint8)
    indices = np.ascontiguousarray(nearest[which.ravel()].reshape(rows, columns))
    few = QtGui.QImage(indices.data, columns, rows, columns, QtGui.QImage.Format_Indexed8)
    few.setColorTable([QtGui.qRgb(*(int(part) for part in color)) for color in table])
    return few.copy()


def box_round(phantom: Phantom, name: str) -> BoxPrompt:
    """A box round an organ of the phantom on the slice where it is largest."""
    truth = phantom.structure(name).mask()
    k = int(truth.sum(axis=(1, 2)).argmax())
    rows, columns = np.nonzero(truth[k])
    corners = (columns.min() - 1, rows.min() - 1, columns.max() + 1, rows.max() + 1)
    return BoxPrompt.on_slice(tuple(float(x) for x in corners), k, Plane(2))


def take(folder: Path, theme: str) -> None:
    """All states in one theme."""
    QtWidgets.QApplication.setPalette(palette(theme == "dark"))
    with tempfile.TemporaryDirectory() as temporary:
        desk = Desk(MrmlHost(Path(temporary)), Path(temporary))
        desk.open("")
        desk.widget.enter()
        grab(desk, folder / f"panel-first-use-{theme}.png")
        phantom = make_phantom("CT", (128, 108, 37), (2.4, 2.4, 6.0))
        matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.volume.geometry.ijk_to_world
        volume = desk.host.add_volume(phantom.volume.array(), matrix, "CT abdomen")
        prompt = box_round(phantom, ORGAN)
        desk.add_view(volume, 16)
        desk.ui.volumeSelector.setCurrentNode(volume)
        desk.controller.set_segment(ORGAN)
        desk.controller.add_prompt(prompt)
        desk.settle()
        desk.ui.placeBackgroundButton.click()
        grab(desk, folder / f"panel-prompting-{theme}.png")
        desk.controller.stop_placing()
        desk.controller.propagate("both")
        desk.until(lambda: desk.controller.progress.done > 4)
        grab(desk, folder / f"panel-propagating-{theme}.png")
        desk.settle()
        desk.controller.confirm_slice(index=12)
        desk.settle()
        desk.panel.strip.show_slices((), None)
        grab(desk, folder / f"panel-review-{theme}.png")
        desk.controller.fail(FAILURE)
        desk.ui.moreCollapsibleButton.collapsed = False
        grab(desk, folder / f"panel-error-{theme}.png")
        desk.close()


def main() -> None:
    """Write all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "Screenshots"
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    vtk.vtkObject.GlobalWarningDisplayOff()
    app = pythonqt.application()
    app.setStyle("Fusion")
    app.setFont(QtGui.QFont("DejaVu Sans", 9))
    for theme in ("light", "dark"):
        take(folder, theme)


if __name__ == "__main__":
    main()

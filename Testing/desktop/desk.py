"""Slicer's window as far as the module sees it: views, focus, mouse and keys, and ways to wait."""

from __future__ import annotations

import importlib
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
import vtk
from desktop.standins import application, pythonqt
from mrml.controlling import view_on
from mrml.host import MrmlHost
from PySide6 import QtCore, QtTest, QtWidgets

MODULE_FOLDER = Path(__file__).resolve().parents[2] / "SegmentAnythingMed"
DEADLINE_S = 30.0


class Desk:
    """The module in a window.

    Parameters
    ----------
    host
        The scene.
    folder
        For temporary files.
    """

    def __init__(self, host: MrmlHost, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.app = application.install(host.scene, folder, host.logics)
        self.qt_app = pythonqt.application()
        for text in (str(MODULE_FOLDER),):
            if text not in sys.path:
                sys.path.insert(0, text)
        self.module = importlib.import_module("SegmentAnythingMed")
        self._add_singletons()
        self.widget: object = None
        self.window = QtWidgets.QWidget()
        self.window.setObjectName("qSlicerMainWindow")
        self.app.window = self.window
        QtWidgets.QVBoxLayout(self.window)

    # -- life --------------------------------------------------------------------------------------------------------

    def open(self, model: str = "classic") -> None:
        """Set the module's widget up, with a model that the scene remembers; "" for one that remembers none."""
        self.import_ui("parameters").Parameters(self.parameter_node()).set_text("model", model)
        self.widget = self.module.SegmentAnythingMedWidget(self._parent())
        self.widget.setup()
        self.window.show()

    def close(self) -> None:
        """Unload the module and take the stand-ins away."""
        if self.widget is not None:
            self.widget.cleanup()
            self.widget.parent.hide()
        self.window.close()
        for box in self.window.findChildren(QtWidgets.QComboBox):
            if hasattr(box, "stop"):
                box.stop()
        self.qt_app.processEvents()
        application.uninstall()
        sys.path.remove(str(MODULE_FOLDER))

    def import_ui(self, name: str) -> types.ModuleType:
        """A module of the panel's package."""
        return importlib.import_module(f"SegmentAnythingMedUI.{name}")

    def parameter_node(self) -> slicer.vtkMRMLScriptedModuleNode:
        return self.import_ui("parameters").parameter_node(self.host.scene)

    def _parent(self) -> QtWidgets.QWidget:
        parent = slicer.qMRMLWidget()
        parent.setLayout(QtWidgets.QVBoxLayout())
        parent.layout().setContentsMargins(0, 0, 0, 0)
        self.window.layout().addWidget(parent)
        return parent

    def _add_singletons(self) -> None:
        for name in ("vtkMRMLInteractionNode", "vtkMRMLSelectionNode"):
            if self.host.scene.GetFirstNodeByClass(name) is None:
                node = self.host.scene.CreateNodeByClass(name)
                node.UnRegister(None)
                node.SetSingletonTag("Singleton")
                self.host.scene.AddNode(node)

    # -- shorthands --------------------------------------------------------------------------------------------------

    @property
    def panel(self) -> object:
        return self.widget.panel

    @property
    def controller(self) -> object:
        return self.panel.controller

    @property
    def ui(self) -> object:
        return self.widget.ui

    @property
    def status(self) -> str:
        return self.ui.statusLabel.text

    def add_view(self, volume: slicer.vtkMRMLScalarVolumeNode, index: int = 6, name: str = "Red") -> object:
        """A slice view in the layout that shows a slice along K; its widget."""
        interactor = vtk.vtkRenderWindowInteractor()
        interactor.SetInteractorStyle(None)
        return self.add_widget(name, view_on(self.host, volume, index, name), interactor)

    def add_widget(
        self, name: str, node: slicer.vtkMRMLSliceNode, interactor: vtk.vtkRenderWindowInteractor
    ) -> application.SliceWidgetStandIn:
        """A slice view in the layout."""
        made = application.SliceWidgetStandIn(node, interactor)
        self.app.layout_manager.widgets[name] = made
        self.window.layout().addWidget(made)
        return made

    def choose(self, box: str, data: str) -> None:
        """Choose an entry of a list by its data, as a user does."""
        widget = getattr(self.ui, box)
        n = widget.findData(data)
        assert n >= 0, f"{box} has no {data}"
        widget.setCurrentIndex(n)
        widget.activated.emit(n)

    def press_key(self, widget: QtWidgets.QWidget, key: str) -> None:
        """Press a key where the widget has the focus."""
        self.window.activateWindow()
        QtTest.QTest.qWaitForWindowActive(self.window)
        widget.setFocus()
        self.qt_app.processEvents()
        modifiers = QtCore.Qt.ShiftModifier if key.startswith("Shift+") else QtCore.Qt.NoModifier
        code = getattr(QtCore.Qt.Key, f"Key_{key.rpartition('+')[2]}")
        QtTest.QTest.keyClick(widget, code, modifiers)

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the window live until something holds."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, (self.controller.state, self.controller.messages, self.controller.link.jobs)
            self.qt_app.processEvents()
            time.sleep(0.002)

    def settle(self) -> None:
        """Let the window live until nothing runs."""
        is_busy = self.import_ui("event_pump").is_busy
        self.until(lambda: not is_busy(self.controller) and not self.controller._when_outlined)
        self.panel.show()

    def labels(self) -> np.ndarray:
        """(K, J, I) bool of the chosen segment on the volume's grid."""
        from SegmentAnythingMedLib.mrml.frame import VolumeFrame
        from SegmentAnythingMedLib.mrml.label_grid import Box, read_box

        frame = VolumeFrame.of(self.controller.volume)
        box = Box((0, 0, 0), frame.local.shape_kji)
        return read_box(self.controller.segmentation, self.controller.segment_id, frame, box)

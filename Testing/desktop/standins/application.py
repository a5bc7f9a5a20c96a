"""``slicer.app``, the layout with its slice views, and the Python modules that only the application has."""

from __future__ import annotations

import sys
import types
import unittest
from pathlib import Path

import slicer
import vtk
from desktop.standins import pythonqt, widgets
from PySide6 import QtCore, QtWidgets

INSTALLED = ("qt", "ctk", "slicer.i18n", "slicer.ScriptedLoadableModule", "SampleData")


class SliceWidgetStandIn(QtWidgets.QLineEdit):
    """A slice view in the layout: a widget that can have the focus, a slice node, an interactor."""

    def __init__(self, node: slicer.vtkMRMLSliceNode, interactor: vtk.vtkRenderWindowInteractor) -> None:
        super().__init__()
        self.setReadOnly(True)
        self._node, self._interactor = node, interactor

    def mrmlSliceNode(self) -> slicer.vtkMRMLSliceNode:  # noqa: N802
        return self._node

    def sliceView(self) -> SliceWidgetStandIn:  # noqa: N802
        return self

    def interactor(self) -> vtk.vtkRenderWindowInteractor:
        return self._interactor


class LayoutManager(QtCore.QObject):
    """The layout: slice widgets by name."""

    layoutChanged = QtCore.Signal(int)  # noqa: N815

    def __init__(self) -> None:
        super().__init__()
        self.widgets: dict[str, SliceWidgetStandIn] = {}

    def sliceViewNames(self) -> tuple[str, ...]:  # noqa: N802
        return tuple(self.widgets)

    def sliceWidget(self, name: str) -> SliceWidgetStandIn:  # noqa: N802
        return self.widgets[name]


class Application(QtCore.QObject):
    """The part of ``slicer.app`` that the module uses."""

    startupCompleted = QtCore.Signal()  # noqa: N815

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.temporaryPath = str(folder)
        self.layout_manager: LayoutManager | None = LayoutManager()
        self.window: QtWidgets.QWidget | None = None

    def layoutManager(self) -> LayoutManager | None:  # noqa: N802
        return self.layout_manager

    def topLevelWidgets(self) -> list[QtWidgets.QWidget]:  # noqa: N802
        return [self.window] if self.window is not None else []

    def testingEnabled(self) -> bool:  # noqa: N802
        return True

    def userSettings(self) -> QtCore.QSettings:  # noqa: N802
        return QtCore.QSettings(f"{self.temporaryPath}/Slicer.ini", QtCore.QSettings.IniFormat)

    def processEvents(self) -> None:  # noqa: N802
        pythonqt.application().processEvents()


class ScriptedLoadableModule:
    def __init__(self, parent: object) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        self.parent = parent
        if parent is None:
            self.parent = widgets.qMRMLWidget()
            self.parent.setLayout(QtWidgets.QVBoxLayout())
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()

    def setup(self) -> None:
        pass


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, _text: str) -> None:  # noqa: N802
        pass


class SampleDataSource:
    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)

    @classmethod
    def of(cls, **fields: object) -> SampleDataSource:
        """As the real one, with lists of one."""
        many = {
            name: [value] for name, value in fields.items() if name in ("uris", "fileNames", "nodeNames", "checksums")
        }
        return cls(**{**fields, **many})


class SampleDataLogic:
    def __init__(self) -> None:
        general = slicer.modules.sampleDataSources.setdefault("General", [])
        if not general:
            general += [
                SampleDataSource.of(sampleName=name, uris="https://x") for name in ("MRHead", "CTLiver", "DTIBrain")
            ]

    @staticmethod
    def registerCustomSampleDataSource(category: str, **fields: object) -> None:  # noqa: N802
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        if fields["sampleName"] not in [source.sampleName for source in sources]:
            sources.append(SampleDataSource.of(**fields))


def install(scene: slicer.vtkMRMLScene, folder: Path, logics: dict[str, object]) -> Application:
    """Put everything where the module's code looks for it; `uninstall` takes it away."""
    pythonqt.application()
    modules = {
        "qt": pythonqt.qt_module(),
        "ctk": types.ModuleType("ctk"),
        "slicer.i18n": types.ModuleType("slicer.i18n"),
        "slicer.ScriptedLoadableModule": types.ModuleType("slicer.ScriptedLoadableModule"),
        "SampleData": types.ModuleType("SampleData"),
    }
    modules["slicer.i18n"].tr = lambda text: text
    modules["slicer.i18n"].translate = lambda _context, text: text
    for base in (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleTest):
        setattr(modules["slicer.ScriptedLoadableModule"], base.__name__, base)
    modules["SampleData"].SampleDataLogic = SampleDataLogic
    sys.modules.update(modules)
    slicer.i18n = modules["slicer.i18n"]
    for name, cls in {
        **pythonqt.custom_widgets(),
        "qMRMLSegmentEditorWidget": widgets.qMRMLSegmentEditorWidget,
    }.items():
        setattr(slicer, name, cls)
    slicer.mrmlScene = scene
    slicer.app = Application(folder)
    slicer.modules = types.SimpleNamespace(sampleDataSources={})
    for name, logic in logics.items():
        setattr(slicer.modules, name.lower(), types.SimpleNamespace(logic=lambda logic=logic: logic))
    return slicer.app


def uninstall() -> None:
    """Leave the process as it was, but for PySide6's changed classes."""
    ours = ("SegmentAnythingMedUI", "SegmentAnythingMed")
    for name in [name for name in sys.modules if name.partition(".")[0] in ours or name in INSTALLED]:
        del sys.modules[name]
    for name in ("mrmlScene", "app", "modules", "i18n", "qMRMLSegmentEditorWidget", *pythonqt.custom_widgets()):
        if name in slicer.__dict__:
            delattr(slicer, name)

"""Segment Anything Med in 3D Slicer: the scripted module. Imports nothing heavy and installs nothing."""

import sys
import time
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

_HERE = Path(__file__).resolve().parent
for _folder in (_HERE, _HERE.parent):  # installed, the library lies beside this file; in a checkout, one folder up
    if (_folder / "SegmentAnythingMedLib").is_dir() and str(_folder) not in sys.path:
        sys.path.append(str(_folder))

_TEST_SECONDS = 300.0


class SegmentAnythingMed(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent: object) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        from SegmentAnythingMedUI import about

        parent.title = _("Segment Anything Med")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "Markups", "Sequences", "SubjectHierarchy"]
        parent.contributors = ["The Segment Anything Med contributors"]
        parent.helpText = about.help_text()
        parent.acknowledgementText = about.acknowledgement()
        parent.icon = about.icon()
        slicer.app.connect("startupCompleted()", register_sample_data)


def register_sample_data() -> None:
    """Add the phantoms, and Slicer's own public cases, to the module Sample Data."""
    from SegmentAnythingMedUI.sample_data import register

    register()


class SegmentAnythingMedWidget(ScriptedLoadableModuleWidget):
    """Connects the panel to Slicer: setup, enter, exit, closing and loading of scenes, other layouts."""

    def setup(self) -> None:
        """Build the panel; starts no worker, installs nothing."""
        ScriptedLoadableModuleWidget.setup(self)
        from SegmentAnythingMedUI.panel import Panel
        from SegmentAnythingMedUI.worker import client_of_slicer

        from SegmentAnythingMedLib.mrml.controller import Controller
        from SegmentAnythingMedLib.resources import resource_path

        root = slicer.util.loadUI(str(resource_path("UI", "SegmentAnythingMed.ui")))
        self.layout.addWidget(root)
        self.ui = slicer.util.childWidgetVariables(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.panel = Panel(self.ui, Controller(slicer.mrmlScene, client_of_slicer))
        self._observe_scene(slicer.mrmlScene)
        layout_manager = slicer.app.layoutManager()
        if layout_manager is not None:
            layout_manager.connect("layoutChanged(int)", self._layout_changed)
        self.panel.start()

    def enter(self) -> None:
        """The module is shown."""
        self.panel.enter()

    def exit(self) -> None:
        """Another module is shown."""
        self.panel.exit()

    def cleanup(self) -> None:
        """The module is unloaded: nothing of it stays, no observer, no key, no process."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []
        layout_manager = slicer.app.layoutManager()
        if layout_manager is not None:
            layout_manager.disconnect("layoutChanged(int)", self._layout_changed)
        self.panel.close()

    def _observe_scene(self, scene: object) -> None:
        self._scene = scene
        self._tags = [
            scene.AddObserver(scene.StartCloseEvent, lambda *_: self.panel.scene_closes()),
            scene.AddObserver(scene.EndCloseEvent, lambda *_: self.panel.restore()),
            scene.AddObserver(scene.EndImportEvent, lambda *_: self.panel.restore()),
        ]

    def _layout_changed(self, _layout: int) -> None:
        self.panel.follow_layout()


class SegmentAnythingMedTest(ScriptedLoadableModuleTest):
    """The whole workflow on the phantom: a box, propagation, acceptance, Dice above 0.8, undo."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def runTest(self, **_: object) -> None:  # noqa: N802
        self.setUp()
        self.test_a_kidney_from_one_box()

    def test_a_kidney_from_one_box(self) -> None:
        """Through the panel's own buttons, as a user does it."""
        from SegmentAnythingMedUI.sample_data import add_phantom

        self.delayDisplay("A phantom is loaded")
        volume, phantom = add_phantom("CT", size_ijk=(96, 80, 28), spacing_mm=(3.2, 3.2, 8.0))
        truth = phantom.structures[_a_kidney(phantom)].mask()
        widget = SegmentAnythingMedWidget()
        try:
            self._segment(widget, volume, truth)
        finally:
            widget.cleanup()
            widget.parent.deleteLater()

    def _segment(self, widget: SegmentAnythingMedWidget, volume: object, truth: object) -> None:
        controller, ui = widget.panel.controller, widget.ui
        widget.enter()
        ui.volumeSelector.setCurrentNode(volume)
        self._wait(lambda: controller.volume is volume)
        self.delayDisplay("A box on one slice")
        controller.add_prompt(_box_round(truth))
        self._wait(lambda: ui.propagateBothButton.enabled and not self._is_busy(widget))
        ui.propagateBothButton.click()
        self._wait(lambda: not self._is_busy(widget))
        self.delayDisplay("It is propagated, and accepted")
        self.assertTrue(ui.acceptButton.enabled, controller.status)
        ui.acceptButton.click()
        self._wait(lambda: not self._is_busy(widget) and ui.undoButton.enabled)
        found = slicer.util.arrayFromSegmentBinaryLabelmap(controller.segmentation, controller.segment_id, volume) > 0
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        self.assertGreater(dice, 0.8)
        ui.undoButton.click()
        self._wait(lambda: not self._is_busy(widget) and ui.redoButton.enabled)
        found = slicer.util.arrayFromSegmentBinaryLabelmap(controller.segmentation, controller.segment_id, volume)
        self.assertEqual(int((found > 0).sum()), 0)
        self.delayDisplay(f"Test passed: Dice {dice:.2f}")

    def _is_busy(self, widget: SegmentAnythingMedWidget) -> bool:
        from SegmentAnythingMedUI.event_pump import is_busy

        widget.panel.show()
        return is_busy(widget.panel.controller)

    def _wait(self, condition: object) -> None:
        end = time.monotonic() + _TEST_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), end, "It took too long")
            slicer.app.processEvents()
            time.sleep(0.005)


def _a_kidney(phantom: object) -> int:
    """Which structure of a phantom is a kidney."""
    return next(n for n, item in enumerate(phantom.structures) if "kidney" in item.name.lower())


def _box_round(truth: object) -> object:
    """A box round a (K, J, I) mask on the axial slice where it is largest."""
    import numpy as np

    from SegmentAnythingMedLib.geometry import Plane
    from SegmentAnythingMedLib.prompts import BoxPrompt

    k = int(truth.sum(axis=(1, 2)).argmax())
    rows, columns = np.nonzero(truth[k])
    corners = (columns.min() - 1, rows.min() - 1, columns.max() + 1, rows.max() + 1)
    return BoxPrompt.on_slice(tuple(float(x) for x in corners), k, Plane(2))

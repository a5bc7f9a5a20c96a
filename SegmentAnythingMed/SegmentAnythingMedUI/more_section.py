"""The folded section: time, channels, range from an ROI, memory, device, prompts file, DICOM export."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from SegmentAnythingMedLib.memory.policy import policy_names
from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.sequences import browser_of

if TYPE_CHECKING:
    from SegmentAnythingMedLib.mrml.controller import Controller
    from SegmentAnythingMedUI.parameters import Parameters

DEVICES = ("auto", "cpu", "cuda", "mps")
_JSON = "*.json"


class MoreSection:
    """What is not needed at every structure.

    Parameters
    ----------
    ui
        The widgets of the panel, by name.
    controller
        Does what is chosen.
    parameters
        Gives the parameter node of the moment.
    """

    def __init__(self, ui: object, controller: Controller, parameters: Callable[[], Parameters]) -> None:
        self._ui, self._controller, self._parameters = ui, controller, parameters
        names = {"auto": _("Automatic"), "cpu": _("CPU"), "cuda": _("NVIDIA GPU"), "mps": _("Apple GPU")}
        for device in DEVICES:
            ui.deviceBox.addItem(names[device], device)
        for policy in policy_names():
            ui.policyBox.addItem(policy.replace("_", " ").capitalize(), policy)
        ui.policyBox.connect("activated(int)", self._policy_chosen)
        ui.deviceBox.connect("activated(int)", self._device_chosen)
        ui.timeBox.connect("valueChanged(int)", self._time_chosen)
        ui.throughTimeButton.connect("clicked()", lambda: controller.propagate_through_time())
        ui.channel1Selector.connect("currentNodeChanged(vtkMRMLNode*)", self._channel_chosen)
        ui.channel2Selector.connect("currentNodeChanged(vtkMRMLNode*)", self._channel_chosen)
        ui.roiSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._roi_chosen)
        ui.rangeFromRoiButton.connect("clicked()", self._use_roi)
        ui.exportPromptsButton.connect("clicked()", self.export_prompts)
        ui.importPromptsButton.connect("clicked()", self.import_prompts)
        ui.exportDicomButton.connect("clicked()", self.export_dicom)
        self._is_showing = False

    def show(self) -> None:
        """Show what the controller works on, and what can be done with it."""
        self._is_showing = True
        try:
            self._show()
        finally:
            self._is_showing = False

    def restore(self) -> None:
        """Show the choices of the parameter node."""
        parameters = self._parameters()
        self._is_showing = True
        try:
            self._ui.channel1Selector.setCurrentNode(parameters.node("channel1"))
            self._ui.channel2Selector.setCurrentNode(parameters.node("channel2"))
            self._ui.roiSelector.setCurrentNode(parameters.node("roi"))
        finally:
            self._is_showing = False

    def _show(self) -> None:
        ui, controller = self._ui, self._controller
        volume = controller.volume
        browser = browser_of(volume) if volume is not None else None
        last = browser.GetNumberOfItems() - 1 if browser is not None else 0
        is_free = controller.state in (State.PROMPTING, State.REVIEWING)
        ui.timeBox.setMaximum(max(last, 0))
        ui.timeBox.setEnabled(last > 0 and is_free)
        if ui.timeBox.value != controller.time and not ui.timeBox.hasFocus():
            ui.timeBox.setValue(controller.time)
        ui.throughTimeButton.setEnabled(last > 0 and is_free and bool(controller.segment_id))
        ui.rangeFromRoiButton.setEnabled(volume is not None and ui.roiSelector.currentNode() is not None)
        ui.exportPromptsButton.setEnabled(controller.markups is not None and bool(controller.markups.records()))
        ui.importPromptsButton.setEnabled(controller.is_usable)
        ui.exportDicomButton.setEnabled(controller.segmentation is not None)
        for box, value in ((ui.deviceBox, controller.link.device), (ui.policyBox, controller.link.policy)):
            n = box.findData(value)
            if n >= 0 and box.currentIndex != n:
                box.setCurrentIndex(n)

    def _policy_chosen(self, n: int) -> None:
        self._controller.set_policy(self._ui.policyBox.itemData(n))

    def _device_chosen(self, n: int) -> None:
        self._controller.set_model(self._controller.link.model, self._ui.deviceBox.itemData(n))

    def _time_chosen(self, time: int) -> None:
        if not self._is_showing and time != self._controller.time:
            self._controller.set_time(time)

    def _channel_chosen(self, _node: object) -> None:
        if self._is_showing or slicer.mrmlScene.IsClosing():
            return
        parameters, controller = self._parameters(), self._controller
        parameters.set_node("channel1", self._ui.channel1Selector.currentNode())
        parameters.set_node("channel2", self._ui.channel2Selector.currentNode())
        if controller.volume is None:
            return
        channels = [node for node in parameters.channels() if node is not controller.volume]
        segmentation, segment = controller.segmentation, controller.segment_id
        controller.set_volume(controller.volume, channels)
        controller.set_segmentation(segmentation)
        if segment:
            controller.set_segment(segment)

    def _roi_chosen(self, node: object) -> None:
        if not self._is_showing and not slicer.mrmlScene.IsClosing():
            self._parameters().set_node("roi", node)
            self.show()

    def _use_roi(self) -> None:
        self._controller.set_range_from_roi(self._ui.roiSelector.currentNode())

    def export_prompts(self) -> None:
        """Ask for a file and write the prompts."""
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(),
            _("Write the prompts"),
            "prompts.json",
            _("Prompts ({pattern})").format(pattern=_JSON),
        )
        if chosen_file(path):
            self._controller.export_prompts(chosen_file(path))

    def import_prompts(self) -> None:
        """Ask for a file and read prompts."""
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("Read prompts"), "", _("Prompts ({pattern})").format(pattern=_JSON)
        )
        if chosen_file(path):
            self._controller.import_prompts(chosen_file(path))

    def export_dicom(self) -> None:
        """Open Slicer's DICOM export with the segmentation chosen; where that is not there, say the steps."""
        node = self._controller.segmentation
        dialog_class = getattr(slicer, "qSlicerDICOMExportDialog", None)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._controller.scene)
        if dialog_class is None or hierarchy is None:
            self._controller.tell(
                _("Open the module Data, right-click the segmentation {name}, and choose Export to DICOM.").format(
                    name=node.GetName()
                )
            )
            return
        dialog = dialog_class()
        dialog.setMRMLScene(self._controller.scene)
        dialog.execDialog(hierarchy.GetItemByDataNode(node))


def chosen_file(answer: str | tuple[str, ...]) -> str:
    """The file of a file dialog: PythonQt gives the name, PySide the name and the filter."""
    return answer if isinstance(answer, str) else answer[0]

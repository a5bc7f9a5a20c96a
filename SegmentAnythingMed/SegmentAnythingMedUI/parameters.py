"""What a reload of the module or of a saved scene needs, in the scene's parameter node."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slicer import vtkMRMLNode, vtkMRMLScriptedModuleNode

    from SegmentAnythingMedLib.mrml.controller import Controller

MODULE = "SegmentAnythingMed"

_CLASSES = {
    "volume": "vtkMRMLScalarVolumeNode",
    "channel1": "vtkMRMLScalarVolumeNode",
    "channel2": "vtkMRMLScalarVolumeNode",
    "segmentation": "vtkMRMLSegmentationNode",
    "roi": "vtkMRMLMarkupsROINode",
}


class Parameters:
    """Typed access to a parameter node; writes only what changed, so that nobody is told of nothing.

    Parameters
    ----------
    node
        The module's parameter node.
    """

    def __init__(self, node: vtkMRMLScriptedModuleNode) -> None:
        self.raw = node

    def node(self, role: str) -> vtkMRMLNode | None:
        """The node in a role of `_CLASSES`, such as ``volume``; None where it is missing or of another class."""
        found = self.raw.GetNodeReference(role)
        return found if found is not None and found.IsA(_CLASSES[role]) else None

    def set_node(self, role: str, node: vtkMRMLNode | None) -> None:
        """Put a node into a role; None empties it."""
        wanted = node.GetID() if node is not None else None
        if (self.raw.GetNodeReferenceID(role) or None) != wanted:
            self.raw.SetNodeReferenceID(role, wanted)

    def text(self, name: str, default: str = "") -> str:
        """A stored word."""
        return self.raw.GetParameter(name) or default

    def set_text(self, name: str, value: str) -> None:
        """Store a word; an empty one is taken away."""
        if (self.raw.GetParameter(name) or "") != value:
            self.raw.SetParameter(name, value)

    def number(self, name: str) -> int | None:
        """A stored whole number, or None."""
        try:
            return int(self.text(name))
        except ValueError:
            return None

    def set_number(self, name: str, value: int | None) -> None:
        """Store a whole number; None takes it away."""
        self.set_text(name, "" if value is None else str(int(value)))

    def flag(self, name: str) -> bool:
        """A stored yes or no; no by default."""
        return self.text(name) == "yes"

    def set_flag(self, name: str, value: bool) -> None:
        """Store yes or no."""
        self.set_text(name, "yes" if value else "")

    def channels(self) -> list[vtkMRMLNode]:
        """The further channels that are chosen, in order."""
        nodes = (self.node("channel1"), self.node("channel2"))
        return [node for node in nodes if node is not None]

    def store(self, controller: Controller) -> None:
        """Note what the controller works on."""
        self.set_node("volume", controller.volume)
        self.set_node("segmentation", controller.segmentation)
        self.set_text("segment", controller.segment_id)
        self.set_text("window", controller.link.window)
        self.set_text("device", controller.link.device)
        self.set_text("policy", controller.link.policy)
        first, last = controller.range
        self.set_number("rangeFirst", first)
        self.set_number("rangeLast", last)

    def restore(self, controller: Controller) -> None:
        """Have the controller work on what was noted; the model is chosen by the panel, which may have to ask."""
        volume, segmentation = self.node("volume"), self.node("segmentation")
        segment, bounds = self.text("segment"), (self.number("rangeFirst"), self.number("rangeLast"))
        window = self.text("window", "auto")
        if window != controller.link.window:
            controller.set_window(window)
        if self.text("policy", controller.link.policy) != controller.link.policy:
            controller.set_policy(self.text("policy"))
        if volume is not controller.volume:
            controller.set_volume(volume, self.channels() if volume is not None else ())
        if volume is None:
            return
        controller.set_segmentation(segmentation)
        if segmentation is not None and segmentation.GetSegmentation().GetSegment(segment) is not None:
            controller.set_segment(segment)
        controller.set_range(*bounds)


def parameter_node(scene: object) -> vtkMRMLScriptedModuleNode:
    """The module's only parameter node in a scene, made when missing."""
    node = scene.GetSingletonNode(MODULE, "vtkMRMLScriptedModuleNode")
    if node is None:
        node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(MODULE)
        node.SetModuleName(MODULE)
        node.SetName(MODULE)
        node = scene.AddNode(node)
    node.SetAttribute("ModuleName", MODULE)
    return node

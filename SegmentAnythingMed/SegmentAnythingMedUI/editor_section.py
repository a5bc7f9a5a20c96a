"""Slicer's Segment Editor in a folded section: paint, erase and scissors on the segment that is worked on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from slicer import vtkMRMLScene, vtkMRMLSegmentEditorNode

    from SegmentAnythingMedLib.mrml.controller import Controller

SINGLETON = "SegmentEditor"
"""Tag of the node that Slicer's own Segment Editor module uses: masking is chosen once, for both."""


class EditorSection:
    """The embedded editor, made when the section is first opened, since it is large.

    Parameters
    ----------
    ui
        The widgets of the panel, by name.
    controller
        Says which segment is worked on.
    """

    def __init__(self, ui: object, controller: Controller) -> None:
        self._ui, self._controller = ui, controller
        self.widget: slicer.qMRMLSegmentEditorWidget | None = None
        ui.editorCollapsibleButton.connect("contentsCollapsed(bool)", self._folded)

    def follow(self) -> None:
        """Edit what the controller works on."""
        widget, controller = self.widget, self._controller
        if widget is None or self._ui.editorCollapsibleButton.collapsed:
            return
        if widget.segmentationNode() is not controller.segmentation:
            widget.setSegmentationNode(controller.segmentation)
        if widget.sourceVolumeNode() is not controller.volume:
            widget.setSourceVolumeNode(controller.volume)
        if controller.segment_id and widget.currentSegmentID() != controller.segment_id:
            widget.setCurrentSegmentID(controller.segment_id)

    @property
    def has_brush(self) -> bool:
        """Whether an effect of the editor has the mouse."""
        return bool(editor_node(self._controller.scene).GetActiveEffectName())

    def put_brush_down(self) -> None:
        """Give the mouse to a prompt."""
        if self.widget is not None:
            self.widget.setActiveEffect(None)

    def leave(self) -> None:
        """The module is left, or the scene is being closed: no brush stays in the views."""
        if self.widget is not None:
            self.widget.setActiveEffect(None)
            self.widget.removeViewObservations()

    def scene_closes(self) -> None:
        """Let go of the scene's nodes."""
        if self.widget is not None:
            self.leave()
            self.widget.setSegmentationNode(None)

    def enter(self) -> None:
        """The module is shown again, or a scene was loaded."""
        if self.widget is not None:
            self.widget.setMRMLSegmentEditorNode(editor_node(self._controller.scene))
            self.widget.setupViewObservations()
            self.widget.updateWidgetFromMRML()
            self.follow()

    def _folded(self, is_folded: bool) -> None:
        if is_folded:
            self.leave()
            return
        if self.widget is None:
            self.widget = slicer.qMRMLSegmentEditorWidget()
            self.widget.setMaximumNumberOfUndoStates(10)
            self.widget.setMRMLSegmentEditorNode(editor_node(self._controller.scene))
            self.widget.setMRMLScene(self._controller.scene)
            self.widget.setSegmentationNodeSelectorVisible(False)
            self.widget.setSourceVolumeNodeSelectorVisible(False)
            self.widget.setSwitchToSegmentationsButtonVisible(False)
            self._ui.editorCollapsibleButton.layout().addWidget(self.widget)
        self.enter()


def editor_node(scene: vtkMRMLScene) -> vtkMRMLSegmentEditorNode:
    """The Segment Editor's node of a scene, made when missing."""
    node = scene.GetSingletonNode(SINGLETON, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
        node.UnRegister(None)
        node.SetSingletonTag(SINGLETON)
        node = scene.AddNode(node)
    return node

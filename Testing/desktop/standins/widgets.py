"""CTK and qMRML widgets that the .ui file and the panel name, as small PySide6 widgets on a real MRML scene."""

from __future__ import annotations

import slicer
from desktop.standins.pythonqt import custom_widget
from PySide6 import QtCore, QtWidgets

Signal, Property = QtCore.Signal, QtCore.Property


@custom_widget
class ctkCollapsibleButton(QtWidgets.QWidget):  # noqa: N801
    """A header with an arrow over contents that can be folded away."""

    contentsCollapsed = Signal(bool)  # noqa: N815

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_folded = False
        self._header = QtWidgets.QToolButton(self)
        self._header.setToolButtonStyle(QtCore.Qt.ToolButtonTextBesideIcon)
        self._header.setAutoRaise(True)
        self._header.clicked.connect(lambda: self._fold(not self._is_folded))
        self.setContentsMargins(0, self._header.sizeHint().height() + 2, 0, 0)
        self._arrange()

    def resizeEvent(self, _event: object) -> None:  # noqa: N802
        self._header.setGeometry(0, 0, self.size.width(), self._header.sizeHint().height())

    def childEvent(self, event: QtCore.QChildEvent) -> None:  # noqa: N802
        super().childEvent(event)
        if event.added() and event.child().isWidgetType() and hasattr(self, "_header"):
            QtCore.QTimer.singleShot(0, self, self._arrange)

    def _arrange(self) -> None:
        self._header.setArrowType(QtCore.Qt.RightArrow if self._is_folded else QtCore.Qt.DownArrow)
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
            if child is not self._header:
                child.setVisible(not self._is_folded)
        self.setMaximumHeight(self._header.sizeHint().height() + 2 if self._is_folded else 16777215)

    def _fold(self, is_folded: bool) -> None:
        if is_folded != self._is_folded:
            self._is_folded = is_folded
            self._arrange()
            self.contentsCollapsed.emit(is_folded)

    collapsed = Property(bool, lambda self: self._is_folded, _fold)
    text = Property(str, lambda self: self._header.text, lambda self, text: self._header.setText(text))


@custom_widget
class qMRMLWidget(QtWidgets.QWidget):  # noqa: N801
    """Hands the scene on."""

    mrmlSceneChanged = Signal(object)  # noqa: N815

    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:  # noqa: N802
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)


@custom_widget
class qMRMLNodeComboBox(QtWidgets.QComboBox):  # noqa: N801
    """Nodes of some classes; as the real one, it keeps its choice and goes to None when that is removed."""

    currentNodeChanged = Signal(object)  # noqa: N815

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._types: list[str] = []
        self._hidden: list[str] = []
        self._none, self._scene, self._tags = "None", None, []
        self._ids: list[str] = [""]
        self._last: object = None
        self.currentIndexChanged.connect(lambda _n: self._tell())

    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:  # noqa: N802
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent):
            self._tags.append(scene.AddObserver(event, lambda *_: self.refresh()))
        self.refresh()

    def stop(self) -> None:
        """Forget the scene."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []

    def refresh(self) -> None:
        chosen = self._ids[max(self.currentIndex, 0)] if self._ids else ""
        nodes = [
            self._scene.GetNthNodeByClass(n, kind)
            for kind in self._types
            for n in range(self._scene.GetNumberOfNodesByClass(kind))
        ]
        nodes = [node for node in nodes if not node.GetHideFromEditors()]
        nodes = [node for node in nodes if node.GetClassName() not in self._hidden]
        self.blockSignals(True)
        self.clear()
        self._ids = ["", *(node.GetID() for node in nodes)]
        self.addItems([self._none, *(node.GetName() for node in nodes)])
        self.setCurrentIndex(self._ids.index(chosen) if chosen in self._ids else 0)
        self.blockSignals(False)
        self._tell()

    def currentNode(self) -> slicer.vtkMRMLNode | None:  # noqa: N802
        chosen = self._ids[max(self.currentIndex, 0)]
        return self._scene.GetNodeByID(chosen) if chosen and self._scene is not None else None

    def setCurrentNode(self, node: slicer.vtkMRMLNode | None) -> None:  # noqa: N802
        wanted = node.GetID() if node is not None else ""
        self.setCurrentIndex(self._ids.index(wanted) if wanted in self._ids else 0)

    def _tell(self) -> None:
        node = self.currentNode()
        if node is not self._last:
            self._last = node
            self.currentNodeChanged.emit(node)

    def _set(self, name: str, value: object) -> None:
        setattr(self, name, value)
        if self._scene is not None:
            self.refresh()
        else:
            self.clear()
            self.addItem(self._none)

    nodeTypes = Property("QStringList", lambda self: self._types, lambda self, v: self._set("_types", list(v)))  # noqa: N815
    hideChildNodeTypes = Property(  # noqa: N815
        "QStringList", lambda self: self._hidden, lambda self, v: self._set("_hidden", list(v))
    )
    noneDisplay = Property(str, lambda self: self._none, lambda self, v: self._set("_none", v))  # noqa: N815
    noneEnabled = Property(bool, lambda self: True, lambda self, v: None)  # noqa: N815
    addEnabled = Property(bool, lambda self: False, lambda self, v: None)  # noqa: N815
    removeEnabled = Property(bool, lambda self: False, lambda self, v: None)  # noqa: N815
    renameEnabled = Property(bool, lambda self: False, lambda self, v: None)  # noqa: N815


class qMRMLSegmentEditorWidget(QtWidgets.QWidget):  # noqa: N801
    """Remembers what it was given."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        QtWidgets.QVBoxLayout(self).addWidget(QtWidgets.QLabel("(Segment Editor)"))
        self.editor_node = self.segmentation = self.volume = self.effect = None
        self.segment_id, self.is_observing = "", False

    def setMRMLScene(self, scene: slicer.vtkMRMLScene) -> None:  # noqa: N802
        self.scene = scene

    def setMRMLSegmentEditorNode(self, node: slicer.vtkMRMLSegmentEditorNode) -> None:  # noqa: N802
        self.editor_node = node

    def setSegmentationNode(self, node: slicer.vtkMRMLSegmentationNode | None) -> None:  # noqa: N802
        self.segmentation, self.segment_id = node, ""

    def segmentationNode(self) -> slicer.vtkMRMLSegmentationNode | None:  # noqa: N802
        return self.segmentation

    def setSourceVolumeNode(self, node: slicer.vtkMRMLVolumeNode | None) -> None:  # noqa: N802
        self.volume = node

    def sourceVolumeNode(self) -> slicer.vtkMRMLVolumeNode | None:  # noqa: N802
        return self.volume

    def setCurrentSegmentID(self, segment_id: str) -> None:  # noqa: N802
        self.segment_id = segment_id

    def currentSegmentID(self) -> str:  # noqa: N802
        return self.segment_id

    def setActiveEffect(self, effect: object) -> None:  # noqa: N802
        self.effect = effect
        self.editor_node.SetActiveEffectName("" if effect is None else str(effect))

    def setupViewObservations(self) -> None:  # noqa: N802
        self.is_observing = True

    def removeViewObservations(self) -> None:  # noqa: N802
        self.is_observing = False

    def updateWidgetFromMRML(self) -> None:  # noqa: N802
        pass

    def _choice(self, _value: object) -> None:
        pass

    setMaximumNumberOfUndoStates = _choice  # noqa: N815
    setSegmentationNodeSelectorVisible = _choice  # noqa: N815
    setSourceVolumeNodeSelectorVisible = _choice  # noqa: N815
    setSwitchToSegmentationsButtonVisible = _choice  # noqa: N815

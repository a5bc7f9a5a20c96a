"""The truth about prompts: a text node of the segmentation, with undo and redo of single actions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.mrml.nodes import nodes_of
from SegmentAnythingMedLib.mrml.prompt_record import PromptRecord, decode_records, encode_records, made_on

if TYPE_CHECKING:
    from slicer import vtkMRMLScene, vtkMRMLSegmentationNode, vtkMRMLTextNode, vtkMRMLVolumeNode

SEGMENTATION_ROLE = "SegmentAnythingMed.segmentation"
VOLUME_ROLE = "SegmentAnythingMed.volume"


@dataclass(frozen=True, eq=False)
class PromptChange:
    """One record before and after; None before = added, None after = removed.

    Parameters
    ----------
    before, after
        The record; both have the same uid.
    position
        Where in the list it stands or stood.
    """

    before: PromptRecord | None
    after: PromptRecord | None
    position: int

    @property
    def record(self) -> PromptRecord:
        return self.after or self.before

    @property
    def reversed(self) -> PromptChange:
        return PromptChange(self.after, self.before, self.position)


class PromptStore:
    """Records of one segmentation in its text node; every change is an action that can be undone.

    Parameters
    ----------
    scene
        Where the text node lives; found by its references to segmentation and volume, made at the first change.
    segmentation, volume
        The nodes the prompts belong to. Prompts are places in one volume: another volume with the same segmentation has
        prompts of its own.
    geometry
        Grid of the volume, written beside the prompts.
    """

    def __init__(
        self,
        scene: vtkMRMLScene,
        segmentation: vtkMRMLSegmentationNode,
        volume: vtkMRMLVolumeNode,
        geometry: VolumeGeometry,
    ) -> None:
        self._scene = scene
        self._segmentation = segmentation
        self._volume = volume
        self._geometry = geometry
        self.node = find_text_node(scene, segmentation, volume, geometry)
        self._records = list(decode_records(self.node.GetText() or "")) if self.node is not None else []
        self._done: list[tuple[PromptChange, ...]] = []
        self._undone: list[tuple[PromptChange, ...]] = []

    @property
    def adopts(self) -> bool:
        """Whether the prompts were made on a volume that is gone; from the next writing on they belong to this one."""
        return self.node is not None and not self.node.GetNodeReferenceID(VOLUME_ROLE)

    @property
    def records(self) -> tuple[PromptRecord, ...]:
        return tuple(self._records)

    def get(self, uid: str) -> PromptRecord:
        """The record with this uid, or a `PromptError`."""
        found = next((record for record in self._records if record.uid == uid), None)
        if found is None:
            raise PromptError("This prompt is no longer there: it was removed or undone.")
        return found

    # -- actions -------------------------------------------------------------------------------------------------

    def added(self, record: PromptRecord) -> PromptChange:
        """The change that adds a record at the end."""
        return PromptChange(None, record, len(self._records))

    def changed(self, uid: str, after: PromptRecord | None) -> PromptChange:
        """The change that replaces or (None) removes a record."""
        before = self.get(uid)
        return PromptChange(before, after, self._records.index(before))

    def do(self, changes: Iterable[PromptChange], amend: bool = False) -> None:
        """Apply changes as one action; ``amend`` makes it part of the last one, as a drag that goes on."""
        changes = tuple(changes)
        self._apply(changes)
        if amend and self._done:
            self._done[-1] = _merged(self._done[-1], changes)
        else:
            self._done.append(changes)
        self._undone.clear()

    def undo(self) -> tuple[PromptChange, ...]:
        """Take the last action back; the changes that did it, () if there is none."""
        if not self._done:
            return ()
        action = self._done.pop()
        self._undone.append(action)
        changes = tuple(change.reversed for change in reversed(action))
        self._apply(changes)
        return changes

    def redo(self) -> tuple[PromptChange, ...]:
        """Do again what was undone last; the changes, () if there is none."""
        if not self._undone:
            return ()
        action = self._undone.pop()
        self._done.append(action)
        self._apply(action)
        return action

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    def retie(self, uid: str, control_point: str) -> PromptRecord:
        """Note which control point shows a record; not an action."""
        record = self.get(uid)
        tied = record.tied_to(control_point)
        self._records[self._records.index(record)] = tied
        return tied

    def note_candidate(self, uid: str, candidate: int) -> PromptRecord:
        """Note which answer to a prompt the user took; not an action: cycling goes both ways by itself."""
        record = self.get(uid)
        if record.candidate == candidate:
            return record
        chosen = record.with_candidate(candidate)
        self._records[self._records.index(record)] = chosen
        self.write()
        return chosen

    def write(self) -> None:
        """Bring the text node up to date; made if it is not there."""
        if self.node is None or self._scene.GetNodeByID(self.node.GetID() or "") is None:
            if not self._records:
                return
            self.node = self._make_node()
        if self.adopts:
            self.node.SetNodeReferenceID(VOLUME_ROLE, self._volume.GetID())
        segmentation = self._segmentation.GetSegmentation()
        names = {
            record.segment_id: segmentation.GetSegment(record.segment_id).GetName()
            for record in self._records
            if segmentation.GetSegment(record.segment_id) is not None
        }
        self.node.SetText(encode_records(self._records, names, self._geometry))

    # -- inside --------------------------------------------------------------------------------------------------

    def _apply(self, changes: Iterable[PromptChange]) -> None:
        for change in changes:
            if change.before is None:
                self._records.insert(min(change.position, len(self._records)), change.after)
            else:
                current = self.get(change.before.uid)
                place = self._records.index(current)
                self._records[place : place + 1] = (
                    [] if change.after is None else [change.after.tied_to(current.control_point)]
                )
        self.write()

    def _make_node(self) -> vtkMRMLTextNode:
        node = self._scene.AddNewNodeByClass("vtkMRMLTextNode", f"{self._segmentation.GetName()} prompts")
        node.SetForceCreateStorageNode(node.CreateStorageNodeAlways)
        node.SetHideFromEditors(True)
        node.SetNodeReferenceID(SEGMENTATION_ROLE, self._segmentation.GetID())
        node.SetNodeReferenceID(VOLUME_ROLE, self._volume.GetID())
        return node


def find_text_node(
    scene: vtkMRMLScene,
    segmentation: vtkMRMLSegmentationNode,
    volume: vtkMRMLVolumeNode,
    geometry: VolumeGeometry,
) -> vtkMRMLTextNode | None:
    """The text node with the prompts of a segmentation on a volume; else one whose volume is gone, of the same grid."""
    nodes = [
        node
        for node in nodes_of(scene, "vtkMRMLTextNode")
        if node.GetNodeReferenceID(SEGMENTATION_ROLE) == segmentation.GetID()
    ]
    for node in nodes:
        if node.GetNodeReferenceID(VOLUME_ROLE) == volume.GetID():
            return node
    orphans = [node for node in nodes if not node.GetNodeReferenceID(VOLUME_ROLE)]
    return next((node for node in orphans if made_on(node.GetText() or "", geometry)), None)


def _merged(first: tuple[PromptChange, ...], second: tuple[PromptChange, ...]) -> tuple[PromptChange, ...]:
    """One action out of two: changes of the same record become one."""
    merged = {change.record.uid: change for change in first}
    for change in second:
        uid = change.record.uid
        earlier = merged.get(uid)
        merged[uid] = PromptChange(earlier.before, change.after, earlier.position) if earlier else change
    return tuple(change for change in merged.values() if change.before is not None or change.after is not None)

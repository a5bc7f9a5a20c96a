"""Prompts of a segmentation in the scene: JSON in a text node is the truth, markups are views tied to it.

What the user does to the markups (place, drag, delete) becomes changes of the records, and the other way round. Each
is one step of undo.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.frame import VolumeFrame
from SegmentAnythingMedLib.mrml.markup_kinds import KINDS, MarkupKind, kind_of, read_points, write_points
from SegmentAnythingMedLib.mrml.markup_nodes import PROMPT_ATTRIBUTE, MarkupNodes, kind_of_node, segment_of_node
from SegmentAnythingMedLib.mrml.markup_observer import MarkupObserver
from SegmentAnythingMedLib.mrml.prompt_record import PromptRecord
from SegmentAnythingMedLib.mrml.prompt_store import PromptChange, PromptStore
from SegmentAnythingMedLib.mrml.slice_views import plane_of_view, view_of_points
from SegmentAnythingMedLib.prompts import Prompt, slice_index

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsNode, vtkMRMLScene, vtkMRMLSegmentationNode, vtkMRMLSliceNode, vtkMRMLVolumeNode

_SAME_IJK = 1e-3
"""Markups and records that differ by less, in voxels, are the same."""


class Action(enum.Enum):
    """What happened to a prompt."""

    PLACED = "placed"
    MOVED = "moved"
    REMOVED = "removed"
    REFUSED = "refused"


@dataclass(frozen=True, eq=False)
class PromptEvent:
    """What the listener of `PromptMarkups` is told.

    Parameters
    ----------
    action
        What happened.
    record
        The prompt as it is now, or as it was when removed; None if it was refused before it became one.
    before
        What it was before it moved.
    message
        Why it was refused, for the user.
    """

    action: Action
    record: PromptRecord | None
    before: PromptRecord | None = None
    message: str = ""


class PromptMarkups:
    """The prompts of one segmentation on one volume.

    Parameters
    ----------
    scene, segmentation, volume
        The nodes to work on. Prompts saved in the scene are taken up and tied to their markups again.
    on_event
        Called with a `PromptEvent` for every change, whoever made it. May be set later.
    time
        Time point that new prompts belong to.

    Raises
    ------
    PromptError
        If the scene holds prompts that cannot be read; nothing is changed then.
    """

    def __init__(
        self,
        scene: vtkMRMLScene,
        segmentation: vtkMRMLSegmentationNode,
        volume: vtkMRMLVolumeNode,
        on_event: Callable[[PromptEvent], None] | None = None,
        time: int = 0,
    ) -> None:
        self.on_event = on_event
        self.time = time
        self.model = ""
        self.nodes = MarkupNodes(scene, segmentation, volume)
        self._scene = scene
        self._volume = volume
        self._local = VolumeFrame.of(volume).local
        self.store = PromptStore(scene, segmentation, volume, self._local)
        if self.store.adopts:
            self.nodes.adopt()
        self._observer = MarkupObserver(
            scene, volume, self.nodes, on_change=self._sync, on_removed=self._node_removed, on_volume=self.follow_volume
        )
        self._restore()

    # -- reading -------------------------------------------------------------------------------------------------

    def records(self, segment_id: str | None = None) -> tuple[PromptRecord, ...]:
        """The records of a segment (None: of all), in the order they were given: enough to replay them."""
        return tuple(record for record in self.store.records if segment_id in (None, record.segment_id))

    @property
    def frame(self) -> VolumeFrame:
        """The volume's frame as it is now."""
        return VolumeFrame.of(self._volume)

    def slices(self, plane: Plane) -> SliceGeometry:
        """The volume's stack of slices in a plane."""
        return SliceGeometry(self.frame.geometry, plane)

    def is_inside(self, record: PromptRecord) -> bool:
        """Whether a prompt lies in the volume, which may have got other voxels since."""
        try:
            slice_index(record.prompt, self.slices(record.prompt.plane))
        except (PromptError, GeometryError):
            return False
        return True

    # -- changing ------------------------------------------------------------------------------------------------

    def add(
        self, segment_id: str, prompt: Prompt, role: str = "", time: int | None = None, candidate: int = 0
    ) -> PromptRecord:
        """Add a prompt and its markup; a mask replaces the mask of its slice. One step of undo.

        Parameters
        ----------
        segment_id, prompt
            What is added.
        role, time, candidate
            As in `PromptRecord`; by default the current time point.

        Raises
        ------
        PromptError
            If the prompt is empty, outside the volume or not on one slice; nothing is changed then.
        """
        slice_index(prompt, self.slices(prompt.plane))
        time = self.time if time is None else time
        record = PromptRecord(segment_id, prompt, time, role, self.model, candidate=candidate)
        slot = record.mask_slot
        same = next((old for old in self.store.records if slot is not None and old.mask_slot == slot), None)
        if same is not None:
            self._do(self.store.changed(same.uid, PromptRecord(segment_id, prompt, time, role, self.model, same.uid)))
        else:
            self._do(self.store.added(self._shown(record)))
        return self.store.get(record.uid if same is None else same.uid)

    def add_together(self, segment_id: str, prompts: Iterable[Prompt], instead_of: Iterable[str] = ()) -> None:
        """Add several prompts (no masks), and remove those of these uids, as one step of undo.

        Raises
        ------
        PromptError
            If one of the prompts is outside the volume or not on one slice; nothing is changed then.
        """
        gone = [self.store.changed(uid, None) for uid in instead_of]
        first = len(self.store.records) - len(gone)
        made = [PromptRecord(segment_id, prompt, self.time, "", self.model) for prompt in prompts]
        for record in made:
            slice_index(record.prompt, self.slices(record.prompt.plane))
        added = [PromptChange(None, record, first + n) for n, record in enumerate(made)]
        self._do(*sorted(gone, key=lambda change: -change.position), *added)

    def add_drawn(
        self, kind_name: str, segment_id: str, points_ras: np.ndarray, view: vtkMRMLSliceNode
    ) -> PromptRecord:
        """Add what was drawn in a view, (N, 3) in the world: scribble, lasso, or a box over its extent."""
        frame = self.frame
        slices = SliceGeometry(frame.geometry, plane_of_view(view, frame, np.mean(points_ras, axis=0)))
        return self.add(segment_id, KINDS[kind_name].make(frame.ijk_from_ras(points_ras), slices))

    def replace(self, uid: str, prompt: Prompt) -> PromptRecord:
        """Give a record another prompt of the same kind; its markup follows. One step of undo."""
        record = self.store.get(uid)
        if kind_of(prompt) is not kind_of(record.prompt):
            raise PromptError(f"A {record.prompt.kind} cannot become a {prompt.kind}: remove it and add the other.")
        slice_index(prompt, self.slices(prompt.plane))
        self._do(self.store.changed(uid, record.with_prompt(prompt)))
        return self.store.get(uid)

    def remove(self, uids: Iterable[str]) -> None:
        """Remove prompts with their markups, as one step of undo."""
        changes = [self.store.changed(uid, None) for uid in uids]
        if changes:
            self._do(*sorted(changes, key=lambda change: -change.position))

    @property
    def can_undo(self) -> bool:
        return self.store.can_undo

    @property
    def can_redo(self) -> bool:
        return self.store.can_redo

    def undo(self) -> bool:
        """Take the last action back; False if there is none."""
        self._observer.note("")
        return self._show_changes(self.store.undo())

    def redo(self) -> bool:
        """Do again what was undone last; False if there is nothing."""
        self._observer.note("")
        return self._show_changes(self.store.redo())

    def follow_volume(self) -> None:
        """After the volume moved or was hardened: markups go to their voxels again."""
        with self._observer.muted():
            self.nodes.follow_volume()
            local = VolumeFrame.of(self._volume).local
            if not local.matches(self._local, tolerance_mm=1e-6):
                self._local = local
                for record in self.store.records:
                    self._update(record)

    def close(self) -> None:
        """Stop watching the scene; nodes stay."""
        self._observer.close()

    # -- from records to markups ---------------------------------------------------------------------------------

    def _do(self, *changes: PromptChange, amend: bool = False) -> None:
        self.store.do(changes, amend)
        self._show_changes(changes)

    def _show_changes(self, changes: tuple[PromptChange, ...]) -> bool:
        with self._observer.muted():
            for change in changes:
                if change.after is None:
                    self._hide(change.before)
                elif not self._update(self.store.get(change.after.uid)):
                    tied = self._shown(change.after)
                    self.store.retie(tied.uid, tied.control_point)
            if changes:
                self.store.write()
        for change in changes:
            self._tell(change)
        return bool(changes)

    def _shown(self, record: PromptRecord) -> PromptRecord:
        """Make the markup of a record; the record tied to it."""
        kind = kind_of(record.prompt)
        if kind is None:
            return record
        with self._observer.muted():
            if kind.is_shared:
                node = self.nodes.shared(kind, record.segment_id)
                node.AddControlPoint(*self._local_point(record))
                self._observer.watch(node)
                return record.tied_to(node.GetNthControlPointID(node.GetNumberOfControlPoints() - 1))
            node = self.nodes.of_prompt(record.uid) or self.nodes.make(kind, record.segment_id, record.uid)
            write_points(node, record.prompt, self.slices(record.prompt.plane), self._local)
            self._observer.watch(node)
            return record

    def _update(self, record: PromptRecord) -> bool:
        """Bring a record's markup to its place; False if there is none yet."""
        kind = kind_of(record.prompt)
        if kind is None:
            return True
        if not kind.is_shared:
            node = self.nodes.of_prompt(record.uid)
            if node is not None and not self._is_shown_by(node, kind, record):
                write_points(node, record.prompt, self.slices(record.prompt.plane), self._local)
            return node is not None
        node = self.nodes.shared(kind, record.segment_id)
        point = node.GetControlPointIndexByID(record.control_point) if record.control_point else -1
        if point >= 0:
            node.SetNthControlPointPosition(point, *self._local_point(record))
        return point >= 0

    def _hide(self, record: PromptRecord) -> None:
        kind = kind_of(record.prompt)
        if kind is None:
            return
        if not kind.is_shared:
            self.nodes.remove(self.nodes.of_prompt(record.uid))
            return
        node = self.nodes.shared(kind, record.segment_id)
        point = node.GetControlPointIndexByID(record.control_point)
        if point >= 0:
            node.RemoveNthControlPoint(point)

    def _local_point(self, record: PromptRecord) -> tuple[float, float, float]:
        return tuple(float(x) for x in self._local.world_from_ijk(record.prompt.points_ijk)[0])

    def _is_shown_by(self, node: vtkMRMLMarkupsNode, kind: MarkupKind, record: PromptRecord) -> bool:
        return any(self._is_same(kind, points, record) for points in read_points(node, kind).values())

    def _is_same(self, kind: MarkupKind, points_local: np.ndarray, record: PromptRecord) -> bool:
        try:
            made = kind.make(self._local.ijk_from_world(points_local), self.slices(record.prompt.plane))
        except (PromptError, GeometryError):
            return False
        now, then = made.points_ijk, record.prompt.points_ijk
        return now.shape == then.shape and bool(np.abs(now - then).max() <= _SAME_IJK)

    # -- from markups to records ---------------------------------------------------------------------------------

    def _sync(self, node: vtkMRMLMarkupsNode, is_dragged: bool) -> None:
        """Compare what a markup shows with the records, and change the records."""
        kind, segment_id = kind_of_node(node), segment_of_node(node)
        shown = read_points(node, kind)
        known = self._records_of(node, kind, segment_id)
        for tie, points in shown.items():
            if tie not in known:
                self._placed(node, kind, segment_id, tie, points)
                self._observer.note(self.store.records[-1].uid if is_dragged and self.store.records else "")
            elif not self._is_same(kind, points, known[tie]):
                self._moved(kind, points, known[tie], is_dragged)
        gone = [self.store.changed(record.uid, None) for tie, record in known.items() if tie not in shown]
        if gone and (kind.is_shared or node.GetNumberOfControlPoints() == 0):
            self._do(*sorted(gone, key=lambda change: -change.position))

    def _records_of(self, node: vtkMRMLMarkupsNode, kind: MarkupKind, segment_id: str) -> dict[str, PromptRecord]:
        if not kind.is_shared:
            uid = node.GetAttribute(PROMPT_ATTRIBUTE)
            own = [record for record in self.store.records if record.uid == uid]
            return {"": own[0]} if own else {}
        return {
            record.control_point: record
            for record in self.store.records
            if record.segment_id == segment_id and kind_of(record.prompt) is kind
        }

    def _placed(
        self, node: vtkMRMLMarkupsNode, kind: MarkupKind, segment_id: str, tie: str, points: np.ndarray
    ) -> None:
        try:
            prompt = self._prompt_in_view(kind, points)
        except (PromptError, GeometryError) as error:
            with self._observer.muted():
                if kind.is_shared:
                    node.RemoveNthControlPoint(node.GetControlPointIndexByID(tie))
                else:
                    node.RemoveAllControlPoints()
            self._emit(PromptEvent(Action.REFUSED, None, message=str(error)))
            return
        record = PromptRecord(segment_id, prompt, self.time, "", self.model, control_point=tie)
        with self._observer.muted():
            if not kind.is_shared:
                node.SetAttribute(PROMPT_ATTRIBUTE, record.uid)
            if node.IsA("vtkMRMLMarkupsROINode"):
                write_points(node, prompt, self.slices(prompt.plane), self._local)
        self._do(self.store.added(record))

    def _moved(self, kind: MarkupKind, points: np.ndarray, record: PromptRecord, is_dragged: bool) -> None:
        slices = self.slices(record.prompt.plane)
        try:
            prompt = kind.make(self._local.ijk_from_world(points), slices)
            slice_index(prompt, slices)
        except (PromptError, GeometryError) as error:
            with self._observer.muted():
                self._update(record)
            self._emit(PromptEvent(Action.REFUSED, record, record, str(error)))
            return
        self._do(self.store.changed(record.uid, record.with_prompt(prompt)), amend=self._observer.goes_on(record.uid))
        if is_dragged:
            self._observer.note(record.uid)

    def _prompt_in_view(self, kind: MarkupKind, points_local: np.ndarray) -> Prompt:
        """The prompt that points make on the plane of the view they were placed in; without a view, axial."""
        frame = self.frame
        points_ijk = self._local.ijk_from_world(points_local)
        on_view = frame.ras_from_ijk(points_ijk)
        if kind.node_class == "vtkMRMLMarkupsROINode":
            on_view = on_view.mean(axis=0, keepdims=True)
        view = view_of_points(self._scene, on_view)
        plane = (
            Plane.named("axial", frame.geometry) if view is None else plane_of_view(view, frame, on_view.mean(axis=0))
        )
        slices = SliceGeometry(frame.geometry, plane)
        prompt = kind.make(points_ijk, slices)
        slice_index(prompt, slices)
        return prompt

    def _node_removed(self, node: vtkMRMLMarkupsNode) -> None:
        """The user removed one of our nodes."""
        known = self._records_of(node, kind_of_node(node), segment_of_node(node)).values()
        changes = [self.store.changed(record.uid, None) for record in known]
        if changes:
            self._do(*sorted(changes, key=lambda change: -change.position))

    def _restore(self) -> None:
        """Tie records of the scene to their markups; make those that are missing, take up those that are new."""
        with self._observer.muted():
            for record in self.store.records:
                kind = kind_of(record.prompt)
                tied = self._found_again(record) if kind is not None and kind.is_shared else record
                if kind is not None and tied is None or kind is not None and not self._has_markup(record, kind):
                    tied = self._shown(record)
                self.store.retie(record.uid, (tied or record).control_point)
            for node in self.nodes:
                self._observer.watch(node)
        for node in self.nodes:
            self._sync(node, is_dragged=False)
        self.store.write()

    def _has_markup(self, record: PromptRecord, kind: MarkupKind) -> bool:
        return kind.is_shared or self.nodes.of_prompt(record.uid) is not None

    def _found_again(self, record: PromptRecord) -> PromptRecord | None:
        """The record tied to its control point, by id or, where ids were renewed, by place."""
        kind = kind_of(record.prompt)
        shown = read_points(self.nodes.shared(kind, record.segment_id), kind)
        if record.control_point in shown:
            return record
        same = [tie for tie, points in shown.items() if self._is_same(kind, points, record)]
        return record.tied_to(same[0]) if same else None

    # -- telling -------------------------------------------------------------------------------------------------

    def _tell(self, change: PromptChange) -> None:
        if change.before is None:
            self._emit(PromptEvent(Action.PLACED, self.store.get(change.after.uid)))
        elif change.after is None:
            self._emit(PromptEvent(Action.REMOVED, change.before, change.before))
        else:
            self._emit(PromptEvent(Action.MOVED, self.store.get(change.after.uid), change.before))

    def _emit(self, event: PromptEvent) -> None:
        if self.on_event is not None:
            self.on_event(event)

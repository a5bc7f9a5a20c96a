"""What the user says to the model: the verbs that place, change, keep and replay prompts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.mrml.controller_corrections import Corrections
from SegmentAnythingMedLib.mrml.controller_exchange import read_prompts, write_prompts
from SegmentAnythingMedLib.mrml.controller_work import told
from SegmentAnythingMedLib.mrml.markup_kinds import KINDS
from SegmentAnythingMedLib.mrml.markup_nodes import kind_of_node
from SegmentAnythingMedLib.mrml.placing import PromptPlacing
from SegmentAnythingMedLib.mrml.prompt_record import PromptRecord
from SegmentAnythingMedLib.mrml.scene import volume_from_node
from SegmentAnythingMedLib.mrml.segment_reader import mask_from_segment
from SegmentAnythingMedLib.mrml.slice_views import slice_of_view
from SegmentAnythingMedLib.prompts import Prompt

if TYPE_CHECKING:
    from slicer import vtkMRMLMarkupsNode, vtkMRMLSliceNode

_DRAWN = {name for name in KINDS if "scribble" in name}


class Prompting(Corrections):
    """The part of `Controller` that is about prompts."""

    # -- prompts -------------------------------------------------------------------------------------------------

    @told
    def start_placing(self, kind: str) -> vtkMRMLMarkupsNode | None:
        """Let the next clicks place a prompt: ``point``, ``background``, ``box`` or ``lasso``.

        ``scribble`` and ``background-scribble`` are drawn: the host gives the strokes to `add_drawn`.
        """
        self._needed_segment()
        self.stop_placing()
        self._open_when_usable()
        if kind in _DRAWN:
            self._drawn_kind = kind
            return None
        self._placing = PromptPlacing(self.scene, self.volume, self.markups)
        return self._placing.start(kind, self.segment_id)

    @told
    def stop_placing(self) -> None:
        """Back to looking."""
        self._drawn_kind = ""
        if self._placing is not None:
            self._placing.stop()
            self._placing = None

    @property
    def placing_kind(self) -> str:
        """What the next click or drag makes; empty while nothing is placed."""
        node = self._placing.node if self._placing is not None else None
        return kind_of_node(node).name if node is not None else self._drawn_kind

    @told
    def add_drawn(self, kind: str, points_ras: np.ndarray, view: vtkMRMLSliceNode) -> PromptRecord:
        """Add a scribble, lasso or dragged box, (N, 3) in the world, drawn in a view."""
        self._needed_segment()
        return self.markups.add_drawn(kind, self.segment_id, points_ras, view)

    @told
    def add_prompt(self, prompt: Prompt) -> PromptRecord:
        """Add a prompt to the segment."""
        self._needed_segment()
        return self.markups.add(self.segment_id, prompt)

    @told
    def remove_prompts(self, uids: Iterable[str]) -> None:
        """Remove prompts by uid, as one step of undo."""
        self._needed_markups().remove(uids)

    @told
    def use_segment_as_prompt(self, view: vtkMRMLSliceNode | None) -> PromptRecord:
        """Give the user's segment on the slice that a view shows to the model as a prompt."""
        self._needed_segment()
        frame = self.markups.frame
        shown = slice_of_view(self._needed_view(view), frame)
        slices = self.markups.slices(shown.plane)
        return self.markups.add(
            self.segment_id, mask_from_segment(self.segmentation, self.segment_id, frame, slices, shown.index)
        )

    @told
    def cycle_candidate(self, step: int = 1) -> None:
        """Take the next (1) or previous (-1) outline of the last click."""
        if self.segment_id not in self.segments:
            raise PromptError("There is no outline yet: click on the structure first.")
        self.outlining.cycle_candidate(self.segments.of(self.segment_id), step)

    @property
    def candidate(self) -> tuple[int, int]:
        """The chosen candidate of the last prompted slice, from 0, and how many there are."""
        segment = self.segments.of(self.segment_id) if self.segment_id in self.segments else None
        count, chosen = segment.candidates.get(segment.at, (1, 0)) if segment is not None else (0, 0)
        return chosen, count

    @property
    def can_undo_prompt(self) -> bool:
        """Whether there is a prompt, move or removal to take back."""
        return self.markups is not None and self.markups.can_undo

    @property
    def can_redo_prompt(self) -> bool:
        """Whether there is something to do again."""
        return self.markups is not None and self.markups.can_redo

    @told
    def undo_prompt(self) -> None:
        """Take back the last prompt, move or removal."""
        if not self._needed_markups().undo():
            raise PromptError("There is no prompt to take back.")

    @told
    def redo_prompt(self) -> None:
        """Do again what was taken back."""
        if not self._needed_markups().redo():
            raise PromptError("There is nothing to do again.")

    @told
    def clear(self) -> None:
        """Remove all prompts of the segment, as one step of undo."""
        self._needed_markups().remove([item.uid for item in self.markups.records(self.segment_id)])

    @told
    def replay(self) -> None:
        """Make the outlines of all prompts of the segment again, as after loading a scene."""
        self._needed_segment()
        self.outlining.replay(self.segments.of(self.segment_id), None)

    @told
    def export_prompts(self, path: str | Path) -> None:
        """Write all prompts as the library's JSON."""
        self._needed_markups()
        write_prompts(Path(path), self.markups, self.segmentation)
        self.tell(f"The prompts were written to {Path(path).name}.")

    @told
    def import_prompts(self, path: str | Path) -> None:
        """Read prompts of the library's JSON; segments are found by name or made, and outlined."""
        self._needed_segmentation()
        self._is_muted = True
        try:
            volume = volume_from_node(self.volume)
            segment_ids = read_prompts(Path(path), self.markups, self.segmentation, volume)
        finally:
            self._is_muted = False
        for segment_id in segment_ids:
            self.segment_id = self.segment_id or segment_id
            self.outlining.replay(self.segments.of(segment_id), None)

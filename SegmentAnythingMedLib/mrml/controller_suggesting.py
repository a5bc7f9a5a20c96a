"""Prompts without clicking: the worker's prompt sources are asked, and what they make becomes ordinary prompts."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import PromptError
from SegmentAnythingMedLib.geometry import Plane, SliceGeometry
from SegmentAnythingMedLib.mrml.controller_link import Job, Purpose
from SegmentAnythingMedLib.mrml.controller_range import Ranging
from SegmentAnythingMedLib.mrml.controller_work import told
from SegmentAnythingMedLib.mrml.prompt_markups import Action, PromptEvent
from SegmentAnythingMedLib.mrml.segment_reader import segment_on_slice
from SegmentAnythingMedLib.mrml.slice_views import slice_of_view
from SegmentAnythingMedLib.mrml.suggestion_inputs import (
    NOTHING,
    SuggestionInput,
    line_inputs,
    lines_ijk,
    segment_inputs,
    segment_of_key,
)
from SegmentAnythingMedLib.prompts import Prompt, slice_index
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.client import WorkerClient
from SegmentAnythingMedLib.worker.suggest_messages import SOURCES

if TYPE_CHECKING:
    from slicer import vtkMRMLScene, vtkMRMLSliceNode

_LOOK_S = 0.25
"""How often the scene is looked through for segments and rulers."""

_LAST_RANK = 20

_Here = tuple[str, str, int, Plane, int]
"""Source, segment, time point, plane and slice: what makes another press a further one of the same."""


@dataclass(frozen=True)
class _Asked:
    """What the worker was asked last, and for which segment; ``rank`` counts what stands out."""

    job: int
    source: str
    segment_id: str
    plane: Plane
    index: int
    rank: int = 1


class Suggesting(Ranging):
    """The part of `Controller` that asks prompt sources."""

    def __init__(self, scene: vtkMRMLScene, client_factory: Callable[[], WorkerClient] = WorkerClient) -> None:
        super().__init__(scene, client_factory)
        self.suggestion = SOURCES[0]
        self.suggestion_inputs: tuple[SuggestionInput, ...] = ()
        self._chosen_inputs: dict[str, str] = {}
        self._looked_at = 0.0
        self._asked: _Asked | None = None
        self._suggested: dict[_Here, dict[str, Prompt]] = {}
        self._ranks: dict[_Here, int] = {}

    # -- choosing ------------------------------------------------------------------------------------------------

    @told
    def choose_suggestion(self, source: str, key: str | None = None) -> None:
        """Choose a prompt source, and by its key what it is given, one of `suggestion_inputs`."""
        if source not in SOURCES:
            raise PromptError(f"The prompt source {source!r} is not known: use one of {', '.join(SOURCES)}.")
        self.suggestion, self._is_changed = source, True
        if key is not None:
            self._chosen_inputs[source] = key
        self._look_for_inputs()

    @property
    def suggestion_input(self) -> SuggestionInput | None:
        """What the source will be given: the user's choice while it is there, else the first; None if nothing is."""
        chosen = self._chosen_inputs.get(self.suggestion)
        there = self.suggestion_inputs
        return next((one for one in there if one.key == chosen), there[0] if there else None)

    def attend_to_scene(self) -> None:
        """As before; and segments and rulers come and go."""
        super().attend_to_scene()
        if clock.monotonic() - self._looked_at >= _LOOK_S:
            self._look_for_inputs()

    def _look_for_inputs(self) -> None:
        self._looked_at = clock.monotonic()
        found: tuple[SuggestionInput, ...] = (NOTHING,)
        if self.volume is None:
            found = ()
        elif self.suggestion == "ruler":
            found = line_inputs(self.scene)
        elif self.suggestion != "saliency":
            segments = segment_inputs(self.scene, self.segmentation, self.segment_id)
            found = segments if self.suggestion == "rough_mask" else (NOTHING, *segments)
        self._is_changed |= found != self.suggestion_inputs
        self.suggestion_inputs = found

    # -- asking --------------------------------------------------------------------------------------------------

    @told
    def suggest(self, view: vtkMRMLSliceNode | None = None) -> None:
        """Ask the chosen prompt source about the slice that a view shows; a ruler says its slice itself.

        The prompts come as one step of undo. Asked again, it takes back what it gave for this segment on this slice and
        the user left as it was; of what stands out it then takes the next.
        """
        frame = self._needed_frame()
        self._look_for_inputs()
        given = self.suggestion_input
        if given is None:
            what = (
                "ruler: draw a line with the tools of Markups first"
                if self.suggestion == "ruler"
                else "segment: outline and accept one first"
            )
            raise PromptError(f"The scene has no {what}.")
        shown = slice_of_view(self._needed_view(view), frame)
        command = self._command(given.key, shown.plane, shown.index)
        self._needed_segment()
        self.link.cancel(Purpose.SUGGESTION)
        job = self.link.track(self.link.client.suggest_prompts(command), Purpose.SUGGESTION, self.segment_id)
        rank = command.settings.get("rank", 1)
        self._asked = _Asked(job, self.suggestion, self.segment_id, shown.plane, shown.index, rank)
        self.tell("Looking for prompts.")

    def end_work(self) -> None:
        """As before; and what was suggested belongs to that work."""
        super().end_work()
        self._asked = None
        self._suggested.clear()
        self._ranks.clear()

    def _command(self, key: str, plane: Plane, index: int) -> m.SuggestPrompts:
        if self.suggestion == "ruler":
            lines = lines_ijk(self.scene, key, self._needed_frame())
            return m.SuggestPrompts(0, self.suggestion, plane, lines_ijk=lines)
        if self.suggestion == "saliency":
            return m.SuggestPrompts(0, self.suggestion, plane, index, settings={"rank": self._next_rank(plane, index)})
        mask = None
        if key:
            frame = self._needed_frame()
            node, segment_id, name = segment_of_key(self.scene, key)
            mask = segment_on_slice(node, segment_id, frame, SliceGeometry(frame.geometry, plane), index)
            if not mask.any():
                raise PromptError(f"{name} has nothing on slice {index}: show a slice where it is.")
        return m.SuggestPrompts(0, self.suggestion, plane, index, mask)

    def _next_rank(self, plane: Plane, index: int) -> int:
        return min(self._ranks.get((self.suggestion, self.segment_id, self.time, plane, index), 0) + 1, _LAST_RANK)

    # -- the worker's answer -------------------------------------------------------------------------------------

    def _take(self, event: m.Event) -> None:
        if isinstance(event, m.SuggestedPrompts):
            if self._asked is not None and event.job == self._asked.job and event.job in self.link.jobs:
                self._take_suggestion(self._asked, event.prompts)
        else:
            super()._take(event)

    def _take_suggestion(self, asked: _Asked, prompts: tuple[Prompt, ...]) -> None:
        known = self.segmentation.GetSegmentation().GetSegment(asked.segment_id) if self.segmentation else None
        if known is None or self.markups is None or not prompts:
            return
        index = slice_index(prompts[0], self.markups.slices(asked.plane))
        here = asked.source, asked.segment_id, self.time, asked.plane, index
        self._is_muted = True  # one outline from all of them, not one for each
        try:
            before = {record.uid for record in self.markups.records()}
            self.markups.add_together(asked.segment_id, prompts, self._untouched(here))
        finally:
            self._is_muted = False
        made = [record for record in self.markups.records(asked.segment_id) if record.uid not in before]
        self._suggested.setdefault(here, {}).update({record.uid: record.prompt for record in made})
        self._ranks[here] = asked.rank
        self.prompt_changed(PromptEvent(Action.PLACED, made[-1]))
        if index != asked.index and asked.segment_id == self.segment_id:
            self.go_to_slice(index)
        self.tell(f"{_counted(prompts)} on slice {index}: look at them, move or remove them; Undo takes all back.")

    def _untouched(self, here: _Here) -> list[str]:
        """What the source gave before and nobody moved, removed or accepted."""
        given: Mapping[str, Prompt] = self._suggested.get(here, {})
        accepted = self.segments.of(here[1]).accepted
        records = self.markups.records(here[1])
        return [one.uid for one in records if given.get(one.uid) == one.prompt and one.uid not in accepted]

    def _job_ended(self, event: m.JobDone | m.JobCancelled | m.JobFailed, job: Job) -> None:
        super()._job_ended(event, job)
        asked = self._asked
        if asked is not None and event.job == asked.job:
            self._asked = None
            if isinstance(event, m.JobFailed) and event.error == "PromptError" and asked.rank > 1:
                self._ranks.pop((asked.source, asked.segment_id, self.time, asked.plane, asked.index), None)
                self.tell("Nothing else stands out on this slice: press again to begin with the first.")


def _counted(prompts: tuple[Prompt, ...]) -> str:
    """``A box and 3 clicks``."""
    boxes, clicks = (sum(one.kind == kind for one in prompts) for kind in ("box", "point"))
    words = ["a box"] if boxes else []
    words += [f"{clicks} click{'' if clicks == 1 else 's'}"] if clicks else []
    text = " and ".join(words)
    return text[:1].upper() + text[1:]

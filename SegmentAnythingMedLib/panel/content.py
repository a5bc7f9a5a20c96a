"""What the panel shows at a moment: words, numbers and which buttons can be pressed, read from the controller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.mrml.controller_review import SliceReview
from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.slice_views import cursor_view, slice_of_view
from SegmentAnythingMedLib.panel.actions import ACTIONS
from SegmentAnythingMedLib.panel.suggestions import SuggestionContent, suggestion_content

if TYPE_CHECKING:
    from slicer import vtkMRMLSliceNode

    from SegmentAnythingMedLib.mrml.controller import Controller


@dataclass(frozen=True)
class SegmentLine:
    """One segment in the list: id, name, and colour as three numbers from 0 to 1."""

    segment_id: str
    name: str
    color: tuple[float, float, float]


@dataclass(frozen=True)
class PanelContent:
    """The panel at a moment.

    Parameters
    ----------
    state
        What goes on.
    status
        One sentence.
    is_error
        Whether nothing can be done before the user reads the status.
    allowed
        Names of the actions that can be done now.
    placing
        Kind of prompt that the next click places, or empty.
    segments
        Of the segmentation that is worked on.
    segment_id
        The chosen one, or empty.
    suggestion
        The row that suggests prompts.
    candidate
        "2 of 3", or empty where there is only one.
    quality
        Predicted quality, 0 to 1, of the outline on the slice of the last prompt; None without one.
    quality_text
        The same in words.
    range_text
        "automatic" or "34 to 112".
    progress
        0 to 1, or None where nothing runs.
    progress_text
        "slice 71 of 79, 6 s left", or empty.
    strip
        Quality along the slices.
    strip_text
        How many slices there are and how many are weak.
    shown_slice
        Index on the strip of the slice that the view shows, or None.
    device
        Where the model runs, "CPU" for example; empty until it is loaded.
    """

    state: State
    status: str
    is_error: bool
    allowed: frozenset[str]
    placing: str
    segments: tuple[SegmentLine, ...]
    segment_id: str
    suggestion: SuggestionContent
    candidate: str
    quality: float | None
    quality_text: str
    range_text: str
    progress: float | None
    progress_text: str
    strip: tuple[SliceReview, ...]
    strip_text: str
    shown_slice: int | None
    device: str


def content_of(controller: Controller, view: vtkMRMLSliceNode | None = None) -> PanelContent:
    """Read the panel's content.

    Parameters
    ----------
    controller
        Of the user's work.
    view
        The slice view that the user looks at, by default the one under the cursor.
    """
    strip = controller.review()
    shown = _reviewed_slice(controller, strip)
    chosen, count = controller.candidate
    done, text = _progress(controller)
    return PanelContent(
        state=controller.state,
        status=controller.status,
        is_error=controller.state is State.FAILED,
        allowed=frozenset(action.name for action in ACTIONS if action.allowed(controller)),
        placing=controller.placing_kind,
        segments=_segments(controller),
        segment_id=controller.segment_id,
        suggestion=suggestion_content(controller),
        candidate=f"{chosen + 1} of {count}" if count > 1 else "",
        quality=None if shown is None else shown.quality,
        quality_text=_quality_text(shown),
        range_text=_range_text(*controller.range),
        progress=done,
        progress_text=text,
        strip=strip,
        strip_text=_strip_text(strip),
        shown_slice=_shown_slice(controller, view, strip),
        device=_device(controller),
    )


def _device(controller: Controller) -> str:
    loaded = controller.model_loaded
    return loaded.device.upper() if loaded is not None and loaded.device != "auto" else ""


def _segments(controller: Controller) -> tuple[SegmentLine, ...]:
    if controller.segmentation is None:
        return ()
    segmentation = controller.segmentation.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    found = [(segment_id, segmentation.GetSegment(segment_id)) for segment_id in ids]
    return tuple(SegmentLine(segment_id, item.GetName(), tuple(item.GetColor())) for segment_id, item in found)


def _reviewed_slice(controller: Controller, strip: tuple[SliceReview, ...]) -> SliceReview | None:
    if controller.segment_id not in controller.segments:
        return None
    at = controller.segments.of(controller.segment_id).at
    found = [item for item in strip if at is not None and item.index == at[1] and not item.is_empty]
    return found[0] if found else None


def _quality_text(shown: SliceReview | None) -> str:
    if shown is None:
        return ""
    text = f"{shown.quality:.2f}"
    return f"{text}, a draft: correct it, or try a larger model" if shown.quality < shown.limit else text


def _range_text(first: int | None, last: int | None) -> str:
    if first is None and last is None:
        return "automatic"
    return f"{'start' if first is None else first} to {'end' if last is None else last}"


def _progress(controller: Controller) -> tuple[float | None, str]:
    proposals, progress = controller.proposals, controller.progress
    if proposals is not None and proposals.is_writing:
        return proposals.fraction, "writing the segment"
    if controller.state is not State.PROPAGATING:
        return None, ""
    if not progress.total:
        return 0.0, "starting"
    left = f", {progress.seconds_left:.0f} s left" if progress.done < progress.total else ""
    return progress.done / progress.total, f"slice {progress.done} of {progress.total}{left}"


def _strip_text(strip: tuple[SliceReview, ...]) -> str:
    if not strip:
        return ""
    weak = sum(item.is_weak for item in strip)
    there = sum(not item.is_empty for item in strip)
    return f"{there} {'slice' if there == 1 else 'slices'}, {weak or 'none'} weak"


def _shown_slice(controller: Controller, view: vtkMRMLSliceNode | None, strip: tuple[SliceReview, ...]) -> int | None:
    view = view or cursor_view(controller.scene)
    if not strip or view is None or controller.markups is None:
        return None
    try:
        shown = slice_of_view(view, controller.markups.frame)
    except SegmentAnythingMedError:
        return None  # the view is beside the volume
    return shown.index if shown.plane == controller.segments.of(controller.segment_id).at[0] else None

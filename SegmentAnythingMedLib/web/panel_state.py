"""The panel's content as values that JSON can hold: what the browser's templates read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from SegmentAnythingMedLib.mrml.controller_states import State
from SegmentAnythingMedLib.mrml.sequences import browser_of
from SegmentAnythingMedLib.panel.content import PanelContent, content_of
from SegmentAnythingMedLib.panel.models import ModelChoice
from SegmentAnythingMedLib.panel.suggestions import SuggestionContent
from SegmentAnythingMedLib.web.quality_strip import HEIGHT, WIDTH, QualityStrip, strip_of

if TYPE_CHECKING:
    from slicer import vtkMRMLSliceNode

    from SegmentAnythingMedLib.memory.policies import PolicyChoice
    from SegmentAnythingMedLib.mrml.controller import Controller
    from SegmentAnythingMedLib.web.workspace import Workspace

_PLACING_HINTS = {
    "point": "Click on the structure.",
    "background": "Click where the structure is not.",
    "box": "Click two corners round the structure, or drag.",
    "scribble": "Drag inside the structure.",
    "background-scribble": "Drag where the structure is not.",
    "lasso": "Drag round the structure.",
}


def panel_values(workspace: Workspace, view: vtkMRMLSliceNode | None) -> tuple[dict[str, Any], QualityStrip]:
    """What the panel shows now, and its strip.

    Parameters
    ----------
    workspace
        Of the session.
    view
        The slice view that the user looks at.
    """
    controller = workspace.controller
    content = content_of(controller, view)
    strip = strip_of(content.strip, content.shown_slice)
    browser = browser_of(controller.volume) if controller.volume is not None else None
    values = _words(content) | {
        "busy": workspace.busy,
        "volumes": [{"id": node.GetID(), "name": node.GetName()} for node in workspace.volume_nodes],
        "volume": controller.volume.GetID() if controller.volume is not None else "",
        "model": controller.link.model,
        "window": controller.link.window,
        "messages": list(controller.messages),
        "timeCount": browser.GetNumberOfItems() if browser is not None else 1,
        "timePoint": controller.time,
        "timeFree": is_free(controller),
        "throughTime": is_free(controller) and controller.has_time_points and bool(controller.segment_id),
        "channels": list(workspace.channels),
        "policy": controller.link.policy,
    }
    return values, strip


def is_free(controller: Controller) -> bool:
    """Whether the time point can be changed without ending something."""
    return controller.state in (State.PROMPTING, State.REVIEWING) and not (
        controller.proposals is not None and controller.proposals.is_writing
    )


def policy_values(choices: tuple[PolicyChoice, ...]) -> list[dict[str, str]]:
    """The list of memory policies."""
    return [
        {"name": one.name, "label": f"{one.name.replace('_', ' ').capitalize()} ({one.note})", "detail": one.sentence}
        for one in choices
    ]


def strip_values(strip: QualityStrip) -> dict[str, Any]:
    """The strip's paths and the numbers under its ends."""
    return {
        "good": strip.good,
        "weak": strip.weak,
        "given": strip.given,
        "shown": strip.shown,
        "first": strip.first,
        "last": strip.first + strip.count - 1,
        "count": strip.count,
        "box": f"0 0 {WIDTH} {HEIGHT}",
    }


def model_values(choices: tuple[ModelChoice, ...]) -> list[dict[str, Any]]:
    """The list of models."""
    return [
        {
            "name": one.card.name,
            "label": one.label,
            "detail": model_detail(one),
            "ready": one.is_ready,
            "canChoose": one.is_ready or not one.has_weights,
        }
        for one in choices
    ]


def model_detail(choice: ModelChoice) -> str:
    """Licence, size and what is missing; the browser installs nothing, so it says what to install where."""
    if not choice.missing or not choice.has_weights:
        return choice.detail
    card, wanted = choice.card, " ".join(f'"{package.requirement}"' for package in choice.missing)
    only = " For research only." if card.research_only else ""
    where = f"Where this server runs: pip install {wanted}, then start it again."
    return f"{card.title}. Licence: {card.licence}.{only} {where}"


def _words(content: PanelContent) -> dict[str, Any]:
    hint = _PLACING_HINTS.get(content.placing, "")
    return {
        "state": content.state.value,
        "status": content.status,
        "isError": content.is_error,
        "hint": hint,
        "allowed": sorted(content.allowed),
        "placing": content.placing,
        "segments": [{"id": one.segment_id, "name": one.name, "color": _hex(one.color)} for one in content.segments],
        "segment": content.segment_id,
        "suggestion": _suggestion(content.suggestion),
        "candidate": content.candidate,
        "quality": None if content.quality is None else round(content.quality, 3),
        "qualityText": content.quality_text,
        "rangeText": content.range_text,
        "progress": None if content.progress is None else round(100 * content.progress, 1),
        "progressText": content.progress_text,
        "stripText": content.strip_text,
        "device": content.device,
    }


def _suggestion(row: SuggestionContent) -> dict[str, Any]:
    return {
        "source": row.kind.source,
        "tip": row.kind.tip,
        "inputs": [{"key": one.key, "label": one.label} for one in row.shown],
        "chosen": row.chosen,
        "isChoice": row.is_choice,
    }


def _hex(color: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * min(max(channel, 0.0), 1.0)):02x}" for channel in color)

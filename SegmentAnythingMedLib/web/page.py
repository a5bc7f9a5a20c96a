"""The app's one page: the panel's sections as a template that the browser fills from the session's state."""

from __future__ import annotations

from html import escape
from importlib import resources

from SegmentAnythingMedLib.panel.actions import ACTIONS, Action, keys
from SegmentAnythingMedLib.panel.suggestions import KINDS
from SegmentAnythingMedLib.web.downloads import PROMPTS_KIND, SEGMENT_KINDS
from SegmentAnythingMedLib.web.views import PLACES, ViewPlace
from SegmentAnythingMedLib.windowing import WINDOW_NAMES

FAVICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='3' fill='%231e232a'/%3E"
    "%3Ccircle cx='8' cy='8' r='4' fill='none' stroke='%234aa3a0' stroke-width='2'/%3E%3C/svg%3E"
)


def page() -> str:
    """The template of the whole page."""
    text = resources.files(__package__).joinpath("static", "page.html").read_text("utf-8")
    for name, content in _parts().items():
        text = text.replace(f"<!-- {name} -->", content)
    return text


def shortcuts() -> dict[str, str]:
    """Key in the browser's words (``Shift+n``, ``Enter``, ``,``) to the action's name."""
    named = {_browser_key(action.key): action.name for action in ACTIONS if action.key}
    return {"Escape": "stop", **named}


def _parts() -> dict[str, str]:
    parts = {f"button {action.name}": _button(action) for action in ACTIONS}
    parts["views"] = "".join(_view(place) for place in PLACES)
    parts["windows"] = "".join(f'<option value="{name}">{_window_label(name)}</option>' for name in _window_names())
    parts["suggestions"] = "".join(
        f'<option value="{kind.source}" title="{escape(kind.tip)}">{escape(kind.label)}</option>' for kind in KINDS
    )
    parts["keys"] = "".join(f"<tr><td><kbd>{escape(key)}</kbd></td><td>{escape(tip)}</td></tr>" for key, tip in keys())
    kinds = {**SEGMENT_KINDS, PROMPTS_KIND: "Prompts (.json)"}
    parts["downloads"] = "".join(
        f'<button class="row" @click="utils.sam.download(\'{kind}\')">{escape(label)}</button>'
        for kind, label in kinds.items()
    )
    return parts


def _button(action: Action) -> str:
    tip = f"{action.tip} ({action.key})" if action.key else action.tip
    pressed = f":class=\"{{pressed: panel.placing === '{action.placing}'}}\"" if action.placing else ""
    return (
        f'<button data-action="{action.name}" title="{escape(tip)}" {pressed} '
        f":disabled=\"!panel.allowed.includes('{action.name}')\" "
        f"@click=\"trigger('act', ['{action.name}'])\">{_label(action)}</button>"
    )


def _label(action: Action) -> str:
    words = {"weak-previous": "‹ Weak", "weak-next": "Weak ›", "candidate-previous": "‹", "candidate-next": "›"}
    return escape(words.get(action.name, action.label))


def _view(place: ViewPlace) -> str:
    tag, is_slice = place.tag, place.tag != "ThreeD"
    slider = (
        f'<input type="range" v-if="sliders.{tag}" :min="sliders.{tag}.min" :max="sliders.{tag}.max" '
        f':step="sliders.{tag}.step" :value="sliders.{tag}.value" aria-label="{place.title} slice" '
        f"@input=\"utils.sam.scroll('{tag}', $event)\">"
    )
    words = f'<span v-if="sliders.{tag}" class="where">{{{{sliders.{tag}.text}}}}</span>'
    return (
        f'<section class="view" data-view="{tag}" style="--view-color: {place.color}" '
        f'v-show="!maximised || maximised === \'{tag}\'" :class="{{placing: panel.placing, '
        f"drawing: ['scribble','background-scribble','lasso'].includes(panel.placing)}}\">"
        f"<header><b>{place.title}</b>{words if is_slice else ''}<i></i>"
        f"<button title=\"Fit to the view\" @click=\"trigger('reset_view', ['{tag}'])\">Fit</button>"
        f"<button :title=\"maximised ? 'Show all views' : 'Show this view alone'\" "
        f"@click=\"trigger('maximise', ['{tag}'])\">{{{{maximised ? 'All' : 'Alone'}}}}</button></header>"
        f'<div class="picture"><trame-template template-name="{tag}"></trame-template><svg class="ink"></svg></div>'
        f"{slider if is_slice else ''}</section>"
    )


def _window_names() -> tuple[str, ...]:
    return (*WINDOW_NAMES, "display")


def _window_label(name: str) -> str:
    words = {"auto": "Automatic", "display": "As shown", "identity": "Whole range"}
    return words.get(name, name.replace("-", " ").capitalize())


def _browser_key(key: str) -> str:
    """Qt's name of a shortcut in the words of a keyboard event."""
    *modifiers, last = key.split("+") if len(key) > 1 else [key]
    known = {"Return": "Enter", "Escape": "Escape"}
    return "+".join([*modifiers, known.get(last, last.lower())])

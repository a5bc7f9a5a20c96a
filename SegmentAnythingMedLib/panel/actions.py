"""The buttons and keys of the panel: one table for the desktop module, the browser app and the help text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.mrml.controller_states import State

if TYPE_CHECKING:
    from slicer import vtkMRMLSliceNode

    from SegmentAnythingMedLib.mrml.controller import Controller

Do = Callable[["Controller", "vtkMRMLSliceNode | None"], object]
Allowed = Callable[["Controller"], bool]


@dataclass(frozen=True)
class Action:
    """Something the user can do with one click or key.

    Parameters
    ----------
    name
        Identifier; a button of the desktop's .ui file is named after it (``place-box`` is ``placeBoxButton``).
    label
        On the button.
    tip
        One sentence for the tooltip and the list of keys.
    key
        Shortcut in Qt's notation, acting only while a slice view of the active module has the focus; or empty.
    section
        Heading in the panel: prompt, propagate, review, result or more.
    do
        Does it; takes the controller and the slice view that the user looks at, or None.
    allowed
        Whether it can be done now.
    placing
        Kind of prompt that is placed while the button is held down; empty for others.
    """

    name: str
    label: str
    tip: str
    key: str
    section: str
    do: Do
    allowed: Allowed
    placing: str = ""


def _has_volume(controller: Controller) -> bool:
    return controller.state not in (State.IDLE, State.INSTALLING)


def _is_usable(controller: Controller) -> bool:
    return controller.is_usable


def _has_outline(controller: Controller) -> bool:
    segments, chosen = controller.segments, controller.segment_id
    return controller.is_usable and chosen in segments and segments.of(chosen).at is not None


def _can_propagate(controller: Controller) -> bool:
    return _has_outline(controller) and controller.state is not State.PROPAGATING and not _is_writing(controller)


def _can_cancel(controller: Controller) -> bool:
    return controller.state is State.PROPAGATING


def _is_writing(controller: Controller) -> bool:
    return controller.proposals is not None and controller.proposals.is_writing


def _has_proposal(controller: Controller) -> bool:
    proposals = controller.proposals
    return proposals is not None and any(segment in proposals for segment in controller.segments)


def _can_settle(controller: Controller) -> bool:
    return _has_proposal(controller) and not _is_writing(controller)


def _has_candidates(controller: Controller) -> bool:
    return controller.is_usable and controller.candidate[1] > 1


def _has_prompts(controller: Controller) -> bool:
    return controller.markups is not None and bool(controller.markups.records(controller.segment_id))


def _has_weak(controller: Controller) -> bool:
    return any(item.is_weak for item in controller.review())


def _place(kind: str) -> Do:
    def toggle(controller: Controller, _view: vtkMRMLSliceNode | None) -> None:
        if controller.placing_kind == kind:
            controller.stop_placing()
        else:
            controller.start_placing(kind)

    return toggle


def _placing(name: str, label: str, tip: str, key: str, kind: str) -> Action:
    return Action(f"place-{name}", label, tip, key, "prompt", _place(kind), _has_volume, kind)


def _escape(controller: Controller, _view: vtkMRMLSliceNode | None) -> None:
    if controller.placing_kind:
        controller.stop_placing()
    elif _can_cancel(controller):
        controller.cancel()


def _go_on(controller: Controller, _view: vtkMRMLSliceNode | None) -> None:
    controller.stop_placing()
    controller.add_segment()


def _from_segment(controller: Controller, view: vtkMRMLSliceNode | None) -> None:
    if view is None:
        controller.tell("No slice view is shown: choose a layout with one.")
    else:
        controller.use_segment_as_prompt(view)


def _whole_range(controller: Controller, _view: vtkMRMLSliceNode | None) -> None:
    controller.set_range(None, None)


ACTIONS: tuple[Action, ...] = (
    _placing("point", "+ Point", "Click on the structure.", "A", "point"),
    _placing("background", "- Point", "Click where the structure is not.", "X", "background"),
    _placing("box", "Box", "Box round the structure: two clicks, or drag.", "D", "box"),
    _placing("scribble", "Scribble", "Draw inside the structure.", "E", "scribble"),
    _placing("background-scribble", "- Scribble", "Draw where the structure is not.", "Shift+E", "background-scribble"),
    _placing("lasso", "Lasso", "Draw round the structure.", "L", "lasso"),
    Action(
        "from-segment",
        "Segment as mask",
        "Give what the segment has on this slice to the model, as a mask prompt.",
        "",
        "prompt",
        _from_segment,
        _is_usable,
    ),
    Action(
        "suggest",
        "Suggest",
        "Make prompts from what is chosen here; they can be edited, and Undo takes all of them back.",
        "",
        "prompt",
        lambda controller, view: controller.suggest(view),
        lambda controller: controller.is_usable and controller.suggestion_input is not None,
    ),
    Action(
        "candidate-previous",
        "<",
        "The outline before this one, of those that the click can mean.",
        "Shift+C",
        "prompt",
        lambda controller, view: controller.cycle_candidate(-1),
        _has_candidates,
    ),
    Action(
        "candidate-next",
        ">",
        "The next outline of those that the click can mean.",
        "C",
        "prompt",
        lambda controller, view: controller.cycle_candidate(1),
        _has_candidates,
    ),
    Action(
        "undo-prompt",
        "Undo",
        "Take back the last prompt.",
        "U",
        "prompt",
        lambda controller, view: controller.undo_prompt(),
        lambda controller: controller.can_undo_prompt,
    ),
    Action(
        "redo-prompt",
        "Redo",
        "Give the prompt again that was taken back.",
        "Shift+U",
        "prompt",
        lambda controller, view: controller.redo_prompt(),
        lambda controller: controller.can_redo_prompt,
    ),
    Action(
        "clear",
        "Clear",
        "Remove all prompts of this segment.",
        "",
        "prompt",
        lambda controller, view: controller.clear(),
        _has_prompts,
    ),
    Action(
        "range-automatic",
        "Automatic",
        "Go on until the structure ends.",
        "",
        "propagate",
        _whole_range,
        lambda controller: controller.is_usable and controller.range != (None, None),
    ),
    Action(
        "from-here",
        "From here",
        "Propagation begins at the slice that is shown.",
        "",
        "propagate",
        lambda controller, view: controller.from_here(view),
        _is_usable,
    ),
    Action(
        "to-here",
        "To here",
        "Propagation ends at the slice that is shown.",
        "",
        "propagate",
        lambda controller, view: controller.to_here(view),
        _is_usable,
    ),
    Action(
        "propagate-backward",
        "Backward",
        "Carry the outline to lower slices.",
        "J",
        "propagate",
        lambda controller, view: controller.propagate("backward"),
        _can_propagate,
    ),
    Action(
        "propagate-both",
        "Both ways",
        "Carry the outline through the volume, both ways.",
        "P",
        "propagate",
        lambda controller, view: controller.propagate("both"),
        _can_propagate,
    ),
    Action(
        "propagate-forward",
        "Forward",
        "Carry the outline to higher slices.",
        "K",
        "propagate",
        lambda controller, view: controller.propagate("forward"),
        _can_propagate,
    ),
    Action(
        "cancel",
        "Cancel",
        "Stop; slices that are done are kept.",
        "",
        "propagate",
        lambda controller, view: controller.cancel(),
        _can_cancel,
    ),
    Action(
        "weak-previous",
        "< Weak",
        "Go to the weak slice before this one.",
        "Shift+N",
        "review",
        lambda controller, view: controller.previous_weak(view),
        _has_weak,
    ),
    Action(
        "weak-next",
        "Weak >",
        "Go to the next weak slice.",
        "N",
        "review",
        lambda controller, view: controller.next_weak(view),
        _has_weak,
    ),
    Action(
        "confirm-slice",
        "Confirm slice",
        "This slice is right: propagation never changes it.",
        "M",
        "review",
        lambda controller, view: controller.confirm_slice(view),
        _has_outline,
    ),
    Action(
        "repropagate",
        "Re-propagate",
        "Carry the correction as far as the neighbouring confirmed slices.",
        "Shift+P",
        "review",
        lambda controller, view: controller.repropagate(),
        _can_propagate,
    ),
    Action(
        "accept",
        "Accept",
        "Write what is proposed into the segment.",
        "Return",
        "result",
        lambda controller, view: controller.accept(),
        _can_settle,
    ),
    Action(
        "discard",
        "Discard",
        "Forget what is proposed; the segment stays as it is.",
        "",
        "result",
        lambda controller, view: controller.discard(),
        _can_settle,
    ),
    Action(
        "undo",
        "Undo accept",
        "Take back the last accepted outline; your own strokes stay.",
        "",
        "result",
        lambda controller, view: controller.undo(),
        lambda controller: controller.proposals is not None and controller.proposals.writer.can_undo,
    ),
    Action(
        "redo",
        "Redo accept",
        "Accept again what was taken back.",
        "",
        "result",
        lambda controller, view: controller.redo(),
        lambda controller: controller.proposals is not None and controller.proposals.writer.can_redo,
    ),
    Action(
        "add-segment",
        "New segment",
        "Make another segment and go on with it.",
        "Shift+A",
        "result",
        _go_on,
        lambda controller: controller.volume is not None,
    ),
    Action(
        "replay",
        "Outline prompts again",
        "Make the outlines of all prompts of this segment again, as after loading a scene.",
        "",
        "more",
        lambda controller, view: controller.replay(),
        lambda controller: controller.is_usable and _has_prompts(controller),
    ),
    Action(
        "restart-worker",
        "Restart worker",
        "Stop the background process and start it anew; prompts and finished slices are kept.",
        "",
        "more",
        lambda controller, view: controller.restart_worker(),
        lambda controller: controller.volume is not None,
    ),
    Action(
        "stop",
        "Stop",
        "Back to looking; or cancel a propagation.",
        "H",
        "more",
        _escape,
        lambda controller: bool(controller.placing_kind) or _can_cancel(controller),
    ),
)

BY_NAME = {action.name: action for action in ACTIONS}


def is_between_tasks(controller: Controller) -> bool:
    """Whether another model can be taken without ending something that the user has begun."""
    is_quiet = controller.state in (State.IDLE, State.PROMPTING, State.FAILED)
    return is_quiet and not controller.placing_kind and not _has_proposal(controller)


def perform(name: str, controller: Controller, view: vtkMRMLSliceNode | None = None) -> bool:
    """Do an action if it can be done now; whether it was done."""
    action = BY_NAME[name]
    if not action.allowed(controller):
        return False
    action.do(controller, view)
    return True


def keys() -> tuple[tuple[str, str], ...]:
    """Shortcut and sentence of every action that has one, for the help text."""
    return tuple((action.key, action.tip) for action in ACTIONS if action.key)

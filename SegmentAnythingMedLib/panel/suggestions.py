"""The row that suggests prompts: the prompt sources in the panel's words, and what the row shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from SegmentAnythingMedLib.mrml.suggestion_inputs import SuggestionInput

if TYPE_CHECKING:
    from SegmentAnythingMedLib.mrml.controller import Controller


@dataclass(frozen=True)
class SuggestionKind:
    """A prompt source as an entry of a list.

    Parameters
    ----------
    source
        Its name in the library.
    label, tip
        For the user.
    empty
        What stands in the second list where the scene has nothing to give it.
    """

    source: str
    label: str
    tip: str
    empty: str = ""


KINDS: tuple[SuggestionKind, ...] = (
    SuggestionKind(
        "rough_mask",
        "From a segment",
        "A box round what a segment has on this slice, and clicks where it is deepest.",
        "No segment yet",
    ),
    SuggestionKind(
        "ruler",
        "From a ruler",
        "A box and clicks from a line, or from two that cross (RECIST), on the line's own slice.",
        "No ruler yet",
    ),
    SuggestionKind(
        "vessel",
        "Vessels",
        "Clicks on forks and branches of what looks like bright vessels, or of a segment, on this slice.",
    ),
    SuggestionKind(
        "saliency",
        "Salient spot",
        "A click on what stands out most on this slice. Press again for the next.",
    ),
)
BY_SOURCE = {kind.source: kind for kind in KINDS}


@dataclass(frozen=True)
class SuggestionContent:
    """The row at a moment.

    Parameters
    ----------
    kind
        The chosen source.
    inputs
        What the scene has for it.
    chosen
        Key of the input that will be given; empty where there is no choice.
    """

    kind: SuggestionKind
    inputs: tuple[SuggestionInput, ...]
    chosen: str

    @property
    def shown(self) -> tuple[SuggestionInput, ...]:
        """Entries of the second list; where there is nothing to choose, one that says so."""
        return self.inputs or (SuggestionInput("", self.kind.empty),)

    @property
    def is_choice(self) -> bool:
        """Whether the second list names something of the scene."""
        return any(one.key for one in self.inputs)


def suggestion_content(controller: Controller) -> SuggestionContent:
    """Read the row's content."""
    given = controller.suggestion_input
    return SuggestionContent(
        BY_SOURCE[controller.suggestion], controller.suggestion_inputs, given.key if given is not None else ""
    )

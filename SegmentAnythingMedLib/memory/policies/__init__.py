"""Every memory policy is a file in this folder; `policy_choices` lists them for a panel or a page."""

from __future__ import annotations

from dataclasses import dataclass

from SegmentAnythingMedLib.memory.policy import policy_class, policy_names
from SegmentAnythingMedLib.memory.settings import Setting, settings_of

DEFAULT_POLICY = "recent"


@dataclass(frozen=True)
class PolicyChoice:
    """A row of the list of policies.

    Parameters
    ----------
    name, sentence
        What is written on the command line, and what it does.
    note
        "default", or "not measured" where no trained weights have shown that it helps.
    settings
        With defaults and ranges.
    """

    name: str
    sentence: str
    note: str
    settings: tuple[Setting, ...]


def policy_choices() -> tuple[PolicyChoice, ...]:
    """All policies, the default one first. Loads neither a model nor torch."""
    names = sorted(policy_names(), key=lambda name: (name != DEFAULT_POLICY, name))
    return tuple(_choice(name) for name in names)


def _choice(name: str) -> PolicyChoice:
    policy = policy_class(name)
    note = "default" if name == DEFAULT_POLICY else "not measured"
    return PolicyChoice(name, policy.sentence, note, settings_of(policy))

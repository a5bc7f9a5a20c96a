"""Settings of a memory policy or prompt source: defaults, ranges and meanings, checked where one is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from SegmentAnythingMedLib.errors import SegmentAnythingMedError

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Setting:
    """One setting, as a panel shows it.

    Parameters
    ----------
    name, meaning
        As on the command line, and in a few words.
    default
        Its type is the setting's type: bool, int or float.
    low, high
        Smallest and largest value; None for a bool.
    """

    name: str
    meaning: str
    default: bool | int | float
    low: float | None = None
    high: float | None = None

    def read(self, value: object, owner: str, kind: str = "Memory policy") -> bool | int | float:
        """The value in the setting's type, also from text.

        Raises
        ------
        SegmentAnythingMedError
            If it is of another type or out of range; the message names the setting, the value and the range.
        """
        try:
            found = self._converted(value)
        except (TypeError, ValueError, OverflowError):
            found = None
        if found is None or not self._holds(found):
            raise SegmentAnythingMedError(f"{kind} {owner}: {self.name} must be {self._wanted}, got {value!r}.")
        return found

    def _converted(self, value: object) -> bool | int | float | None:
        kind = type(self.default)
        if kind is bool:
            word = str(value).strip().lower()
            return value if isinstance(value, bool) else True if word in _YES else False if word in _NO else None
        if isinstance(value, bool):
            return None
        number = float(value)
        return number if kind is float else int(number) if number == int(number) else None

    def _holds(self, value: bool | int | float) -> bool:
        return isinstance(value, bool) or (math.isfinite(value) and self.low <= value <= self.high)

    @property
    def _wanted(self) -> str:
        if isinstance(self.default, bool):
            return "true or false"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}"


def setting(default: bool | int | float, meaning: str, low: float | None = None, high: float | None = None) -> Any:
    """A field of a policy with its range."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high})


def settings_of(policy: type) -> tuple[Setting, ...]:
    """The settings of a class of policies, in their order."""
    return tuple(
        Setting(one.name, one.metadata["meaning"], one.default, one.metadata["low"], one.metadata["high"])
        for one in fields(policy)
        if "meaning" in one.metadata and one.default is not MISSING
    )


def read_settings(
    policy: type, given: Mapping[str, object], owner: str, kind: str = "Memory policy"
) -> dict[str, bool | int | float]:
    """Values for the settings that are given, checked; ``kind`` and ``owner`` name whose they are in messages.

    Raises
    ------
    SegmentAnythingMedError
        If a setting is not known or its value does not fit.
    """
    known = {one.name: one for one in settings_of(policy)}
    for name in given:
        if name not in known:
            there = f"use {', '.join(known)}" if known else "it has none"
            raise SegmentAnythingMedError(f"{kind} {owner} has no setting {name!r}: {there}.")
    return {name: known[name].read(value, owner, kind) for name, value in given.items()}


def split_settings(text: str, kind: str = "Memory policy") -> tuple[str, dict[str, str]]:
    """``name:setting=value,setting=value`` to the name and the values as text.

    Raises
    ------
    SegmentAnythingMedError
        If a part after the colon is not ``setting=value``, or is given twice.
    """
    name, _, rest = text.partition(":")
    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if not (key and sign and value) or key in given:
            raise SegmentAnythingMedError(
                f"{kind} {text!r}: write {part!r} as name:setting=value,setting=value, each setting once."
            )
        given[key] = value
    return name.strip(), given

"""What torch families check before they load, and random weights in place of a file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch

from SegmentAnythingMedLib.errors import ModelFileError
from SegmentAnythingMedLib.models.card import ModelCard

_LARGEST_INPUT = 4096


@contextmanager
def random_weights(card: ModelCard, settings: Mapping[str, object]) -> Iterator[None]:
    """A network built within has the weights of the option ``random_seed``; without it, `ModelFileError`."""
    if "random_seed" not in settings:
        raise ModelFileError(f"Model {card.name!r} has neither weights nor a random seed.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(settings["random_seed"]))
        yield


def check_numbers(card: ModelCard, settings: Mapping[str, object], multiple: int = 32) -> None:
    """Raise `ModelFileError` for an input size that is not a ``multiple``, or options that are no whole numbers."""
    if not 0 < card.input_size <= _LARGEST_INPUT or card.input_size % multiple:
        raise ModelFileError(
            f"Model {card.name!r}: input_size must be a multiple of {multiple} up to {_LARGEST_INPUT}, "
            f"got {card.input_size}."
        )
    for key in ("random_seed", "memory_slots", "max_pointers"):
        value = settings.get(key, 1)
        if not isinstance(value, int) or not 0 <= value < 1 << 63:
            raise ModelFileError(f"Model {card.name!r}: the option {key} must be a whole number, got {value!r}.")


def check_choice(card: ModelCard, settings: Mapping[str, object], key: str, choices: Collection[str | int]) -> None:
    """Raise `ModelFileError` for an option that is there and none of the ``choices``, in type as well."""
    if key in settings and not any(settings[key] == one and type(settings[key]) is type(one) for one in choices):
        *first, last = (json.dumps(one).strip('"') for one in choices)  # as a card writes them
        listed = f"{', '.join(first)} or {last}"
        raise ModelFileError(f"Model {card.name!r}: the option {key} must be {listed}, got {settings[key]!r}.")

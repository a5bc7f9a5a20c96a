"""Model cards: what a model is, where its weights come from, under which licence, and how its input is prepared."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from SegmentAnythingMedLib.errors import ModelFileError

PROMPT_KINDS = ("point", "box", "scribble", "lasso", "mask")
CAPABILITIES = ("slice", "memory", "volume", "candidates", "color")
MODALITIES = ("CT", "MR", "PET", "US", "XR", "RGB")


@dataclass(frozen=True)
class ModelCard:
    """One model; the JSON file of the same fields is checked by `from_json` and described by ``schema.json``.

    Parameters
    ----------
    name
        Identifier on the command line: lower-case letters, digits, ``.``, ``-`` and ``_``.
    title
        One line for people.
    family
        Name of a module in ``models``.
    licence
        Licence of the weights (SPDX where there is one).
    capabilities
        Subset of `CAPABILITIES`.
    prompts
        Prompt kinds the network itself takes; others are converted.
    modalities
        What it was made for, subset of `MODALITIES`; empty = any.
    preprocessing
        Identifier of the preprocessing, a row of ``models/preprocess.py``; ``none`` if there is none.
    input_size
        Pixels along the side of the network's square input; 0 if the model takes any size.
    file, url, sha256, size_mb
        Weights: file name, where the user may get it, hash, size. Empty if the model has none.
    research_only
        True where the licence or its authors forbid clinical or commercial use.
    citation
        Who to cite.
    options
        Settings of the family (sizes, versions, precision).
    converted
        Hash of the safetensors copy beside ``file``, written by `weights.converting`; empty if there is none.
    """

    name: str
    title: str
    family: str
    licence: str
    capabilities: tuple[str, ...] = ("slice",)
    prompts: tuple[str, ...] = PROMPT_KINDS
    modalities: tuple[str, ...] = ()
    preprocessing: str = "none"
    input_size: int = 0
    file: str = ""
    url: str = ""
    sha256: str = ""
    size_mb: float = 0.0
    research_only: bool = False
    citation: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    converted: str = ""

    def has(self, capability: str) -> bool:
        return capability in self.capabilities

    @classmethod
    def from_json(cls, path: str | Path) -> ModelCard:
        """Read and check a card.

        Raises
        ------
        ModelFileError
            If the file is not JSON or a field is missing, unknown or of the wrong kind; the message names it.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFileError(f"The model card {Path(path).name} cannot be read: {error}.") from error
        return cls.from_fields(content, Path(path).name)

    @classmethod
    def from_fields(cls, content: Any, source: str) -> ModelCard:
        """Check the fields of a card; ``source`` names it in errors."""
        if not isinstance(content, dict):
            raise ModelFileError(f"The model card {source} must be a JSON object.")
        content = {key: value for key, value in content.items() if key != "$schema"}
        known = {item.name: item for item in fields(cls)}
        unknown = sorted(set(content) - set(known))
        missing = [name for name in ("name", "title", "family", "licence") if not content.get(name)]
        if unknown or missing:
            what = f"has unknown fields {unknown}" if unknown else f"lacks {', '.join(missing)}"
            raise ModelFileError(f"The model card {source} {what}.")
        for key, value in content.items():
            _check_field(key, value, source)
        for key in ("capabilities", "prompts", "modalities"):
            if key in content:
                content[key] = tuple(content[key])
        return cls(**content)


def converted_file(weights: Path) -> Path:
    """Where the safetensors copy of an original weights file lies, if there is one."""
    return weights.with_name(f"{weights.name}.safetensors")


def is_converted(card: ModelCard, weights: Path) -> bool:
    """Whether the weights have a safetensors copy, made of them as they are now.

    The copy has the time of the file it was made of: one brought later may well be older than the copy.
    """
    copy = converted_file(weights)
    if not card.converted or not copy.is_file():
        return False
    return abs(copy.stat().st_mtime_ns - weights.stat().st_mtime_ns) < _SAME_TIME_NS


_SAME_TIME_NS = 1_000_000  # folders on a network keep less than nanoseconds
_CLOSED_SETS = {"capabilities": CAPABILITIES, "prompts": PROMPT_KINDS, "modalities": MODALITIES}
_PATTERNS = {
    "name": r"[a-z0-9][a-z0-9._-]*",
    "family": r"[a-z][a-z0-9_]*",
    "sha256": r"([0-9a-f]{64})?",
    "converted": r"([0-9a-f]{64})?",
    "file": r"(?!\.\.?$)[^/\\:\x00-\x1f]*",
}


def _check_field(key: str, value: Any, source: str) -> None:
    if key in _CLOSED_SETS:
        allowed = _CLOSED_SETS[key]
        if not isinstance(value, list) or not all(item in allowed for item in value):
            raise ModelFileError(
                f"The model card {source}: {key} must be a list of {', '.join(allowed)}, got {value!r}."
            )
        return
    kind = {"input_size": int, "size_mb": (int, float), "research_only": bool, "options": dict}.get(key, str)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ModelFileError(f"The model card {source}: {key} has the wrong type: {value!r}.")
    if key in ("input_size", "size_mb") and not 0 <= value < 1 << 31:
        raise ModelFileError(f"The model card {source}: {key} must be 0 or more, got {value!r}.")
    if key in _PATTERNS and not re.fullmatch(_PATTERNS[key], value):
        raise ModelFileError(f"The model card {source}: {key} {value!r} is not of the form {_PATTERNS[key]}.")
    if key == "url" and value and not _is_https(value):
        raise ModelFileError(f"The model card {source}: url must start with https:// and name a host, got {value!r}.")


def _is_https(url: str) -> bool:
    try:
        return url.startswith("https://") and bool(urlsplit(url).hostname)
    except ValueError:
        return False

"""What a field of a message may hold: how it becomes JSON and raw bytes, and what is refused when it comes back."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, PromptError, WorkerError
from SegmentAnythingMedLib.geometry import Plane, SliceKey
from SegmentAnythingMedLib.prompts_file import decode_prompt, encode_prompt

MAX_WHOLE = 2**53
MAX_MASK_BITS = 1 << 33
"""A mask of 2048 x 2048 x 2048 voxels, a gigabyte when packed."""

Parts = list[np.ndarray]
"""Raw parts that travel behind the JSON header: one-dimensional uint8."""


@dataclass(frozen=True)
class Kind:
    """Both directions of one kind of field; both raise ValueError or TypeError on what does not belong there."""

    encode: Callable[[Any, Parts], Any]
    decode: Callable[[Any, Parts], Any]


def whole(minimum: int = 0, maximum: int = MAX_WHOLE, **default: Any) -> Any:
    """A whole number within bounds."""

    def check(value: Any, _: Parts) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise ValueError(f"needs a whole number from {minimum} to {maximum}")
        return value

    return _field(Kind(lambda value, parts: check(operator.index(value), parts), check), default)


def number(**default: Any) -> Any:
    """A finite number."""

    def check(value: Any, _: Parts) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError("needs a finite number")
        return float(value)

    return _field(Kind(lambda value, parts: check(float(value), parts), check), default)


def flag(**default: Any) -> Any:
    """True or False."""

    def check(value: Any, _: Parts) -> bool:
        if type(value) is not bool:
            raise ValueError("needs true or false")
        return value

    return _field(Kind(lambda value, parts: check(bool(value), parts), check), default)


def text(longest: int = 4000, choices: tuple[str, ...] = (), **default: Any) -> Any:
    """A text, one of ``choices`` if there are any. Longer texts are cut before they are sent."""

    def check(value: Any, _: Parts) -> str:
        if not isinstance(value, str) or len(value) > longest:
            raise ValueError(f"needs a text of at most {longest} characters")
        if choices and value not in choices:
            raise ValueError(f"needs one of {', '.join(choices)}")
        return value

    return _field(Kind(lambda value, parts: check(value[:longest], parts), check), default)


def mapping(**default: Any) -> Any:
    """Options by name: texts, numbers, flags, None, and lists and mappings of these."""

    def check(value: Any, _: Parts) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ValueError("needs a JSON object")
        _check_json(value)
        return value

    return _field(Kind(lambda value, parts: check(dict(value), parts), check), default)


def numbers(count: int | None = None, **default: Any) -> Any:
    """A tuple of finite numbers."""

    def check(value: Any, _: Parts) -> tuple[float, ...]:
        right = isinstance(value, list) and (count is None or len(value) == count)
        if not right or not all(type(x) in (int, float) and math.isfinite(x) for x in value):
            raise ValueError(f"needs {'a list of' if count is None else count} finite numbers")
        return tuple(value)

    return _field(Kind(lambda value, parts: list(check([_plain(x) for x in value], parts)), check), default)


def wholes(minimum: int = 0, **default: Any) -> Any:
    """A tuple of whole numbers."""

    def check(value: Any, _: Parts) -> tuple[int, ...]:
        right = isinstance(value, list) and all(type(x) is int and minimum <= x <= MAX_WHOLE for x in value)
        if not right:
            raise ValueError(f"needs a list of whole numbers from {minimum}")
        return tuple(value)

    return _field(Kind(lambda value, parts: list(check([operator.index(x) for x in value], parts)), check), default)


def texts(**default: Any) -> Any:
    """A tuple of texts."""

    def check(value: Any, _: Parts) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise ValueError("needs a list of texts")
        return tuple(value)

    return _field(Kind(lambda value, parts: list(check(list(value), parts)), check), default)


def plane(**default: Any) -> Any:
    """A slice plane."""
    return _field(Kind(lambda value, _: _encode_plane(value), lambda value, _: _decode_plane(value)), default)


def slice_key(**default: Any) -> Any:
    """Identity of a slice."""

    def encode(value: SliceKey, _: Parts) -> dict[str, Any]:
        return {"volume": value.volume, "time": value.time, "plane": _encode_plane(value.plane), "index": value.index}

    def decode(value: Any, _: Parts) -> SliceKey:
        if not isinstance(value, dict) or set(value) != {"volume", "time", "plane", "index"}:
            raise ValueError("needs volume, time, plane and index")
        at = value["time"], value["index"]
        if not isinstance(value["volume"], str) or not all(type(x) is int and 0 <= x <= MAX_WHOLE for x in at):
            raise ValueError("needs a volume's fingerprint and whole numbers from 0")
        return SliceKey(value["volume"], value["time"], _decode_plane(value["plane"]), value["index"])

    return _field(Kind(encode, decode), default)


def prompts(**default: Any) -> Any:
    """A tuple of prompts, in the form of the prompts file."""

    def decode(value: Any, _: Parts) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError("needs a list of prompts")
        return tuple(decode_prompt(item) for item in value)

    return _field(Kind(lambda value, _: [encode_prompt(prompt) for prompt in value], decode), default)


def mask(dimensions: int, **default: Any) -> Any:
    """A bool array: its shape in the header, its voxels packed eight to a byte behind it."""

    def encode(value: np.ndarray, parts: Parts) -> dict[str, Any]:
        array = np.asarray(value)
        if array.dtype != np.bool_ or array.ndim != dimensions or not array.size:
            raise ValueError(f"needs a bool array of {dimensions} dimensions, got {array.dtype} {array.shape}")
        parts.append(np.packbits(array))
        return {"shape": list(array.shape), "part": len(parts) - 1}

    def decode(value: Any, parts: Parts) -> np.ndarray:
        if not isinstance(value, dict) or set(value) != {"shape", "part"}:
            raise ValueError("needs shape and part")
        shape, part = value["shape"], value["part"]
        if not isinstance(shape, list) or len(shape) != dimensions or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"needs a shape of {dimensions} whole numbers from 1")
        count = math.prod(shape)
        if count > MAX_MASK_BITS or type(part) is not int or not 0 <= part < len(parts):
            raise ValueError("is too large or names a part that is not there")
        if parts[part].size != math.ceil(count / 8):
            raise ValueError(f"of shape {shape} needs {math.ceil(count / 8)} bytes, got {parts[part].size}")
        return np.unpackbits(parts[part], count=count).view(np.bool_).reshape(shape)

    return _field(Kind(encode, decode), default)


def encode_field(owner: str, item: dataclasses.Field[Any], value: Any, parts: Parts) -> Any:
    """JSON value of a field; bulky values are appended to ``parts``."""
    if value is None and item.default is None:
        return None
    try:
        return item.metadata["kind"].encode(value, parts)
    except (TypeError, ValueError, OverflowError, AttributeError, PromptError, GeometryError) as error:
        raise WorkerError(f"{owner}: {item.name} {error}, got {_short(value)}.") from error


def decode_field(owner: str, item: dataclasses.Field[Any], value: Any, parts: Parts) -> Any:
    """Checked value of a field."""
    if value is None and item.default is None:
        return None
    try:
        return item.metadata["kind"].decode(value, parts)
    except (TypeError, ValueError, OverflowError, PromptError, GeometryError) as error:
        raise WorkerError(f"{owner}: {item.name} {error}, got {_short(value)}.") from error


def _field(kind: Kind, default: dict[str, Any]) -> Any:
    return dataclasses.field(metadata={"kind": kind}, **default)


def _encode_plane(value: Plane) -> dict[str, Any]:
    return {"axis": value.axis} if not value.is_oblique else {"normal_ijk": list(value.normal_ijk)}


def _decode_plane(value: Any) -> Plane:
    if isinstance(value, dict) and set(value) == {"axis"} and type(value["axis"]) is int:
        return Plane(value["axis"])
    normal = value.get("normal_ijk") if isinstance(value, dict) and set(value) == {"normal_ijk"} else None
    if not isinstance(normal, list) or len(normal) != 3 or not all(type(x) in (int, float) for x in normal):
        raise ValueError("needs an axis or a normal of three numbers")
    return Plane(None, tuple(normal))


def _check_json(value: Any) -> None:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_json(item)
    elif value is not None and type(value) not in (str, int, float, bool):
        raise ValueError(f"holds a {type(value).__name__}, which cannot be sent")


def _plain(value: Any) -> int | float:
    return value if type(value) is int else float(value)


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.shape}"
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."

"""The JSON file that saves prompts and replays them, also on another machine.

Format (version 1)::

    {"format": "segment-anything-med-prompts", "version": 1,
     "volume": {"size_ijk": [122, 101, 112], "spacing_mm": [3.0, 3.0, 3.0], "fingerprint": "..."},
     "time": 0, "model": "classic", "window": "auto",
     "objects": [{"id": 1, "name": "Liver", "prompts": [
         {"kind": "box", "plane": {"axis": "K"}, "corners_ijk": [[40, 30, 34], [80, 75, 34]]},
         {"kind": "point", "plane": {"axis": "K"}, "point_ijk": [60, 50, 34], "positive": false},
         {"kind": "scribble", "plane": {"normal_ijk": [0, 0.1, 0.33]}, "curve_ijk": [[...], ...], "positive": true},
         {"kind": "lasso", "plane": {"axis": "J"}, "curve_ijk": [[...], [...], [...]]},
         {"kind": "mask", "plane": {"axis": "K"}, "index": 34, "shape": [101, 122], "bits": "<base64 of zlib>"}]}]}

Positions are continuous IJK with voxel centres at integers (SimpleITK's index order). ``bits`` are the mask's pixels
in row order, packed eight to a byte, most significant first, zlib-compressed, base64. ``volume``, ``time``,
``model``, ``window`` and ``name`` may be left out; ``volume`` guards against replaying on another grid. A point that is
the first prompt of its slice may have ``"candidate": 1``: which of the model's answers the user took, from 0, the
default.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, PromptError
from SegmentAnythingMedLib.geometry import AXIS_NAMES, Plane
from SegmentAnythingMedLib.prompts import BoxPrompt, LassoPrompt, MaskPrompt, PointPrompt, Prompt, ScribblePrompt
from SegmentAnythingMedLib.replacing import replacing
from SegmentAnythingMedLib.volume import Volume

FORMAT = "segment-anything-med-prompts"
VERSION = 1
_MAX_MASK_PIXELS = 1 << 26
_MOST = 1e12
_LONGEST_NAME = 100


@dataclass(frozen=True)
class ObjectPrompts:
    """Prompts of one object.

    Parameters
    ----------
    object_id, name
        Whose they are.
    prompts
        In the order they were given.
    candidates
        For each prompt which of the model's answers the user took; () where that is the model's choice for all.
    """

    object_id: int
    prompts: tuple[Prompt, ...]
    name: str = ""
    candidates: tuple[int, ...] = ()

    def candidate_of(self, number: int) -> int:
        """Which answer to the prompt of this number the user took."""
        return self.candidates[number] if number < len(self.candidates) else 0


@dataclass(frozen=True)
class PromptsFile:
    """Everything a prompts file holds."""

    objects: tuple[ObjectPrompts, ...]
    time: int | None = None
    model: str = ""
    window: str = ""
    volume: Mapping[str, Any] = field(default_factory=dict)

    def on_volume(self, volume: Volume) -> PromptsFile:
        """The prompts with their oblique planes settled for this volume.

        Raises
        ------
        GeometryError
            If the file was made on a volume of another size or spacing.
        """
        geometry = volume.geometry
        size, spacing = self.volume.get("size_ijk"), self.volume.get("spacing_mm")
        if size is not None and size != list(geometry.size_ijk):
            raise GeometryError(
                f"The prompts were made on a volume of {_times(size)} voxels, this one has "
                f"{_times(geometry.size_ijk)}: choose the volume they belong to."
            )
        if spacing is not None and not np.allclose(_point(spacing, "spacing_mm"), geometry.spacing_mm, rtol=0.01):
            raise GeometryError(
                f"The prompts were made on voxels of {_times(spacing)} mm, these are "
                f"{_times(round(s, 4) for s in geometry.spacing_mm)} mm: choose the volume they belong to."
            )
        objects = [
            replace(item, prompts=tuple(replace(one, plane=one.plane.settled(geometry)) for one in item.prompts))
            for item in self.objects
        ]
        return replace(self, objects=tuple(objects))


def save_prompts(path: str | Path, content: PromptsFile, volume: Volume | None = None) -> None:
    """Write a prompts file; the file that was there before survives a failure.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    described = dict(content.volume)
    if volume is not None:
        described = {
            "size_ijk": list(volume.geometry.size_ijk),
            "spacing_mm": [round(s, 6) for s in volume.geometry.spacing_mm],
            "fingerprint": volume.fingerprint,
        }
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if described:
        document["volume"] = described
    if content.time is not None:
        document["time"] = content.time
    document |= {key: value for key, value in (("model", content.model), ("window", content.window)) if value}
    document["objects"] = [
        {"id": item.object_id, "name": item.name, "prompts": _encode_prompts(item)} for item in content.objects
    ]
    with replacing(path) as beside:
        beside.write_text(json.dumps(document, indent=1), encoding="utf-8")


def load_prompts(path: str | Path) -> PromptsFile:
    """Read a prompts file.

    Raises
    ------
    PromptError
        If it cannot be read, is not such a file, or holds a prompt that is wrong; the message says where.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise PromptError(f"The prompts file {path} cannot be read: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise PromptError(f'{path} is not a prompts file: it lacks "format": "{FORMAT}".')
    if document.get("version") != VERSION:
        raise PromptError(f"{path} has version {document.get('version')!r}; this program reads version {VERSION}.")
    objects = document.get("objects")
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise PromptError(f'{path} needs a list "objects".')
    time = document.get("time")
    if time is not None and (not isinstance(time, int) or isinstance(time, bool) or time < 0):
        raise PromptError(f'{path}: "time" must be a whole number from 0, got {time!r}.')
    volume = document.get("volume", {})
    decoded = tuple(_decode_object(item, number) for number, item in enumerate(objects))
    ids = [item.object_id for item in decoded]
    twice = next((number for number in ids if ids.count(number) > 1), None)
    if twice is not None:
        raise PromptError(f'{path}: "id" {twice} stands twice; put all prompts of an object together.')
    return PromptsFile(
        decoded,
        time,
        str(document.get("model", "")),
        str(document.get("window", "")),
        volume if isinstance(volume, dict) else {},
    )


def encode_prompt(prompt: Prompt) -> dict[str, Any]:
    """A prompt as JSON values."""
    plane: dict[str, Any] = (
        {"normal_ijk": list(prompt.plane.normal_ijk)} if prompt.plane.is_oblique else {"axis": str(prompt.plane)[-1]}
    )
    common = {"kind": prompt.kind, "plane": plane}
    if isinstance(prompt, PointPrompt):
        return common | {"point_ijk": _floats(prompt.point_ijk), "positive": prompt.positive}
    if isinstance(prompt, BoxPrompt):
        return common | {"corners_ijk": [_floats(corner) for corner in prompt.corners_ijk]}
    if isinstance(prompt, ScribblePrompt):
        return common | {"curve_ijk": [_floats(point) for point in prompt.curve_ijk], "positive": prompt.positive}
    if isinstance(prompt, LassoPrompt):
        return common | {"curve_ijk": [_floats(point) for point in prompt.curve_ijk]}
    mask = np.asarray(prompt.mask, dtype=bool)
    bits = base64.b64encode(zlib.compress(np.packbits(mask).tobytes())).decode("ascii")
    return common | {"index": int(prompt.index), "shape": list(mask.shape), "bits": bits}


def decode_prompt(content: Any) -> Prompt:
    """A prompt from JSON values.

    Raises
    ------
    PromptError
        If a field is missing or wrong; the message names it.
    """
    if not isinstance(content, dict):
        raise PromptError(f"A prompt must be a JSON object, got {content!r}.")
    kind, plane = content.get("kind"), _decode_plane(content.get("plane", {"axis": "K"}))
    positive = content.get("positive", True)
    if not isinstance(positive, bool):
        raise PromptError(f'"positive" must be true or false, got {positive!r}.')
    if kind == "point":
        return PointPrompt(_point(content.get("point_ijk"), "point_ijk"), positive, plane)
    if kind == "box":
        corners = _points(content.get("corners_ijk"), "corners_ijk")
        if len(corners) != 2:
            raise PromptError(f'"corners_ijk" of a box needs two corners, got {len(corners)}.')
        return BoxPrompt((corners[0], corners[1]), plane)
    if kind == "scribble":
        return ScribblePrompt(_points(content.get("curve_ijk"), "curve_ijk"), positive, plane)
    if kind == "lasso":
        return LassoPrompt(_points(content.get("curve_ijk"), "curve_ijk"), plane)
    if kind == "mask":
        return _decode_mask(content, plane)
    raise PromptError(f'"kind" must be point, box, scribble, lasso or mask, got {kind!r}.')


def _encode_prompts(item: ObjectPrompts) -> list[dict[str, Any]]:
    encoded = [encode_prompt(prompt) for prompt in item.prompts]
    for number, content in enumerate(encoded):
        if item.candidate_of(number):
            content["candidate"] = item.candidate_of(number)
    return encoded


def decode_candidate(content: Mapping[str, Any]) -> int:
    """Which of the model's answers to a prompt the user took; 0 where the file does not say."""
    candidate = content.get("candidate", 0)
    if not isinstance(candidate, int) or isinstance(candidate, bool) or candidate < 0:
        raise PromptError(f'"candidate" must be a whole number from 0, got {candidate!r}.')
    return candidate


def _decode_object(item: dict[str, Any], number: int) -> ObjectPrompts:
    object_id = item.get("id", number + 1)
    if not isinstance(object_id, int) or isinstance(object_id, bool) or object_id < 1:
        raise PromptError(f'Object {number + 1}: "id" must be a whole number from 1, got {object_id!r}.')
    prompts = item.get("prompts", [])
    if not isinstance(prompts, list):
        raise PromptError(f'Object {object_id}: "prompts" must be a list.')
    decoded, candidates = [], []
    for position, content in enumerate(prompts):
        try:
            decoded.append(decode_prompt(content))
            candidates.append(decode_candidate(content))
        except (PromptError, GeometryError) as error:
            raise PromptError(f"Object {object_id}, prompt {position + 1}: {error}") from error
    chosen = tuple(candidates) if any(candidates) else ()
    return ObjectPrompts(object_id, tuple(decoded), clean_name(str(item.get("name", ""))), chosen)


def _decode_plane(content: Any) -> Plane:
    if isinstance(content, dict) and content.get("axis") in tuple(AXIS_NAMES):
        return Plane(AXIS_NAMES.index(content["axis"]))
    if isinstance(content, dict) and "normal_ijk" in content:
        return Plane(None, _point(content["normal_ijk"], "normal_ijk"))
    raise PromptError(f'"plane" must be {{"axis": "I", "J" or "K"}} or {{"normal_ijk": [...]}}, got {content!r}.')


def _decode_mask(content: dict[str, Any], plane: Plane) -> MaskPrompt:
    shape, index = content.get("shape"), content.get("index")
    whole = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)
    if not whole or shape[0] * shape[1] > _MAX_MASK_PIXELS or type(index) is not int:
        raise PromptError(f'A mask needs "index" and "shape" [rows, columns], got {index!r} and {shape!r}.')
    size = math.ceil(shape[0] * shape[1] / 8)
    try:
        packed = zlib.decompressobj().decompress(base64.b64decode(content.get("bits", ""), validate=True), size + 1)
    except (binascii.Error, zlib.error, TypeError, ValueError) as error:
        raise PromptError(f'"bits" of the mask on slice {index} cannot be decoded: {error}.') from error
    if len(packed) != size:
        raise PromptError(f'"bits" of the mask on slice {index} do not fill {shape[0]} x {shape[1]} pixels.')
    flat = np.unpackbits(np.frombuffer(packed, np.uint8), count=shape[0] * shape[1])
    return MaskPrompt(flat.astype(bool).reshape(shape), index, plane)


def _point(value: Any, name: str) -> tuple[float, float, float]:
    numbers = isinstance(value, (list, tuple)) and len(value) == 3
    if not numbers or not all(type(x) in (int, float) and abs(x) < _MOST for x in value):
        raise PromptError(f'"{name}" must be three finite numbers, got {value!r}.')
    return tuple(float(x) for x in value)


def _points(value: Any, name: str) -> tuple[tuple[float, float, float], ...]:
    if not isinstance(value, list) or not value:
        raise PromptError(f'"{name}" must be a list of positions, got {value!r}.')
    return tuple(_point(point, name) for point in value)


def clean_name(name: str) -> str:
    """A segment's name that every file and picture can show: one line, no control characters, at most 100 letters."""
    plain = name.encode("utf-8", "replace").decode("utf-8")
    shown = "".join(letter if letter.isprintable() else " " for letter in plain)
    return " ".join(shown.split())[:_LONGEST_NAME]


def _floats(point: tuple[float, ...]) -> list[float]:
    return [float(x) for x in point]


def _times(numbers: Any) -> str:
    return " x ".join(map(str, numbers)) if isinstance(numbers, Iterable) else str(numbers)

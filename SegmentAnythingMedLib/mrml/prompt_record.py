"""A prompt as the scene keeps it: whose it is, when, and which markup shows it; and the JSON of all of them."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from SegmentAnythingMedLib.errors import GeometryError, PromptError
from SegmentAnythingMedLib.geometry import VolumeGeometry
from SegmentAnythingMedLib.prompts import MaskPrompt, Prompt
from SegmentAnythingMedLib.prompts_file import FORMAT, VERSION, decode_candidate, decode_prompt, encode_prompt

CONFIRMED = "confirmed"
PAINTED = "painted"


@dataclass(frozen=True, eq=False)
class PromptRecord:
    """A prompt of a segment.

    Parameters
    ----------
    segment_id
        Segment of the segmentation.
    prompt
        The prompt, in IJK of the volume.
    time
        Time point.
    role
        Of masks: `CONFIRMED`, `PAINTED`, or empty for a mask given as a prompt.
    model
        Name of the model it was given to.
    uid
        Identity through moves, undo, saving and loading.
    control_point
        Id of the control point that shows it, or empty.
    candidate
        Which of the model's answers to it, a single click, the user took; 0 is the model's own choice.
    """

    segment_id: str
    prompt: Prompt
    time: int = 0
    role: str = ""
    model: str = ""
    uid: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    control_point: str = ""
    candidate: int = 0

    @property
    def mask_slot(self) -> tuple[object, ...] | None:
        """What a mask record is the only one for: segment, time, plane and index; None for other prompts."""
        prompt = self.prompt
        if not isinstance(prompt, MaskPrompt):
            return None
        return self.segment_id, self.time, prompt.plane, int(prompt.index)

    def with_prompt(self, prompt: Prompt) -> PromptRecord:
        """The same record after its prompt moved: it is answered afresh."""
        return replace(self, prompt=prompt, candidate=0)

    def with_candidate(self, candidate: int) -> PromptRecord:
        """The same record with another of its answers."""
        return replace(self, candidate=candidate)

    def tied_to(self, control_point: str) -> PromptRecord:
        """The same record shown by another control point."""
        return self if control_point == self.control_point else replace(self, control_point=control_point)

    @cached_property
    def content(self) -> dict[str, Any]:
        """JSON values, a superset of the prompts file's."""
        extra = {
            "uid": self.uid,
            "time": self.time,
            "role": self.role,
            "model": self.model,
            "control_point": self.control_point,
            "candidate": self.candidate,
        }
        if isinstance(self.prompt, MaskPrompt):
            extra["hash"] = mask_hash(self.prompt.mask)
        return self._encoded | {key: value for key, value in extra.items() if value not in ("", 0)}

    @cached_property
    def _encoded(self) -> dict[str, Any]:
        return encode_prompt(self.prompt)


def mask_hash(mask: np.ndarray) -> str:
    """16 hex digits of a mask's shape and pixels."""
    digest = hashlib.blake2b(repr(mask.shape).encode(), digest_size=8)
    digest.update(np.packbits(np.asarray(mask, dtype=bool)).tobytes())
    return digest.hexdigest()


def encode_records(
    records: Iterable[PromptRecord], names: Mapping[str, str], geometry: VolumeGeometry | None = None
) -> str:
    """All records as the text of a prompts file, which ``prompts_file.load_prompts`` reads.

    Parameters
    ----------
    records
        In the order they were given.
    names
        Name of each segment by its id.
    geometry
        Grid of the volume, which guards against replaying elsewhere.
    """
    objects: dict[str, dict[str, Any]] = {}
    for record in records:
        segment = record.segment_id
        made = {"id": len(objects) + 1, "name": names.get(segment, ""), "segment": segment, "prompts": []}
        objects.setdefault(segment, made)["prompts"].append(record.content)
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if geometry is not None:
        document["volume"] = _grid(geometry)
    document["objects"] = list(objects.values())
    return json.dumps(document)


def made_on(text: str, geometry: VolumeGeometry) -> bool:
    """Whether a text of records says that it was made on a grid."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("volume") == _grid(geometry)


def _grid(geometry: VolumeGeometry) -> dict[str, Any]:
    return {"size_ijk": list(geometry.size_ijk), "spacing_mm": [round(s, 6) for s in geometry.spacing_mm]}


def decode_records(text: str) -> tuple[PromptRecord, ...]:
    """Records of a text; empty for an empty text.

    Raises
    ------
    PromptError
        If the text is not such a file or a prompt in it is wrong; the message says which.
    """
    if not text.strip():
        return ()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"The scene's prompts cannot be read: {error}.") from error
    objects = document.get("objects") if isinstance(document, dict) else None
    if not isinstance(objects, list) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise PromptError("The scene's prompts are not in the format of this program, or of a newer version.")
    found = []
    for number, item in enumerate(objects):
        prompts = item.get("prompts", []) if isinstance(item, dict) else None
        if not isinstance(prompts, list):
            raise PromptError(f"Object {number + 1} of the scene's prompts has no list of prompts.")
        segment = str(item.get("segment", item.get("name", "")))
        for position, content in enumerate(prompts):
            try:
                found.append(_decode_record(segment, content))
            except (PromptError, GeometryError) as error:
                raise PromptError(f"Object {number + 1}, prompt {position + 1}: {error}") from error
    return tuple(found)


def _decode_record(segment_id: str, content: Any) -> PromptRecord:
    prompt = decode_prompt(content)
    time = content.get("time", 0)
    if not isinstance(time, int) or isinstance(time, bool) or time < 0:
        raise PromptError(f'"time" must be a whole number from 0, got {time!r}.')
    role = content.get("role", "")
    if role not in ("", CONFIRMED, PAINTED) or (role and not isinstance(prompt, MaskPrompt)):
        raise PromptError(f'"role" must be {CONFIRMED} or {PAINTED}, of a mask, or left out; got {role!r}.')
    texts = {name: str(content[name]) for name in ("role", "model", "uid", "control_point") if name in content}
    return PromptRecord(segment_id, prompt, time, candidate=decode_candidate(content), **texts)

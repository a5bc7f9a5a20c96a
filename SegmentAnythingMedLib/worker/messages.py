"""The messages between the host and the worker: commands one way, events the other.

A frame is a 12-byte prefix (length of the header as uint32, length of the rest as uint64, big-endian), a JSON header
``{"version": 1, "kind": "SliceMask", "parts": [...lengths], "fields": {...}}`` and the raw parts. `decode` checks
everything it is given, so the same frames may come from a network. Nothing here needs more than numpy.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

import numpy as np

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.geometry import Plane, SliceKey
from SegmentAnythingMedLib.prompts import Prompt
from SegmentAnythingMedLib.volume import Modality
from SegmentAnythingMedLib.worker import fields as of
from SegmentAnythingMedLib.worker.message import Command, Event, Message
from SegmentAnythingMedLib.worker.suggest_messages import SuggestedPrompts, SuggestPrompts

VERSION = 1
PREFIX = struct.Struct("!IQ")
MAX_HEADER_BYTES = 1 << 26
MAX_BODY_BYTES = 1 << 30
_DIRECTIONS = ("forward", "backward", "both")
_MAX_PARTS = 16


# -- commands ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LoadModel(Command):
    """Load a model by its card's name; the session is closed."""

    name: str = of.text(200)
    device: str = of.text(40)
    options: Mapping[str, Any] = of.mapping()


@dataclass(frozen=True, eq=False)
class OpenVolume(Command):
    """Map the voxel file of a volume; the session is closed. The volume's name stays with the host."""

    path: str = of.text(32_000)
    shape: tuple[int, ...] = of.wholes(1)
    dtype: str = of.text(8)
    ijk_to_world: tuple[float, ...] = of.numbers(16)
    modality: str = of.text(8, tuple(modality.value for modality in Modality))
    fingerprint: str = of.text(64)


@dataclass(frozen=True, eq=False)
class OpenSession(Command):
    """Start a session on the volume with the model: a window by name or by limits, a time point, a memory policy."""

    window: str = of.text(40)
    window_low: tuple[float, ...] | None = of.numbers(default=None)
    window_high: tuple[float, ...] | None = of.numbers(default=None)
    time: int = of.whole(default=0)
    policy: str = of.text(60, default="recent")
    policy_parameters: Mapping[str, Any] = of.mapping(default_factory=dict)
    cache_bytes: int | None = of.whole(default=None)


@dataclass(frozen=True, eq=False)
class ObjectCommand(Command):
    """About one object; ``revision`` counts the changes of its prompts."""

    object_id: int = of.whole()
    revision: int = of.whole()


@dataclass(frozen=True, eq=False)
class SetPrompts(ObjectCommand):
    """These are all the object's prompts; slices whose prompts differ start afresh."""

    prompts: tuple[Prompt, ...] = of.prompts()


@dataclass(frozen=True, eq=False)
class AddPrompts(ObjectCommand):
    """Further prompts."""

    prompts: tuple[Prompt, ...] = of.prompts()


@dataclass(frozen=True, eq=False)
class Undo(ObjectCommand):
    """Take back the last prompt."""


@dataclass(frozen=True, eq=False)
class RemoveObject(ObjectCommand):
    """Forget the object."""


@dataclass(frozen=True, eq=False)
class GetLabelmap(ObjectCommand):
    """Answer with the object's voxels as they are now."""


@dataclass(frozen=True, eq=False)
class ProtectVoxels(ObjectCommand):
    """Keep painted voxels as they are."""

    voxels: np.ndarray = of.mask(3)


@dataclass(frozen=True, eq=False)
class SliceCommand(ObjectCommand):
    """About one object on one slice."""

    plane: Plane = of.plane()
    index: int = of.whole()


@dataclass(frozen=True, eq=False)
class SegmentSlice(SliceCommand):
    """Outline the object from its prompts there."""


@dataclass(frozen=True, eq=False)
class ChooseCandidate(SliceCommand):
    """Take another candidate of the last outline."""

    candidate: int = of.whole()


@dataclass(frozen=True, eq=False)
class ConfirmSlice(SliceCommand):
    """Make the slice the user's own, with a painted mask or as it is."""

    mask: np.ndarray | None = of.mask(2, default=None)


@dataclass(frozen=True, eq=False)
class ClearSlice(SliceCommand):
    """Take back prompts and confirmation of the slice."""


@dataclass(frozen=True, eq=False)
class RestoreSlice(SliceCommand):
    """After a restart: what propagation had found there before."""

    mask: np.ndarray = of.mask(2)


@dataclass(frozen=True, eq=False)
class Propagate(Command):
    """Carry objects (None: all) through a stack."""

    plane: Plane = of.plane()
    objects: tuple[int, ...] | None = of.wholes(default=None)
    first: int | None = of.whole(default=None)
    last: int | None = of.whole(default=None)
    direction: str = of.text(8, _DIRECTIONS, default="both")
    policy: str | None = of.text(60, default=None)
    policy_parameters: Mapping[str, Any] = of.mapping(default_factory=dict)
    absent_slices: int | None = of.whole(1, default=None)
    min_area: float | None = of.number(default=None)
    round_trip: float | None = of.number(default=None)


@dataclass(frozen=True, eq=False)
class PropagateThroughTime(Command):
    """Carry objects to other time points of a series, whose voxel file is opened for this job alone.

    Parameters
    ----------
    path, shape, dtype, ijk_to_world, modality, fingerprint
        As in `OpenVolume`, with all time points.
    plane
        Whose slices are tracked.
    time
        Where it starts.
    keys
        Of each key mask 8 numbers: object, time point, first voxel (K, J, I) and size (K, J, I) of its block.
    voxels
        The blocks' voxels, one after the other.
    """

    path: str = of.text(32_000)
    shape: tuple[int, ...] = of.wholes(1)
    dtype: str = of.text(8)
    ijk_to_world: tuple[float, ...] = of.numbers(16)
    modality: str = of.text(8, tuple(modality.value for modality in Modality))
    fingerprint: str = of.text(64)
    plane: Plane = of.plane()
    time: int = of.whole()
    keys: tuple[int, ...] = of.wholes()
    voxels: np.ndarray = of.mask(1)
    direction: str = of.text(8, _DIRECTIONS, default="both")


@dataclass(frozen=True, eq=False)
class Repropagate(SliceCommand):
    """After a correction: carry the object again as far as the neighbouring key slices."""


@dataclass(frozen=True, eq=False)
class Prefetch(Command):
    """When idle, encode the slices around one."""

    plane: Plane = of.plane()
    index: int = of.whole()
    radius: int = of.whole(0, 100_000)


@dataclass(frozen=True, eq=False)
class Ping(Command):
    """Answered by JobDone when all clicks before it are done; no outline replaces one on its other side."""


@dataclass(frozen=True, eq=False)
class Cancel(Command):
    """End the job of this number; no job of its own."""


@dataclass(frozen=True, eq=False)
class Shutdown(Command):
    """End the worker."""


# -- events ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ready(Event):
    """The worker runs."""

    pid: int = of.whole()
    python: str = of.text(40)


@dataclass(frozen=True, eq=False)
class ModelLoaded(Event):
    """What was loaded, and where it runs."""

    name: str = of.text(200)
    title: str = of.text()
    device: str = of.text(200)
    licence: str = of.text()
    research_only: bool = of.flag()
    capabilities: tuple[str, ...] = of.texts()
    prompts: tuple[str, ...] = of.texts()
    seconds: float = of.number()


@dataclass(frozen=True, eq=False)
class VolumeOpened(Event):
    """The volume's identity in slice keys."""

    fingerprint: str = of.text(64)


@dataclass(frozen=True, eq=False)
class SliceMask(Event):
    """A slice of an object as it now is.

    Parameters
    ----------
    mask
        (rows, columns) bool.
    candidates
        (M, rows, columns) bool, best first, where one click has several answers.
    revision
        The object's prompt revision it was computed from.
    box
        Rows and columns that differ from what the host had last: (row0, column0, row1, column1), ends exclusive, an
        empty box if nothing does; filled in by the client. None: not known, take the whole slice.
    """

    object_id: int = of.whole()
    key: SliceKey = of.slice_key()
    mask: np.ndarray = of.mask(2)
    revision: int = of.whole()
    quality: float = of.number(default=0.0)
    presence: float = of.number(default=0.0)
    overlap: float = of.number(default=1.0)
    candidate: int = of.whole(default=0)
    candidates: np.ndarray | None = of.mask(3, default=None)
    prompted: bool = of.flag(default=False)
    cleared: bool = of.flag(default=False)
    final: bool = of.flag(default=True)
    done: int = of.whole(default=0)
    total: int = of.whole(default=0)
    seconds_left: float = of.number(default=0.0)
    box: tuple[int, ...] | None = of.wholes(default=None)


@dataclass(frozen=True, eq=False)
class Labelmap(Event):
    """(K, J, I) bool voxels of an object."""

    object_id: int = of.whole()
    voxels: np.ndarray = of.mask(3)
    revision: int = of.whole()


@dataclass(frozen=True, eq=False)
class TimePoint(Event):
    """An object at a time point that is done.

    Parameters
    ----------
    object_id, time
        Whose, and when.
    low_kji
        First voxel of the block round the object.
    voxels
        (K, J, I) bool of the block; None where the object has ended.
    quality
        Mean predicted intersection over union of its slices, 0 to 1.
    """

    object_id: int = of.whole()
    time: int = of.whole()
    low_kji: tuple[int, ...] = of.wholes()
    voxels: np.ndarray | None = of.mask(3, default=None)
    quality: float = of.number(default=0.0)


@dataclass(frozen=True, eq=False)
class Progress(Event):
    """How far a job without slices is."""

    done: int = of.whole()
    total: int = of.whole()


@dataclass(frozen=True, eq=False)
class JobDone(Event):
    """The job is finished; seconds, slices and seconds per stage."""

    stats: Mapping[str, Any] = of.mapping(default_factory=dict)


@dataclass(frozen=True, eq=False)
class JobCancelled(Event):
    """The job ended early on request, or because a newer one took its place."""

    reason: str = of.text(default="cancelled")


@dataclass(frozen=True, eq=False)
class JobFailed(Event):
    """The job failed: the error's class and a sentence for the user."""

    error: str = of.text(200)
    sentence: str = of.text()


@dataclass(frozen=True, eq=False)
class Log(Event):
    """A line of the worker's log, without names of patients and without paths."""

    level: str = of.text(20)
    line: str = of.text()


@dataclass(frozen=True, eq=False)
class WorkerDied(Event):
    """Made by the client: the child is gone."""

    sentence: str
    lines: tuple[str, ...]
    exit_code: int | None
    will_restart: bool


@dataclass(frozen=True, eq=False)
class WorkerRestarted(Event):
    """Made by the client: a new child has the model, the volume, prompts and confirmed slices again."""

    pid: int


def _by_name(*kinds: type[Message]) -> dict[str, type[Message]]:
    return {kind.__name__: kind for kind in kinds}


COMMANDS = _by_name(
    LoadModel, OpenVolume, OpenSession, SetPrompts, AddPrompts, Undo, RemoveObject, GetLabelmap, ProtectVoxels,
    SegmentSlice, ChooseCandidate, ConfirmSlice, ClearSlice, RestoreSlice, Propagate, PropagateThroughTime, Repropagate,
    SuggestPrompts, Prefetch, Ping, Cancel, Shutdown,
)  # fmt: skip
EVENTS = _by_name(
    Ready, ModelLoaded, VolumeOpened, SliceMask, TimePoint, Labelmap, SuggestedPrompts, Progress, JobDone, JobCancelled,
    JobFailed, Log,
)  # fmt: skip

Kinds = Mapping[str, type[Message]]
AnyMessage = TypeVar("AnyMessage", bound=Message)


def encode(message: Message) -> bytes:
    """The frame of a message.

    Raises
    ------
    WorkerError
        If a field holds what the receiver would refuse; the message names it.
    """
    kind, parts = type(message).__name__, []
    content = {item.name: of.encode_field(kind, item, getattr(message, item.name), parts) for item in fields(message)}
    lengths = [part.size for part in parts]
    document = {"version": VERSION, "kind": kind, "parts": lengths, "fields": content}
    header = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    check_size(len(header), sum(lengths))
    return b"".join([PREFIX.pack(len(header), sum(lengths)), header, *(memoryview(part) for part in parts)])


def decode(header: bytes, body: bytes | bytearray, kinds: Kinds) -> Message:
    """The message of a frame's header and raw parts.

    Parameters
    ----------
    kinds
        `COMMANDS` or `EVENTS`: what is accepted.

    Raises
    ------
    WorkerError
        If anything is not as it has to be; the message names it.
    """
    document = _document(header)
    kind = kinds.get(document["kind"]) if isinstance(document["kind"], str) else None
    if kind is None:
        raise WorkerError(f"A message of the kind {str(document['kind'])[:60]!r} is not known.")
    parts = _parts(document["parts"], body)
    content, known = document["fields"], {item.name: item for item in fields(kind)}
    if not isinstance(content, dict):
        raise WorkerError(f"{kind.__name__}: the fields must be a JSON object.")
    unknown = sorted(set(content) - set(known))
    required = [name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING]
    missing = [name for name in required if name not in content]
    if unknown or missing:
        what = f"has unknown fields {unknown[:5]}" if unknown else f"lacks {', '.join(missing)}"
        raise WorkerError(f"{kind.__name__} {what}.")
    return kind(**{name: of.decode_field(kind.__name__, known[name], value, parts) for name, value in content.items()})


def check_size(header_bytes: int, body_bytes: int) -> None:
    """Raise a `WorkerError` if a frame of these lengths is beyond what is accepted."""
    if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
        raise WorkerError(
            f"A message of {header_bytes} + {body_bytes} bytes is refused: at most {MAX_HEADER_BYTES} bytes of header "
            f"and {MAX_BODY_BYTES} bytes of voxels are accepted."
        )


def _document(header: bytes) -> dict[str, Any]:
    try:
        document = json.loads(header, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WorkerError(f"A message's header is not JSON: {str(error)[:200]}.") from error
    if not isinstance(document, dict):
        raise WorkerError("A message's header must be a JSON object.")
    if document.get("version") != VERSION:
        raise WorkerError(
            f"The other side speaks version {str(document.get('version'))[:20]} of the worker protocol, this side "
            f"version {VERSION}: restart the program so that both come from the same installation."
        )
    if set(document) != {"version", "kind", "parts", "fields"}:
        raise WorkerError("A message's header needs version, kind, parts and fields, and nothing else.")
    return document


def _parts(lengths: Any, body: bytes | bytearray) -> of.Parts:
    right = isinstance(lengths, list) and len(lengths) <= _MAX_PARTS and all(type(n) is int and n >= 0 for n in lengths)
    if not right or sum(lengths) != len(body):
        raise WorkerError(f"A message's parts do not add up to the {len(body)} bytes that came with it.")
    ends = np.cumsum([0, *lengths])
    whole = np.frombuffer(body, dtype=np.uint8)
    return [whole[begin:end] for begin, end in zip(ends[:-1], ends[1:], strict=True)]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")

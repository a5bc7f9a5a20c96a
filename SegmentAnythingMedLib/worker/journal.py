"""What the host has to say again to a new worker: model, volume, session, prompts, confirmed and tracked slices."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from SegmentAnythingMedLib.geometry import Plane
from SegmentAnythingMedLib.prompts_file import encode_prompt
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.voxel_file import VoxelFile

SliceOf = tuple[int, Plane, int]
"""Object, plane, index."""


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask, eight pixels to a byte and compressed: some 300 bytes for an organ on 512 x 512 pixels."""

    shape: tuple[int, int]
    bits: bytes

    @classmethod
    def pack(cls, mask: np.ndarray) -> PackedMask:
        return cls(mask.shape, zlib.compress(np.packbits(mask), 1))

    def unpack(self) -> np.ndarray:
        bits = np.frombuffer(zlib.decompress(self.bits), np.uint8)
        return np.unpackbits(bits, count=self.shape[0] * self.shape[1]).view(np.bool_).reshape(self.shape)


class Journal:
    """Keeps the commands that made the session what it is, in order, without those that later ones made superfluous."""

    def __init__(self) -> None:
        self.model: m.LoadModel | None = None
        self.volume: VoxelFile | None = None
        self.volume_job = 0
        self.session: m.OpenSession | None = None
        self._commands: dict[int, m.ObjectCommand] = {}
        self._moved: dict[int, int] = {}
        self._seen: dict[SliceOf, PackedMask] = {}
        self._tracked: dict[SliceOf, tuple[PackedMask, int]] = {}

    def __len__(self) -> int:
        return len(self._commands)

    def load_model(self, command: m.LoadModel) -> None:
        self.model = command
        self.close_session()

    def open_volume(self, volume: VoxelFile, job: int) -> None:
        self.volume, self.volume_job = volume, job
        self.close_session()

    def open_session(self, command: m.OpenSession) -> None:
        self.close_session()
        self.session = command

    def close_session(self) -> None:
        """Forget the session and all its objects."""
        self.session = None
        for kept in (self._commands, self._moved, self._seen, self._tracked):
            kept.clear()

    def note(self, command: m.ObjectCommand) -> None:
        """Keep a command that changes an object."""
        object_id = command.object_id
        if isinstance(command, m.RemoveObject):
            self._remove_object(object_id)
            return
        if isinstance(command, m.SetPrompts) and self._moves(command):
            self._moved[object_id] = command.job
        if isinstance(command, m.SegmentSlice):
            self._drop_outdated(command)
        self._commands[command.job] = command

    def forget(self, job: int) -> None:
        """The job failed or was replaced: it changed nothing."""
        self._commands.pop(job, None)
        if self.session is not None and self.session.job == job:
            self.close_session()
        if self.model is not None and self.model.job == job:
            self.model = None
        if self.volume is not None and self.volume_job == job:
            self.volume = None

    def received(self, event: m.SliceMask, tracked: bool) -> tuple[int, int, int, int] | None:
        """Keep a slice that arrived; returns the box of what differs from the last time, None the first time."""
        at = (event.object_id, event.key.plane, event.key.index)
        before, packed = self._seen.get(at), PackedMask.pack(event.mask)
        self._seen[at] = packed
        if tracked and not event.cleared:
            self._tracked[at] = packed, event.revision
        elif tracked:
            self._tracked.pop(at, None)
        return None if before is None else _changed_box(before.unpack(), event.mask)

    def frames(self, *, with_model: bool, ping: int) -> Callable[[Callable[[], None]], Iterator[bytes]]:
        """What brings a worker to where this journal is now, and then asks for an answer to job ``ping``."""
        return partial(
            _frames,
            model=self.model if with_model else None,
            volume=self.volume,
            volume_job=self.volume_job,
            session=self.session,
            tracked=tuple(self._tracked.items()),
            commands=tuple(self._commands.values()),
            ping=ping,
        )

    def _remove_object(self, object_id: int) -> None:
        for command in self._of_object(object_id):
            del self._commands[command.job]
        for kept in (self._seen, self._tracked):
            for at in [at for at in kept if at[0] == object_id]:
                del kept[at]

    def _of_object(self, object_id: int) -> list[m.ObjectCommand]:
        return [command for command in self._commands.values() if command.object_id == object_id]

    def _moves(self, command: m.SetPrompts) -> bool:
        """Whether these prompts are not just the earlier ones and more."""
        earlier = [other for other in self._of_object(command.object_id) if isinstance(other, m.SetPrompts)]
        if not earlier:
            return False
        old = [encode_prompt(prompt) for prompt in earlier[-1].prompts]
        return [encode_prompt(prompt) for prompt in command.prompts[: len(old)]] != old

    def _drop_outdated(self, command: m.SegmentSlice) -> None:
        """A dragged point leaves one outline and one set of prompts behind, not hundreds."""
        moved = self._moved.get(command.object_id, 0)
        for earlier in self._of_object(command.object_id):
            outlines = isinstance(earlier, m.SegmentSlice) and earlier.job < moved
            if outlines and (earlier.plane, earlier.index) == (command.plane, command.index):
                del self._commands[earlier.job]
        for earlier, later in itertools.pairwise(self._of_object(command.object_id)):
            if isinstance(earlier, m.SetPrompts) and isinstance(later, m.SetPrompts):
                del self._commands[earlier.job]


def _frames(
    between: Callable[[], None],
    *,
    model: m.LoadModel | None,
    volume: VoxelFile | None,
    volume_job: int,
    session: m.OpenSession | None,
    tracked: tuple[tuple[SliceOf, tuple[PackedMask, int]], ...],
    commands: tuple[m.ObjectCommand, ...],
    ping: int,
) -> Iterator[bytes]:
    if model is not None:
        yield m.encode(model)
    if volume is not None and volume.write(between):
        yield m.encode(volume.command(volume_job))
    if session is not None:
        yield m.encode(session)
    for (object_id, plane, index), (packed, revision) in tracked:
        yield m.encode(m.RestoreSlice(0, object_id, revision, plane, index, packed.unpack()))
    for command in commands:
        yield m.encode(command)
        if isinstance(command, m.SegmentSlice):
            yield m.encode(m.Ping(0))  # outlines refine each other: none may replace another this time
    yield m.encode(m.Ping(ping))


def _changed_box(before: np.ndarray, after: np.ndarray) -> tuple[int, int, int, int]:
    if before.shape != after.shape:
        return 0, 0, *after.shape
    changed = before ^ after
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

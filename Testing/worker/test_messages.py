"""What may travel between host and worker, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest

from SegmentAnythingMedLib.errors import WorkerError
from SegmentAnythingMedLib.geometry import Plane, SliceKey
from SegmentAnythingMedLib.prompts import MaskPrompt
from SegmentAnythingMedLib.worker import messages as m
from SegmentAnythingMedLib.worker.transport import read_frame, receive
from Testing.worker.conftest import AXIAL, box, point

OBLIQUE = Plane(None, (0.1, 0.2, 0.9))
KEY = SliceKey("cafe", 1, OBLIQUE, 3)


def frame_of(header: object, body: bytes = b"") -> io.BytesIO:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(m.PREFIX.pack(len(raw), len(body)) + raw + body)


def header(kind: str, parts: tuple[int, ...] = (), **fields: object) -> dict[str, object]:
    return {"version": m.VERSION, "kind": kind, "parts": list(parts), "fields": fields}


def there_and_back(message: m.Message) -> m.Message:
    return receive(io.BytesIO(m.encode(message)), m.COMMANDS | m.EVENTS)


def test_masks_and_their_identity_arrive_as_sent() -> None:
    mask = np.random.default_rng(1).random((7, 13)) > 0.5
    sent = m.SliceMask(4, 2, KEY, mask, 9, 0.5, -3.0, candidates=np.stack([mask, ~mask]), final=False, box=(0, 1, 2, 3))
    got = there_and_back(sent)
    assert (got.job, got.object_id, got.key, got.revision, got.quality, got.final) == (4, 2, KEY, 9, 0.5, False)
    assert got.box == (0, 1, 2, 3)
    np.testing.assert_array_equal(got.mask, mask)
    np.testing.assert_array_equal(got.candidates, [mask, ~mask])


def test_prompts_arrive_as_sent() -> None:
    painted = MaskPrompt(np.eye(5, dtype=bool), 3, Plane(0))
    got = there_and_back(m.SetPrompts(1, 2, 3, (box(), point(3.5, 4.25, positive=False), painted)))
    assert got.prompts[:2] == (box(), point(3.5, 4.25, positive=False))
    np.testing.assert_array_equal(got.prompts[2].mask, np.eye(5, dtype=bool))


@pytest.mark.parametrize(
    "message",
    [
        m.LoadModel(1, "classic", "cpu", {"half": True, "sizes": [1, 2]}),
        m.OpenVolume(1, "/tmp/x", (1, 1, 2, 3, 4), "<i2", tuple(np.eye(4).ravel()), "CT", "cafe"),
        m.OpenSession(1, "custom", (0.0,), (1.0,), cache_bytes=5),
        m.Propagate(1, OBLIQUE, (1, 2), 0, 9, "forward", "recent", {}, 3, 0.1),
        m.Propagate(1, AXIAL),
        m.ConfirmSlice(1, 2, 3, AXIAL, 4),
        m.JobDone(1, {"seconds": 0.5, "stages": {"encode": 1}}),
        m.Cancel(3),
    ],
    ids=lambda message: type(message).__name__,
)
def test_every_field_survives_the_way(message: m.Message) -> None:
    got = there_and_back(message)
    assert type(got) is type(message)
    assert {f.name: getattr(got, f.name) for f in dataclasses.fields(got)} == {
        f.name: getattr(message, f.name) for f in dataclasses.fields(message)
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "JSON object"),
        (header("Ping", job=1) | {"version": 99}, "version 99 .* restart"),
        (header("Ping", job=1) | {"extra": 1}, "nothing else"),
        (header("Exec", job=1), "'Exec' is not known"),
        (header("Ping", job=1) | {"kind": ["Ping"]}, "not known"),
        (header("Ready", job=1, pid=1, python="3"), "'Ready' is not known"),
        (header("Ping"), "lacks job"),
        (header("Ping", job=1, more=2), "unknown fields"),
        (header("Ping", job=-1), "job needs a whole number from 0"),
        (header("Ping", job=True), "job needs a whole number"),
        (header("Ping", job=2**60), "job needs a whole number"),
        (header("Ping", job=None), "job needs a whole number"),
        (header("Ping", parts=(5,), job=1), "do not add up"),
        (header("Prefetch", job=1, plane={"axis": 7}, index=1, radius=1), "plane .* not 7"),
        (header("Prefetch", job=1, plane={"normal_ijk": [0, 0, 0]}, index=1, radius=1), "plane"),
        (header("Propagate", job=1, plane={"axis": 2}, direction="up"), "forward, backward, both"),
        (header("AddPrompts", job=1, object_id=1, revision=1, prompts=[{"kind": "dot"}]), "kind"),
        (b'{"version":1,"kind":"OpenSession","parts":[],"fields":{"job":1,"window":"a","window_low":[NaN]}}', "NaN"),
        (header("LoadModel", job=1, name="x" * 500, device="cpu", options={}), "at most 200"),
    ],
)
def test_what_is_not_as_it_has_to_be_is_refused(content: object, sentence: str) -> None:
    with pytest.raises(WorkerError, match=sentence):
        receive(frame_of(content), m.COMMANDS)


@pytest.mark.parametrize("shape", [[3, 3], [8, 100], [1 << 40, 1 << 40], [0, 8], [8], [8.0, 1]])
def test_a_mask_needs_just_the_bytes_of_its_shape(shape: list[float]) -> None:
    fields = {"job": 1, "object_id": 1, "revision": 1, "plane": {"axis": 2}, "index": 1}
    content = header("ConfirmSlice", (1,), **fields, mask={"shape": shape, "part": 0})
    with pytest.raises(WorkerError, match="mask"):
        receive(frame_of(content, b"\xff"), m.COMMANDS)


def test_a_truncated_frame_is_noticed_wherever_it_ends() -> None:
    whole = m.encode(m.ConfirmSlice(1, 1, 1, AXIAL, 2, np.ones((9, 9), dtype=bool)))
    for length in range(1, len(whole), 7):
        with pytest.raises(WorkerError, match="stopped while sending"):
            read_frame(io.BytesIO(whole[:length]))
    assert read_frame(io.BytesIO(b"")) is None


def test_an_oversized_frame_is_refused_before_it_is_read() -> None:
    for prefix in (m.PREFIX.pack(10, 1 << 62), m.PREFIX.pack((1 << 32) - 1, 0), b"hello world, this is no frame"):
        with pytest.raises(WorkerError, match="refused"):
            read_frame(io.BytesIO(prefix))


@pytest.mark.parametrize(
    "message",
    [
        m.SegmentSlice(1, -1, 0, AXIAL, 3),
        m.SegmentSlice(1, 1, 0, "axial", 3),
        m.SegmentSlice(1, 1, 0, AXIAL, 3.5),
        m.ConfirmSlice(1, 1, 0, AXIAL, 3, np.zeros((3, 3))),
        m.LoadModel(1, "x", "cpu", {"hook": print}),
    ],
)
def test_the_sender_is_told_what_the_receiver_would_refuse(message: m.Message) -> None:
    with pytest.raises(WorkerError, match=type(message).__name__):
        m.encode(message)


def test_frames_arrive_whole_however_small_the_pieces() -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int = -1, /) -> bytes:
            return super().read(min(size, 3))

    stream = Dripping(m.encode(m.Ping(7)) + m.encode(m.Cancel(8)))
    assert [receive(stream, m.COMMANDS).job, receive(stream, m.COMMANDS).job] == [7, 8]
    assert receive(stream, m.COMMANDS) is None

"""A server on this machine that speaks nnInteractive's protocol with a region grower for a network, and its faults.

It follows ``nninteractive-slicer-server`` 0.3 as documented by its source: arrays and coordinates in the order of the
uploaded array, half-open boxes, and the guard that moves a box without thickness to the slice before.
"""

from __future__ import annotations

import gzip
import io
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from scipy import ndimage

BOMB_BYTES = 1 << 25


@cache
def a_bomb() -> bytes:
    """A small answer that unpacks to `BOMB_BYTES`."""
    return gzip.compress(bytes(BOMB_BYTES))


@dataclass(frozen=True, eq=False)
class Request:
    """What was asked, as the server understood it."""

    path: str
    headers: dict[str, str]
    content: dict[str, object]

    @property
    def array(self) -> np.ndarray:
        return self.content["file"]


@dataclass
class StandIn:
    """The server's state, its fault, and all it was asked.

    Parameters
    ----------
    fault
        ``slow``, ``trickle``, ``cut_body``, ``cut_gzip``, ``not_gzip``, ``short``, ``long``, ``bomb``, ``endless``,
        ``html``, ``brotli``, ``closes``, ``says_no``, ``status 404`` ...; of answers with a mask only, unless
        ``on_upload``. ``slow_reader`` takes a request a megabyte at a time.
    """

    fault: str = ""
    on_upload: bool = False
    url: str = ""
    asked: list[Request] = field(default_factory=list)
    connections: int = 0
    image: np.ndarray | None = None
    target: np.ndarray | None = None
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.asked]

    def forget(self) -> None:
        """As if it was started again."""
        self.image = self.target = None

    def answer(self, request: Request) -> np.ndarray | dict[str, str]:
        path = request.path.rpartition("/")[2]
        if path == "upload_image":
            self.image, self.target = request.array, np.zeros(request.array.shape, dtype=bool)
            return {"status": "ok"}
        if self.image is None:
            return {"status": "error", "message": "No image uploaded"}
        if path == "upload_segment":
            self.target = request.array.astype(bool)
            return {"status": "ok"}
        self._grow(self._seeds(path, request), str(request.content["positive_click"]).lower() == "true")
        return self.target

    def _seeds(self, path: str, request: Request) -> np.ndarray:
        seeds = np.zeros(self.image.shape, dtype=bool)
        if path == "add_point_interaction":
            seeds[tuple(request.content["voxel_coord"])] = True
        elif path == "add_bbox_interaction":
            corners = np.array([request.content["outer_point_one"], request.content["outer_point_two"]])
            spans = []
            for low, high, size in zip(corners.min(axis=0), corners.max(axis=0), self.image.shape, strict=True):
                low, high = max(low, 0), min(high, size)
                if high <= low:
                    low, high = (0, 1) if low == 0 else (low - 1, high)
                spans.append(slice(low, high))
            seeds[tuple(spans)] = True
        else:
            seeds = request.array.astype(bool)
        return seeds

    def _grow(self, seeds: np.ndarray, positive: bool) -> None:
        values = self.image.astype(np.float32)
        labels, _ = ndimage.label(values > (values.min() + values.max()) / 2)
        touched = np.isin(labels, np.setdiff1d(labels[seeds], [0]))
        self.target = self.target | touched if positive else self.target & ~touched


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        stand_in = self.server.stand_in
        length, body = int(self.headers["Content-Length"]), b""
        while len(body) < length:
            if stand_in.fault == "slow_reader":
                stand_in.released.wait(0.1)
            part = self.rfile.read(min(1 << 20, length - len(body)))
            if not part:
                return  # the client broke off
            body += part
        request = Request(self.path, dict(self.headers.items()), self._content(body))
        stand_in.asked.append(request)
        is_upload = "upload" in self.path
        fault = stand_in.fault if is_upload == stand_in.on_upload else ""
        found = stand_in.answer(request)
        if not self._misbehave(fault, found):
            self._answer(found)

    def _content(self, body: bytes) -> dict[str, object]:
        kind = self.headers["Content-Type"]
        if kind == "application/json":
            return json.loads(body)
        message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        content: dict[str, object] = {}
        for part in message.get_payload():
            name, data = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
            if name == "file":
                packed = part.get_filename().endswith(".gz")
                content[name] = np.load(io.BytesIO(gzip.decompress(data) if packed else data), allow_pickle=False)
            else:
                content[name] = data.decode()
        return content

    def _answer(self, found: np.ndarray | dict[str, str], cut: int = 0) -> None:
        if isinstance(found, dict):
            self._send(json.dumps(found).encode(), "application/json")
            return
        packed = gzip.compress(np.packbits(found).tobytes())
        self._send(packed[: len(packed) - cut], "application/octet-stream", "gzip")

    def _send(self, body: bytes, kind: str, encoding: str = "", status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.end_headers()
        self.wfile.write(body)

    def _misbehave(self, fault: str, found: np.ndarray | dict[str, str]) -> bool:
        """Answer wrongly; False if there is no fault."""
        octets = "application/octet-stream"
        shape = found.shape if isinstance(found, np.ndarray) else (1, 1, 8)
        self.close_connection = bool(fault)
        if fault == "slow":
            self.server.stand_in.released.wait(10)
        elif fault == "trickle":
            self._send(b"\x1f", octets, "gzip", length=100)
            while not self.server.stand_in.released.wait(0.05):
                self.wfile.write(b"\x00")
        elif fault == "cut_body":
            self._send(b"\x1f\x8b\x08", octets, "gzip", length=100)
        elif fault == "cut_gzip":
            self._answer(found, cut=9)
        elif fault == "not_gzip":
            self._send(b"these are no bits of a mask", octets, "gzip")
        elif fault in ("short", "long"):
            self._answer(np.ones((shape[0] + (4 if fault == "long" else -4), *shape[1:]), dtype=bool))
        elif fault == "bomb":
            self._send(a_bomb(), octets, "gzip")
        elif fault == "endless":
            self._send(b"", octets, "gzip", length=1 << 40)
            while not self.server.stand_in.released.is_set():
                self.wfile.write(bytes(1 << 16))
        elif fault == "html":
            self._send(b"<html>Please sign in</html>", "text/html; charset=utf-8")
        elif fault == "brotli":
            self._send(b"x", octets, "br")
        elif fault == "says_no":
            self._answer({"status": "error", "message": "CUDA\x1b out of memory"})
        elif fault.startswith("status"):
            self._send(b"{}", "application/json", status=int(fault.split()[1]))
        return bool(fault)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stand_in = stand_in

    def get_request(self) -> tuple[object, object]:
        self.stand_in.connections += 1
        return super().get_request()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that break off are part of the tests


@contextmanager
def nninteractive_server(certificate: Path | None = None) -> Iterator[StandIn]:
    """A running server that has no volume yet; with a certificate (and its key in one file) it speaks https."""
    stand_in = StandIn()
    server = _Server(stand_in)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    stand_in.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield stand_in
    finally:
        stand_in.released.set()
        server.shutdown()
        server.server_close()

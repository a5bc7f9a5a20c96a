"""A web server on this machine that gives one file, and can be told to misbehave."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@dataclass
class Behaviour:
    """What the server does; tests change it between downloads."""

    content: bytes = b""
    etag: str = '"one"'
    status: int = 200
    redirect: str = ""
    break_after: int | None = None
    tells_length: bool = True
    knows_ranges: bool = True
    silent: bool = False
    hangs: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        told = self.behaviour
        told.asked.append({"path": self.path} | dict(self.headers.items()))
        if told.silent:
            threading.Event().wait(1.0)
            return
        if told.redirect and self.path == "/start":
            self.send_response(302)
            self.send_header("Location", told.redirect)
            self.end_headers()
            return
        if told.status != 200:
            self.send_error(told.status)
            return
        self._send(told)

    def _send(self, told: Behaviour) -> None:
        start = self._start(told)
        if start and start >= len(told.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(told.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(told.content) - 1}/{len(told.content)}")
        if told.tells_length:
            self.send_header("Content-Length", str(len(told.content) - start))
        if told.etag:
            self.send_header("ETag", told.etag)
        self.end_headers()
        end = None if told.break_after is None else start + told.break_after
        self.wfile.write(told.content[start:end])
        if told.hangs:
            self.wfile.flush()
            self.rfile.read(1)  # until the client hangs up

    def _start(self, told: Behaviour) -> int:
        wanted = self.headers.get("Range", "")
        same = self.headers.get("If-Range", told.etag) == told.etag
        return int(wanted[len("bytes=") : -1]) if wanted and told.knows_ranges and same else 0

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the tests."""


def make_certificate(folder: Path) -> Path:
    """Certificate and key of 127.0.0.1 in one file; the certificate alone is ``cert.pem`` beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[Behaviour]:
    """A server in a thread; with a certificate (and its key in one file) it speaks https."""
    behaviour = Behaviour()
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    with _Server(("127.0.0.1", 0), handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        behaviour.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield behaviour
        finally:
            server.shutdown()
            thread.join()

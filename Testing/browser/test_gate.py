"""Who may talk to the server, without a browser: exposure, token, host, origin, TLS."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser.app_page import Server, wait_until
from browser.conftest import ROOT

from SegmentAnythingMedLib import cli
from SegmentAnythingMedLib.web.security import Exposure, RefusedError, is_loopback

TOKEN = "a-token-of-the-test-that-is-long"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "0.0.0.0"], "give --certificate, --key and --token-file"),
        (["--host", "192.168.1.5", "--certificate", "c.pem", "--key", "k.pem"], "--token-file"),
        (["--host", "::", "--token-file", "TOKEN"], "--certificate"),
        (["--certificate", "c.pem"], "both --certificate and --key"),
        (["--certificate", "c.pem", "--key", "k.pem"], "cannot be used"),
        (["--token-file", "SHORT"], "at least 16 characters"),
        (["--token-file", "nowhere"], "cannot be read"),
        (["nowhere.nii"], "nowhere.nii is not there"),
    ],
)
def test_what_is_not_safe_or_not_there_is_refused_in_words(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "TOKEN").write_text(TOKEN)
    (tmp_path / "SHORT").write_text("short")
    named = [str(tmp_path / one) if one in ("TOKEN", "SHORT") else one for one in arguments]
    assert cli.main(["web", "--no-browser", *named]) == 2
    message = capsys.readouterr().err
    assert sentence in message and message.count("\n") == 1


def test_a_token_is_made_when_none_is_given_and_is_never_shown() -> None:
    first, second = Exposure(), Exposure()
    assert first.token != second.token and len(first.token) >= 16
    assert first.token not in repr(first)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def ask(
    server: Server, path: str = "/", method: str = "GET", token: str = "", **headers: str
) -> http.client.HTTPResponse:
    """One request; the answer has been read."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        named["Authorization"] = f"Bearer {token}"
    connection.request(method, path, headers=named)
    answer = connection.getresponse()
    answer.text = answer.read().decode()
    connection.close()
    return answer


@pytest.fixture(scope="module")
def gate(serving: Callable[..., Server]) -> Iterator[Server]:
    server = serving("--sessions", 1)
    yield server
    assert server.stop() == 0


def test_without_the_token_nothing_is_shown(gate: Server) -> None:
    assert ask(gate).status == 401
    assert ask(gate, "/?token=wrong").status == 401
    for wrong in ("wrong", gate.token[:-1], gate.token + "x", "\xe9\xff"):
        assert ask(gate, token=wrong).status == 401
    assert ask(gate, "/s/0123/index.html").status == 401
    welcome = ask(gate, f"/?token={gate.token}")
    assert welcome.status == 303 and welcome.getheader("Location") == "/"
    cookie = welcome.getheader("Set-Cookie")
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie


def test_another_host_or_origin_is_refused(gate: Server) -> None:
    assert ask(gate, token=gate.token, Host="evil.example.org").status == 403
    assert ask(gate, token=gate.token, Host=f"evil.example.org:{gate.port}").status == 403
    assert ask(gate, token=gate.token, Origin="https://evil.example.org").status == 403
    assert ask(gate, "/s/0123/upload", "POST", gate.token).status == 403
    same = {"Host": f"localhost:{gate.port}", "Origin": f"http://localhost:{gate.port}"}
    assert ask(gate, "/s/0123/upload", "POST", gate.token, **same).status == 404
    socket = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert ask(gate, "/s/0123/ws", token=gate.token, **socket).status == 403
    for origin in ("https://evil.example.org", "null", f"http://localhost:{gate.port}.evil.org", "http://[", "\xff"):
        assert ask(gate, "/s/0123/ws", token=gate.token, Origin=origin, **socket).status == 403
    assert ask(gate, "/s/0123/ws", token=gate.token, Host="[", **socket).status in (400, 403)
    own = {"Origin": f"http://127.0.0.1:{gate.port}"}
    assert ask(gate, "/s/0123/ws", **own, **socket).status == 401, "the token is asked for, too"
    assert ask(gate, "/s/0123/ws", token=gate.token, **own, **socket).status == 404


def test_more_sessions_than_allowed_get_a_sentence_and_all_answers_forbid_other_servers(gate: Server) -> None:
    first = ask(gate, token=gate.token)
    assert first.status == 303 and first.getheader("Location").startswith("/s/")
    full = ask(gate, token=gate.token)
    assert full.status == 503 and "1 sessions are open already" in full.text
    assert "default-src 'self'" in full.getheader("Content-Security-Policy")


def test_the_sessions_own_port_answers_only_to_the_gate(gate: Server) -> None:
    location = ask(gate, token=gate.token).getheader("Location") or ""
    assert location == "", "the only session is taken"
    (pid,) = gate.descendants("web.session_app")
    wait_until(lambda: bool(_listening(pid)))
    for port in _listening(pid):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/index.html")
        assert connection.getresponse().status == 403
        connection.close()


def test_with_tls_and_a_token_others_may_reach_it(serving: Callable[..., Server], tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    certificate, key, token = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "token"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(make, check=True, capture_output=True)
    token.write_text(TOKEN + "\n")
    server = serving("--host", "0.0.0.0", "--certificate", certificate, "--key", key, "--token-file", token)
    assert server.url == f"https://localhost:{server.port}/?token={TOKEN}"
    context = ssl.create_default_context(cafile=str(certificate))
    statuses = {}
    for path in ("/", f"/?token={TOKEN}"):
        connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        statuses[path] = answer.status
        if answer.status == 303:
            assert "Secure" in answer.getheader("Set-Cookie")
        connection.close()
    assert statuses == {"/": 401, f"/?token={TOKEN}": 303}
    assert server.stop() == 0


def test_a_reason_is_given_when_the_port_is_taken(gate: Server) -> None:
    command = [sys.executable, "-m", "SegmentAnythingMedLib", "web", "--no-browser", "--port", str(gate.port)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 2 and "choose another --port" in run.stderr and run.stderr.count("\n") == 1


def test_refusals_are_errors_of_ours() -> None:
    with pytest.raises(RefusedError, match="patients"):
        Exposure("0.0.0.0")


def _listening(pid: int) -> list[int]:
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a file may be closed while we look
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return [int(one[1].partition(":")[2], 16) for one in fields if one[3] == "0A" and one[9] in inodes]

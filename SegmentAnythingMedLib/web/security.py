"""Who may talk to the server: where it may listen, which hosts and origins it answers, and the token."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from SegmentAnythingMedLib.errors import SegmentAnythingMedError

if TYPE_CHECKING:
    from collections.abc import Mapping

SHORTEST_TOKEN = 16
HEADERS = {
    # Vue compiles the page's template in the browser, which needs eval; nothing is loaded from elsewhere
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RefusedError(SegmentAnythingMedError):
    """The server will not listen there, or a request is not answered."""


@dataclass(frozen=True)
class Exposure:
    """Where the server listens, and what protects it.

    Parameters
    ----------
    host
        Address or name.
    port
        0 for any that is free.
    certificate, key
        PEM files for TLS, both or neither.
    token
        What a browser must know; made when empty.

    Raises
    ------
    RefusedError
        If others could reach the server without TLS and a token that was chosen.
    """

    host: str = "127.0.0.1"
    port: int = 0
    certificate: str = ""
    key: str = ""
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise RefusedError("TLS needs both --certificate and --key.")
        if self.token and len(self.token) < SHORTEST_TOKEN:
            raise RefusedError(f"The token is too short: use at least {SHORTEST_TOKEN} characters.")
        if not is_loopback(self.host) and not (self.certificate and self.token):
            raise RefusedError(
                f"Listening on {self.host} lets others reach your patients' images: give --certificate, --key and "
                "--token-file as well, or leave --host out and stay on this machine."
            )
        if not self.token:
            object.__setattr__(self, "token", secrets.token_urlsafe(24))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def tls(self) -> ssl.SSLContext | None:
        """The context for TLS, or None without.

        Raises
        ------
        RefusedError
            If certificate or key cannot be used.
        """
        if not self.certificate:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise RefusedError(f"The certificate or its key cannot be used ({error}): give PEM files.") from error
        return context


def is_loopback(host: str) -> bool:
    """Whether an address or name reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: str | Path) -> str:
    """The token of a file, one line; a file keeps it out of the list of processes.

    Raises
    ------
    RefusedError
        If the file cannot be read or is empty.
    """
    try:
        token = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"The token file {path} cannot be read: {error}.") from error
    if not token:
        raise RefusedError(f"The token file {path} is empty.")
    return token


def check_host(header: str, exposure: Exposure) -> None:
    """Refuse a request that was sent to another name: a web page elsewhere can make its own name mean this machine.

    With TLS the browser checks the name itself.
    """
    if exposure.is_local and not is_loopback(_split(f"//{header}").hostname or ""):
        raise RefusedError("This server answers to localhost only.")


def check_origin(headers: Mapping[str, str], *, needed: bool) -> None:
    """Refuse what a page of another server asks; ``needed`` where only a browser's page may ask."""
    origin = headers.get("Origin")
    if origin is None and not needed:
        return
    if origin is None or _split(origin).netloc != headers.get("Host"):
        raise RefusedError("This request does not come from the app's own page.")


def same_token(given: str, token: str) -> bool:
    """Whether two tokens are equal, in a time that does not tell how much of them is."""
    # headers come with surrogates in place of bytes that are no text
    return hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode())


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise RefusedError("The request names an address that cannot be read.") from error

"""Where an nnInteractive server is: only an address the user gave, and only one that nobody can listen in on."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from SegmentAnythingMedLib.errors import ModelUnavailableError

ENVIRONMENT = "SEGMENT_ANYTHING_MED_NNINTERACTIVE"
"""Environment variable with the server's address."""

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class ServerAddress:
    """A checked address.

    Parameters
    ----------
    host, port
        Whom to connect to.
    is_encrypted
        https; else plain http, which is allowed to this machine only.
    path
        What stands before the endpoints' names, without a slash at its end; for servers behind a proxy.
    """

    host: str
    port: int
    is_encrypted: bool = True
    path: str = ""

    @property
    def label(self) -> str:
        """``host:port``, as messages name it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent stays on this machine."""
        return self.host == "localhost" or is_loopback_ip(self.host)

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Check an address such as ``https://gpu.example.org:1527``.

        Raises
        ------
        ModelUnavailableError
            If it is no address, or plain http to another machine.
        """
        try:
            parts = urlsplit(text.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        extra = parts.query or parts.fragment or parts.username or parts.password
        is_plain = parts.path.isascii() and parts.path.isprintable() and " " not in parts.path
        if parts.scheme not in _PORTS or not host or not _is_name(host) or extra or port == 0 or not is_plain:
            raise ModelUnavailableError(
                f"{text!r} is not the address of an nnInteractive server: write https://HOST:PORT, or "
                "http://localhost:1527 for one on this machine."
            )
        found = cls(host, port or _PORTS[parts.scheme], parts.scheme == "https", parts.path.rstrip("/"))
        if not found.is_encrypted and not found.is_loopback:
            raise ModelUnavailableError(
                f"The volume would travel to {found.label} unencrypted: put the server behind a web server with a "
                f"certificate and give its https:// address, or forward its port with 'ssh -L 1527:localhost:"
                f"{found.port} {found.host}' and give http://localhost:1527."
            )
        return found


def chosen_address(options: Mapping[str, object], card_options: Mapping[str, object]) -> ServerAddress:
    """The address the user gave: the option ``address``, else the environment variable, else the user's card.

    Raises
    ------
    ModelUnavailableError
        If there is none, or it is refused.
    """
    text = options.get("address") or os.environ.get(ENVIRONMENT) or card_options.get("address")
    if not text:
        raise ModelUnavailableError(
            "nnInteractive runs on a server, and the volume is sent there: say which one by the environment variable "
            f'{ENVIRONMENT}=https://HOST:PORT, or by "address" under "options" in a model card of your own.'
        )
    return ServerAddress.parse(str(text))


def _is_name(host: str) -> bool:
    """Whether a name can be asked for at all: no part of it is empty or too long."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def is_loopback_ip(host: str) -> bool:
    """Whether this is a numeric address of this machine itself."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False

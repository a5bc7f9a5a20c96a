"""What an nnInteractive server must not answer, and what its silence means, as sentences that say what to do."""

from __future__ import annotations

import http.client
import json
import socket
import ssl

from SegmentAnythingMedLib.errors import ModelUnavailableError
from SegmentAnythingMedLib.models.nninteractive_address import ServerAddress

_OTHER_PROTOCOL = (
    http.HTTPStatus.NOT_FOUND,
    http.HTTPStatus.METHOD_NOT_ALLOWED,
    http.HTTPStatus.GONE,
    http.HTTPStatus.UNPROCESSABLE_ENTITY,
)


class VolumeLostError(ModelUnavailableError):
    """The server no longer has the volume: it was started again."""


def check_head(address: ServerAddress, response: http.client.HTTPResponse, wants_mask: bool) -> bool:
    """Whether a mask follows (True) or a message (False), from an answer's status and headers alone.

    Raises
    ------
    ModelUnavailableError
        If it is neither.
    """
    if response.status != http.HTTPStatus.OK:
        raise ModelUnavailableError(_refusal(address.label, response.status))
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    is_message = kind == "application/json" and encoding == "identity"
    is_mask = wants_mask and kind == "application/octet-stream" and encoding in ("gzip", "identity")
    if not (is_message or is_mask):
        raise ModelUnavailableError(
            f"{address.label} does not answer as an nnInteractive server but with {_printable(kind) or 'nothing known'}"
            ": correct the address, or sign in to the network first."
        )
    return is_mask


def check_message(address: ServerAddress, answer: bytes) -> None:
    """Pass over an "ok".

    Raises
    ------
    VolumeLostError
        If the server says that it has no volume.
    ModelUnavailableError
        If it says anything else.
    """
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError):
        content = None
    content = content if isinstance(content, dict) else {}
    if content.get("status") == "ok":
        return
    said = _printable(str(content.get("message", "")))
    if "No image uploaded" in said:
        raise VolumeLostError(f"{address.label} has lost the volume: ask again.")
    raise ModelUnavailableError(
        f"{address.label} could not answer; it says: {said or 'nothing that can be read'}. Look at the server's log."
    )


def too_long(address: ServerAddress) -> str:
    """The sentence for an answer that no volume of this size can have."""
    return (
        f"{address.label} answers with more than a mask of this volume can have: it is no nnInteractive server, or "
        "somebody else is using it. Nothing of the answer was used."
    )


def why_failed(address: ServerAddress, error: Exception) -> str:
    """Why a server was not reached, or stopped answering."""
    label = address.label
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"{label} has no certificate this machine trusts ({error.verify_message}): ask whoever runs the server, or "
            "name its certificate file in the environment variable SSL_CERT_FILE."
        )
    if isinstance(error, ssl.SSLError):
        return f"{label} does not speak https: ask whoever runs the server for its https:// address."
    if isinstance(error, socket.gaierror):
        return f"The name {address.host!r} is not known: look at the address of the nnInteractive server."
    if isinstance(error, TimeoutError):
        return f"{label} does not answer: look whether the nnInteractive server runs and is idle, and ask again."
    if isinstance(error, ConnectionRefusedError):
        return f"Nothing answers at {label}: start the nnInteractive server there, or correct the address."
    return f"The connection to the nnInteractive server {label} broke ({type(error).__name__}): ask again."


def _refusal(label: str, status: int) -> str:
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return f"{label} wants a sign-in, which this program does not know: ask whoever runs the server."
    if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"{label} does not take a volume of this size: crop it, or have the server's limit raised."
    if status in _OTHER_PROTOCOL:
        return (
            f"{label} does not speak this program's protocol (status {status}): it needs nninteractive-slicer-server "
            "0.1 to 0.3; nnInteractive's own server since version 2 speaks another one."
        )
    if status < http.HTTPStatus.BAD_REQUEST:
        return f"{label} leads somewhere else (status {status}), which is not followed: give the final address."
    return f"The nnInteractive server {label} failed (status {status}): look at its log, then ask again."


def _printable(text: str) -> str:
    return "".join(letter for letter in text[:200] if letter.isprintable())

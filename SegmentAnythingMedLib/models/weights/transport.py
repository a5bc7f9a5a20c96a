"""Opening a web address for a download: https only, on every hop, with a timeout; every failure is a sentence."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from SegmentAnythingMedLib import __version__
from SegmentAnythingMedLib.errors import ModelUnavailableError

TIMEOUT_S = 30.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def open_url(
    url: str, headers: dict[str, str], plain_http_on_loopback: bool = False, timeout_s: float = TIMEOUT_S
) -> http.client.HTTPResponse:
    """Answer of a server, its body not read yet; status 416 is an answer, too.

    Parameters
    ----------
    url
        Where to ask; https.
    headers
        Sent with the request, also after a redirect.
    plain_http_on_loopback
        Allow http, without a proxy, on this machine only: for tests.
    timeout_s
        Longest silence, in seconds, when connecting and while reading.

    Raises
    ------
    ModelUnavailableError
        If the address or a redirect is not https, or the server cannot be reached or does not give the file.
    """
    _check_scheme(url, plain_http_on_loopback)
    request = urllib.request.Request(url, headers=headers | _ALWAYS)
    try:
        return _opener(plain_http_on_loopback).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return error  # type: ignore[return-value]  # an HTTPError is a response
        with error:
            raise ModelUnavailableError(_refusal(error.code, url)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ModelUnavailableError(no_answer(url, error)) from error


def no_answer(url: str, error: Exception) -> str:
    """Why a server was not reached, or stopped answering, as a sentence."""
    reason = getattr(error, "reason", error)
    host = urlsplit(url).hostname
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"{host} has no certificate this machine trusts ({reason.verify_message}): ask whoever runs the network."
    if isinstance(reason, TimeoutError):
        return f"{host} does not answer: look at the network and try again; what came so far is kept."
    return f"The connection to {host} failed ({reason}): look at the network and try again; what came so far is kept."


_ALWAYS = {"User-Agent": f"segment-anything-med/{__version__}", "Accept-Encoding": "identity"}


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a download may start."""

    def __init__(self, plain_http_on_loopback: bool) -> None:
        self._plain = plain_http_on_loopback

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _check_scheme(newurl, self._plain)
        except ModelUnavailableError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(plain_http_on_loopback: bool) -> urllib.request.OpenerDirector:
    """No handlers for ftp, file and data, unlike urllib's own opener."""
    opener = urllib.request.OpenerDirector()
    handlers = [
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        _SafeRedirects(plain_http_on_loopback),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ]
    handlers.append(urllib.request.HTTPHandler() if plain_http_on_loopback else urllib.request.ProxyHandler())
    for handler in handlers:
        opener.add_handler(handler)
    return opener


def _check_scheme(url: str, plain_http_on_loopback: bool) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ModelUnavailableError(f"The download leads to {url!r}, which is no address: {error}.") from error
    if parts.scheme == "https" and parts.hostname:
        return
    if plain_http_on_loopback and parts.scheme == "http" and parts.hostname in _LOOPBACK:
        return
    raise ModelUnavailableError(
        f"The download leads to {parts.scheme or 'no'}://{parts.hostname or ''}, which is not safe: only https is used."
        " Get the file yourself and give it to 'models import'."
    )


def _refusal(status: int, url: str) -> str:
    host = urlsplit(url).hostname
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return f"{host} wants you to sign in first: get {url} with a browser and give it to 'models import'."
    if status in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
        return f"{host} no longer has the file: look for it on the makers' page and give it to 'models import'."
    if status < http.HTTPStatus.BAD_REQUEST:
        return f"{host} leads away to no safe place, only https is used: get {url} yourself for 'models import'."
    return f"{host} does not give the file now (status {status}): try again later."

"""Talks to an nnInteractive server by the HTTP protocol of ``nninteractive-slicer-server`` 0.1 to 0.3.

The protocol (github.com/coendevente/SlicerNNInteractive up to version 0.3, folder ``server``): the server holds one
volume and one object at a time. ``/upload_image`` replaces the volume, ``/upload_segment`` forgets the interactions
and takes a mask as the object so far (an empty one: nothing), and every ``/add_..._interaction`` adds one interaction
and answers with the whole mask, predicted from all interactions since. Every request has its own connection. There is
no cancel: a request that is under way at the server ends there by itself. The server asks for no password: whoever
reaches it can use it.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator

import numpy as np

from SegmentAnythingMedLib.errors import ModelUnavailableError
from SegmentAnythingMedLib.models.nninteractive_address import ServerAddress, is_loopback_ip
from SegmentAnythingMedLib.models.nninteractive_interactions import Click, Drawing, FlatBox, Interaction
from SegmentAnythingMedLib.models.nninteractive_refusals import check_head, check_message, too_long, why_failed
from SegmentAnythingMedLib.models.nninteractive_wire import (
    MESSAGE_BYTES,
    Body,
    image_body,
    mask_body,
    mask_limit,
    unpacked_mask,
)

CONNECT_S = 10.0
ANSWER_S = 300.0
_PART_BYTES = 1 << 16


class NnInteractiveClient:
    """One server.

    Parameters
    ----------
    address
        Where it is.
    answer_s
        Longest time for an answer, in seconds, and longest silence while sending.
    """

    def __init__(self, address: ServerAddress, answer_s: float = ANSWER_S) -> None:
        self.address = address
        self._answer_s = answer_s

    def upload_image(self, voxels: np.ndarray) -> Iterator[tuple[int, int]]:
        """Send the (K, J, I) voxels, as `nninteractive_wire.sent_voxels` gives them; yields bytes sent and in all.

        Closing the iterator before its end breaks the upload off; the server then keeps the volume it had.

        Raises
        ------
        ModelUnavailableError
            If the server is gone, is none of this kind, or does not take the volume.
        """
        yield from self._exchange("/upload_image", image_body(voxels), None)

    def upload_segment(self, mask: np.ndarray) -> None:
        """Forget all interactions; the (K, J, I) mask is the object so far. Raises as `upload_image`."""
        self._post("/upload_segment", mask_body(mask, {}), None)

    def interact(self, interaction: Interaction, shape_kji: tuple[int, int, int]) -> np.ndarray:
        """Add an interaction; the object's (K, J, I) bool mask. Raises as `upload_image`."""
        path, body = _request(interaction)
        is_compressed, answer = self._post(path, body, mask_limit(shape_kji))
        return unpacked_mask(answer, is_compressed, shape_kji)

    def _post(self, path: str, body: Body, limit: int | None) -> tuple[bool, bytes]:
        exchange = self._exchange(path, body, limit)
        while True:
            try:
                next(exchange)
            except StopIteration as end:
                return end.value

    def _exchange(self, path: str, body: Body, limit: int | None) -> Iterator[tuple[int, int]]:
        """Send a request piece by piece and return its answer: whether it is compressed, and its bytes.

        ``limit`` is the most bytes that an answer with a mask has; None expects a mere "ok".
        """
        connection = self._connected()
        try:
            yield from self._send(connection, path, body)
            response = connection.getresponse()
            has_mask = check_head(self.address, response, limit is not None)
            answer = self._read(response, limit if has_mask else MESSAGE_BYTES)
            if not has_mask:
                check_message(self.address, answer)
            return response.headers.get("Content-Encoding", "").lower() == "gzip", answer
        except (OSError, http.client.HTTPException) as error:
            raise ModelUnavailableError(why_failed(self.address, error)) from error
        finally:
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        host, port = self.address.host, self.address.port
        if self.address.is_encrypted:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_S)
        try:
            connection.connect()
        except OSError as error:
            raise ModelUnavailableError(why_failed(self.address, error)) from error
        peer = connection.sock.getpeername()[0]
        if not self.address.is_encrypted and not is_loopback_ip(peer):
            connection.close()
            raise ModelUnavailableError(
                f"{host} is not this machine here but {peer}: give http://127.0.0.1:{port}, or an https:// address."
            )
        connection.sock.settimeout(self._answer_s)
        return connection

    def _send(self, connection: http.client.HTTPConnection, path: str, body: Body) -> Iterator[tuple[int, int]]:
        total, sent = body.nbytes, 0
        connection.putrequest("POST", self.address.path + path, skip_accept_encoding=True)
        headers = {"Content-Type": body.content_type, "Content-Length": str(total), "Accept-Encoding": "gzip"}
        for name, value in headers.items():
            connection.putheader(name, value)
        try:
            connection.endheaders()
            for chunk in body.chunks():
                connection.send(chunk)
                sent += chunk.nbytes
                yield sent, total
        except (BrokenPipeError, ConnectionResetError):
            if not sent:
                raise
            # A server that refuses a request says so and closes before all of it is there: its answer tells why.

    def _read(self, response: http.client.HTTPResponse, limit: int) -> bytes:
        """The answer's body, as it came; never more than the limit, never longer than the time for an answer."""
        end, parts, size = time.monotonic() + self._answer_s, [], 0
        while part := response.read1(_PART_BYTES):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise ModelUnavailableError(too_long(self.address))
            if time.monotonic() > end:
                raise TimeoutError
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(parts)


def _request(interaction: Interaction) -> tuple[str, Body]:
    if isinstance(interaction, Click):
        content = {"voxel_coord": list(interaction.voxel_kji), "positive_click": interaction.positive}
        return "/add_point_interaction", Body.of_json(content)
    if isinstance(interaction, FlatBox):
        corners = {"outer_point_one": list(interaction.low_kji), "outer_point_two": list(interaction.high_kji)}
        return "/add_bbox_interaction", Body.of_json(corners | {"positive_click": True})
    assert isinstance(interaction, Drawing)
    fields = {"positive_click": str(interaction.positive)}
    return f"/add_{interaction.kind}_interaction", mask_body(interaction.mask, fields)

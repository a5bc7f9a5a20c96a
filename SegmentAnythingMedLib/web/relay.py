"""Passing a browser's requests on to its session's process, and the answers back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import ClientError, ClientSession, ClientTimeout, ClientWebSocketResponse, WSMsgType, web

from SegmentAnythingMedLib.web.security import HEADERS

if TYPE_CHECKING:
    from SegmentAnythingMedLib.web.session_process import SessionProcess

SECRET_HEADER = "X-Session-Secret"
_TO_SESSION = ("Content-Type", "Content-Length", "Accept", "If-None-Match", "If-Modified-Since")
_TO_BROWSER = ("Content-Type", "Content-Disposition", "X-File-Name", "Etag", "Last-Modified")
_MOST_MESSAGE = 64 << 20


async def pass_request(
    client: ClientSession, session: SessionProcess, request: web.Request, path: str
) -> web.StreamResponse:
    """Have the session answer a request; bodies are passed on as they come, in both directions."""
    session.touch()
    headers = {name: request.headers[name] for name in _TO_SESSION if name in request.headers}
    headers[SECRET_HEADER] = session.secret
    url = f"http://127.0.0.1:{session.port}/{path}"
    body = request.content if request.can_read_body else None
    try:
        async with client.request(
            request.method, url, params=request.query, headers=headers, data=body, timeout=ClientTimeout(total=None)
        ) as answer:
            passed = {name: answer.headers[name] for name in _TO_BROWSER if name in answer.headers}
            # the browser may keep no images, and asks before it shows what it kept: the session may have ended
            keeping = {"Cache-Control": "no-store" if path.startswith("download/") else "no-cache"}
            response = web.StreamResponse(status=answer.status, headers=passed | HEADERS | keeping)
            await response.prepare(request)
            async for piece in answer.content.iter_chunked(1 << 16):
                await response.write(piece)
            await response.write_eof()
            return response
    except ClientError as error:
        raise web.HTTPBadGateway(text="The session has ended: open the app's first page again.") from error


async def pass_socket(client: ClientSession, session: SessionProcess, request: web.Request) -> web.WebSocketResponse:
    """Connect the browser's socket with the session's until one of them is closed."""
    url = f"http://127.0.0.1:{session.port}/ws"
    browser = web.WebSocketResponse(max_msg_size=_MOST_MESSAGE, heartbeat=30, compress=False)
    await browser.prepare(request)
    session.browsers += 1
    try:
        async with client.ws_connect(
            url, headers={SECRET_HEADER: session.secret}, max_msg_size=_MOST_MESSAGE, compress=0
        ) as inner:
            ways = [
                asyncio.create_task(_pass(browser, inner, session)),
                asyncio.create_task(_pass(inner, browser, None)),
            ]
            _, waiting = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in waiting:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
    except ClientError:
        pass  # the session is gone: closing the browser's socket says so
    finally:
        session.browsers -= 1
        session.touch()
        await browser.close()
    return browser


async def _pass(
    source: web.WebSocketResponse | ClientWebSocketResponse,
    target: web.WebSocketResponse | ClientWebSocketResponse,
    session: SessionProcess | None,
) -> None:
    async for message in source:
        if session is not None:
            session.touch()
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)

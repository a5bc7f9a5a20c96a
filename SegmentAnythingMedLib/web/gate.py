"""The one server that browsers reach: it checks who asks, opens a session for each, and passes on what is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from html import escape

from aiohttp import ClientSession, web

from SegmentAnythingMedLib.web.relay import pass_request, pass_socket
from SegmentAnythingMedLib.web.security import (
    HEADERS,
    Exposure,
    RefusedError,
    check_host,
    check_origin,
    same_token,
)
from SegmentAnythingMedLib.web.sessions import FullError, Sessions

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_COOKIE = "segment-anything-med"


class Gate:
    """Answers browsers.

    Parameters
    ----------
    exposure
        Where it listens and what protects it.
    sessions
        Made and ended here.
    """

    def __init__(self, exposure: Exposure, sessions: Sessions) -> None:
        self._exposure = exposure
        self._sessions = sessions
        self._client: ClientSession | None = None
        self._port = exposure.port

    def app(self) -> web.Application:
        """The web application; it ends all sessions when it is cleaned up."""
        app = web.Application(middlewares=[self._guarded], client_max_size=0)
        app.cleanup_ctx.append(self._life)
        app.add_routes(
            [
                web.get("/", self._first_page),
                web.get("/s/{session}/ws", self._socket),
                web.get("/s/{session}", self._without_slash),
                web.route("*", "/s/{session}/{path:.*}", self._of_session),
            ]
        )
        return app

    def listens_on(self, port: int) -> None:
        """It listens on this port now: prepare for who comes first."""
        self._port = port
        self._sessions.prepare()

    @property
    def url(self) -> str:
        """What a browser opens, with the token."""
        scheme = "https" if self._exposure.certificate else "http"
        host = self._exposure.host if self._exposure.host not in ("0.0.0.0", "::") else "localhost"
        name = f"[{host}]" if ":" in host else host
        return f"{scheme}://{name}:{self._port}/?token={self._exposure.token}"

    async def _life(self, _app: web.Application) -> AsyncIterator[None]:
        self._client = ClientSession(auto_decompress=False)
        watching = asyncio.create_task(self._sessions.watch())
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await self._sessions.close()
        await self._client.close()

    # -- who asks ------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_host(request.headers.get("Host", ""), self._exposure)
            is_socket = request.headers.get("Upgrade", "").lower() == "websocket"
            check_origin(request.headers, needed=is_socket or request.method not in ("GET", "HEAD"))
        except RefusedError as error:
            return _page(str(error), 403)
        if not self._is_known(request):
            if request.path == "/" and same_token(request.query.get("token", ""), self._exposure.token):
                return self._welcome()
            return _page("Open the address that the server has printed: it holds the token.", 401)
        try:
            return await handler(request)
        except web.HTTPException as error:
            error.headers.update(HEADERS)
            raise

    def _is_known(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = self._exposure.token
        return same_token(given or request.cookies.get(self._cookie, ""), token)

    def _welcome(self) -> web.Response:
        """Keep the token in a cookie, and take it out of the address."""
        response = web.Response(status=303, headers={"Location": "/", **HEADERS})
        response.set_cookie(
            self._cookie,
            self._exposure.token,
            httponly=True,
            samesite="Strict",
            secure=bool(self._exposure.certificate),
        )
        return response

    @property
    def _cookie(self) -> str:
        return f"{_COOKIE}-{self._port}"  # cookies do not know ports: two servers on a machine must not share one

    # -- what they ask -------------------------------------------------------------------------------------------

    async def _first_page(self, _request: web.Request) -> web.StreamResponse:
        try:
            session = self._sessions.open()
        except FullError as error:
            return _page(str(error), 503)
        return web.Response(status=303, headers={"Location": f"/s/{session.name}/", **HEADERS})

    async def _without_slash(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=308, headers={"Location": f"/s/{request.match_info['session']}/", **HEADERS})

    async def _of_session(self, request: web.Request) -> web.StreamResponse:
        session = self._sessions.get(request.match_info["session"])
        if session is None or session.has_failed:
            return _page("This session has ended. <a href='/'>Start a new one.</a>", 404, is_markup=True)
        path = request.match_info["path"]
        if not session.is_ready:
            session.touch()
            return _page("The session is starting …", 200, again=True) if not path else _page("Starting.", 503)
        return await pass_request(self._client, session, request, path or "index.html")

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        session = self._sessions.get(request.match_info["session"])
        if session is None or not session.is_ready:
            return _page("This session has ended.", 404)
        return await pass_socket(self._client, session, request)


def _page(sentence: str, status: int, *, again: bool = False, is_markup: bool = False) -> web.Response:
    """A page of one sentence; ``again`` asks the browser to look again in a second."""
    refresh = '<meta http-equiv="refresh" content="1">' if again else ""
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Segment Anything Med</title>{refresh}"
        "<link rel=icon href='data:,'>"
        "<style>body{background:#15181d;color:#e6e9ee;font:16px system-ui,sans-serif;display:flex;height:90vh;"
        "align-items:center;justify-content:center}a{color:#8fb4ff}p{max-width:34em}</style>"
        f"<p>{sentence if is_markup else escape(sentence)}</p></html>"
    )
    return web.Response(
        text=text, status=status, content_type="text/html", headers=HEADERS | {"Cache-Control": "no-store"}
    )

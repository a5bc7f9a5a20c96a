"""A browser session: the page, what its buttons do, and its files, over one workspace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web
from trame.ui.html import DivLayout
from trame_slicer import module as trame_slicer_module
from trame_slicer.core import SlicerApp

from SegmentAnythingMedLib import __version__
from SegmentAnythingMedLib.errors import SegmentAnythingMedError
from SegmentAnythingMedLib.memory.policies import policy_choices
from SegmentAnythingMedLib.panel.actions import BY_NAME, perform
from SegmentAnythingMedLib.panel.weights import Weights
from SegmentAnythingMedLib.web.downloads import Downloads
from SegmentAnythingMedLib.web.page import FAVICON, page, shortcuts
from SegmentAnythingMedLib.web.panel_state import is_free, policy_values
from SegmentAnythingMedLib.web.pump import Pump
from SegmentAnythingMedLib.web.relay import SECRET_HEADER
from SegmentAnythingMedLib.web.security import same_token
from SegmentAnythingMedLib.web.segment_nodes import recolor_segment, rename_segment
from SegmentAnythingMedLib.web.upload_checks import check_name
from SegmentAnythingMedLib.web.uploads import Uploads, UploadTooLargeError
from SegmentAnythingMedLib.web.views import TAGS, Views
from SegmentAnythingMedLib.web.weights_panel import WeightsPanel, check_weights_name
from SegmentAnythingMedLib.web.workspace import Workspace

if TYPE_CHECKING:
    from trame_server import Server

    from SegmentAnythingMedLib.web.session_app import SessionConfig


logger = logging.getLogger(__name__)


class Session:
    """Everything of one session's process.

    Parameters
    ----------
    server
        trame's, not started yet.
    config
        From the gate.
    """

    def __init__(self, server: Server, config: SessionConfig) -> None:
        self._server = server
        self._secret = config.secret
        self._tasks: list[asyncio.Task[object]] = []
        self._policies = policy_choices()
        folder = Path(config.folder)
        self.workspace = Workspace(SlicerApp(), folder)
        self.controller = self.workspace.controller
        server.enable_module(trame_slicer_module)
        base = f"segment_anything_med_{__version__}"
        static = str(Path(__file__).with_name("static"))
        server.enable_module({"serve": {base: static}, "scripts": [f"{base}/app.js"], "styles": [f"{base}/app.css"]})
        self.views = Views(self.workspace.app, server)
        self.workspace.views = self.views
        self.weights = WeightsPanel(Weights(may_change=config.may_change_weights), self.controller)
        self.pump = Pump(self.workspace, self.views, self.weights, server.state)
        self._uploads = Uploads(folder, config.max_upload_mb)
        self._downloads = Downloads(self.workspace, folder)
        self._prepare_state()
        self._bind_triggers()
        with DivLayout(server) as self._layout:
            self._layout.root.add_child(page())
        server.controller.on_server_bind.add(self._bind_routes)

    # -- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Poll until the session ends."""
        await self.pump.run()

    async def open(self, paths: Sequence[Path]) -> None:
        """Open the files that the session starts with."""
        if paths:
            await self.workspace.open(paths)

    def keep(self, *tasks: asyncio.Task[object]) -> None:
        """Hold tasks as long as the session lives: asyncio does not."""
        for task in tasks:
            task.add_done_callback(_log_failure)
        self._tasks.extend(tasks)

    def close(self) -> None:
        """End the worker."""
        for task in self._tasks:
            task.cancel()
        self.weights.close()
        self.workspace.close()

    # -- the page ------------------------------------------------------------------------------------------------

    def _prepare_state(self) -> None:
        self._server.state.update(
            {
                "trame__title": "Segment Anything Med",
                "trame__favicon": FAVICON,
                "panel": None,
                "strip": None,
                "sliders": {},
                "models": [],
                "weights": None,
                "policies": policy_values(self._policies),
                "shortcuts": shortcuts(),
                "maximised": "",
            }
        )
        self.pump.push()

    def _bind_triggers(self) -> None:
        controller = self.controller
        for name, verb in {
            "act": self._act,
            "look": self._look,
            "stroke": self._stroke,
            "choose_volume": self.workspace.choose_volume,
            "choose_window": self.workspace.choose_window,
            "choose_model": self.weights.choose,
            "weights_yes": self.weights.say_yes,
            "weights_no": self.weights.say_no,
            "remove_weights": self.weights.offer_removal,
            "choose_segment": controller.set_segment,
            "rename_segment": lambda segment, name: rename_segment(controller, segment, name),
            "recolor_segment": lambda segment, color: recolor_segment(controller, segment, color),
            "choose_suggestion": controller.choose_suggestion,
            "choose_policy": self._choose_policy,
            "choose_channels": lambda *node_ids: self.workspace.choose_channels(node_ids),
            "choose_time": self._choose_time,
            "through_time": self._through_time,
            "go_to_fraction": self._go_to_fraction,
            "scroll_view": self.views.scroll,
            "step_slice": self.views.step,
            "reset_view": self.views.reset,
            "maximise": self._maximise,
            "say": lambda sentence: controller.tell(str(sentence)[:500]),
        }.items():
            self._server.trigger(name)(self._pushing(verb))

    def _pushing(self, verb: Callable[..., object]) -> Callable[..., None]:
        """A verb after which the browser is told at once; what it was given may be anything."""

        def run(*values: object) -> None:
            try:
                verb(*values)
            except SegmentAnythingMedError as error:
                self.controller.tell(str(error))
            except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError):
                logger.exception("A message of the browser was not understood")
            self.pump.push()

        return run

    def _act(self, name: str, tag: str = "") -> None:
        self._look(tag)
        if name in BY_NAME:
            perform(name, self.controller, self.pump.view)

    def _stroke(self, kind: str, tag: str, fractions: list[list[float]]) -> None:
        """A drag in a view, of the kind that is placed: a late one of another kind is not meant any more."""
        points_ras = self.views.stroke(tag, fractions)
        if points_ras is None or kind != self.controller.placing_kind:
            return
        if kind == "box":
            self.controller.stop_placing()
        self.controller.add_drawn(kind, points_ras, self.views.node(tag))

    def _look(self, tag: str) -> None:
        if self.views.node(tag) is not None:
            self.pump.view_tag = tag

    def _choose_policy(self, name: str) -> None:
        if any(one.name == name for one in self._policies):
            self.controller.set_policy(name)

    def _choose_time(self, time: int) -> None:
        count = self.pump.panel["timeCount"]
        if is_free(self.controller) and int(time) in range(count):
            self.controller.set_time(int(time))

    def _through_time(self) -> None:
        if is_free(self.controller):
            self.controller.propagate_through_time()

    def _go_to_fraction(self, fraction: float) -> None:
        index = self.pump.strip.slice_at(float(fraction))
        if index is not None:
            self.controller.go_to_slice(index)

    def _maximise(self, tag: str) -> None:
        if tag not in TAGS:
            return
        state = self._server.state
        state.maximised = "" if state.maximised == tag else tag
        self.views.show(state.maximised)

    # -- files ---------------------------------------------------------------------------------------------------

    def _bind_routes(self, server: object) -> None:
        server.app.middlewares.append(self._only_for_the_gate)
        server.app.add_routes([web.post("/upload", self._upload), web.get("/download/{kind}", self._download)])
        server.app.add_routes([web.post("/weights", self._import_weights)])

    @web.middleware
    async def _only_for_the_gate(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not same_token(request.headers.get(SECRET_HEADER, ""), self._secret):
            raise web.HTTPForbidden(text="This address belongs to one browser session.")
        return await handler(request)

    async def _upload(self, request: web.Request) -> web.Response:
        async def open_all(paths: tuple[Path, ...]) -> None:
            await self.workspace.open(paths)

        return await self._received(request, check_name, open_all)

    async def _import_weights(self, request: web.Request) -> web.Response:
        async def take(paths: tuple[Path, ...]) -> None:
            self.weights.import_upload(paths[0])

        try:
            self.weights.check_may_import()
        except SegmentAnythingMedError as error:
            return _sentence(error, 403)
        return await self._received(request, check_weights_name, take)

    async def _received(
        self,
        request: web.Request,
        check: Callable[[str], None],
        then: Callable[[tuple[Path, ...]], Awaitable[None]],
    ) -> web.Response:
        """Receive the files of a form and do something with them; what is wrong becomes a sentence."""
        self.workspace.arriving += 1
        try:
            paths = await self._uploads.receive(request, check)
        except UploadTooLargeError as error:
            return _sentence(error, 413)
        except SegmentAnythingMedError as error:
            return _sentence(error, 400)
        except (ValueError, OSError) as error:
            logger.warning("An upload failed: %s", type(error).__name__)
            return _sentence("The files could not be received: send them again.", 400)
        finally:
            self.workspace.arriving -= 1
        await then(paths)
        return web.json_response({"opened": len(paths)})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        try:
            path, name = await self._downloads.make(request.match_info["kind"])
        except SegmentAnythingMedError as error:
            return _sentence(error, 409)
        try:
            content = await asyncio.to_thread(path.read_bytes)
        finally:
            path.unlink()
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}", "X-File-Name": quote(name)}
        return web.Response(body=content, content_type="application/octet-stream", headers=headers)


def _log_failure(task: asyncio.Task[object]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("A part of the session failed", exc_info=task.exception())


def _sentence(error: object, status: int) -> web.Response:
    return web.json_response({"sentence": str(error)}, status=status)

"""Where a connection comes in: what is no request at all is refused here, before any handler sees it."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from aiohttp import web

from headrace.errors import StoreError
from headrace.node.api.refusals import refusal
from headrace.node.api.replies import refused
from headrace.wire import NODE_SERVER

_KEPT_ALIVE_S = 75.0


class Door(web.RequestHandler):
    """One connection. It answers as the hub does also where the framework would speak of itself, and repeat what it got."""

    def __init__(self, runner: web.AppRunner) -> None:
        """`runner`: of the application, set up."""
        if runner.server is None:
            raise StoreError("the node does not run any more")
        loop = asyncio.get_running_loop()
        no_log = (
            None  # ours is written where the route is known; the framework takes this, and does not say so
        )
        super().__init__(
            runner.server,
            loop=loop,
            keepalive_timeout=_KEPT_ALIVE_S,
            access_log=no_log,  # type: ignore[arg-type]
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See `web.RequestHandler`, which logs it, and raises where an answer has begun."""
        super().handle_error(request, status, exc, message)
        told = "the request is not HTTP" if status == HTTPStatus.BAD_REQUEST else HTTPStatus(status).phrase
        response = refused(refusal(status, told))
        response.headers["Server"] = NODE_SERVER  # instead of the versions of what it is made of
        response.force_close()
        return response

"""The HTTP side: from a request line to an answer in the hub's shape.

One handler takes all of the hub's paths, because aiohttp's own patterns would decode what must stay encoded and
miss file names with a line break.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from headrace.errors import Busy, HeadraceError, NotFound, StoreError
from headrace.metrics import CONTENT_TYPE, Metrics
from headrace.node.access.caller import Callers
from headrace.node.access.gate import Denied, Gate
from headrace.node.api.admin import Calls, no_such_call
from headrace.node.api.admission import ADMIN_ROUTE, admitting, read_credentials
from headrace.node.api.blobs import BlobApi
from headrace.node.api.blocks import BlockApi
from headrace.node.api.calls import path_of
from headrace.node.api.files import FileApi
from headrace.node.api.hub import HubApi
from headrace.node.api.ongoing import Ongoing
from headrace.node.api.operations import ADMIN, BY_NAME
from headrace.node.api.outside import Outside
from headrace.node.api.refusals import closed_repo, read_only, refusal, refusal_of
from headrace.node.api.replies import is_signed_in, refused
from headrace.node.body.sender import Sender
from headrace.node.lines import flat
from headrace.node.memory.freshness import Freshness
from headrace.node.memory.metadata import Metadata
from headrace.node.memory.standing import Closed
from headrace.wire import NODE_SERVER

_BODY_BYTES_MOST = 4 * 1024 * 1024  # a paths-info request names its paths in the body
_BROKEN = 499  # as nginx counts answers that nobody waited for; here also those that were cut off
_AGAIN_S = 5.0
_access = logging.getLogger("headrace.node.access")
_log = logging.getLogger("headrace.node")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Services:
    """What the handlers use.

    Attributes:
        check: raises `HeadraceError` with the reason while the node is not ready.
        own: handlers of the node's own operations that are not about blobs, by their names.
    """

    callers: Callers
    metadata: Metadata
    sender: Sender
    blobs: BlobApi
    blocks: BlockApi
    metrics: Metrics
    check: Callable[[], Awaitable[None]]
    page_entries: int
    outside: Outside
    ongoing: Ongoing
    gate: Gate
    own: Calls


def create_app(services: Services) -> web.Application:
    """The node's HTTP application."""
    files = FileApi(services.metadata, services.sender, services.blocks, services.blobs)
    hub = HubApi(services.metadata, files, services.page_entries)

    async def healthz(request: web.Request) -> web.StreamResponse:
        request["route"] = "healthz"
        return web.Response(text="alive\n")

    async def readyz(request: web.Request) -> web.StreamResponse:
        request["route"] = "readyz"
        try:
            await services.check()
        except HeadraceError as error:
            return web.Response(status=503, text=f"{flat(error.message)}\n")
        return web.Response(text="ready\n")

    async def metrics(request: web.Request) -> web.StreamResponse:
        request["route"] = "metrics"
        return web.Response(body=services.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application(
        middlewares=[_observing(services), _refusing, admitting(services.gate)],
        client_max_size=_BODY_BYTES_MOST,
    )
    app.on_response_prepare.append(_sign)
    probes: Calls = {"healthz": healthz, "readyz": readyz, "metrics": metrics}
    contents: Calls = {"blobs": services.blobs.answer, "blocks": services.blocks.answer}
    for name, handler in {**probes, **contents, **services.own}.items():
        described = BY_NAME[name]
        # Who may GET may HEAD.
        methods = ("GET", "HEAD") if described.method == "GET" else (described.method,)
        resource = app.router.add_resource(described.path, name=name)
        for method in methods:
            resource.add_route(method, handler)
    app.router.add_route("*", ADMIN + r"{path:[\s\S]*}", no_such_call, name=ADMIN_ROUTE)
    app.router.add_route("*", r"/{path:[\s\S]*}", hub.answer)
    return app


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = NODE_SERVER  # instead of the versions of what it is made of
    for name, text in request.get("told", {}).items():
        response.headers.setdefault(name, text)
    if isinstance(response, web.HTTPException):  # the framework's own words, for what never came to a handler
        told = refusal(response.status, response.reason)
        response.headers.update({**told.headers, "Content-Type": told.content_type})
        response.body = told.body


def _observing(services: Services) -> Any:
    """Count and log every request: what was asked and what became of it, without query and credentials."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        request["began"], request["route"] = time.monotonic(), "other"
        read_credentials(request)
        request["caller"] = services.callers.of(request["authorization"])
        told = {name.lower(): request.headers.getall(name) for name in request.headers}
        # Not `request.host`: where none is told, some versions of aiohttp ask the resolver, and all others wait.
        host = request.headers.get("Host", "")
        request["view"] = services.outside.view(request.remote or "", request.scheme, host, told)
        status = 500
        try:
            with services.ongoing.answering():
                response = await handler(request)
            status = response.status
        except ConnectionError:
            request["broken"] = True
            raise
        else:
            return response
        finally:
            if request.get("broken"):
                status = _BROKEN
            services.metrics.requests.labels(request["route"], str(status)).inc()
            _log_access(request, status)

    return observe


def _log_access(request: web.Request, status: int) -> None:
    facts = {
        "remote": request["view"].remote,
        "method": request.method,
        "path": flat(path_of(request.raw_path)),
        "route": request["route"],
        "status": status,
        "bytes": request.get("sent", 0),
        "seconds": round(time.monotonic() - request["began"], 4),
    }
    _access.info(" ".join(f"{name}=%s" for name in facts), *facts.values(), extra=facts)


@web.middleware
async def _refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what went wrong into the hub's way of saying so."""
    if request.method == "CONNECT" or request.raw_path == "*":
        return refused(read_only(request.method, allowed="GET, HEAD"))
    signed_in = is_signed_in(request)
    try:
        return await handler(request)
    except Denied as denied:
        told = refusal(denied.status, denied.message)
        return refused(replace(told, headers={**told.headers, **denied.headers}))
    except Closed as closed:
        return refused(closed_repo(closed.visibility, request["repo"], signed_in=signed_in))
    except HeadraceError as error:
        if isinstance(error, StoreError):
            _log.warning("%s", error.message)
        told = refusal_of(error, signed_in=signed_in, commit=request.get("commit"))
        # Of what failed nothing is known; that something is not there is an answer as any other.
        known: Freshness | None = request.get("freshness") if isinstance(error, NotFound) else None
        return refused(told, dict(known.headers) if known is not None else {})
    except web.HTTPRequestEntityTooLarge:
        return refused(refusal(413, f"a question of more than {_BODY_BYTES_MOST} bytes is not read"))
    except (web.HTTPException, ConnectionError):
        raise
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            return _unforeseen()
        _log.warning("no file can be opened: %s", error.strerror)
        return refused(refusal_of(_full(), signed_in=signed_in))
    except Exception:  # noqa: BLE001  # a request's outermost frame: whatever it is, the client gets an answer
        return _unforeseen()


def _unforeseen() -> web.Response:
    _log.exception("a request failed in a way nobody foresaw")
    return refused(refusal(500, "the node failed to answer; its log says why"))


def _full() -> Busy:
    return Busy("the node has as many files open as it may have", retry_after_s=_AGAIN_S)

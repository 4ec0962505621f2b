"""The HTTP side: from a request line to an answer in the hub's shape.

One handler takes all of the hub's paths, because aiohttp's own patterns would decode what must stay encoded and
miss file names with a line break.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from headrace.errors import Busy, HeadraceError, NotFound, StoreError
from headrace.metrics import CONTENT_TYPE, Metrics
from headrace.node.access.caller import Callers
from headrace.node.access.credentials import Credentials
from headrace.node.access.gate import Denied, Gate, Pass
from headrace.node.api.accesslog import REQUEST_ID, AccessLog, facts_of, id_of
from headrace.node.api.admin import Calls, no_such_call
from headrace.node.api.admission import ADMIN_ROUTE, admitting, read_credentials
from headrace.node.api.blobs import BlobApi
from headrace.node.api.blocks import BlockApi
from headrace.node.api.browsers import Browsers
from headrace.node.api.door import REFUSED, Door, SlowBodyError
from headrace.node.api.files import FileApi
from headrace.node.api.hub import HubApi
from headrace.node.api.ongoing import Ongoing
from headrace.node.api.operations import ADMIN, BY_NAME
from headrace.node.api.outside import VIEW, Outside, View
from headrace.node.api.refusals import Refusal, closed_repo, read_only, refusal, refusal_of
from headrace.node.api.replies import is_signed_in, refused
from headrace.node.body.sender import Sender
from headrace.node.bounds import BODY_BYTES_MOST
from headrace.node.lines import flat
from headrace.node.memory.freshness import Freshness
from headrace.node.memory.metadata import Metadata
from headrace.node.memory.standing import Closed
from headrace.wire import NODE_SERVER

_BROKEN = 499  # as nginx counts answers that nobody waited for; here also those that were cut off
_AGAIN_S = 5.0
_access = logging.getLogger("headrace.node.access")
_log = logging.getLogger("headrace.node")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Services:
    """What the handlers use.

    Attributes:
        report: the text of all metrics.
        check: raises `HeadraceError` with the reason while the node is not ready.
        own: handlers of the node's own operations that are not about blobs, by their names.
    """

    callers: Callers
    metadata: Metadata
    sender: Sender
    blobs: BlobApi
    blocks: BlockApi
    metrics: Metrics
    report: Callable[[], Awaitable[bytes]]
    check: Callable[[], Awaitable[None]]
    page_entries: int
    outside: Outside
    ongoing: Ongoing
    gate: Gate
    own: Calls
    browsers: Browsers = field(default_factory=Browsers)
    access_log: AccessLog | None = None


def create_app(services: Services) -> web.Application:
    """The node's HTTP application."""
    return _app(services, [_observing(services), _refusing, admitting(services.gate)])


def create_inner_app(services: Services) -> web.Application:
    """The same for other processes of the node, which pass on what came to them.

    They have let in whoever asks, and count and log it themselves.
    """
    return _app(services, [_relayed(services), _refusing])


def _app(services: Services, entrances: list[Any]) -> web.Application:
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
        return web.Response(body=await services.report(), headers={"Content-Type": CONTENT_TYPE})

    async def sign(request: web.Request, response: web.StreamResponse) -> None:
        if isinstance(
            response, web.HTTPException
        ):  # the framework's own words, for what never came to a handler
            told = refusal(response.status, response.reason)
            response.headers.update({**told.headers, "Content-Type": told.content_type})
            response.body = told.body
            response.headers["Content-Length"] = str(len(told.body))
        if request.get("credentials") not in (None, Credentials()):
            # Caches know `Authorization` at best: what is for who shows a token is nobody else's.
            response.headers.setdefault("Cache-Control", "private")
        for name, text in {**request.get("told", {}), **services.browsers.headers(request.headers)}.items():
            response.headers.setdefault(name, text)
        response.headers["Server"] = NODE_SERVER  # instead of the versions of what it is made of

    app = web.Application(middlewares=entrances, client_max_size=BODY_BYTES_MOST)
    app.on_response_prepare.append(sign)
    if services.access_log is not None:
        app.on_response_prepare.append(_name)
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


async def _name(request: web.Request, response: web.StreamResponse) -> None:
    """Say under which name the record has this request: clients tell it with an error."""
    if "id" in request:
        response.headers[REQUEST_ID] = request["id"]


def _observing(services: Services) -> Any:
    """Count and log every request: what was asked and what became of it, without query and credentials."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        _begin(services, request)
        request["id"] = id_of(request, services.outside)
        told = {name.lower(): request.headers.getall(name) for name in request.headers}
        # Not `request.host`: where none is told, some versions of aiohttp ask the resolver, and all others wait.
        host = request.headers.get("Host", "")
        request["view"] = services.outside.view(request.remote or "", request.scheme, host, told)
        response, status = None, 500
        try:
            with services.ongoing.answering(), _door(request):
                response = _at_the_door(services, request) or await handler(request)
            status = response.status
        except (ConnectionError, asyncio.CancelledError):
            request["broken"] = True
            raise
        else:
            return response
        finally:
            if request.get("broken"):
                status = _BROKEN
            services.metrics.requests.labels(request["route"], str(status)).inc()
            _log_access(services.access_log, request, response, status)

    return observe


def _relayed(services: Services) -> Any:
    """Believe what another process says of its client."""

    @web.middleware
    async def relayed(request: web.Request, handler: Handler) -> web.StreamResponse:
        _begin(services, request)
        request["view"], request["pass"] = View.parse(request.headers.get(VIEW, "")), Pass()
        with services.ongoing.answering():
            return await handler(request)

    return relayed


def _begin(services: Services, request: web.Request) -> None:
    request["began"], request["route"] = time.monotonic(), "other"
    read_credentials(request)
    request["caller"] = services.callers.of(request["authorization"])


def _door(request: web.Request) -> AbstractContextManager[None]:
    """While a request is answered that came in by a door."""
    came_by = request.protocol
    return came_by.answering(request) if isinstance(came_by, Door) else nullcontext()


def _at_the_door(services: Services, request: web.Request) -> web.Response | None:
    """The answer to what no handler has to see; None for all else."""
    if REFUSED in request:
        response = refused(request[REFUSED])
        response.force_close()
        return response
    if request.method == "CONNECT" or request.raw_path == "*":
        return refused(read_only(request.method, allowed="GET, HEAD"))
    permitted = services.browsers.permit(request.method, request.headers)
    return web.Response(status=204, headers=permitted) if permitted is not None else None


def _log_access(
    log: AccessLog | None, request: web.Request, response: web.StreamResponse | None, status: int
) -> None:
    is_talking = _access.isEnabledFor(logging.INFO)
    if log is None and not is_talking:
        return
    facts = facts_of(request, response, status)
    if log is not None:
        log.note(facts)
    if is_talking:
        told = {name: flat(str(one)) for name, one in facts.items() if name != "time"}
        _access.info(" ".join(f"{name}=%s" for name in told), *told.values())


@web.middleware
async def _refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what went wrong into the hub's way of saying so."""
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
        return refused(refusal(413, f"a question of more than {BODY_BYTES_MOST} bytes is not read"))
    except web.RequestPayloadError as error:
        return refused(_unread(error))
    except (web.HTTPException, ConnectionError):
        raise
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            return _unforeseen()
        _log.warning("no file can be opened: %s", error.strerror)
        return refused(refusal_of(_full(), signed_in=signed_in))
    except Exception:  # noqa: BLE001  # a request's outermost frame: whatever it is, the client gets an answer
        return _unforeseen()


def _unread(error: web.RequestPayloadError) -> Refusal:
    if isinstance(error, SlowBodyError):
        return refusal(408, str(error))
    return refusal(400, "the rest of the request is not HTTP")


def _unforeseen() -> web.Response:
    _log.exception("a request failed in a way nobody foresaw")
    return refused(refusal(500, "the node failed to answer; its log says why"))


def _full() -> Busy:
    return Busy("the node has as many files open as it may have", retry_after_s=_AGAIN_S)

"""The HTTP side: from a request line to an answer in the hub's shape.

One handler takes all of the hub's paths, because aiohttp's own patterns would decode what must stay encoded and
miss file names with a line break. Every answer about a repo begins with `Metadata.resolved`, which refuses those
that are not for everybody.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from headrace.errors import BadManifest, EntryNotFound, HeadraceError, UsageError
from headrace.metrics import CONTENT_TYPE, Metrics
from headrace.node.answers import (
    Refusal,
    closed_repo,
    file_headers,
    header_text,
    read_cursor,
    refusal,
    refusal_of,
    rows_json,
    siblings_json,
    without_xet,
    write_cursor,
)
from headrace.node.calls import Call, Chore, parse_call
from headrace.node.catalog import Row
from headrace.node.lines import flat
from headrace.node.metadata import Closed, Metadata, Resolved
from headrace.node.stream import Sender
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.wire import REPO_COMMIT, WARNING, Unsatisfiable, parse_etag, parse_range_header

_BODY_BYTES_MOST = 4 * 1024 * 1024  # a paths-info request names its paths in the body
_SIBLINGS_AT_ONCE = 5000
# What is passed on of a query, by verb: more would let anybody fill the catalog with answers to the same question.
_PASSED_ON = {
    "info": ("expand", "expand[]"),
    "tree": ("recursive", "expand", "cursor", "limit"),
    "refs": ("include_prs",),
    "commits": ("p", "limit"),
}
_BROKEN = 499  # as nginx counts answers that nobody waited for; here also those that were cut off
_TRUE = frozenset({"true", "1", ""})

_access = logging.getLogger("headrace.node.access")
_log = logging.getLogger("headrace.node")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Services:
    """What the handlers use. `check` raises `HeadraceError` with the reason while the node is not ready."""

    metadata: Metadata
    sender: Sender
    metrics: Metrics
    check: Callable[[], Awaitable[None]]
    page_entries: int


def create_app(services: Services) -> web.Application:
    """The node's HTTP application."""
    api = HubApi(services)

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
        middlewares=[_observing(services.metrics), _refusing], client_max_size=_BODY_BYTES_MOST
    )
    app.on_response_prepare.append(_sign)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.router.add_route("*", r"/{path:[\s\S]*}", api.answer)
    return app


async def _sign(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "headrace"  # instead of the versions of what it is made of


def _observing(metrics: Metrics) -> Any:
    """Count and log every request: what was asked and what became of it, without query and credentials."""

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        request["began"], request["route"] = time.monotonic(), "other"
        status = 500
        try:
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
            metrics.requests.labels(request["route"], str(status)).inc()
            _log_access(request, status)

    return observe


def _log_access(request: web.Request, status: int) -> None:
    facts = {
        "remote": request.remote,
        "method": request.method,
        "path": flat(request.raw_path.partition("?")[0]),
        "route": request["route"],
        "status": status,
        "bytes": request.get("sent", 0),
        "seconds": round(time.monotonic() - request["began"], 4),
    }
    _access.info(" ".join(f"{name}=%s" for name in facts), *facts.values(), extra=facts)


@web.middleware
async def _refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what went wrong into the hub's way of saying so."""
    signed_in = "Authorization" in request.headers
    try:
        return await handler(request)
    except Closed as closed:
        return _refused(closed_repo(closed.visibility, request["repo"], signed_in=signed_in))
    except HeadraceError as error:
        return _refused(refusal_of(error, signed_in=signed_in, commit=request.get("commit")))
    except (web.HTTPException, ConnectionError):
        raise
    except Exception:  # noqa: BLE001  # a request's outermost frame: whatever it is, the client gets an answer
        _log.exception("a request failed in a way nobody foresaw")
        return _refused(refusal(500, "the node failed to answer; its log says why"))


class HubApi:
    """The hub's paths."""

    def __init__(self, services: Services) -> None:
        self._metadata = services.metadata
        self._sender = services.sender
        self._page_entries = services.page_entries

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer any path that is not the node's own."""
        call = parse_call(request.raw_path.partition("?")[0])
        if call is None:
            return _refused(_no_page())
        if isinstance(call, Chore):
            request["route"] = "api"
            return await self._chore(request, call)
        request["route"], request["repo"] = call.verb, str(call.repo)
        if request.method not in ("GET", "HEAD") and not (
            call.verb == "paths-info" and request.method == "POST"
        ):
            return _refused(refusal(405, f"{request.method} is not for this path", Allow="GET, HEAD"))
        answer = self._calls.get(call.verb)
        if answer is None:
            return _refused(_no_page())
        return await answer(request, call)

    @property
    def _calls(self) -> dict[str, Callable[[web.Request, Call], Awaitable[web.StreamResponse]]]:
        return {
            "info": self._info,
            "tree": self._tree,
            "paths-info": self._paths_info,
            "refs": self._passed,
            "commits": self._passed,
            "auth-check": self._auth_check,
            "resolve": self._resolve,
        }

    # About repos

    async def _info(self, request: web.Request, call: Call) -> web.StreamResponse:
        at = await self._resolved(request, call)
        if _expands(request):
            told = await self._metadata.passed(_passed_target(request, call.verb), at)
            return _json(without_xet(told.value), at, told.stale_s)
        told = await self._metadata.info(call.repo, call.revision)
        facts = without_xet(told.value)
        facts["sha"] = at.commit
        if _flag(request, "blobs"):
            facts["siblings"] = siblings_json([row async for row in self._all_rows(at)])
            facts["usedStorage"] = sum(one["size"] for one in facts["siblings"])
        return _json(facts, at, told.stale_s)

    async def _tree(self, request: web.Request, call: Call) -> web.StreamResponse:
        at = await self._resolved(request, call)
        if _flag(request, "expand"):
            return await self._passed(request, call)  # who changed a file last, only the source knows
        after, limit = request.query.get("cursor", ""), request.query.get("limit", "")
        most = self._page_entries
        if limit.isdecimal() and int(limit) > 0:
            most = min(most, int(limit))
        rows = await self._metadata.page(
            at,
            call.path,
            deep=_flag(request, "recursive"),
            after=read_cursor(after) if after else "",
            most=most + 1,
        )
        response = _json(rows_json(rows[:most]), at)
        if len(rows) > most:
            query = {**request.query, "cursor": write_cursor(rows[most - 1].path)}
            response.headers["Link"] = _link(
                request, f"{request.raw_path.partition('?')[0]}?{urlencode(query)}"
            )
        return response

    async def _paths_info(self, request: web.Request, call: Call) -> web.StreamResponse:
        at = await self._resolved(request, call)
        rows = []
        for path in await _posted_paths(request):
            row = await self._metadata.row(at, path.strip("/")) if path.strip("/") else None
            rows += [row] if row else []
        return _json(rows_json(rows), at)

    async def _passed(self, request: web.Request, call: Call) -> web.StreamResponse:
        at = await self._resolved(request, call)
        told = await self._metadata.passed(_passed_target(request, call.verb), at)
        response = _json(without_xet(told.value), at, told.stale_s)
        if told.link:
            response.headers["Link"] = _link(request, told.link)
        return response

    async def _auth_check(self, request: web.Request, call: Call) -> web.StreamResponse:
        return _json({}, await self._resolved(request, call))

    async def _resolve(self, request: web.Request, call: Call) -> web.StreamResponse:
        at = await self._resolved(request, call)
        try:
            entry = await self._metadata.entry(at, call.path)
        except BadManifest:
            raise EntryNotFound("Entry not found") from None  # no file could have that name
        headers = {**file_headers(entry, at.commit), **_stale_headers(at.stale_s)}
        if parse_etag(request.headers.get("If-None-Match")) == entry.digest.hex:
            return web.Response(status=304, headers=headers)
        if request.method == "HEAD":
            response = web.StreamResponse(headers=headers)
            response.content_length = entry.size
            return response
        content = Content(at.repo, at.commit, entry)
        try:
            wanted = self._wanted(request, entry.digest.hex, entry.size)
        except Unsatisfiable:
            headers["Content-Range"] = f"bytes */{entry.size}"
            return _refused(refusal(416, "The requested range is not satisfiable"), headers)
        return await self._sender.send(request, content, headers, wanted)

    def _wanted(self, request: web.Request, etag: str, size: int) -> Range | None:
        condition = request.headers.get("If-Range")
        if condition is not None and parse_etag(condition) != etag:
            return None
        return parse_range_header(request.headers.get("Range"), size)

    async def _resolved(self, request: web.Request, call: Call) -> Resolved:
        at = await self._metadata.resolved(call.repo, call.revision)
        request["commit"] = at.commit
        return at

    async def _all_rows(self, at: Resolved) -> Any:
        after = ""
        while True:
            rows: list[Row] = list(
                await self._metadata.page(at, "", deep=True, after=after, most=_SIBLINGS_AT_ONCE)
            )
            for row in rows:
                yield row
            if len(rows) < _SIBLINGS_AT_ONCE:
                return
            after = rows[-1].path

    # About no repo

    async def _chore(self, request: web.Request, chore: Chore) -> web.StreamResponse:
        if chore.name == "telemetry":
            return web.Response(status=204)
        if chore.name == "agent-harnesses":
            return web.json_response({"standardEnvVars": [], "harnesses": {}})
        if chore.name == "whoami-v2":
            return _refused(refusal(401, "This mirror knows no accounts; ask the hub itself."))
        if chore.name in ("models", "datasets", "spaces") and request.method in ("GET", "HEAD"):
            told = await self._metadata.searched(request.raw_path)
            response = _json(without_xet(told.value), None, told.stale_s)
            if told.link:
                response.headers["Link"] = _link(request, told.link)
            return response
        return _refused(_no_page())


async def _posted_paths(request: web.Request) -> list[str]:
    """The paths a paths-info request names. Python posts a form, JavaScript posts JSON."""
    try:
        if "json" in request.headers.get("Content-Type", ""):
            posted = json.loads(await request.text()).get("paths", [])
        else:
            posted = (await request.post()).getall("paths", [])
    except (ValueError, AttributeError):
        raise UsageError("the body is neither a form nor JSON with `paths`") from None
    return [posted] if isinstance(posted, str) else [str(path) for path in posted]


def _json(value: Any, at: Resolved | None, stale_s: float | None = None) -> web.Response:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if at is not None:
        headers[REPO_COMMIT] = at.commit
    headers |= _stale_headers(stale_s if stale_s is not None else at.stale_s if at else None)
    return web.Response(body=json.dumps(value).encode(), headers=headers)


def _stale_headers(stale_s: float | None) -> dict[str, str]:
    if stale_s is None:
        return {}
    told = f"mirror; the hub cannot be asked: this is what was known {stale_s:.0f} s ago"
    return {WARNING: told, "Age": f"{stale_s:.0f}", "Cache-Status": "headrace; hit; detail=stale-if-error"}


def _refused(told: Refusal, headers: dict[str, str] | None = None) -> web.Response:
    kept = {
        name: text
        for name, text in (headers or {}).items()
        if name not in ("Content-Type", "Content-Disposition")
    }
    return web.Response(
        status=told.status,
        body=told.body,
        headers={**kept, **told.headers, "Content-Type": "application/json; charset=utf-8"},
    )


def _no_page() -> Refusal:
    return refusal(404, "Sorry, we can't find the page you are looking for.")


def _link(request: web.Request, target: str) -> str:
    """The next page, on the address by which the client knows this node."""
    headers = request.headers
    scheme = headers.get("X-Forwarded-Proto", request.scheme)
    host = headers.get("X-Forwarded-Host", request.host)
    prefix = quote(headers.get("X-Forwarded-Prefix", "").rstrip("/"))
    return header_text(f'<{scheme}://{host}{prefix}{target}>; rel="next"')


def _passed_target(request: web.Request, verb: str) -> str:
    """The source's own path for a call, with those arguments that mean something there."""
    query = [(name, text) for name, text in request.query.items() if name in _PASSED_ON[verb]]
    return request.raw_path.partition("?")[0] + (f"?{urlencode(sorted(query))}" if query else "")


def _flag(request: web.Request, name: str) -> bool:
    """A boolean of the query; clients send `true`, `True`, `1` and the bare name."""
    return request.query.get(name, "false").lower() in _TRUE


def _expands(request: web.Request) -> bool:
    """Whether the query names fields that only the source knows."""
    named = {*request.query.getall("expand", []), *request.query.getall("expand[]", [])}
    return bool(named - {"true", "false", "True", "False"})

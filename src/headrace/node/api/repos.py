"""Answers about repos: what they are, and what they hold."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from headrace.errors import UsageError
from headrace.node.api.answers import (
    read_cursor,
    rows_json,
    siblings_json,
    without_xet,
    write_cursor,
)
from headrace.node.api.calls import Call
from headrace.node.api.replies import json_reply, next_link
from headrace.node.memory.catalog import Row
from headrace.node.memory.metadata import Metadata, Resolved

_SIBLINGS_AT_ONCE = 5000
# What is passed on of a query, by verb: more would let anybody fill the catalog with answers to the same question.
_PASSED_ON = {
    "info": ("expand", "expand[]"),
    "tree": ("recursive", "expand", "cursor", "limit"),
    "refs": ("include_prs",),
    "commits": ("p", "limit"),
}
_TRUE = frozenset({"true", "1", ""})


class RepoApi:
    """The hub's paths about one repo."""

    def __init__(self, metadata: Metadata, page_entries: int) -> None:
        self._metadata = metadata
        self._page_entries = page_entries

    async def info(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What a repo is at a revision."""
        at = await resolved(self._metadata, request, call)
        if _expands(request):
            told = await self._metadata.passed(_passed_target(request, call.verb), at)
            return json_reply(without_xet(told.value), at, told.freshness)
        told = await self._metadata.info(at)
        facts = without_xet(told.value)
        facts["sha"] = at.commit
        if _flag(request, "blobs"):
            facts["siblings"] = siblings_json([row async for row in self._all_rows(at)])
            facts["usedStorage"] = sum(one["size"] for one in facts["siblings"])
        return json_reply(facts, at, told.freshness)

    async def tree(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Its files and folders, page by page."""
        at = await resolved(self._metadata, request, call)
        if _flag(request, "expand"):
            return await self.passed(request, call)  # who changed a file last, only the source knows
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
        response = json_reply(rows_json(rows[:most]), at)
        if len(rows) > most:
            query = {**request.query, "cursor": write_cursor(rows[most - 1].path)}
            response.headers["Link"] = next_link(
                request, f"{request.raw_path.partition('?')[0]}?{urlencode(query)}"
            )
        return response

    async def paths_info(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Those of its files and folders that are named."""
        at = await resolved(self._metadata, request, call)
        rows = []
        for path in await _posted_paths(request):
            row = await self._metadata.row(at, path.strip("/")) if path.strip("/") else None
            rows += [row] if row else []
        return json_reply(rows_json(rows), at)

    async def passed(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What only the source knows."""
        at = await resolved(self._metadata, request, call)
        told = await self._metadata.passed(_passed_target(request, call.verb), at)
        response = json_reply(without_xet(told.value), at, told.freshness)
        if told.link:
            response.headers["Link"] = next_link(request, told.link)
        return response

    async def auth_check(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Whether a caller may read it."""
        return json_reply({}, await resolved(self._metadata, request, call))

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


async def resolved(metadata: Metadata, request: web.Request, call: Call) -> Resolved:
    """What a call is about. Every answer about a repo begins here: repos that are not for everybody are refused."""
    at = await metadata.resolved(call.repo, call.revision)
    request["commit"], request["freshness"] = at.commit, at.freshness
    return at


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

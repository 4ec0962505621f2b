"""Answers about repos: what they are, and what they hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import parse_qs, urlencode

from aiohttp import web

from headrace.errors import EntryNotFound, SourceError, UsageError
from headrace.node.api.answers import Place, rows_json, siblings_json, without_xet
from headrace.node.api.calls import Call, leads_elsewhere, path_of
from headrace.node.api.door import SlowBodyError
from headrace.node.api.passing import page_of
from headrace.node.api.replies import json_reply, next_link
from headrace.node.memory.catalog import Row
from headrace.node.memory.metadata import Metadata
from headrace.node.memory.standing import Resolved
from headrace.wire import api_path

_ROWS_AT_ONCE = 5000
_ROWS_A_TURN = 500
_PATHS_MOST = 10_000  # in one question
_DIGITS_MOST = 9
_TRUE = frozenset({"true", "1", ""})


class RepoApi:
    """The hub's paths about one repo."""

    def __init__(self, metadata: Metadata, page_entries: int) -> None:
        self._metadata = metadata
        self._page_entries = page_entries

    async def info(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What a repo is at a revision."""
        at = await resolved(self._metadata, request, call)
        if _expands(request) or _flag(request, "securityStatus"):
            target = api_path(at.repo, "revision", at.commit)
            return await self._passed(request, at, target, "expand", "expand[]", "securityStatus", "blobs")
        told = await self._metadata.info(at)
        facts = without_xet(told.value)
        facts["sha"] = at.commit
        if _flag(request, "blobs"):
            facts["siblings"] = siblings_json([row async for row in self._rows(at, "", deep=True)])
            facts.setdefault("usedStorage", sum(one["size"] for one in facts["siblings"]))
        return json_reply(facts, at, told.freshness)

    async def tree(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Its files and folders, page by page."""
        at = await resolved(self._metadata, request, call)
        if call.path and leads_elsewhere(call.path):
            raise EntryNotFound(f'{call.path} does not exist on "{call.revision}"')
        if _flag(request, "expand"):  # who changed a file last, only the source knows
            target = api_path(at.repo, "tree", at.commit, *([call.path] if call.path else []))
            return await self._passed(request, at, target, "recursive", "expand", "cursor", "limit")
        row = await self._metadata.row(at, call.path) if call.path else None
        if call.path and (row is None or row.digest is not None):
            raise EntryNotFound(f'{call.path} does not exist on "{call.revision}"')
        limit, most = request.query.get("limit", ""), self._page_entries
        if len(limit) <= _DIGITS_MOST and limit.isdecimal() and int(limit) > 0:
            most = min(most, int(limit))
        place = Place.of(request.query.get("cursor", ""))
        rows = await self._page(at, call.path, place, most + 1, deep=_flag(request, "recursive"))
        response = json_reply(rows_json(rows[:most], await self._metadata.folders(at)), at)
        if len(rows) > most:
            last = rows[most - 1]
            query = {**request.query, "cursor": Place(last.path, last.digest is not None).cursor}
            path = path_of(request.raw_path)
            response.headers["Link"] = next_link(request, f"{path}?{urlencode(query)}")
        return response

    async def paths_info(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Those of its files and folders that are named."""
        at = await resolved(self._metadata, request, call)
        paths, expand = await _posted(request)
        if expand and (told := await self._expanded(at, paths)) is not None:
            return json_reply(told, at)
        rows = []
        for index, path in enumerate(paths):
            if index % _ROWS_A_TURN == 0:
                await asyncio.sleep(0)  # what is at hand is told without a pause: others want an answer too
            row = await self._metadata.row(at, path.strip("/")) if path.strip("/") else None
            rows += [row] if row else []
        return json_reply(rows_json(rows, await self._metadata.folders(at)), at)

    async def refs(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Its branches, tags and pull requests."""
        at = await resolved(self._metadata, request, call)
        return await self._passed(request, at, api_path(at.repo, "refs"), "include_prs")

    async def commits(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Its history, page by page."""
        at = await resolved(self._metadata, request, call)
        target = api_path(at.repo, "commits", at.commit)
        return await self._passed(request, at, target, "p", "limit", "expand", "expand[]")

    async def auth_check(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Whether a caller may read it."""
        return json_reply({}, await resolved(self._metadata, request, call))

    async def _passed(
        self, request: web.Request, at: Resolved, path: str, *arguments: str
    ) -> web.StreamResponse:
        """What only the source knows: its answer at a path, with those arguments of the query that mean something there.

        More of them would let anybody fill the catalog with answers to the same question.
        """
        query = sorted((name, text) for name, text in request.query.items() if name in arguments)
        told = await self._metadata.passed(path + (f"?{urlencode(query)}" if query else ""), at)
        response = json_reply(without_xet(told.value), at, told.freshness)
        if told.link:
            response.headers["Link"] = next_link(request, told.link)
        return response

    async def _expanded(self, at: Resolved, paths: Sequence[str]) -> Any:
        """What the source tells of these paths besides what they are; None where it cannot be asked."""
        posted = json.dumps({"paths": paths, "expand": True}).encode()
        try:
            page, _ = await self._metadata.relayed(
                api_path(at.repo, "paths-info", at.commit), page_of, posted, at.repo, at.caller
            )
        except SourceError:
            return None
        told = page is not None and page.status == web.HTTPOk.status_code and page.content_type == "json"
        return json.loads(page.body) if page is not None and told else None

    async def _page(self, at: Resolved, folder: str, place: Place, most: int, *, deep: bool) -> list[Row]:
        """Up to `most` entries from there on: folders, then files, each sorted by path, as hubs list them."""
        prefix = f"{folder}/" if folder else ""
        found: list[Row] = []
        if not place.in_files:
            found = [
                Row(path, 0, None)
                for path in await self._metadata.folders(at)
                if path.startswith(prefix) and path > place.after and (deep or "/" not in path[len(prefix) :])
            ][:most]
            place = Place(in_files=True)
        if len(found) < most:
            async for row in self._rows(at, folder, deep=deep, after=place.after, at_once=most):
                found.append(row)
                if len(found) == most:
                    break
        return found

    async def _rows(
        self, at: Resolved, folder: str, *, deep: bool, after: str = "", at_once: int = _ROWS_AT_ONCE
    ) -> AsyncIterator[Row]:
        """The files below a folder, sorted by path."""
        while rows := await self._metadata.page(at, folder, deep=deep, after=after, most=at_once):
            for row in rows:
                if row.digest is not None:
                    yield row
            after = rows[-1].path


async def resolved(metadata: Metadata, request: web.Request, call: Call) -> Resolved:
    """What a call is about. Every answer about a repo begins here: repos that are not for everybody are refused."""
    at = await metadata.resolved(call.repo, call.revision, request["caller"])
    request["pass"].check(at.repo)  # it may have another name by now
    request["commit"], request["freshness"] = at.commit, at.freshness
    return at


async def _posted(request: web.Request) -> tuple[list[str], bool]:
    """The paths a paths-info request names, and whether it wants all about them. Python posts a form, JavaScript JSON."""
    try:
        body = await request.read()
        if "json" in request.headers.get("Content-Type", ""):
            told = json.loads(body)
            paths, expand = told.get("paths", []), str(told.get("expand", "false"))
        else:
            form = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_PATHS_MOST + 2)
            paths, expand = form.get("paths", []), form.get("expand", ["false"])[0]
        paths = [paths] if isinstance(paths, str) else [str(path) for path in paths]
        "".join(paths).encode()  # half a character is no part of a path
    except SlowBodyError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError, web.RequestPayloadError):
        raise UsageError(f"the body is neither a form nor JSON with up to {_PATHS_MOST} `paths`") from None
    if len(paths) > _PATHS_MOST:
        raise UsageError(f"{len(paths)} paths are too many for one question: {_PATHS_MOST} are not")
    return paths, expand.lower() in _TRUE


def _flag(request: web.Request, name: str) -> bool:
    """A boolean of the query; clients send `true`, `True`, `1` and the bare name."""
    return request.query.get(name, "false").lower() in _TRUE


def _expands(request: web.Request) -> bool:
    """Whether the query names fields that only the source knows."""
    named = {*request.query.getall("expand", []), *request.query.getall("expand[]", [])}
    return bool(named - {"true", "false", "True", "False"})

"""Admin calls: what only who rules the node may ask of it.

Each is an operation of `operations.py` with `Admission.ADMIN`. A part of the node that has some offers them as `Calls`
by the names of their operations; all are put together where the node is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from headrace.errors import UsageError
from headrace.node.access.tokens import KnownTokens, TokenBook
from headrace.node.api.refusals import refusal
from headrace.node.api.replies import refused
from headrace.node.threads import Threads

Calls = Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]

_FIELDS = frozenset({"name", "repos", "life_s"})


class TokenApi:
    """The calls about node tokens. What they change counts at once in this process, soon in others."""

    def __init__(self, book: TokenBook, known: KnownTokens, threads: Threads) -> None:
        self._book = book
        self._known = known
        self._threads = threads

    @property
    def calls(self) -> Calls:
        """By operation."""
        return {"list_tokens": self._list, "create_token": self._create, "revoke_token": self._revoke}

    async def _list(self, request: web.Request) -> web.StreamResponse:
        request["route"] = "admin"
        now = time.time()
        found = await self._threads.disk(self._book.all)
        return web.json_response({"tokens": [one.facts(now) for one in found]})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        request["route"] = "admin"
        name, repos, life_s = _wanted(await posted_object(request, _FIELDS))
        now = time.time()
        token, text = await self._threads.disk(self._book.create, name, repos, life_s, now)
        self._known.forget()
        return web.json_response({**token.facts(now), "token": text}, status=201)

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        request["route"] = "admin"
        now = time.time()
        found = await self._threads.disk(self._book.revoke, request.match_info["token"], now)
        self._known.forget()
        if found is None:
            return refused(refusal(404, "There is no such token."))
        return web.json_response(found.facts(now))


async def no_such_call(request: web.Request) -> web.StreamResponse:
    """For what is below the admin's paths and no call."""
    request["route"] = "admin"
    return refused(refusal(404, "There is no such admin call: see /_headrace/openapi.json."))


async def posted_object(request: web.Request, fields: frozenset[str]) -> dict[str, Any]:
    """The JSON object that was posted. Raises `UsageError` for what is none, or has other fields."""
    try:
        told = json.loads(await request.read())
    except (ValueError, RecursionError, web.RequestPayloadError):
        told = None
    if not isinstance(told, dict) or not told.keys() <= fields:
        raise UsageError(
            f"the body must be a JSON object, with no other fields than {', '.join(sorted(fields))}"
        )
    return told


def _wanted(told: dict[str, Any]) -> tuple[str, list[str], float | None]:
    name, repos, life_s = told.get("name"), told.get("repos", []), told.get("life_s")
    if not isinstance(name, str):
        raise UsageError("`name` must be a text")
    if not isinstance(repos, list) or not all(isinstance(one, str) for one in repos):
        raise UsageError("`repos` must be a list of globs")
    if life_s is not None and (isinstance(life_s, bool) or not isinstance(life_s, (int, float))):
        raise UsageError("`life_s` must be a number of seconds, or null")
    return name, repos, life_s

"""How the node does: a small JSON document that names no repo."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from aiohttp import web

from headrace.node.api.admin import Calls
from headrace.node.api.openapi import document
from headrace.node.api.operations import OPERATIONS
from headrace.node.memory.database import Database
from headrace.node.memory.schema import blobs
from headrace.node.threads import Threads

_COUNTED_S = 10.0  # a million rows take a moment to add up
_COUNT = sa.select(
    sa.func.count().label("number"), sa.func.coalesce(sa.func.sum(blobs.c.size), 0).label("size")
).select_from(blobs)


@dataclass
class StatusApi:
    """Answers with the state of the node, and with the description of its calls.

    Attributes:
        version: of the program.
        facts: by the word in the document, what says it now; quick, and called on the event loop.
    """

    version: str
    database: Database
    threads: Threads
    facts: Mapping[str, Callable[[], Any]]
    _began: float = field(default_factory=time.monotonic)
    _counted: tuple[float, dict[str, int]] = (float("-inf"), {})

    @property
    def calls(self) -> Calls:
        """By operation."""
        return {"status": self._status, "openapi": self._openapi}

    async def _status(self, request: web.Request) -> web.StreamResponse:
        request["route"] = "status"
        if time.monotonic() - self._counted[0] >= _COUNTED_S:
            await self.threads.once(("blobs counted",), self._count)
        told = {
            "version": self.version,
            "uptime_s": round(time.monotonic() - self._began, 1),
            "blobs": self._counted[1],
        }
        return web.json_response({**told, **{word: tell() for word, tell in self.facts.items()}})

    async def _openapi(self, request: web.Request) -> web.StreamResponse:
        request["route"] = "openapi"
        return web.json_response(document(OPERATIONS, self.version))

    async def _count(self) -> None:
        found = await self.threads.disk(self.database.one, _COUNT)
        if found is not None:
            self._counted = (time.monotonic(), {"count": int(found.number), "bytes": int(found.size)})

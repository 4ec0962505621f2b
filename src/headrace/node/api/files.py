"""Answers with files."""

from __future__ import annotations

from aiohttp import web

from headrace.errors import BadManifest, EntryNotFound
from headrace.node.api.answers import file_headers
from headrace.node.api.calls import Call
from headrace.node.api.refusals import refusal
from headrace.node.api.replies import refused
from headrace.node.api.repos import resolved
from headrace.node.body.sender import Sender
from headrace.node.memory.metadata import Metadata
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.wire import Unsatisfiable, parse_etag, parse_range_header


class FileApi:
    """The hub's paths of one file."""

    def __init__(self, metadata: Metadata, sender: Sender) -> None:
        self._metadata = metadata
        self._sender = sender

    async def resolve(self, request: web.Request, call: Call) -> web.StreamResponse:
        """The file, or the part of it that is asked for; of a HEAD, what can be said of it without it."""
        at = await resolved(self._metadata, request, call)
        try:
            entry = await self._metadata.entry(at, call.path)
        except BadManifest:
            raise EntryNotFound("Entry not found") from None  # no file could have that name
        headers = {**file_headers(entry, at.commit), **at.freshness.headers}
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
            return refused(refusal(416, "The requested range is not satisfiable"), headers)
        return await self._sender.send(request, content, headers, wanted)

    def _wanted(self, request: web.Request, etag: str, size: int) -> Range | None:
        condition = request.headers.get("If-Range")
        if condition is not None and parse_etag(condition) != etag:
            return None
        return parse_range_header(request.headers.get("Range"), size)

"""Answers with files."""

from __future__ import annotations

from aiohttp import web

from headrace.errors import BadManifest, EntryNotFound
from headrace.manifest import Digest, Entry
from headrace.node.api.answers import file_headers
from headrace.node.api.blocks import BlockApi
from headrace.node.api.calls import Call
from headrace.node.api.refusals import refusal
from headrace.node.api.replies import refused
from headrace.node.api.repos import resolved
from headrace.node.body.sender import Sender
from headrace.node.memory.gitids import blob_id, pointer
from headrace.node.memory.metadata import Metadata
from headrace.node.memory.standing import Resolved
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.wire import Unsatisfiable, parse_etag, parse_range_header


class FileApi:
    """The hub's paths of one file."""

    def __init__(self, metadata: Metadata, sender: Sender, blocks: BlockApi) -> None:
        self._metadata = metadata
        self._sender = sender
        self._blocks = blocks

    async def resolve(self, request: web.Request, call: Call) -> web.StreamResponse:
        """The file, or the part of it that is asked for; of a HEAD, what can be said of it without it."""
        at = await resolved(self._metadata, request, call)
        return await self._answer(request, at, await self._entry(at, call.path))

    async def raw(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What git keeps under that name: of a large file, the pointer to it."""
        at = await resolved(self._metadata, request, call)
        entry = await self._entry(at, call.path)
        if entry.digest.algorithm == Digest.GIT_BLOB_SHA1:
            return await self._answer(request, at, entry)
        text, etag = pointer(entry.digest, entry.size), blob_id(entry.digest, entry.size)
        kept = Entry(entry.path, len(text), Digest(Digest.GIT_BLOB_SHA1, etag))
        headers = {**file_headers(kept, at.commit), **at.freshness.headers}
        del headers["Accept-Ranges"]  # so little is sent whole
        if _is_known(request, etag):
            return _unchanged(headers)
        return web.Response(body=text, headers=headers)

    async def _entry(self, at: Resolved, path: str) -> Entry:
        try:
            return await self._metadata.entry(at, path)
        except BadManifest:
            raise EntryNotFound("Entry not found") from None  # no file could have that name

    async def _answer(self, request: web.Request, at: Resolved, entry: Entry) -> web.StreamResponse:
        headers = {
            **file_headers(entry, at.commit),
            **self._blocks.header(entry, at.public_until),
            **at.freshness.headers,
        }
        if _is_known(request, entry.digest.hex):
            return _unchanged(headers)
        if request.method == "HEAD":
            response = web.StreamResponse(headers=headers)
            response.content_length = entry.size
            return response
        try:
            wanted = _wanted(request, entry.digest.hex, entry.size)
        except Unsatisfiable:
            headers["Content-Range"] = f"bytes */{entry.size}"
            return refused(refusal(416, "The requested range is not satisfiable"), headers)
        return await self._sender.send(request, Content(at.repo, at.commit, entry), headers, wanted)


def _wanted(request: web.Request, etag: str, size: int) -> Range | None:
    """The range that is asked for; None for the whole. An `If-Range` holds for this very content only (RFC 9110 §13.1.5)."""
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip() not in (f'"{etag}"', etag):
        return None
    return parse_range_header(request.headers.get("Range"), size)


def _is_known(request: web.Request, etag: str) -> bool:
    """Whether `If-None-Match` names what is here: one tag, several, or any."""
    named = ",".join(request.headers.getall("If-None-Match", [])).split(",")
    return any(one.strip() == "*" or parse_etag(one) == etag for one in named if one)


def _unchanged(headers: dict[str, str]) -> web.Response:
    told = {name: text for name, text in headers.items() if name != "Content-Type"}
    return web.Response(status=304, headers=told)

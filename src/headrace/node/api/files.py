"""Answers with files."""

from __future__ import annotations

from aiohttp import web

from headrace.errors import BadManifest, EntryNotFound
from headrace.manifest import Digest, Entry
from headrace.node.api.answers import file_headers
from headrace.node.api.blobs import BlobApi
from headrace.node.api.blocks import BlockApi
from headrace.node.api.calls import Call
from headrace.node.api.conditions import is_known, unchanged, wanted_range
from headrace.node.api.refusals import refusal
from headrace.node.api.replies import refused
from headrace.node.api.repos import resolved
from headrace.node.body.sender import Sender
from headrace.node.fill.order import Order
from headrace.node.memory.gitids import blob_id, pointer
from headrace.node.memory.metadata import Metadata
from headrace.node.memory.standing import Resolved
from headrace.source.contract import Content
from headrace.wire import Unsatisfiable


class FileApi:
    """The hub's paths of one file."""

    def __init__(self, metadata: Metadata, sender: Sender, blocks: BlockApi, blobs: BlobApi) -> None:
        self._metadata = metadata
        self._blobs = blobs
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
        if is_known(request, etag):
            return unchanged(headers)
        return web.Response(body=text, headers=headers)

    async def _entry(self, at: Resolved, path: str) -> Entry:
        try:
            return await self._metadata.entry(at, path)
        except BadManifest:
            raise EntryNotFound("Entry not found") from None  # no file could have that name

    async def _answer(self, request: web.Request, at: Resolved, entry: Entry) -> web.StreamResponse:
        headers = {
            **file_headers(entry, at.commit),
            **self._blocks.header(entry, at),
            **self._blobs.header(entry, at),
            **at.freshness.headers,
        }
        if is_known(request, entry.digest.hex):
            return unchanged(headers)
        if request.method == "HEAD":
            response = web.StreamResponse(headers=headers)
            response.content_length = entry.size
            return response
        try:
            wanted = wanted_range(request, entry.digest.hex, entry.size)
        except Unsatisfiable:
            headers["Content-Range"] = f"bytes */{entry.size}"
            return refused(refusal(416, "The requested range is not satisfiable"), headers)
        order = Order(Content(at.repo, at.commit, entry), at.caller)
        return await self._sender.send(request, order, headers, wanted)

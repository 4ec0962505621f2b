"""Answers with verified files by digest: `/_headrace/blobs/<digest>`, for whoever was shown the file a moment ago."""

from __future__ import annotations

import time

from aiohttp import web

from headrace.errors import EntryNotFound
from headrace.manifest import Digest, Entry
from headrace.node.access.proof import Proofs
from headrace.node.api.capability import Capabilities, Purpose, Shown
from headrace.node.api.conditions import is_known, unchanged, wanted_range
from headrace.node.api.operations import BLOBS_PATH
from headrace.node.api.refusals import refusal
from headrace.node.api.replies import refused
from headrace.node.body.sender import Sender
from headrace.node.memory.inventory import Inventory
from headrace.node.memory.standing import Resolved
from headrace.node.threads import Threads
from headrace.wire import LINKED_SIZE, Unsatisfiable

BLOB = "X-Headrace-Blob"


class BlobApi:
    """The node's own path of contents, and the header that leads there. Belongs to one event loop."""

    def __init__(
        self,
        inventory: Inventory,
        sender: Sender,
        capabilities: Capabilities,
        proofs: Proofs,
        threads: Threads,
    ) -> None:
        self._inventory = inventory
        self._sender = sender
        self._capabilities = capabilities
        self._proofs = proofs
        self._threads = threads

    def header(self, entry: Entry, at: Resolved) -> dict[str, str]:
        """What an answer about a file says of where it can be had by digest, should it be here."""
        shown = Shown(entry.digest, at.repo)
        query = self._capabilities.query(Purpose.BLOBS, shown, time.time(), at.readable_until)
        return {BLOB: f"{BLOBS_PATH}{entry.digest}?{query}"} if query else {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The file, or a part of it; a refusal that says nothing about what is here to who may not ask."""
        request["route"] = "blobs"
        asked, query = request.match_info["digest"], request.query
        shown = self._capabilities.shown(Purpose.BLOBS, asked, query, time.time())
        if shown is None:
            return refused(refusal(403, "The link to this content is not valid, or not any more."))
        request["pass"].check(shown.repo)
        found = await self._threads.disk(self._inventory.verified, shown.digest)
        # Shown was what a repo lists: whether that one has it is another question.
        if found is None or not await self._proofs.is_cleared(shown.digest, shown.repo):
            raise EntryNotFound("This mirror does not have the whole file.")
        entry = Entry(shown.digest.hex, found.size, shown.digest)
        headers = _headers(shown.digest, found.size)
        if is_known(request, shown.digest.hex):
            return unchanged(headers)
        try:
            wanted = wanted_range(request, shown.digest.hex, found.size)
        except Unsatisfiable:
            headers["Content-Range"] = f"bytes */{found.size}"
            return refused(refusal(416, "The requested range is not satisfiable"), headers)
        if request.method == "HEAD":
            response = web.StreamResponse(headers=headers)
            response.content_length = found.size
            return response
        with request["pass"].streaming():
            return await self._sender.send_stored(request, entry, headers, wanted)


def _headers(digest: Digest, size: int) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": "attachment",
        # By a shared cache it would be given to who never was shown it.
        "Cache-Control": "private",
        "ETag": f'"{digest.hex}"',
        "Accept-Ranges": "bytes",
        LINKED_SIZE: str(size),
    }

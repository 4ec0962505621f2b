"""Answers with block lists: `/_headrace/blocks/<digest>`, for whoever was shown the file a moment ago."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from headrace.blocklist import BLOCKS, BLOCKS_PATH
from headrace.errors import Busy, EntryNotFound
from headrace.manifest import Entry
from headrace.node.access.proof import Proofs
from headrace.node.api.capability import Capabilities, Purpose, Shown
from headrace.node.api.refusals import refusal
from headrace.node.api.replies import refused
from headrace.node.body.blocks import BlockLists
from headrace.node.memory.standing import Resolved
from headrace.node.threads import Threads
from headrace.wire import BLOCK_BYTES

_AT_ONCE_S = 1.0  # what takes longer to make is asked for again
_AGAIN_S = 1.0


class BlockApi:
    """The node's own path of block lists, and the header that leads there. Belongs to one event loop."""

    def __init__(
        self, lists: BlockLists, capabilities: Capabilities, proofs: Proofs, threads: Threads
    ) -> None:
        self._lists = lists
        self._proofs = proofs
        self._capabilities = capabilities
        self._threads = threads

    def header(self, entry: Entry, at: Resolved) -> dict[str, str]:
        """What an answer about a file says of its list. Of a file of one block, the digest says it all."""
        if entry.size <= BLOCK_BYTES:
            return {}
        shown = Shown(entry.digest, at.repo)
        query = self._capabilities.query(Purpose.BLOCKS, shown, time.time(), at.readable_until)
        return {BLOCKS: f"{BLOCKS_PATH}{entry.digest}?{query}"} if query else {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The list; a refusal that says nothing about what is here to who may not ask."""
        request["route"] = "blocks"
        asked, query = request.match_info["digest"], request.query
        shown = self._capabilities.shown(Purpose.BLOCKS, asked, query, time.time())
        if shown is None:
            return refused(refusal(403, "The link to this block list is not valid, or not any more."))
        request["pass"].check(shown.repo)
        digest = shown.digest
        # Shown was what a repo lists: whether that one has it is another question.
        if not await self._proofs.is_cleared(digest, shown.repo):
            raise EntryNotFound("This mirror does not have the whole file.")
        told = await self._threads.disk(self._lists.kept, digest)
        if told is None:
            making = self._threads.once(
                ("blocks", digest), lambda: self._threads.hash(self._lists.make, digest)
            )
            try:
                told = await asyncio.wait_for(making, _AT_ONCE_S)
            except asyncio.TimeoutError:  # Python 3.10 has another TimeoutError
                raise Busy("the block list is being made", retry_after_s=_AGAIN_S) from None
        if told is None:
            raise EntryNotFound("This mirror does not have the whole file.")
        return web.Response(body=told.hashes, headers=told.headers())

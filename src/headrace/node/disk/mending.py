"""Mending: what was found to be wrong is fetched again at once, where anybody may have it.

What is restricted is fetched when somebody asks for it who may: a node has no right of its own to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from headrace.errors import HeadraceError, NoSpace
from headrace.manifest import Digest
from headrace.node.disk.holding import RoomTaken
from headrace.node.fill.fill import FillFailed
from headrace.node.threads import Threads
from headrace.source.contract import Content

_AT_ONCE = 4
_WAITING_MOST = 10_000

_log = logging.getLogger("headrace.node")


class Places(Protocol):
    """Where content is to be had; see `Whereabouts`. For threads."""

    def public(self, digest: Digest) -> Sequence[Content]:
        """Files with this digest that anybody may have."""


class Fetching(Protocol):
    """What fetches it; see `Fills`."""

    async def complete(self, content: Content) -> None:
        """Have all of it. Raises `FillFailed`, `DigestMismatch`."""


class Mender:
    """Has content fetched again. Belongs to one event loop. `mended` is called for each that is whole again."""

    def __init__(
        self, whereabouts: Places, fills: Fetching, threads: Threads, mended: Callable[[], object]
    ) -> None:
        self._whereabouts = whereabouts
        self._fills = fills
        self._threads = threads
        self._mended = mended
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[Digest, asyncio.Task[None]] = {}

    def begin(self, digest: Digest) -> None:
        """Mend this content, soon."""
        if digest not in self._tasks and len(self._tasks) < _WAITING_MOST:
            task = self._tasks[digest] = asyncio.get_running_loop().create_task(self._mend(digest))
            task.add_done_callback(lambda _: self._tasks.pop(digest, None))

    def give_up(self) -> None:
        """Leave what is not mended yet, because the room is wanted or the node ends: it is when it is asked for."""
        for task in list(self._tasks.values()):
            task.cancel()

    async def _mend(self, digest: Digest) -> None:
        async with self._turns:
            try:
                places = await self._threads.disk(self._whereabouts.public, digest)
            except Exception:  # noqa: BLE001  # whatever it is, it costs nothing: the content is fetched when it is asked for
                _log.exception("where %s is to be had could not be read", digest)
                return
            for place in places:
                if await self._is_over(place):
                    return

    async def _is_over(self, place: Content) -> bool:
        """Fetch it from there; False where another place may have it."""
        digest = place.entry.digest
        try:
            await self._fills.complete(place)
        except FillFailed as error:
            if error.why in (NoSpace.code, RoomTaken.code):
                return True  # nobody waits for it, and the log has it
            _log.warning("%s could not be mended: %s", digest, error.message)
            return False
        except HeadraceError as error:
            _log.warning("%s could not be mended: %s", digest, error.message)
            return False
        _log.warning("%s was mended", digest)
        self._mended()
        return True

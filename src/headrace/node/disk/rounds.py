"""The rounds: has the keeper look after the disk, every second, for as long as a node runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress

from headrace.errors import StoreError
from headrace.manifest import Digest
from headrace.node.disk.keeper import Keeper
from headrace.node.threads import Threads

_TEND_S = 1.0
_SETTLE_S = 30.0

_log = logging.getLogger("headrace.node")


class Rounds:
    """Belongs to one event loop."""

    def __init__(
        self,
        keeper: Keeper,
        threads: Threads,
        running: Callable[[], Collection[Digest]],
        shed: Callable[[], None],
    ) -> None:
        """`running` tells what is being fetched, `shed` stops what of it nobody reads."""
        self._keeper = keeper
        self._threads = threads
        self._running = running
        self._shed = shed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what earlier processes left is seen to while the node serves already."""
        self._task = asyncio.create_task(self._go())

    async def stop(self, patience_s: float) -> None:
        """End, with what is only in memory written down, unless the disk takes longer than that."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        with suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(noted(self._keeper.settle, self._threads), patience_s)

    async def _go(self) -> None:
        settled_at = time.monotonic()
        begun = False
        while True:
            try:
                if not begun:
                    await self._threads.disk(self._keeper.begin)
                    begun = True
                if await self._threads.disk(self._keeper.tend, self._running()):
                    self._shed()
                if time.monotonic() - settled_at >= _SETTLE_S:
                    settled_at = time.monotonic()
                    await self._threads.disk(self._keeper.settle)
            except StoreError as error:
                _log.warning("the disk could not be looked after: %s", error.message)
            except Exception:  # noqa: BLE001  # a disk that fails now may do better in a second
                _log.exception("the disk could not be looked after")
            await asyncio.sleep(_TEND_S)


async def noting(keeper: Keeper, threads: Threads) -> None:
    """Write down now and then what was used, until cancelled: all that a process does that is not the lead."""
    while True:
        await asyncio.sleep(_SETTLE_S)
        await noted(keeper.flush, threads)


async def noted(write: Callable[[], None], threads: Threads) -> None:
    """Write down what is only in memory; what cannot be is about what was used when, and no more."""
    try:
        await threads.disk(write)
    except StoreError as error:
        _log.warning("what was used could not be written down: %s", error.message)
    except Exception:  # noqa: BLE001  # whatever it is, it may pass
        _log.exception("what was used could not be written down")

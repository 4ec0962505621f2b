"""The seam between asyncio and threads: the one place where either knows of the other.

What blocks runs on a thread of a pool of its own kind, so that a source that does not answer cannot hold up the
disk. What several requests want at once is done once, and all of them wait for it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_SOURCE_THREADS = 32
_DISK_THREADS = 8
_HASH_THREADS = 2
_PAGE_THREADS = 8
_FOLDER_THREADS = 16
_PROVE_THREADS = 1  # of each kind: it must not take the processors from everybody
_SOON_BYTES = 16 * 1024 * 1024


class Threads:
    """Pools of threads for asyncio code. Everything here belongs to one event loop."""

    def __init__(self) -> None:
        self._source = _Pool("source", _SOURCE_THREADS)
        self._disk = _Pool("disk", _DISK_THREADS)
        self._hash = _Pool("hash", _HASH_THREADS)
        self._page = _Pool("page", _PAGE_THREADS)
        self._folder = _Pool("folder", _FOLDER_THREADS)
        self._prove = _Pool("prove", _PROVE_THREADS)
        self._prove_soon = _Pool("prove soon", _PROVE_THREADS)
        self._flights: dict[Hashable, asyncio.Task[Any]] = {}

    async def source(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run what asks a source: it may take seconds."""
        return await self._source.run(work, arguments)

    async def disk(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run what reads or writes a little on disk."""
        return await self._disk.run(work, arguments)

    async def hash(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run what reads whole files: it may take minutes."""
        return await self._hash.run(work, arguments)

    async def prove(self, size: int, work: Callable[..., T], *arguments: Any) -> T:
        """Run what hashes so many bytes that were read for somebody: a little does not wait for what takes minutes."""
        return await (self._prove_soon if size <= _SOON_BYTES else self._prove).run(work, arguments)

    async def page(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run what reads content that is sent at once: a disk that is slow for it is not for the catalog."""
        return await self._page.run(work, arguments)

    async def folder(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run what looks into somebody's directory: a disk that hangs there is none of the node's own."""
        return await self._folder.run(work, arguments)

    async def once(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the work under this key; begin it if nobody has. Who stops waiting does not stop the work."""
        task: asyncio.Task[T] | None = self._flights.get(key)
        if task is None:
            task = asyncio.create_task(start())
            self._flights[key] = task
            task.add_done_callback(lambda ended: self._landed(key, ended))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Let the threads end after what they are doing; nobody waits for it."""
        for task in list(self._flights.values()):
            task.cancel()
        for pool in (
            *(self._source, self._disk, self._hash, self._page, self._folder),
            *(self._prove, self._prove_soon),
        ):
            pool.close()

    def _landed(self, key: Hashable, ended: asyncio.Task[Any]) -> None:
        del self._flights[key]
        if not ended.cancelled():
            ended.exception()  # all who waited may have left; nobody else will look at it


@dataclass(frozen=True)
class _Work:
    do: Callable[[], Any]
    outcome: asyncio.Future[Any]


class _Pool:
    """Daemon threads, unlike those of `concurrent.futures`: a node that is told to stop does not wait for a disk."""

    def __init__(self, name: str, count: int) -> None:
        self._count = count
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        for index in range(count):
            threading.Thread(target=self._serve, daemon=True, name=f"{name} {index}").start()

    def run(self, work: Callable[..., T], arguments: tuple[Any, ...]) -> asyncio.Future[T]:
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Work(lambda: work(*arguments), outcome))
        return outcome

    def close(self) -> None:
        for _ in range(self._count):
            self._queue.put(None)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            result, error = None, None
            try:
                result = work.do()
            except BaseException as caught:  # noqa: BLE001  # the thread's outermost frame; whoever waits gets it
                error = caught
            try:
                work.outcome.get_loop().call_soon_threadsafe(_settle, work.outcome, result, error)
            except RuntimeError:
                return  # the loop has ended, and with it everybody who waited


def _settle(outcome: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if outcome.done():
        return  # whoever waited has left
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(result)

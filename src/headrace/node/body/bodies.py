"""Bodies: content to be read, from a verified file or from one that is still landing."""

from __future__ import annotations

from typing import BinaryIO, Protocol

from headrace.metrics import FILL, HIT
from headrace.node.body.blobs import BlobStore
from headrace.node.fill.fills import Fill, Fills
from headrace.node.threads import Threads
from headrace.source.contract import Content


class Body(Protocol):
    """Content to be read from `file`, as far as `reach` says."""

    origin: str

    async def reach(self, position: int, stop: int) -> int:
        """Wait for bytes from `position` on, and say up to where (at most `stop`) they may be sent.

        Raises:
            FillFailed, Disrupted: they must not be.
        """

    def file(self) -> BinaryIO:
        """The file, open; only after `reach` has answered. Raises `Disrupted` where it is another by now."""

    def close(self) -> None:
        """Be done with it."""


class Stored:
    """A verified file."""

    origin = HIT

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    async def reach(self, position: int, stop: int) -> int:  # noqa: ARG002  # all of it is there
        """See `Body.reach`."""
        return stop

    def file(self) -> BinaryIO:
        """See `Body.file`."""
        return self._file

    def close(self) -> None:
        """See `Body.close`."""
        self._file.close()


class Following:
    """A file on its way."""

    origin = FILL

    def __init__(self, fill: Fill, patience_s: float) -> None:
        self._fill = fill
        self._patience_s = patience_s
        self._generation = fill.generation
        self._file: BinaryIO | None = None

    async def reach(self, position: int, stop: int) -> int:
        """See `Body.reach`. For the first bytes a client waits only while any come."""
        patience_s = self._patience_s if self._file is None else None
        return await self._fill.reach(position, stop, self._generation, patience_s)

    def file(self) -> BinaryIO:
        """See `Body.file`."""
        if self._file is None:
            self._file = self._fill.open()
        return self._file

    def close(self) -> None:
        """See `Body.close`."""
        if self._file is not None:
            self._file.close()


class Bodies:
    """Finds the body of a content: on disk, or on its way. Belongs to one event loop."""

    def __init__(self, store: BlobStore, fills: Fills, threads: Threads, patience_s: float) -> None:
        """`patience_s`: how long a client waits for its first byte while no source delivers any."""
        self._store = store
        self._patience_s = patience_s
        self._fills = fills
        self._threads = threads

    async def open(self, content: Content) -> Body:
        """The body of a content; a fill begins where it is not here. Close it."""
        entry = content.entry
        file = await self._threads.disk(self._store.open, entry.digest, entry.size)
        if file is None and await self._threads.disk(self._store.is_there, entry.digest):
            key = ("check", entry.digest)
            await self._threads.once(
                key, lambda: self._threads.hash(self._store.check, entry.digest, entry.size)
            )
            file = await self._threads.disk(self._store.open, entry.digest, entry.size)
        return Stored(file) if file is not None else Following(self._fills.of(content), self._patience_s)

    async def is_doubted(self, content: Content) -> bool:
        """Whether somebody may hold wrong bytes of it, so that nobody may join in the middle."""
        return await self._fills.is_doubted(content.entry.digest)

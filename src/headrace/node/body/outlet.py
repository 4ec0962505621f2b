"""The way out to one client: its socket, written to past its transport.

Bytes that are in memory go from there by pumps. Whatever has to wait for a disk is brought to memory by other threads
first: one cold file must not keep all other clients waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import BinaryIO

from headrace.errors import StoreError
from headrace.node.body.pages import Pages
from headrace.node.body.pumps import Pumps, Run
from headrace.node.threads import Threads


class Outlet:
    """Sends files to a client. `sent` hears of bytes as they go, on any thread; `waits` when the disk is waited for."""

    def __init__(
        self,
        transport: asyncio.Transport,
        pumps: Pumps,
        threads: Threads,
        sent: Callable[[int], None],
        waits: Callable[[], None],
    ) -> None:
        """Raises `ConnectionResetError` where the client has left already."""
        sock = transport.get_extra_info("socket")
        if transport.is_closing() or sock is None or sock.fileno() < 0:
            raise ConnectionResetError("the client has left")
        self._transport = transport
        self._sock = sock.dup()  # asyncio lets nobody watch the number that a transport has
        self._pumps = pumps
        self._threads = threads
        self._sent = sent
        self._waits = waits
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Leave the socket to the transport."""
        self._sock.close()

    async def send(self, file: BinaryIO, position: int, stop: int) -> None:
        """Send this part of a file.

        Raises:
            ConnectionError: the client has left.
            StoreError: the file ends before.
        """
        reads = self._transport.is_reading()
        # An end of the client's side must not make the transport close the socket under what is being sent.
        self._transport.pause_reading()
        try:
            await self._send(file, position, stop)
        finally:
            if reads and not self._transport.is_closing():
                self._transport.resume_reading()

    async def _send(self, file: BinaryIO, position: int, stop: int) -> None:
        while self._transport.get_write_buffer_size():
            await self._writable()
        pages = Pages(file)
        while position < stop:
            if pages.are_known:
                run = Run(self._sock.fileno(), file.fileno(), pages, (position, stop), self._sent)
                await self._pumps.carry(run)
                position = run.position
            if position < stop:
                position = await self._bring(pages, position, stop)

    async def _bring(self, pages: Pages, position: int, stop: int) -> int:
        """Wait for the disk; up to where bytes are sent then is the answer."""
        self._waits()
        if pages.are_known:
            if await self._threads.page(pages.bring, position, stop) > position:
                return position
            data = b""
        else:
            data = await self._threads.page(pages.read, position, stop)
        if not data:
            raise StoreError("a file of this node has become shorter than it was")
        await self._loop.sock_sendall(self._sock, data)
        self._sent(len(data))
        return position + len(data)

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._sock, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            self._loop.remove_writer(self._sock)

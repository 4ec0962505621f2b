"""The way out to one client over TLS: through its transport, since only that can encrypt.

What is in memory is read at once, the rest by threads; the transport says when it has enough, so that no client takes
more memory than one block and what a transport holds.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import BinaryIO

from headrace.errors import StoreError
from headrace.node.body.pages import Pages
from headrace.node.threads import Threads

_AT_ONCE_BYTES = 128 * 1024  # encrypted by the event loop in one turn, a fraction of a millisecond
_TCP_INFO_BYTES, _ESTABLISHED = 8, 1  # the state comes first (linux/tcp.h)


class CipheredOutlet:
    """Sends files to a client. `write` hands bytes to the transport, and waits while that has enough.

    `sent` and `waits`: see `Outlet`.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        write: Callable[[bytes], Awaitable[None]],
        threads: Threads,
        sent: Callable[[int], None],
        waits: Callable[[], None],
    ) -> None:
        """Raises `ConnectionResetError` where the client has left already."""
        sock = transport.get_extra_info("socket")
        if transport.is_closing() or sock is None or sock.fileno() < 0:
            raise ConnectionResetError("the client has left")
        self._transport = transport
        self._sock = sock
        self._write = write
        self._threads = threads
        self._sent = sent
        self._waits = waits

    def close(self) -> None:
        """The transport stays as it is."""

    async def send(self, file: BinaryIO, position: int, stop: int) -> None:
        """Send this part of a file.

        Raises:
            ConnectionError: the client has left.
            StoreError: the file ends before.
        """
        reads = self._transport.is_reading()
        self._transport.pause_reading()  # what a client asks meanwhile waits in its socket, not in our memory
        try:
            pages = Pages(file)
            while position < stop:
                data = await self._block(pages, position, stop)
                for at in range(0, len(data), _AT_ONCE_BYTES):
                    self._check_presence()
                    await self._write(data[at : at + _AT_ONCE_BYTES])
                self._sent(len(data))
                position += len(data)
        finally:
            if reads and not self._transport.is_closing():
                self._transport.resume_reading()

    def _check_presence(self) -> None:
        # Once the client's side has ended, a transport that does not read drops what is written to it, and never has
        # enough: all of the file would go nowhere, as fast as it can be read.
        if not self._transport.is_closing():
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            if info[0] == _ESTABLISHED:
                return
        raise ConnectionResetError("the client has left")

    async def _block(self, pages: Pages, position: int, stop: int) -> bytes:
        data = pages.at_hand(position, min(stop, position + _AT_ONCE_BYTES))
        if data is None:
            self._waits()
            data = await self._threads.page(pages.read, position, stop)
        else:
            await asyncio.sleep(0)  # a client that takes everything at once is not the only one
        if not data:
            raise StoreError("a file of this node has become shorter than it was")
        return data

"""What a client has taken of what was sent to it, as its own system says.

What a socket takes tells little: buffers of several megabytes fill at once, and then nothing for minutes, however
steadily a slow client reads. What its system has confirmed moves in smaller steps (tcp(7), `TCP_INFO`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass

# `struct tcp_info` of Linux 4.6 and later: tcpi_unacked, tcpi_bytes_acked, tcpi_notsent_bytes.
_INFO = struct.Struct("=24xI92xQ16xI")


@dataclass(frozen=True)
class Taken:
    """Bytes that were confirmed since the connection began, and whether there are more for the client to take."""

    count: int
    is_owed: bool

    @classmethod
    def of(cls, transport: asyncio.Transport) -> Taken:
        """As it is now."""
        buffered = transport.get_write_buffer_size()
        sock = transport.get_extra_info("socket")
        try:
            told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            unacked, count, unsent = _INFO.unpack(told)
        except (AttributeError, OSError, struct.error):
            return cls(-buffered, buffered > 0)  # closed, or no such system
        return cls(count, buffered > 0 or unacked > 0 or unsent > 0)

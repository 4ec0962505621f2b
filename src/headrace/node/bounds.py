"""What a node gives its clients at most: time, room, connections."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_BYTES_MOST = 32 * 1024
"""A request's line and headers together: as much as common proxies let through."""

LINE_BYTES_MOST = 8190
"""The line, and each header."""

BODY_BYTES_MOST = 4 * 1024 * 1024
"""A question that names its paths in its body."""

AHEAD_BYTES_MOST = 64 * 1024
"""Requests sent before those in front of them are answered; more is left in the socket."""

_FILES_EACH = 3  # of a stream: its connection, that once more for the pumps, and the file
_FILES_OWN = 128  # the database, the worker, sources, blobs that are looked at
_CONNECTIONS_MOST = 4096  # more are a crowd that a second node should have a part of
_CONNECTIONS_LEAST = 8


@dataclass(frozen=True)
class Bounds:
    """How long clients may take, in seconds, and how many connections they may have.

    What counts is that something moves, never how fast: see docs/decisions/0063.

    Attributes:
        head_s: from a request's first byte, or the connection's first moment, to the end of its head.
        body_s: from there to the end of the body of a request whose answer depends on it.
        idle_s: without a further request.
        stalled_s: in which the client's system takes nothing of an answer that is there for it.
        pressed_s: as `stalled_s`, where there is no room for somebody else.
        connections: at once, in all; 0 is as many as there may be files open, up to 4,096.
        connections_each: of them from one address that is no trusted proxy's.
    """

    head_s: float = 20.0
    body_s: float = 60.0
    idle_s: float = 75.0
    stalled_s: float = 600.0
    pressed_s: float = 60.0
    connections: int = 0
    connections_each: int = 512

    def connections_among(self, files: int) -> int:
        """How many connections there may be where so many files may be open."""
        if self.connections:
            return self.connections
        return max(_CONNECTIONS_LEAST, min(_CONNECTIONS_MOST, (files - _FILES_OWN) // _FILES_EACH))

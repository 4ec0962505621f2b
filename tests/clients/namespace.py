"""Two network namespaces with one line between them: in the one hub and node, in the other clients.

The hub listens on the loopback of its namespace, so the only address that a client can reach is the node's.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from bench.line import lines, why_not

_CLONE_NEWNET = 0x40000000  # sched.h
_RATE = 10_000_000_000  # bits a second: no hindrance


@dataclass(frozen=True)
class Place:
    """Where hub and node are, and how a command gets to the clients' side; `reason` is why they are not apart."""

    host: str = "127.0.0.1"
    at_client: tuple[str, ...] = ()
    namespace: str = ""
    reason: str = ""

    @property
    def is_apart(self) -> bool:
        """Whether clients reach the node and nothing else."""
        return bool(self.namespace)


@contextmanager
def place() -> Iterator[Place]:
    """The two namespaces, or this one machine where they cannot be made."""
    reason = why_not()
    if reason:
        yield Place(reason=reason)
        return
    with lines([_RATE]) as (line,):
        yield Place(line.host, line.at_client, line.namespace)


@contextmanager
def entered(where: Place) -> Iterator[None]:
    """This thread is there: sockets it makes, and processes it starts, are of that namespace."""
    with _network_of(where.namespace) if where.is_apart else nullcontext():
        yield


@contextmanager
def _network_of(name: str) -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            _enter(before)
            os.close(there)
    finally:
        os.close(before)


def _enter(namespace: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

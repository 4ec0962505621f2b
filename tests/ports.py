"""Ports that nobody has, and that nobody is given by chance while a test counts on them."""

from __future__ import annotations

import functools
import itertools
import os
import socket
from collections.abc import Iterator

# Below the range from which systems give out ports; each of the processes that share the tests has its own part.
_FIRST, _PART = 20_000, 1_000


def free_port(*hosts: str) -> int:
    """A port that is free at all of these addresses of this machine; by default at 127.0.0.1."""
    return next(
        port for port in _candidates() if all(_is_free(host, port) for host in hosts or ("127.0.0.1",))
    )


@functools.cache
def _candidates() -> Iterator[int]:
    first = _FIRST + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) * _PART
    return itertools.cycle(range(first, first + _PART))


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError:
        return False
    return True

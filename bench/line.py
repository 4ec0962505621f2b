"""A line of a given rate between two network namespaces, made for one run of the bench and removed after it.

A veth pair joins the namespaces; a token bucket (tc-tbf(8)) limits what the origin's end sends. Needs the right to make
namespaces, which root has; `why_not` says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_ORIGIN_HOST = "10.213.7.1"
_CLIENT_HOST = "10.213.7.2"
# A bucket of 2 ms, and 20 ms of packets that may wait in front of it: a small router's.
_BURST_BYTES = 256 * 1024
_QUEUE = "20ms"


@dataclass(frozen=True)
class Line:
    """Two ends: prefix a command with `at_origin` or `at_client` to run it there; the origin's address is `host`."""

    at_origin: tuple[str, ...]
    at_client: tuple[str, ...]
    host: str = _ORIGIN_HOST


def why_not() -> str | None:
    """Why no line can be made here, or None."""
    missing = [program for program in ("ip", "tc", "nsenter") if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} not found (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"bench-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return tried.stderr.strip()
    _ip("netns", "delete", name)
    return None


@contextlib.contextmanager
def line(bits_per_s: int) -> Iterator[Line]:
    """Make the namespaces and the line; the limit counts whole frames, as a wire does.

    Raises:
        subprocess.CalledProcessError: something cannot be made; what was made is removed.
    """
    tag = f"bench-{os.getpid()}"
    origin, client = f"{tag}-o", f"{tag}-c"
    with contextlib.ExitStack() as stack:
        for name in (origin, client):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
        _ip("link", "add", "eth0", "netns", origin, "type", "veth", "peer", "name", "eth0", "netns", client)
        for name, host in ((origin, _ORIGIN_HOST), (client, _CLIENT_HOST)):
            _ip("-n", name, "address", "add", f"{host}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
        limit = ["rate", f"{bits_per_s}bit", "burst", f"{_BURST_BYTES}b", "latency", _QUEUE]
        _run("tc", "-n", origin, "qdisc", "add", "dev", "eth0", "root", "tbf", *limit)
        yield Line(_inside(origin), _inside(client))


def _inside(name: str) -> tuple[str, ...]:
    # It becomes the command it is given, so that what is measured is the command.
    return ("nsenter", f"--net=/run/netns/{name}", "--")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)

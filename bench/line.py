"""Lines of given rates between network namespaces, made for one run of the bench and removed after it.

A veth pair joins two namespaces; a token bucket (tc-tbf(8)) limits what the origin's end sends. Needs the right to make
namespaces, which root has; `why_not` says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# A bucket of 2 ms, and 20 ms of packets that may wait in front of it: a small router's.
_BURST_BYTES = 256 * 1024
_QUEUE = "20ms"
# Of a full frame what is neither header nor option of Ethernet, IP and TCP.
_PAYLOAD = 1448 / 1514


@dataclass(frozen=True)
class Line:
    """Two ends: prefix a command with `at_origin` or `at_client` to run it there; the origin's address is `host`.

    `namespace` is the origin's, and `device` its end of the line there.
    """

    at_origin: tuple[str, ...]
    at_client: tuple[str, ...]
    host: str
    namespace: str
    device: str

    def cut(self) -> None:
        """Carry nothing more, in either direction, and say nothing of it to anybody."""
        _ip("-n", self.namespace, "link", "set", self.device, "down")

    def mend(self) -> None:
        """Carry again."""
        _ip("-n", self.namespace, "link", "set", self.device, "up")


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


def seconds(size: int, bits_per_s: float) -> float:
    """How long a full line of this rate needs for so many bytes of files; it counts whole frames."""
    return size * 8 / bits_per_s / _PAYLOAD


@contextlib.contextmanager
def line(bits_per_s: int) -> Iterator[Line]:
    """One line; see `lines`."""
    with lines([bits_per_s]) as (one,):
        yield one


@contextlib.contextmanager
def lines(rates: Sequence[int], *, from_one: bool = False) -> Iterator[tuple[Line, ...]]:
    """Make a line of so many bits a second from an origin each, or from one, to one client.

    The limits count whole frames.

    Raises:
        subprocess.CalledProcessError: something cannot be made; what was made is removed.
    """
    tag = f"bench-{os.getpid()}"
    client = f"{tag}-c"
    with contextlib.ExitStack() as stack:
        _add(client, stack)
        made = []
        for number, bits_per_s in enumerate(rates):
            net, device = f"10.213.{7 + number}", f"eth{number if from_one else 0}"
            origin = f"{tag}-o{0 if from_one else number}"
            if not (from_one and number):
                _add(origin, stack)
            ends = ("name", device, "netns", origin), ("name", f"eth{number}", "netns", client)
            _ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
            for name, end, host in ((origin, device, f"{net}.1"), (client, f"eth{number}", f"{net}.2")):
                _ip("-n", name, "address", "add", f"{host}/24", "dev", end)
                _ip("-n", name, "link", "set", end, "up")
            limit = ["rate", f"{bits_per_s}bit", "burst", f"{_BURST_BYTES}b", "latency", _QUEUE]
            _run("tc", "-n", origin, "qdisc", "add", "dev", device, "root", "tbf", *limit)
            made.append(Line(_inside(origin), _inside(client), f"{net}.1", origin, device))
        yield tuple(made)


def _add(name: str, stack: contextlib.ExitStack) -> None:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "delete", name)
    _ip("-n", name, "link", "set", "lo", "up")


def _inside(name: str) -> tuple[str, ...]:
    # It becomes the command it is given, so that what is measured is the command.
    return ("nsenter", f"--net=/run/netns/{name}", "--")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)

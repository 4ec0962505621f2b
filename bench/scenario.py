"""What is measured: a repo, the way it is served, and who takes part."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from bench.repo import MIB

GIB = 1024 * MIB
LANES = 16
"""Connections to one host, of ours by default and of the others by their options."""

RESOLVES_ALLOWED = 3000
RESOLVES_WINDOW_S = 300.0
"""How many files a hub lets an anonymous address ask for, and in how many seconds."""

MAIN = ("headrace", "hf download", "aria2c -x16", "aria2c -x16 --checksum")
OBSERVED = "headrace, observed"
SLOW_RATE = 2 * MIB
GIGABIT = 1_000_000_000


class Road(enum.Enum):
    """The way from origin to client."""

    LOOPBACK = "nginx, plain"
    TLS = "nginx, with a certificate"
    LINE = "nginx, over a line of 1 Gbit/s"
    SLOW = "the chaos hub, 2 MiB/s for each connection"
    HUB = "the chaos hub without limits"


@dataclass(frozen=True)
class Scenario:
    """A repo of `files` files of `file_bytes` each, and how it is served.

    Args:
        name: what it is called on the command line.
        told: what it is, for the heading of its table.
        files: how many.
        file_bytes: the size of each.
        road: how they are served.
        contestants: who takes part, by name.
        latency_s: seconds before each first byte, by the chaos hub.
        sparse: files of zeros that take no room at the origin.
        small: files that a hub keeps in git, not in large file storage.
        warmups: runs of each before those that count.
    """

    name: str
    told: str
    files: int
    file_bytes: int
    road: Road = Road.LOOPBACK
    contestants: tuple[str, ...] = MAIN
    latency_s: float = 0.0
    sparse: bool = False
    small: bool = False
    warmups: int = 1

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.files * self.file_bytes

    @property
    def rate(self) -> int | None:
        """Bytes a second for each connection; None is unlimited."""
        return SLOW_RATE if self.road is Road.SLOW else None

    def quick(self) -> Scenario:
        """The same, small enough to see in seconds that the bench works."""
        return replace(self, files=min(self.files, 40), file_bytes=min(self.file_bytes, 8 * MIB), warmups=0)


SCENARIOS = (
    Scenario("near", "loopback without limits, one file", 1, 2 * GIB),
    Scenario("near-tls", "the same over TLS", 1, 2 * GIB, Road.TLS),
    Scenario("near-shards", "loopback without limits, eight shards", 8, 256 * MIB),
    Scenario(
        "far",
        "2 MiB/s a connection, one file",
        1,
        256 * MIB,
        Road.SLOW,
        (*MAIN, OBSERVED),
        warmups=0,
    ),
    Scenario(
        "far-150",
        "2 MiB/s a connection, 150 ms to each first byte, one file",
        1,
        256 * MIB,
        Road.SLOW,
        (*MAIN, OBSERVED),
        latency_s=0.15,
        warmups=0,
    ),
    Scenario(
        "line",
        "a line of 1 Gbit/s, one file",
        1,
        4 * GIB,
        Road.LINE,
        ("headrace", OBSERVED, "raw reader", "curl", "aria2c -x16"),
        warmups=0,
    ),
    Scenario(
        "big",
        "loopback, one file of zeros",
        1,
        8 * GIB,
        contestants=("headrace", "hf download", "aria2c -x16"),
        sparse=True,
        warmups=0,
    ),
    Scenario(
        "many",
        "1,000 small files",
        1000,
        8 * 1024,
        Road.HUB,
        ("headrace", "hf download", "aria2c -j16"),
        small=True,
    ),
    Scenario(
        "peers",
        "every client we know, one file",
        1,
        1 * GIB,
        contestants=(
            *MAIN,
            "hf_transfer",
            "axel -n16",
            "curl",
            "wget",
            "pypdl",
            "modelscope download",
        ),
    ),
)

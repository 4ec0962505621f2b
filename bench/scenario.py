"""What is measured: a repo, the way it is served, and who takes part."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.repo import MIB

GIB = 1024 * MIB
LANES = 16
"""Connections to one host, of ours by default and of aria2 by its options."""

MAIN = ("headrace", "hf download", "aria2c -x16", "aria2c -x16 --checksum")
SLOW_RATE = 2 * MIB


@dataclass(frozen=True)
class Scenario:
    """A repo of `files` files of `file_bytes` each, and how it is served.

    Args:
        name: what it is called on the command line.
        told: what it is, for the heading of its table.
        files: how many.
        file_bytes: the size of each.
        contestants: who takes part, by name.
        tls: served with a certificate.
        rate: bytes a second for each connection, by the chaos hub; None: nginx serves as fast as it can.
        latency_s: seconds before each first byte, by the chaos hub.
        line: over a line of 1 Gbit/s between two network namespaces.
        sparse: files of zeros that take no room at the origin.
        warmups: runs of each before those that count.
    """

    name: str
    told: str
    files: int
    file_bytes: int
    contestants: tuple[str, ...] = MAIN
    tls: bool = False
    rate: int | None = None
    latency_s: float = 0.0
    line: bool = False
    sparse: bool = False
    warmups: int = 1

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.files * self.file_bytes

    def quick(self) -> Scenario:
        """The same, small enough to see in seconds that the bench works."""
        return replace(self, file_bytes=min(self.file_bytes, 16 * MIB), warmups=0)


SCENARIOS = (
    Scenario("near", "loopback without limits, one file", 1, 2 * GIB),
    Scenario("near-tls", "the same over TLS", 1, 2 * GIB, tls=True),
    Scenario("near-shards", "loopback without limits, eight shards", 8, 256 * MIB),
    Scenario(
        "far",
        "2 MiB/s a connection, one file",
        1,
        256 * MIB,
        (*MAIN, "headrace, observed"),
        rate=SLOW_RATE,
        warmups=0,
    ),
    Scenario(
        "far-150",
        "2 MiB/s a connection, 150 ms to each first byte, one file",
        1,
        256 * MIB,
        (*MAIN, "headrace, observed"),
        rate=SLOW_RATE,
        latency_s=0.15,
        warmups=0,
    ),
)

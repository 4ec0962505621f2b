"""What tests of files on their way do to them, and the programs that they start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headrace.facade.prefetch import Prefetch
from headrace.load.arrival import Arrival
from headrace.manifest import Entry
from headrace.ranges import Range

MIB = 1024 * 1024
WEIGHTS = "model.safetensors"


def weights(coming: Prefetch) -> Entry:
    """The one large file."""
    (entry,) = (one for one in coming.plan().manifest.entries if one.path == WEIGHTS)
    return entry


def read(arrival: Arrival) -> bytes:
    """All of it, a MiB at a time, each as soon as it is there."""
    ends = [*range(0, arrival.entry.size, MIB), arrival.entry.size]
    wanted = [Range(*pair) for pair in zip(ends, ends[1:], strict=False)]
    return b"".join(arrival.reach(one).read(one) for one in wanted)


def until(is_so: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def companions() -> set[int]:
    """The prefetchers of this machine that fetch into the cache of this test."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (place / "environ").read_bytes()
            is_ours = f"HF_HUB_CACHE={os.environ['HF_HUB_CACHE']}\0".encode() in environment + b"\0"
            if (
                is_ours
                and b"facade.prefetcher" in (place / "cmdline").read_bytes()
                and is_alive(int(place.name))
            ):
                found.add(int(place.name))
    return found


def start(text: str, *arguments: str) -> subprocess.Popen[str]:
    """A program of this text, in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

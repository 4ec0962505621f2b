"""A pull as its own events tell it, with the time of each: `python -m bench.observe REPO FOLDER OUTPUT [SOURCE]…`.

Writes one JSON object to the file OUTPUT: see `Observation`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import headrace
from headrace.events import BlobPublished, BytesLanded, Event, SegmentOpened


@dataclass(frozen=True)
class Observation:
    """Instants in seconds since the first answer to a request for bytes; opened: of every further such answer."""

    last_landed_s: float
    verified_s: float
    opened_s: tuple[float, ...]

    @property
    def tail_s(self) -> float:
        """From the last byte landed to the last file verified and published."""
        return self.verified_s - self.last_landed_s

    @classmethod
    def read(cls, file: Path) -> Observation:
        """Undo `main`."""
        said = json.loads(file.read_text())
        return cls(said["last_landed_s"], said["verified_s"], tuple(said["opened_s"]))


class Watch:
    """Notes when events come."""

    def __init__(self) -> None:
        self._opened: list[float] = []
        self._landed = 0.0
        self._published = 0.0

    def take(self, event: Event) -> None:
        """Called on the thread that delivers events."""
        now = time.monotonic()
        if isinstance(event, SegmentOpened):
            self._opened.append(now)
        elif isinstance(event, BytesLanded):
            self._landed = now
        elif isinstance(event, BlobPublished):
            self._published = now

    def observation(self) -> Observation:
        """What came of it."""
        first = self._opened[0]
        opened = tuple(one - first for one in self._opened)
        return Observation(self._landed - first, self._published - first, opened)


def main() -> None:
    """Pull, watch, write."""
    repo, folder, output, *sources = sys.argv[1:]
    watch = Watch()
    headrace.pull(repo, dest=folder, sources=sources, on_event=watch.take)
    Path(output).write_text(json.dumps(asdict(watch.observation())))


if __name__ == "__main__":
    main()

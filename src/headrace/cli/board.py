"""What a pull has come to so far, from its events: the numbers that bars, lines and JSON show.

The model is honest by construction. Bytes that were here before are counted apart from those that came now, and
only the latter make a rate. `landed` is not `verified`, and neither is `in place`. Droppable events may be missing:
what later ones imply is taken over from them.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headrace.events import (
    BlobAwaited,
    BlobFailed,
    BlobMismatch,
    BlobPublished,
    BlobStarted,
    BytesForgotten,
    BytesHashed,
    BytesLanded,
    Checking,
    Done,
    Event,
    Explained,
    FileReused,
    PullStarted,
)

_RATE_WINDOW_S = 5.0
_RATE_STEP_S = 0.2
_REMEMBERED = 16  # files in place that may still be shown


class Stage(enum.Enum):
    """Where a file stands."""

    CHECKING = "what is here already is being hashed"
    AWAITED = "another process is fetching it"
    FETCHING = "bytes are coming, or are being verified"
    VERIFIED = "fetched, verified and in place"
    REUSED = "was here already, verified and in place"
    FAILED = "cannot be had"


IN_PLACE = frozenset({Stage.VERIFIED, Stage.REUSED})


class Meter:
    """Bytes over the last seconds. It goes down when nothing comes, which is the point of it."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()
        self.has_run = False

    def count(self, count: int, now: float) -> None:
        """Bytes came."""
        self.has_run = True
        if self._steps and now - self._steps[-1][0] < _RATE_STEP_S:
            at, before = self._steps.pop()
            self._steps.append((at, before + count))
        else:
            self._steps.append((now, count))

    def per_second(self, now: float, since: float) -> float:
        """The rate at `now`, of something that began at `since`."""
        while self._steps and now - self._steps[0][0] > _RATE_WINDOW_S:
            self._steps.popleft()
        span = min(_RATE_WINDOW_S, max(now - since, _RATE_STEP_S))
        return sum(count for _, count in self._steps) / span


@dataclass(eq=False)
class FileState:
    """One file of a pull; sizes in bytes. `landed` includes what an earlier attempt left: `resumed`."""

    path: str
    size: int
    stage: Stage
    began: float
    resumed: int = 0
    landed: int = 0
    hashed: int = 0
    mismatched: bool = False
    meter: Meter = field(default_factory=Meter)

    @property
    def is_complete(self) -> bool:
        """Whether all bytes came and it is not in place yet."""
        return self.stage is Stage.FETCHING and self.landed >= self.size

    def rate(self, now: float) -> float:
        """Bytes a second, over the last seconds."""
        return self.meter.per_second(now, self.began)

    def seconds_left(self, now: float) -> float | None:
        """Until all its bytes are here, at the present rate."""
        return _time_for(self.size - self.landed, self.rate(now))


class Board:
    """Takes events with the time they came; answers questions. Not thread-safe: its owner sees to that."""

    def __init__(self) -> None:
        self.started: PullStarted | None = None
        self.done: Done | None = None
        self.explained: Explained | None = None
        self.files_in_place = 0
        self._now = 0.0
        self._fetching_since: float | None = None
        self._landed_at: float | None = None  # when anything came last
        self._meter = Meter()
        self._meters: dict[str, Meter] = {}  # by source
        self._bytes_in_place = 0
        self._earlier_in_place = 0
        self._files: dict[
            str, FileState
        ] = {}  # by digest; without those in place, of which there may be thousands
        self._in_place: deque[FileState] = deque(maxlen=_REMEMBERED)
        self._takers: dict[type[Event], Callable[[Any], None]] = {
            PullStarted: self._pull_started,
            FileReused: self._file_reused,
            Checking: self._checking,
            BlobAwaited: self._blob_awaited,
            BlobStarted: self._blob_started,
            BytesLanded: self._bytes_landed,
            BytesHashed: self._bytes_hashed,
            BytesForgotten: self._bytes_forgotten,
            BlobMismatch: self._blob_mismatch,
            BlobPublished: self._blob_published,
            BlobFailed: self._blob_failed,
            Explained: self._explained,
            Done: self._done,
        }

    def take(self, event: Event, now: float) -> None:
        """Learn from an event."""
        self._now = now
        taker = self._takers.get(type(event))
        if taker is not None:
            taker(event)

    # Questions

    @property
    def total(self) -> int:
        """Bytes of all wanted files."""
        return self.started.bytes if self.started else 0

    @property
    def is_fetching(self) -> bool:
        """Whether this process has begun to fetch anything."""
        return self._fetching_since is not None

    @property
    def landed(self) -> int:
        """Bytes here: in place, or in the partials of files on their way."""
        return min(self.total, self._bytes_in_place + sum(one.landed for one in self._files.values()))

    @property
    def verified(self) -> int:
        """Bytes that were hashed: in place, or before the frontier of files on their way."""
        fetching = (one.hashed for one in self._files.values() if one.stage is Stage.FETCHING)
        return min(self.total, self._bytes_in_place + sum(fetching))

    @property
    def earlier(self) -> int:
        """Bytes that were here before: whole files, and what an earlier attempt left of others."""
        return min(self.total, self._earlier_in_place + sum(one.resumed for one in self._files.values()))

    def kept(self, least: int) -> int:
        """Bytes that the next attempt need not fetch; unfinished files smaller than `least` are begun anew."""
        return self._bytes_in_place + sum(one.landed for one in self._files.values() if one.size >= least)

    def rate(self, now: float) -> float:
        """Bytes a second from sources, over the last seconds."""
        return 0.0 if self._fetching_since is None else self._meter.per_second(now, self._fetching_since)

    def rates(self, now: float) -> dict[str, float]:
        """The same for each source that gave anything, by name."""
        since = self._fetching_since or 0.0
        return {source: meter.per_second(now, since) for source, meter in self._meters.items()}

    def seconds_left(self, now: float) -> float | None:
        """Until all bytes are here, at the present rate."""
        return _time_for(self.total - self.landed, self.rate(now))

    def silent_s(self, now: float) -> float | None:
        """Seconds since the last byte came, where that is so long that there is no rate any more."""
        if self._landed_at is None or self.landed >= self.total or self.rate(now) > 0:
            return None
        return now - self._landed_at

    def active(self) -> list[FileState]:
        """Files that something is happening to, oldest first."""
        return [one for one in self._files.values() if one.stage is not Stage.FAILED]

    def recent(self, most: int) -> list[FileState]:
        """The files that came into place last."""
        return list(self._in_place)[-most:] if most > 0 else []

    # What happened

    def _pull_started(self, event: PullStarted) -> None:
        self.started = event

    def _file_reused(self, event: FileReused) -> None:
        self._put_in_place(event, Stage.REUSED)

    def _checking(self, event: Checking) -> None:
        for digest, other in list(self._files.items()):
            if other.stage is Stage.CHECKING and digest != event.digest:
                del self._files[digest]  # it was not what is wanted, and will be fetched
        self._file(event, Stage.CHECKING).hashed = min(event.done, event.size)

    def _blob_awaited(self, event: BlobAwaited) -> None:
        self._file(event, Stage.AWAITED).landed = event.landed

    def _blob_started(self, event: BlobStarted) -> None:
        one = FileState(event.path, event.size, Stage.FETCHING, self._now, event.resumed, event.resumed)
        self._files[event.digest] = one
        if self._fetching_since is None:
            self._fetching_since = self._now

    def _bytes_landed(self, event: BytesLanded) -> None:
        one = self._files.get(event.digest)
        if one is not None:
            count = event.stop - event.start
            one.landed = min(one.size, one.landed + count)
            one.meter.count(count, self._now)
            self._meter.count(count, self._now)
            self._meters.setdefault(event.source, Meter()).count(count, self._now)
            self._landed_at = self._now

    def _bytes_hashed(self, event: BytesHashed) -> None:
        one = self._files.get(event.digest)
        if one is not None:
            one.hashed = event.frontier
            one.landed = max(one.landed, event.frontier)

    def _bytes_forgotten(self, event: BytesForgotten) -> None:
        one = self._files.get(event.digest)
        if one is not None:
            one.landed = max(0, one.landed - (event.stop - event.start))
            one.hashed, one.resumed = 0, 0

    def _blob_mismatch(self, event: BlobMismatch) -> None:
        one = self._files.get(event.digest)
        if one is not None:
            one.mismatched = True

    def _blob_published(self, event: BlobPublished) -> None:
        self._put_in_place(event, Stage.VERIFIED)

    def _blob_failed(self, event: BlobFailed) -> None:
        one = self._files.get(event.digest)
        if one is not None:
            one.stage = Stage.FAILED
            if event.code == "digest_mismatch":
                one.landed = 0  # nothing of it is believed, so nothing is kept

    def _explained(self, event: Explained) -> None:
        self.explained = event

    def _done(self, event: Done) -> None:
        self.done = event

    def _file(self, event: Checking | BlobAwaited, stage: Stage) -> FileState:
        one = self._files.get(event.digest)
        if one is None or one.stage is not stage:
            one = self._files[event.digest] = FileState(event.path, event.size, stage, self._now)
        return one

    def _put_in_place(self, event: FileReused | BlobPublished, stage: Stage) -> None:
        one = self._files.pop(event.digest, None) or FileState(event.path, event.size, stage, 0.0)
        one.stage, one.landed, one.hashed = stage, event.size, event.size
        self._in_place.append(one)
        self.files_in_place += 1
        self._bytes_in_place += event.size
        self._earlier_in_place += event.size if stage is Stage.REUSED else one.resumed


def _time_for(count: int, per_second: float) -> float | None:
    return count / per_second if per_second > 0 else None

"""An engine with sources and jobs that do what a test says; no network in it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.errors import HeadraceError
from headrace.events import Event
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo
from headrace.plan.limits import Limits
from headrace.source.contract import Content, Request
from headrace.source.http import Dialer, HttpSession
from headrace.store.lease import LeaseWatch
from headrace.store.partial import Partial, claim_partial
from headrace.transfer.engine import Engine
from headrace.transfer.job import NotYet

REPO, COMMIT = Repo("org/model"), "a" * 40


def content_of(data: bytes, path: str = "model.bin") -> Content:
    return Content(REPO, COMMIT, Entry(path, len(data), Digest("sha256", hashlib.sha256(data).hexdigest())))


@dataclass
class Tape:
    """The bytes of one request; `before` is called ahead of every reading."""

    data: bytes
    before: Callable[[], None]
    check: Callable[[], None]
    host: str = "tape.test"
    address: str = "127.0.0.1"
    siblings: tuple[str, ...] = ("127.0.0.1",)

    def readinto(self, buffer: memoryview) -> int:
        self.before()
        self.check()
        count = min(len(buffer), len(self.data), 65536)
        buffer[:count], self.data = self.data[:count], self.data[count:]
        return count

    @property
    def can_splice(self) -> bool:
        return False

    def splice(self, pipe: int, most: int) -> int | None:
        return None

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Shelf:
    """A source that has files by path; `before` is called ahead of every reading, `opening` ahead of every request."""

    files: dict[str, bytes]
    name: str = "shelf"
    before: Callable[[], None] = lambda: None
    opening: Callable[[], None] = lambda: None
    requests: list[Request] = field(default_factory=list)

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        raise NotImplementedError

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> Tape:
        self.requests.append(request)
        self.opening()
        wanted = request.range
        data = self.files[request.content.entry.path][wanted.start : wanted.stop]
        return Tape(data, self.before, session.check)


@dataclass
class Wish:
    """A job that publishes into a folder and remembers how it ended."""

    content: Content
    folder: Path
    sources: tuple[str, ...] = ("shelf",)
    begins: int = 0
    ends: list[HeadraceError | None] = field(default_factory=list)
    publishing: Callable[[], None] = lambda: None
    beginning: Callable[[], None] = lambda: None
    doubting: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._watch = LeaseWatch(WorkshopLayout(self.folder, self.content.entry.digest))

    @property
    def final(self) -> Path:
        return self.folder / "final" / self.content.entry.path

    def begin(self) -> Partial | NotYet:
        self.begins += 1
        self.beginning()
        lease = self._watch.acquire()
        if lease is None:
            return NotYet.HELD
        if self.final.exists():
            lease.release()
            return NotYet.HERE
        return claim_partial(self.folder, self.content.entry.digest, self.content.entry.size, lease)

    def publish(self, partial: Partial) -> None:
        self.publishing()
        partial.publish(self.final)

    def doubt(self) -> None:
        self.doubting()

    def ended(self, error: HeadraceError | None) -> None:
        self.ends.append(error)


@dataclass
class Bench:
    """An engine over a shelf; `events` are what it emitted."""

    folder: Path
    shelf: Shelf
    limits: Limits = field(default_factory=lambda: Limits(give_up_s=2.0, patience_s=1.0))
    events: list[Event] = field(default_factory=list)

    def engine(self) -> Engine:
        return Engine({self.shelf.name: self.shelf}, Dialer(), self.limits, self.events.append)

    def wish(self, path: str = "model.bin") -> Wish:
        return Wish(content_of(self.shelf.files[path], path), self.folder)

    def leases(self) -> list[Path]:
        return list(self.folder.glob("*.lease.*"))

    def heard(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


DATA = bytes(range(256)) * 4096 * 9  # 9 MiB: journalled, several segments


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench with one large file and one small one."""
    return Bench(tmp_path, Shelf({"model.bin": DATA, "small.txt": b"small", "empty": b""}))


@pytest.fixture
def threads_end() -> Iterator[None]:
    """Checks that what a test started has ended."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread

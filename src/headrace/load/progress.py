"""How far a load is, as events, told by whoever waits for bytes: it has no thread, and says nothing of its own accord."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from headrace.events import Emit, Loaded, LoadProgress

_EVERY_S = 0.2


class Counted(Protocol):
    """A file on its way; see `Arrival`."""

    progress: Progress | None

    @property
    def size(self) -> int:
        """In bytes, when it is complete."""

    def count(self) -> int:
        """How many of its bytes are there."""


class Progress:
    """Counts the tensors of all files of one load. For any thread."""

    def __init__(self, emit: Emit | None) -> None:
        """The load begins now. With None nobody wants to hear of it."""
        self.emit = emit
        self._began = time.monotonic()
        self._waited_s = 0.0
        self._waiting = 0  # how many threads do
        self._waiting_since = 0.0
        self._lock = threading.Lock()
        self._files: tuple[Counted, ...] = ()
        self._tensors: dict[int, int] = {}
        self._done: set[tuple[int, str]] = set()
        self._awaited: list[str] = []
        self._told_at = float("-inf")

    def expect(self, files: Iterable[Counted] = ()) -> None:
        """All went by waiting until now; these are read from now on, while they come."""
        self._leave()
        self._files = tuple(files)
        self._waited_s = time.monotonic() - self._began
        for file in self._files if self.emit is not None else ():
            file.progress = self

    def opened(self, file: object, tensors: int) -> None:
        """A file's header is here."""
        with self._lock:
            self._tensors[id(file)] = tensors

    def over(self, repo: str, commit: str) -> None:
        """Everything is loaded and verified."""
        seconds = time.monotonic() - self._began
        if self._files:  # how far it is now, whenever that was said last
            self._told_at = float("-inf")
            self.tell()
        self._leave()
        if self.emit is not None:
            self.emit(Loaded(repo, commit, len(self._done), round(seconds, 3), round(self._waited_s, 3)))

    def _leave(self) -> None:
        for file in self._files:
            if file.progress is self:
                file.progress = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A thread waits for what is not here yet. Time in which several wait goes by once."""
        with self._lock:
            if not self._waiting:
                self._waiting_since = time.monotonic()
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._waited_s += time.monotonic() - self._waiting_since

    @contextmanager
    def awaiting(self, file: object, name: str) -> Iterator[None]:
        """Somebody wants this tensor, and has it in the end."""
        with self._lock:
            self._awaited.append(name)
        try:
            yield
            with self._lock:
                self._done.add((id(file), name))
        finally:
            with self._lock:
                self._awaited.remove(name)
        self.tell()

    def tell(self) -> None:
        """Say how far things are, unless that was said a moment ago. Raises what the files raise when looked at."""
        with self._lock:
            now = time.monotonic()
            if now - self._told_at < _EVERY_S:
                return
            self._told_at = now
            awaited = self._awaited[0] if self._awaited else ""
            tensors, done = sum(self._tensors.values()), len(self._done)
        size, landed = sum(file.size for file in self._files), sum(file.count() for file in self._files)
        if self.emit is not None:
            self.emit(LoadProgress(tensors, done, size, landed, awaited))

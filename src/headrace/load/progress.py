"""How far a load is, as events, told by whoever waits for bytes: it has no thread, and says nothing of its own accord."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from headrace.events import Emit, LoadProgress

_EVERY_S = 0.2


class Counted(Protocol):
    """A file on its way; see `Arrival`."""

    def count(self) -> int:
        """How many of its bytes are there."""


class Progress:
    """Counts the tensors of all files of one load. For any thread."""

    def __init__(self, emit: Emit, total_bytes: int) -> None:
        """`total_bytes` is the size of all files that will be counted."""
        self._emit = emit
        self._bytes = total_bytes
        self._lock = threading.Lock()
        self._files: list[Counted] = []
        self._tensors = 0
        self._done: set[tuple[int, str]] = set()
        self._awaited: list[str] = []
        self._told_at = float("-inf")

    @property
    def tensors_done(self) -> int:
        """How many tensors were handed out."""
        return len(self._done)

    def opened(self, file: Counted, tensors: int) -> None:
        """A file's header is here."""
        with self._lock:
            self._files.append(file)
            self._tensors += tensors

    @contextmanager
    def awaiting(self, file: Counted, name: str) -> Iterator[None]:
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
            files, awaited = tuple(self._files), self._awaited[0] if self._awaited else ""
        landed = sum(file.count() for file in files)
        self._emit(LoadProgress(self._tensors, len(self._done), self._bytes, landed, awaited))

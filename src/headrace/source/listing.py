"""What a source lists of a repo, and which of its files is a content that is wanted.

The same digest is the same content, whatever its name there. Where a listing tells no digests, or not the kind that
is known of the content (small files on hubs have git's id, others list a sha256), the path and the size lead to a
file, and the digest decides once its bytes are here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar
from urllib.parse import quote

from headrace.errors import EntryNotFound, HeadraceError, SourceError
from headrace.manifest import Digest, Entry

T = TypeVar("T")

_KEPT_S = 600.0  # a mirror that is being filled gets there while a large pull lasts
_KEPT = 64
_LOOK_S = 0.1  # how soon it is noticed that nobody waits any more


@dataclass(frozen=True)
class Listed:
    """A file as a source lists it, and the URL it is asked for at; what the list does not tell is None."""

    path: str
    url: str
    size: int | None = None
    digest: Digest | None = None


@dataclass(frozen=True)
class Listing:
    """The files of a repo at a source.

    Attributes:
        source: the name of the source.
        where: what was listed, in words.
        commit: the commit they are of, where the source has such.
        folder: the URL below which files that are not listed may still be asked for; None where the list is whole.
    """

    source: str
    where: str
    files: tuple[Listed, ...]
    commit: str | None = None
    folder: str | None = None

    def find(self, entry: Entry) -> Listed:
        """The file with this content.

        Raises:
            EntryNotFound: there is none, with what is there instead.
        """
        same = self._by_digest.get(entry.digest, ())
        for one in sorted(same, key=lambda one: one.path != entry.path):
            if one.size in (None, entry.size):
                return one
        named = self._by_path.get(entry.path)
        if named is None:
            return self._unlisted(entry)
        if named.size not in (None, entry.size):
            there = f"with {named.size} bytes, not {entry.size}"
            raise EntryNotFound(f"{self.source} has {entry.path!r} {there} ({self.where})")
        if named.digest is not None and named.digest.algorithm == entry.digest.algorithm:
            raise EntryNotFound(f"{self.source} has other content at {entry.path!r} ({self.where})")
        return named

    def _unlisted(self, entry: Entry) -> Listed:
        if self.folder is not None:
            return Listed(entry.path, below(self.folder, entry.path))
        name = entry.path.rpartition("/")[2]
        for one in self.files:
            if one.digest is None and one.size == entry.size and one.path.rpartition("/")[2] == name:
                return one
        raise EntryNotFound(f"{self.source} has nothing with the content of {entry.path!r} ({self.where})")

    def tells_of(self, listed: Listed) -> bool:
        """Whether that file is on the list, and not only guessed from its path."""
        return listed.path in self._by_path

    @cached_property
    def _by_path(self) -> dict[str, Listed]:
        return {one.path: one for one in self.files}

    @cached_property
    def _by_digest(self) -> dict[Digest, list[Listed]]:
        found: dict[Digest, list[Listed]] = {}
        for one in self.files:
            if one.digest is not None:
                found.setdefault(one.digest, []).append(one)
        return found


def below(folder: str, path: str) -> str:
    """The URL of a path below the URL of a folder."""
    return f"{folder}/{quote(path)}"


class Kept(Generic[T]):
    """Answers that are asked for once, also those that there is nothing. Safe to share between threads."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[float, T | HeadraceError]] = {}
        self._asked: set[Hashable] = set()
        self._changed = threading.Condition()

    def get(self, key: Hashable, ask: Callable[[], T], check: Callable[[], None]) -> T:
        """What `ask` gives, or gave within the last ten minutes. While another thread asks, this one waits.

        `check` is called while it waits, and may raise to end that. Errors as `ask`; those of a source that could
        not be asked are not kept.
        """
        with self._changed:
            while key in self._asked:
                check()
                self._changed.wait(_LOOK_S)
            told_at, known = self._known.get(key, (float("-inf"), None))
            if known is not None and time.monotonic() - told_at < _KEPT_S:
                return _given(known)
            self._asked.add(key)
        answer: T | HeadraceError | None = None
        try:
            answer = ask()
        except SourceError:
            raise
        except HeadraceError as error:
            answer = error
            raise
        finally:
            with self._changed:
                self._asked.discard(key)
                if answer is not None:
                    self._known[key] = (time.monotonic(), answer)
                if len(self._known) > _KEPT:
                    del self._known[next(iter(self._known))]
                self._changed.notify_all()
        return answer

    def put(self, key: Hashable, answer: T) -> None:
        """Keep an answer that was asked for otherwise."""
        with self._changed:
            self._known[key] = (time.monotonic(), answer)


def _given(known: T | HeadraceError) -> T:
    if isinstance(known, HeadraceError):
        raise type(known)(known.message, hint=known.hint)  # anew: threads would share one traceback
    return known

"""Everywhere on this disk where wanted content may lie already: the hub cache, and folders of whatever files.

The hub cache is asked by digest. In other folders (ModelScope's cache, torch hub's checkpoints, those that the user
named) a file's name proves nothing: files of a wanted size are looked for, those with a likely name first, and each
is hashed once; the ledger of the hub cache remembers it. Nothing is written into these folders, links to folders are
not followed, and nothing but regular files is opened.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial as bound
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.layout import WORKSHOP_IN_CACHE, WORKSHOP_IN_FOLDER
from headrace.manifest import Digest, Entry
from headrace.store.copying import Sound
from headrace.store.ledger import Ledger
from headrace.store.shelf import Shelf

if TYPE_CHECKING:
    from headrace.store.contract import Progress

NAMES_MOST = 300_000
"""How many names of one folder are looked at; a home of more is no collection of models."""

LOOK_S = 20.0
"""How long that may take, for all folders together: on a slow network file system each name costs a question."""

_SILENCE_S = 3.0  # longer than that nobody waits without being told why
_ALIKE_MOST = 1000  # files of one size
_VAIN_LEAST_BYTES = 64 * 1024 * 1024
_UNFINISHED = (".incomplete", ".partial")
_OURS = (WORKSHOP_IN_CACHE.parts, WORKSHOP_IN_FOLDER.parts)
_HINTED_DIGITS = 8  # of its sha256, in the name of a file that torch hub keeps


_Candidate = tuple[Path, Path]
"""A file, and the folder that it was found in."""


@dataclass(frozen=True)
class Found:
    """A verified file, and the folder that it was found in; none where that is the store's own."""

    sound: Sound
    place: Path | None = None


class Shelves:
    """The hub cache at `cache`, and `folders`; missing ones hold nothing."""

    def __init__(self, cache: Path, folders: Sequence[Path]) -> None:
        self._cache = cache
        self._folders = folders

    def search(
        self, wanted: Sequence[Entry], progress: Progress, warn: Callable[[str], None]
    ) -> dict[Entry, Found]:
        """Where wanted content lies; what is nowhere is left out. `warn` gets what was left unseen.

        Hashing in vain must not cost more than fetching would: twice the wanted bytes are hashed at most.
        """
        ledger = Ledger(self._cache / WORKSHOP_IN_CACHE)
        shelf = Shelf(self._cache, ledger)
        found: dict[Entry, Found] = {}
        for entry in wanted:
            sound = shelf.find(entry.digest, entry.size, bound(progress, entry))
            if sound is not None:
                found[entry] = Found(sound, self._cache)
        lacking = [entry for entry in wanted if entry not in found]
        if lacking and self._folders:
            files = _Files(self._folders, {entry.size for entry in lacking}, warn)
            most = max(_VAIN_LEAST_BYTES, 2 * sum(entry.size for entry in lacking))
            sieve = _Sieve(files, ledger, progress, most)
            found |= {entry: one for entry in lacking if (one := sieve.find(entry)) is not None}
        return found


class _Sieve:
    """Tells candidates apart by hashing them, each once, within `left_bytes`."""

    def __init__(self, files: _Files, ledger: Ledger, progress: Progress, left_bytes: int) -> None:
        self._files = files
        self._ledger = ledger
        self._progress = progress
        self._left_bytes = left_bytes
        self._known: dict[Digest, Found] = {}
        self._unknown: dict[tuple[int, str], list[_Candidate]] = {}  # by size and algorithm

    def find(self, entry: Entry) -> Found | None:
        """A file with this content, and the folder that it was found in."""
        algorithm = entry.digest.algorithm
        group = entry.size, algorithm
        if group not in self._unknown:
            self._unknown[group] = self._files.of(entry.size)
        unknown = self._unknown[group]
        while entry.digest not in self._known and unknown and self._left_bytes >= 0:
            likely = min(range(len(unknown)), key=lambda at: _rank(unknown[at], entry))
            path, place = unknown.pop(likely)
            hashed = 0

            def tell(done: int) -> None:
                nonlocal hashed
                hashed = done
                self._progress(entry, done)

            identified = self._ledger.identify(path, entry.size, algorithm, tell)
            self._left_bytes -= hashed
            if identified is not None:
                digest, facts = identified
                self._known[digest] = Found(Sound(path, facts, recheck=digest), place)
        return self._known.get(entry.digest)


def _rank(candidate: _Candidate, entry: Entry) -> tuple[bool, bool]:
    """What is likely to be this entry comes first: by its digest in the name, or by the name itself."""
    name = candidate[0].name
    return entry.digest.hex[:_HINTED_DIGITS] not in name, name != entry.path.rpartition("/")[2]


class _Files:
    """The regular files of some sizes below some folders."""

    def __init__(self, folders: Sequence[Path], sizes: Collection[int], warn: Callable[[str], None]) -> None:
        self._sizes = sizes
        self._seen: set[tuple[int, int]] = set()
        self._found: dict[int, list[_Candidate]] = {}
        self._warn = warn
        self._until = time.monotonic() + LOOK_S
        self._tell_at = time.monotonic() + _SILENCE_S
        for folder in folders:
            if not self._look(folder):
                warn(f"{folder} is too large to be looked through; what lies deep in it is not reused")

    def of(self, size: int) -> list[_Candidate]:
        """Files of this size, and the folders they were found in."""
        return sorted(self._found.get(size, ()), key=lambda one: str(one[0]))

    def _look(self, place: Path) -> bool:
        """Note the files below a folder; whether all were seen."""
        folders, left = [place], NAMES_MOST
        for folder in folders:  # grows: what lies near the top is seen first
            for one in _entries(folder):
                left -= 1
                if left < 0 or self._is_over(place):
                    return False
                with suppress(OSError):  # a link to nowhere or to itself, or gone by now
                    self._take(one, folder / one.name, place, folders)
        return True

    def _is_over(self, place: Path) -> bool:
        now = time.monotonic()
        if now > self._tell_at:
            self._tell_at = float("inf")
            left_s = max(self._until - now, 0)
            self._warn(f"looking through {place} takes long; it ends in {left_s:.0f} s at most")
        return now > self._until

    def _take(self, one: os.DirEntry[str], path: Path, place: Path, folders: list[Path]) -> None:
        if one.is_dir(follow_symlinks=False):
            if path.parts[-2:] not in _OURS:
                folders.append(path)
        elif not one.name.endswith(_UNFINISHED):
            self._note(path, one.stat(), place)

    def _note(self, path: Path, facts: os.stat_result, place: Path) -> None:
        this = facts.st_dev, facts.st_ino
        alike = self._found.setdefault(facts.st_size, []) if facts.st_size in self._sizes else None
        if alike is None or this in self._seen or not stat.S_ISREG(facts.st_mode):
            return
        if len(alike) < _ALIKE_MOST:
            self._seen.add(this)
            alike.append((path, place))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError:
        return

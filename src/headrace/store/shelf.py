"""Content that a hub cache has, found by digest: in whatever repo, in all the ways hub clients leave it.

Usually a blob's name is its digest; it may be a link into a store that repos share. On file systems without
symlinks hub clients leave `blobs/` empty and put real files into snapshots: those are found by the file lists
that pulls keep.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from headrace.layout import WORKSHOP_IN_CACHE
from headrace.manifest import Digest
from headrace.store.copying import Sound
from headrace.store.ledger import Ledger


class Shelf:
    """The hub cache at `root`, to be read only. What `ledger` does not know is hashed once."""

    def __init__(self, root: Path, ledger: Ledger) -> None:
        self._root = root
        self._ledger = ledger

    def find(self, digest: Digest, size: int, progress: Callable[[int], None]) -> Sound | None:
        """A file with this content, verified; `progress` gets the bytes hashed so far."""
        for path in self._places.get(digest.hex, ()):
            facts = self._ledger.check(path, digest, size, progress)
            if facts is not None:
                return Sound(path, facts)
        return None

    @cached_property
    def _places(self) -> dict[str, list[Path]]:
        places: dict[str, list[Path]] = {}
        for folder in _names(self._root):
            if "--" not in folder:
                continue
            blobs = self._root / folder / "blobs"
            for name in _names(blobs):
                places.setdefault(name, []).append(blobs / name)
            for name, files in unlinked_files(self._root, folder).items():
                places.setdefault(name, []).extend(files)
        return places


def unlinked_files(root: Path, folder: str) -> dict[str, list[Path]]:
    """Hex digest → files in snapshots of one repo, where they are no links; empty where it has blobs."""
    if any(True for _ in _names(root / folder / "blobs")):
        return {}
    places: dict[str, list[Path]] = {}
    listings = root / WORKSHOP_IN_CACHE / "manifests" / folder
    for name in sorted(_names(listings)):
        snapshot = root / folder / "snapshots" / name.removesuffix(".json")
        try:
            for path, _, digest in json.loads((listings / name).read_bytes()):
                places.setdefault(Digest.parse(digest).hex, []).append(snapshot / path)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            continue  # a damaged list says nothing
    return places


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            yield from (one.name for one in found)
    except OSError:
        return

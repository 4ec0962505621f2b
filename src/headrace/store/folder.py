"""A plain folder of real files, as `--dest` asks for: no cache around it, no links in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from headrace.errors import BadManifest
from headrace.layout import WORKSHOP_IN_FOLDER
from headrace.manifest import Entry, Manifest
from headrace.store.disk import scratch, storing
from headrace.store.ledger import Ledger

if TYPE_CHECKING:
    from headrace.store.contract import Progress
    from headrace.store.partial import Partial

_OURS = WORKSHOP_IN_FOLDER.parts


class Folder:
    """The files of one commit below `path`. Files of other names in it are left alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ledger = Ledger(self.workshop)

    @property
    def workshop(self) -> Path:
        """See `Store.workshop`."""
        return self._path / WORKSHOP_IN_FOLDER

    @property
    def copies(self) -> bool:
        """See `Store.copies`: editing one file must not edit another."""
        return True

    def prepare(self, wanted: Manifest) -> None:
        """See `Store.prepare`."""
        for entry in wanted.entries:
            parts = PurePosixPath(entry.path).parts
            if parts[: len(_OURS)] == _OURS[: len(parts)]:
                raise BadManifest(
                    f"{entry.path!r} would lie among the unfinished files of {self._path}",
                    hint="pull it into the cache, without --dest, or leave it out with --exclude",
                )
        with storing(self.workshop):
            self.workshop.mkdir(parents=True, exist_ok=True)
            ignore = self.workshop / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")

    def holds(self, entry: Entry) -> bool:
        """See `Store.holds`."""
        from headrace.store.partial import has_size  # noqa: PLC0415  # brings the writing of files along

        return has_size(self._path / entry.path, entry.size)

    def reuse(self, entries: Sequence[Entry], progress: Progress) -> bool:
        """See `Store.reuse`. A file that differs from the manifest is replaced later, by `publish`."""
        sound = next((entry for entry in entries if self._is_sound(entry, progress)), None)
        if sound is None:
            return False
        self._spread(sound, [entry for entry in entries if not self._is_sound(entry, progress)])
        return True

    def publish(self, partial: Partial, entries: Sequence[Entry]) -> None:
        """See `Store.publish`. The first name gets the partial itself, any others a copy."""
        first, *others = entries
        partial.publish(self._path / first.path)
        self._ledger.record(self._path / first.path, first.digest)
        self._spread(first, others)

    def finish(self, manifest: Manifest) -> None:
        """See `Store.finish`. A folder knows no revisions."""

    def root(self, commit: str) -> Path:  # noqa: ARG002  # a folder knows no commits
        """See `Store.root`."""
        return self._path

    def _is_sound(self, entry: Entry, progress: Progress) -> bool:
        path = self._path / entry.path
        return self._ledger.check(path, entry.digest, entry.size, lambda done: progress(entry, done))

    def _spread(self, source: Entry, others: Sequence[Entry]) -> None:
        for entry in others:
            final = self._path / entry.path
            with storing(final):
                _copy(self._path / source.path, final, scratch(self.workshop, "copy"))
            self._ledger.record(final, entry.digest)


def _copy(source: Path, final: Path, fresh: Path) -> None:
    """Copy a file by way of `fresh`: under the final name it is whole, and safely on disk, or not there."""
    try:
        shutil.copyfile(source, fresh)
        with fresh.open("rb") as file:
            os.fdatasync(file.fileno())
        final.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(final)
    finally:
        fresh.unlink(missing_ok=True)

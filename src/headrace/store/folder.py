"""A plain folder of real files, as `dest` asks for: no cache around it, no links in it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial as bound
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from headrace.errors import BadManifest
from headrace.layout import WORKSHOP_IN_FOLDER
from headrace.manifest import Entry, Manifest
from headrace.store.copying import Sound, changed, copy_to
from headrace.store.disk import has_size, make_folders, see_ways, storing
from headrace.store.lasting import SETTLING
from headrace.store.ledger import Ledger
from headrace.store.space import see_room

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

    def names(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See `Store.names`: editing one file must not edit another."""
        return entries

    def prepare(self, wanted: Manifest) -> None:
        """See `Store.prepare`."""
        self._make_way(wanted.entries)

    def holds(self, entry: Entry) -> bool:
        """See `Store.holds`."""
        return has_size(self._path / entry.path, entry.size)

    def reuse(self, entries: Sequence[Entry], progress: Progress) -> bool:
        """See `Store.reuse`. A file that differs from the manifest is replaced later, by `adopt` or `publish`."""
        return all(self._sound(entry, progress) for entry in entries)

    def find(self, entries: Sequence[Entry], progress: Progress) -> Sound | None:
        """See `Store.find`."""
        return next(filter(None, (self._sound(entry, progress) for entry in entries)), None)

    def adopt(self, source: Sound, entries: Sequence[Entry], progress: Progress) -> bool:
        """See `Store.adopt`."""
        return self._spread(source, [e for e in entries if self._sound(e, progress) is None], progress)

    def publish(self, partial: Partial, entries: Sequence[Entry]) -> None:
        """See `Store.publish`. The first name gets the partial itself, any others a copy."""
        first, *others = entries
        final = self._path / first.path
        facts = partial.publish(final)
        self._ledger.record(final, facts, first.digest)
        source = Sound(final, facts)
        if not self._spread(source, others, _ignore):
            raise changed(source)

    def finish(self, manifest: Manifest) -> list[str]:  # noqa: ARG002  # a folder knows no revisions
        """See `Store.finish`."""
        with storing(self._path):
            SETTLING.settle()
        return []

    def root(self, commit: str) -> Path:  # noqa: ARG002  # a folder knows no commits
        """See `Store.root`."""
        return self._path

    def _sound(self, entry: Entry, progress: Progress) -> Sound | None:
        path = self._path / entry.path
        facts = self._ledger.check(path, entry.digest, entry.size, lambda done: progress(entry, done))
        return None if facts is None else Sound(path, facts)

    def _make_way(self, entries: Sequence[Entry]) -> None:
        _refuse_ours(entries, self._path)
        see_ways(self.workshop, [self._path / entry.path for entry in entries])
        make_folders(self._path, [self.workshop])
        ignore = self.workshop / ".gitignore"
        with storing(ignore):
            if not ignore.exists():
                ignore.write_text("*\n")

    def _spread(self, source: Sound, others: Sequence[Entry], progress: Progress) -> bool:
        """Whether these entries are copies of verified content now; not if that was changed meanwhile."""
        for entry in others:
            final = self._path / entry.path
            with storing(final):
                facts = copy_to(
                    source,
                    final,
                    self.workshop,
                    bound(see_room, self.workshop, entry),
                    bound(progress, entry),
                )
            if facts is None:
                return False
            self._ledger.record(final, facts, entry.digest)
        return True


def _ignore(_: Entry, __: int) -> None:
    """Nobody wants to know how far it is."""


def _refuse_ours(entries: Sequence[Entry], folder: Path) -> None:
    for entry in entries:
        parts = PurePosixPath(entry.path).parts
        if parts[: len(_OURS)] == _OURS[: len(parts)]:
            raise BadManifest(
                f"{entry.path!r} would lie among the unfinished files of {folder}",
                hint="pull it into the cache, without `dest`, or leave it out with `exclude`",
            )

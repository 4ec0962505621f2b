"""The hub cache: what huggingface_hub and everything built on it reads, written the way it writes it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from functools import partial as bound
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import BadManifest, ReadOnly, RevisionNotFound, StoreError
from headrace.layout import CACHEDIR_TAG, HubCacheLayout
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo, is_commit
from headrace.store.copying import Sound, changed, copy_to, discard, move
from headrace.store.disk import has_size, make_folders, same_disk, scratch, see_ways, storing
from headrace.store.lasting import SETTLING
from headrace.store.ledger import Ledger
from headrace.store.shelf import unlinked_files

if TYPE_CHECKING:
    from headrace.store.contract import Progress
    from headrace.store.partial import Partial

_NO_SYMLINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class HubCache:
    """One commit of one repo in the hub cache at `root`; `whole` is all the commit holds, wanted or not.

    With `of_lock` that is a lock file's word: it is not kept for pulls without that file, and what a revision means
    here is not changed by it.

    Where the file system has no symlinks it does as hub clients do: the file itself lies in the snapshot, and
    there is no blob.
    """

    def __init__(self, root: Path, whole: Manifest, *, of_lock: bool = False) -> None:
        self._layout = HubCacheLayout(root, whole.repo)
        self._commit = whole.commit
        self._whole = whole
        self._of_lock = of_lock
        self._ledger = Ledger(self._layout.workshop)
        self._has_written = False

    @cached_property
    def workshop(self) -> Path:
        """See `Store.workshop`. A repo's folder may be a link to another disk, or a mount."""
        here, blobs = self._layout.workshop, self._layout.blob(_ANY).parent
        return here if same_disk(here, blobs) else self._layout.moved_workshop

    def names(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See `Store.names`: every name of a blob is a link to it, where there are links."""
        return entries[:1] if self._has_symlinks else entries

    def prepare(self, wanted: Manifest) -> None:
        """See `Store.prepare`."""
        blobs = (self._layout.blob(entry.digest) for entry in wanted.entries)
        see_ways(self.workshop, [*blobs, *map(self._place, wanted.entries)])
        self._make()
        tag = self._layout.root / "CACHEDIR.TAG"
        with storing(tag):
            if not tag.exists():
                tag.write_text(CACHEDIR_TAG)

    def holds(self, entry: Entry) -> bool:
        """See `Store.holds`."""
        return has_size(self._layout.blob(entry.digest), entry.size) or has_size(
            self._place(entry), entry.size
        )

    def reuse(self, entries: Sequence[Entry], progress: Progress) -> bool:
        """See `Store.reuse`. What another client left is hashed once."""
        blob = self._layout.blob(entries[0].digest)
        if self._sound(blob, entries[0], progress) is not None:
            unlinked = [entry for entry in entries if not self._is_linked(self._place(entry), entry)]
            if not unlinked:
                return True
            if self._has_symlinks:
                for entry in unlinked:
                    self._link(entry)
                return True
        return all(self._sound(self._place(entry), entry, progress) for entry in entries)

    def find(self, entries: Sequence[Entry], progress: Progress) -> Sound | None:
        """See `Store.find`."""
        found = (self._sound(path, entries[0], progress) for path in self._candidates(entries))
        return next(filter(None, found), None)

    def adopt(self, source: Sound, entries: Sequence[Entry], progress: Progress) -> bool:
        """See `Store.adopt`."""
        blob = self._layout.blob(entries[0].digest)
        if self._has_symlinks and source.path != blob:
            facts = self._copy(source, blob, entries[0], progress)
            if facts is None:
                return False
            source = Sound(blob, facts)
        return self._spread(source, entries, progress)

    def publish(self, partial: Partial, entries: Sequence[Entry]) -> None:
        """See `Store.publish`."""
        digest = entries[0].digest
        final = self._layout.blob(digest) if self._has_symlinks else self._place(entries[0])
        facts = partial.publish(final)
        self._ledger.record(final, facts, digest)
        source = Sound(final, facts)
        if not self._spread(source, entries, _nobody):
            raise changed(source)

    def finish(self, manifest: Manifest) -> list[str]:
        """See `Store.finish`. The whole file list is kept, so that offline it is known what is missing."""
        entries = [[entry.path, entry.size, str(entry.digest)] for entry in self._whole.entries]
        if not self._of_lock:
            with suppress(StoreError):  # a cache that cannot be written to can still be used
                self._write(_listing(self._layout, self._commit), json.dumps(entries).encode())
        with storing(self._layout.folder):
            SETTLING.settle()
        if manifest.revision == manifest.commit:
            return []
        ref = self._layout.ref(manifest.revision)
        try:
            known = _read(ref)
            if self._of_lock and known not in ("", manifest.commit):
                return [_stays(manifest, known)]
            if known != manifest.commit:
                with storing(ref):
                    _clear_way(ref, self._layout.folder)
                self._write(ref, manifest.commit.encode())
        except ReadOnly:
            if self._has_written:
                raise
            return [
                f"{self._layout.root} is read-only: it still says that {manifest.revision} is another commit"
            ]
        return []

    def root(self, commit: str) -> Path:
        """See `Store.root`."""
        return self._layout.snapshot(commit)

    @cached_property
    def _has_symlinks(self) -> bool:
        """Whether the file system has symlinks; tried once."""
        self._make()
        with storing(self.workshop):
            fresh = scratch(self.workshop, "probe")
            try:
                fresh.symlink_to("nowhere")
            except OSError as error:
                if error.errno not in _NO_SYMLINKS:
                    raise
                return False
            discard(fresh)
        return True

    def _make(self) -> None:
        """Make the folders that something is to be written in."""
        if not self._has_written:
            layout = self._layout
            folders = [layout.workshop, self.workshop]
            folders += [layout.blob(_ANY).parent, layout.snapshot(self._commit)]
            make_folders(layout.root, folders)
            self._has_written = True

    @cached_property
    def _unlinked(self) -> dict[str, list[Path]]:
        return unlinked_files(self._layout.root, self._layout.folder.name)

    def _candidates(self, entries: Sequence[Entry]) -> Iterator[Path]:
        """Where this content may be: the blob; real files in this snapshot, or in those of other commits."""
        digest = entries[0].digest
        yield self._layout.blob(digest)
        yield from map(self._place, entries)
        yield from self._unlinked.get(digest.hex, ())

    def _place(self, entry: Entry) -> Path:
        return self._layout.link(self._commit, entry.path)

    def _spread(self, source: Sound, entries: Sequence[Entry], progress: Progress) -> bool:
        """Put verified content under all these names: links to the blob, else files of their own.

        Whether it could be: not if that content was changed meanwhile.
        """
        blob = self._layout.blob(entries[0].digest)
        for entry in entries:
            place = self._place(entry)
            if place == source.path:
                continue
            with storing(place):
                if source.path == blob and self._is_linked(place, entry):
                    continue
                if source.path == blob and self._has_symlinks:
                    self._link(entry)
                elif not (self._sound(place, entry, progress) or self._copy(source, place, entry, progress)):
                    return False
        return True

    def _sound(self, path: Path, entry: Entry, progress: Progress) -> Sound | None:
        facts = self._ledger.check(path, entry.digest, entry.size, bound(progress, entry))
        return None if facts is None else Sound(path, facts)

    def _link(self, entry: Entry) -> None:
        place = self._place(entry)
        with storing(place):
            fresh = scratch(self.workshop, "link")
            fresh.symlink_to(self._layout.link_target(entry.path, entry.digest))
            move(fresh, place)

    def _copy(self, source: Sound, final: Path, entry: Entry, progress: Progress) -> os.stat_result | None:
        """Give verified content a file of its own, and say its facts; none if it was changed meanwhile."""
        from headrace.store.space import see_room  # noqa: PLC0415  # most pulls copy nothing

        self._make()
        room = bound(see_room, self.workshop, entry)
        with storing(final):
            facts = copy_to(source, final, self.workshop, room, bound(progress, entry))
        if facts is not None:
            self._ledger.record(final, facts, entry.digest)
        return facts

    def _is_linked(self, place: Path, entry: Entry) -> bool:
        try:
            target = str(place.readlink())
            if target == self._layout.link_target(entry.path, entry.digest):
                return True
            return place.samefile(self._layout.blob(entry.digest))  # said in another way
        except OSError:
            return False  # nothing, or a file

    def _write(self, path: Path, content: bytes) -> None:
        """Write a small file so that a reader sees the old or the new one, never half of one."""
        with storing(path):
            if path.is_file() and path.read_bytes() == content:
                return
            # In the workshop: hub clients take every file among the refs for a ref.
            own = self._layout.workshop
            fresh = scratch(own if path.is_relative_to(own) else self.workshop, "text")
            try:
                with fresh.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fdatasync(file.fileno())  # a name must never outlast its content
            except BaseException:
                discard(fresh)
                raise
            move(fresh, path)


def recall(root: Path, repo: Repo, revision: str) -> Manifest:
    """What is known of a revision without asking anybody.

    The file list of the commit where one was kept, else the snapshot another client left, as far as it goes.

    Raises:
        RevisionNotFound: the cache does not know this revision.
    """
    layout = HubCacheLayout(root, repo)
    commit = revision if is_commit(revision) else _read(layout.ref(revision)).strip()
    entries = (_listed(layout, commit) or _linked(layout.snapshot(commit))) if is_commit(commit) else ()
    if not entries:
        raise RevisionNotFound(
            f"{repo} at {revision!r} is not in the cache at {root}",
            hint="pull it once without `offline`",
        )
    return Manifest(repo, revision, commit, entries, "cache")


def _listed(layout: HubCacheLayout, commit: str) -> tuple[Entry, ...]:
    """The entries of a commit by the file list that was kept of it; none where that is missing or damaged."""
    try:
        rows = json.loads(_read(_listing(layout, commit)) or "[]")
        return tuple(Entry(str(path), size, Digest.parse(str(digest))) for path, size, digest in rows)
    except (ValueError, TypeError, RecursionError, BadManifest):
        return ()


def _linked(snapshot: Path) -> tuple[Entry, ...]:
    """The entries of a snapshot by its links: a blob's name is its digest."""
    entries = []
    for folder, _, names in os.walk(snapshot):
        for name in names:
            path = Path(folder, name)
            try:
                digest = Digest.of_etag(path.readlink().name)
                entries.append(Entry(path.relative_to(snapshot).as_posix(), path.stat().st_size, digest))
            except (OSError, BadManifest):
                continue  # no link into blobs/, or a dangling one: nothing that can be verified
    return tuple(sorted(entries, key=lambda entry: entry.path))


def _stays(manifest: Manifest, known: str) -> str:
    """What to tell where a lock says something else than the cache."""
    revision, commit = manifest.revision, manifest.commit
    here = f"{revision} of {manifest.repo} stays {known[:12]} in the cache, and is locked to {commit[:12]}"
    return f"{here}: load it with revision={commit!r}, or from its folder"


def _listing(layout: HubCacheLayout, commit: str) -> Path:
    return layout.workshop / "manifests" / layout.folder.name / f"{commit}.json"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _clear_way(ref: Path, folder: Path) -> None:
    """Remove refs that cannot exist beside this one.

    A hub has no branch `a` beside `a/b`: the one that is remembered here is gone there.
    """
    for above in ref.relative_to(folder).parents:
        if (folder / above).is_file():
            (folder / above).unlink()
    if ref.is_dir():
        shutil.rmtree(ref)


_ANY = Digest(Digest.GIT_BLOB_SHA1, "0" * 40)


def _nobody(_: Entry, __: int) -> None:
    """Nobody wants to know how far it is."""

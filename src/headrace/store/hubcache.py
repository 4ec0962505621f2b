"""The hub cache: what huggingface_hub and everything built on it reads, written the way it writes it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import BadManifest, RevisionNotFound, StoreError
from headrace.layout import CACHEDIR_TAG, HubCacheLayout
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo, is_commit
from headrace.store.disk import scratch, storing
from headrace.store.ledger import Ledger

if TYPE_CHECKING:
    from headrace.store.contract import Progress
    from headrace.store.partial import Partial


class HubCache:
    """One commit of one repo in the hub cache at `root`; `whole` is all the commit holds, wanted or not."""

    def __init__(self, root: Path, whole: Manifest) -> None:
        self._layout = HubCacheLayout(root, whole.repo)
        self._commit = whole.commit
        self._whole = whole
        self._ledger = Ledger(self._layout.workshop)

    @property
    def workshop(self) -> Path:
        """See `Store.workshop`."""
        return self._layout.workshop

    @property
    def copies(self) -> bool:
        """See `Store.copies`: every name of a blob is a link to it."""
        return False

    def prepare(self, wanted: Manifest) -> None:  # noqa: ARG002  # nobody's names meet ours here
        """See `Store.prepare`."""
        layout = self._layout
        with storing(layout.folder):
            for folder in (layout.workshop, layout.blob(_ANY).parent, layout.snapshot(self._commit)):
                folder.mkdir(parents=True, exist_ok=True)
            tag = layout.root / "CACHEDIR.TAG"
            if not tag.exists():
                tag.write_text(CACHEDIR_TAG)

    def holds(self, entry: Entry) -> bool:
        """See `Store.holds`."""
        from headrace.store.partial import has_size  # noqa: PLC0415  # brings the writing of files along

        return has_size(self._layout.blob(entry.digest), entry.size)

    def reuse(self, entries: Sequence[Entry], progress: Progress) -> bool:
        """See `Store.reuse`. What another client left is hashed once."""
        first = entries[0]
        blob = self._layout.blob(first.digest)
        if not self._ledger.check(blob, first.digest, first.size, lambda done: progress(first, done)):
            return False
        self._link(entries)
        return True

    def publish(self, partial: Partial, entries: Sequence[Entry]) -> None:
        """See `Store.publish`."""
        digest = entries[0].digest
        blob = self._layout.blob(digest)
        partial.publish(blob)
        self._ledger.record(blob, digest)
        self._link(entries)

    def finish(self, manifest: Manifest) -> None:
        """See `Store.finish`. The whole file list is kept, so that offline it is known what is missing."""
        entries = [[entry.path, entry.size, str(entry.digest)] for entry in self._whole.entries]
        with suppress(StoreError):  # a cache that cannot be written to can still be used
            self._write(_listing(self._layout, self._commit), json.dumps(entries).encode())
        if manifest.revision != manifest.commit:
            ref = self._layout.ref(manifest.revision)
            with storing(ref):
                _clear_way(ref, self._layout.folder)
            self._write(ref, manifest.commit.encode())

    def root(self, commit: str) -> Path:
        """See `Store.root`."""
        return self._layout.snapshot(commit)

    def _link(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            link = self._layout.link(self._commit, entry.path)
            target = self._layout.link_target(self._commit, entry.path, entry.digest)
            with storing(link):
                if link.is_symlink() and str(link.readlink()) == target:
                    continue
                fresh = scratch(self.workshop, "link")
                fresh.symlink_to(target)
                _move(fresh, link)

    def _write(self, path: Path, content: bytes) -> None:
        """Write a small file so that a reader sees the old or the new one, never half of one."""
        with storing(path):
            if path.is_file() and path.read_bytes() == content:
                return
            # In the workshop: hub clients take every file among the refs for a ref.
            fresh = scratch(self.workshop, "text")
            fresh.write_bytes(content)
            _move(fresh, path)


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
            hint="pull it once without --offline",
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


def _listing(layout: HubCacheLayout, commit: str) -> Path:
    return layout.workshop / "manifests" / layout.folder.name / f"{commit}.json"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _move(fresh: Path, final: Path) -> None:
    """Give something finished its name, in place of what has it; leave nothing behind where that fails."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(final)
    finally:
        fresh.unlink(missing_ok=True)


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

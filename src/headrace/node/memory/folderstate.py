"""What a directory's repo holds now: its files, what they hash to, and the commit that this makes.

A file counts once nobody has written to it for a moment. What is not hashed yet is hashed in the background; who asks
waits a little, and is then told how far that is.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from headrace.errors import Busy
from headrace.manifest import Digest, Entry
from headrace.names import Repo
from headrace.node.memory.catalog import Row, repo_key
from headrace.node.memory.filehashes import FileHashes, Hasher, Hashing, Wanted
from headrace.node.memory.gitids import commit_id
from headrace.node.memory.modelcard import HEAD_BYTES, facts_of, head_of
from headrace.source.directory import Directory, Leaf, RepoFolder, Tree
from headrace.source.largefiles import algorithm_of

SETTLED_S = 0.3
"""A file that was written to so shortly ago may be written to again, and its times may not tell."""

_WAIT_S = 1.5  # clients wait longer, and may have more to ask
_AGAIN_S = (2.0, 30.0)  # after which to ask again, least and most
_RATE = 200e6  # bytes/s that a disk is taken to bring, before it is known
_KEPT_STATES = 1000

_log = logging.getLogger("headrace.node")


@dataclass(frozen=True)
class State:
    """A repo's commit, its files, when the newest of them was changed (seconds since 1970), and what it says of itself."""

    commit: str
    entries: tuple[Entry, ...]
    modified_s: float
    facts: Mapping[str, object]


class FolderStates:
    """Finds out the states of a directory's repos. Safe to share between threads; methods block."""

    def __init__(self, name: str, directory: Directory, hashes: FileHashes, wait_s: float = _WAIT_S) -> None:
        """`wait_s`: how long who asks waits for what is being hashed."""
        self._name = name
        self._directory = directory
        self._hashes = hashes
        self._wait_s = wait_s
        self._hasher = Hasher(directory, hashes)
        self._told: dict[str, str] = {}
        # What stands for the tree that was read last, and the commit that it makes.
        self._last: dict[tuple[Repo, str | None], tuple[int, str]] = {}

    def close(self) -> None:
        """Hash no more."""
        self._hasher.close()

    def read(
        self, repo: Repo, folder: RepoFolder, snapshot: str | None, is_known: Callable[[str], bool]
    ) -> State | str:
        """The state now, of a cached repo at the commit `snapshot`.

        Only its commit where nothing has changed since this was asked last, and the caller knows that commit.

        Raises:
            Busy: it is still being hashed, or written; or a file of it cannot be read, and the log says which.
        """
        deadline = time.monotonic() + self._wait_s
        owner = self._key(repo)
        while True:
            try:
                tree = self._directory.tree(folder, snapshot or "")
            except OSError as error:
                raise self._unreadable(repo, f"{error.filename!r}: {error.strerror}") from error
            last = self._last.get((repo, snapshot))
            if last is not None and last[0] == hash(tree) and is_known(last[1]):
                return last[1]
            late = time.monotonic() >= deadline
            if (unsettled_s := _unsettled_s(tree)) > 0:
                if late:
                    raise Busy(f"{repo} is being written to", retry_after_s=_AGAIN_S[0])
                time.sleep(unsettled_s)
                continue
            found = self._hashes.known(owner)
            wanted = [one for one in map(_wanted, tree.leaves) if _digest(found, one) is None]
            if not wanted:
                self._clean(owner, folder, tree, found)
                return self._state(repo, snapshot, tree, {leaf: _of(found, leaf) for leaf in tree.leaves})
            work = self._hasher.run(owner, wanted)
            work.done.wait(max(0.0, deadline - time.monotonic()))
            if work.failure is not None:
                raise self._unreadable(repo, work.failure)
            if late or not work.done.is_set():
                raise _unfinished(repo, work)

    def forget_others(self, repos: Iterable[Repo]) -> None:
        """These repos are all there are: what files of others hashed to is not remembered."""
        self._hashes.forget_others(f"{self._name}:", {self._key(repo) for repo in repos})

    def _key(self, repo: Repo) -> str:
        return f"{self._name}:{repo_key(repo)}"

    def _state(self, repo: Repo, snapshot: str | None, tree: Tree, digests: Mapping[Leaf, Digest]) -> State:
        for leaf, digest in digests.items():
            if leaf.named not in ("", digest.hex):
                raise self._unreadable(repo, f"{leaf.place!r} is not what its name says: it is damaged")
        entries = tuple(Entry(leaf.path, leaf.identity.size, digest) for leaf, digest in digests.items())
        commit = snapshot or commit_id(Row(one.path, one.size, one.digest) for one in entries)
        for why in tree.left_out:
            self._tell(f"{repo} {why}", f"of {repo}: {why}")
        newest = max((leaf.identity.modified_ns for leaf in tree.leaves), default=0)
        if len(self._last) >= _KEPT_STATES:
            del self._last[next(iter(self._last))]
        self._last[repo, snapshot] = (hash(tree), commit)
        self._told.pop(str(repo), None)
        return State(commit, entries, newest / 1e9, facts_of(head_of(self._readme(tree))))

    def _readme(self, tree: Tree) -> str:
        for leaf in tree.leaves:
            if leaf.path == "README.md":
                with suppress(OSError):
                    fd = self._directory.open(leaf.place)
                    try:
                        return os.read(fd, HEAD_BYTES).decode("utf-8", "replace")
                    finally:
                        os.close(fd)
        return ""

    def _clean(
        self,
        owner: str,
        folder: RepoFolder,
        tree: Tree,
        found: Mapping[tuple[str, str], tuple[str, Digest]],
    ) -> None:
        """Forget what files hashed to that are here no more; a cached repo's blobs may belong to another commit."""
        if not folder.is_cached:
            here = {(one.place, one.algorithm) for one in map(_wanted, tree.leaves)}
            if gone := found.keys() - here:
                self._hashes.forget(owner, gone)

    def _unreadable(self, repo: Repo, why: str) -> Busy:
        self._tell(str(repo), f"{repo} of {self._name} cannot be read: {why}")
        told = f"{repo} cannot be read by this node now; its log says why"
        return Busy(told, retry_after_s=_AGAIN_S[1])

    def _tell(self, key: str, message: str) -> None:
        if self._told.get(key) != message:
            self._told[key] = message
            _log.warning("%s", message)


def _wanted(leaf: Leaf) -> Wanted:
    """What to hash: by the algorithm by which hub clients have named it, else as hubs would."""
    if leaf.named:
        return Wanted(leaf.place, leaf.identity, Digest.of_etag(leaf.named).algorithm)
    return Wanted(leaf.place, leaf.identity, algorithm_of(leaf.path, leaf.identity.size))


def _digest(found: Mapping[tuple[str, str], tuple[str, Digest]], one: Wanted) -> Digest | None:
    identity, digest = found.get((one.place, one.algorithm), ("", None))
    return digest if identity == str(one.identity) else None


def _of(found: Mapping[tuple[str, str], tuple[str, Digest]], leaf: Leaf) -> Digest:
    one = _wanted(leaf)
    return found[one.place, one.algorithm][1]


def _unsettled_s(tree: Tree) -> float:
    """For how long yet it may be that somebody writes to what was read."""
    now = time.time()
    newest = [max(one.identity.modified_ns, one.identity.changed_ns) / 1e9 for one in tree.leaves]
    return max((SETTLED_S - (now - at) for at in newest if 0 <= now - at < SETTLED_S), default=0.0)


def _unfinished(repo: Repo, work: Hashing) -> Busy:
    left = work.bytes_all - work.bytes_done
    told = (
        f"{repo} is being read: {work.files_done} of {len(work.wanted)} files, "
        f"{work.bytes_done / 1e9:.1f} of {work.bytes_all / 1e9:.1f} GB; ask again"
    )
    return Busy(told, retry_after_s=min(_AGAIN_S[1], max(_AGAIN_S[0], left / _RATE)))

"""A directory of repos on this machine: where each one's files are, and their bytes.

    DIR/ORG/NAME/…              a model, as it is worked on
    DIR/datasets/ORG/NAME/…     a dataset; spaces likewise
    DIR/NAME/…                  a model without an owner: a folder that has files of its own
    DIR/models--ORG--NAME/      what hub clients keep: `refs/`, `snapshots/COMMIT/…`, `blobs/`

Nothing outside the directory is ever read. A link counts where it leads to a file below it, and a file is opened
folder by folder without following any. What is hidden, unfinished or no plain file is left out.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import BadManifest, BrokenStream, EntryNotFound, RepoNotFound, UsageError
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import DEFAULT_REVISION, Repo, RepoKind, check_revision, is_commit
from headrace.ranges import Range
from headrace.source.contract import Content, Request
from headrace.source.http import HttpSession

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe that took a file's place must not be waited for.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_KEPT_HIDDEN = frozenset({".gitattributes"})  # of nearly every repo, and it says what is large there
_UNFINISHED = (".incomplete", ".partial", ".part", ".tmp", ".crdownload", ".aria2")
_KIND_FOLDERS = {kind.plural: kind for kind in RepoKind if kind is not RepoKind.MODEL}
_CACHED = {f"{kind.plural}--": kind for kind in RepoKind}
_REF_BYTES = 64
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NEVER = Digest(Digest.SHA256, "0" * 64)


@dataclass(frozen=True)
class Identity:
    """What tells a file from others, and from itself at another time.

    Not the device: its number may be another one after every start of the machine.
    """

    size: int
    inode: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, facts: os.stat_result) -> Identity:
        """From what the system says of a file."""
        return cls(facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)

    def __str__(self) -> str:
        return f"{self.size}:{self.inode}:{self.modified_ns}:{self.changed_ns}"


@dataclass(frozen=True)
class Leaf:
    """A file of a repo: its path there, and its real place, seen from the directory.

    `named` is the digest by which hub clients have called it; empty where nobody has.
    """

    path: str
    place: str
    identity: Identity
    named: str = ""


@dataclass(frozen=True)
class Tree:
    """The files of a repo, sorted by path, and what was left out though it may have been meant, each with why."""

    leaves: tuple[Leaf, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class RepoFolder:
    """Where a repo is, seen from the directory; `is_cached`: in the layout of hub clients."""

    place: str
    is_cached: bool

    def files_at(self, commit: str) -> str:
        """The folder of a commit's files; a plain folder has one state, whatever that is called."""
        return f"{self.place}/snapshots/{commit}" if self.is_cached else self.place


class Directory:
    """See above. Safe to share between threads; methods block, and raise `OSError` where a disk fails."""

    def __init__(self, root: Path) -> None:
        """Nothing is wrong yet with one that is not there; see `check`."""
        self.root = Path(os.path.realpath(root))
        names = _names(self.root)
        if not any(map(_is_cached_name, names)) and any(map(_is_cached_name, _names(self.root / "hub"))):
            self.root /= "hub"  # the home of hub clients was meant: beside their cache they keep tokens
        self._was_full = bool(names)

    def __repr__(self) -> str:
        return f"<Directory {self.root}>"

    def check(self) -> None:
        """Raise `UsageError` where there is no such folder to be read."""
        try:
            os.listdir(self.root)  # noqa: PTH208 - nothing more is wanted
        except OSError as error:
            raise UsageError(
                f"{self.root} cannot be served: {error.strerror}", hint="name a folder that holds repos"
            ) from error

    def is_there(self) -> bool:
        """Whether it can be looked into: one that is empty and was not is taken for a disk that is not mounted."""
        try:
            with os.scandir(self.root) as found:
                is_full = next(found, None) is not None
        except OSError:
            return False
        if is_full:
            self._was_full = True
        return is_full or not self._was_full

    # Repos

    def find(self, repo: Repo) -> RepoFolder | None:
        """Where a repo is; None where it is not here."""
        above = "" if repo.kind is RepoKind.MODEL else f"{repo.kind.plural}/"
        plain = above + repo.name
        is_sound = above or repo.name.split("/")[0] not in (*_KIND_FOLDERS, RepoKind.MODEL.plural)
        if is_sound and self._is_folder(plain) and ("/" in repo.name or self._has_files(plain)):
            return RepoFolder(plain, is_cached=False)
        cached = "--".join([repo.kind.plural, *repo.name.split("/")])
        return RepoFolder(cached, is_cached=True) if self._is_folder(f"{cached}/snapshots") else None

    def repos(self) -> Iterator[Repo]:
        """All repos that are here."""
        for name in sorted(_names(self.root)):
            if name in _KIND_FOLDERS:
                yield from self._repos_below(f"{name}/", _KIND_FOLDERS[name])
            for prefix, kind in _CACHED.items():
                if name.startswith(prefix):
                    yield from _repo(name.removeprefix(prefix).replace("--", "/"), kind)
        yield from self._repos_below("", RepoKind.MODEL)

    def _repos_below(self, above: str, kind: RepoKind) -> Iterator[Repo]:
        for owner in sorted(_names(self.root / above)):
            is_other = not above and (owner in _KIND_FOLDERS or _is_cached_name(owner))
            if is_other or owner.startswith(".") or not self._is_folder(above + owner):
                continue
            if self._has_files(above + owner):
                yield from _repo(owner, kind)
                continue
            for name in sorted(_names(self.root / above / owner)):
                if self._is_folder(f"{above}{owner}/{name}"):
                    yield from _repo(f"{owner}/{name}", kind)

    def refs(self, folder: RepoFolder) -> Mapping[str, str]:
        """What each branch of a cached repo means; where none is called main, that is the newest snapshot."""
        found = {}
        root = self.root / folder.place / "refs"
        for above, _, names in os.walk(root):
            for name in names:
                revision = Path(above, name).relative_to(root).as_posix()
                commit = self._ref(f"{folder.place}/refs/{revision}")
                with suppress(UsageError):
                    if is_commit(commit) and self._is_folder(folder.files_at(commit)):
                        found[check_revision(revision)] = commit
        if DEFAULT_REVISION not in found:
            snapshots = self.root / folder.place / "snapshots"
            dated = [
                ((snapshots / one).stat().st_mtime_ns, one) for one in _names(snapshots) if is_commit(one)
            ]
            if dated:
                found[DEFAULT_REVISION] = max(dated)[1]
        return found

    def has_commit(self, folder: RepoFolder, commit: str) -> bool:
        """Whether a cached repo has a snapshot of it."""
        return folder.is_cached and is_commit(commit) and self._is_folder(folder.files_at(commit))

    # Files

    def tree(self, folder: RepoFolder, commit: str = "") -> Tree:
        """A repo's files. Raises `OSError` where one of its folders cannot be read."""
        place = folder.files_at(commit)
        leaves: list[Leaf] = []
        left_out: list[str] = []
        waiting = [""]
        while waiting:
            above = waiting.pop()
            with os.scandir(self.root / place / above) as found:
                for one in found:
                    path = above + one.name
                    if _is_left_out(one.name) and not folder.is_cached:
                        continue
                    if one.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/")
                    else:
                        leaf = self._leaf(folder, f"{place}/{path}", one, left_out)
                        leaves += [leaf] if leaf is not None else []
        return Tree(tuple(sorted(leaves, key=lambda leaf: leaf.path)), tuple(left_out))

    def _leaf(
        self, folder: RepoFolder, place: str, found: os.DirEntry[str], left_out: list[str]
    ) -> Leaf | None:
        if not (found.is_symlink() or found.is_file(follow_symlinks=False)):
            return None  # a socket, a device, a pipe
        path = place.removeprefix(f"{folder.place}/")
        path = path.split("/", 2)[2] if folder.is_cached else path
        leaf = self._seen(folder, place, path) if found.is_symlink() else self._at(folder, place, path)
        if leaf is None:
            left_out.append(f"{path!r} leads to no file of the directory")
            return None
        try:
            Entry(path, 0, _NEVER)
        except BadManifest as error:
            left_out.append(error.message)
            return None
        return leaf

    def leaf(self, folder: RepoFolder, commit: str, path: str) -> Leaf | None:
        """One file of such a tree, if it is one."""
        return self._seen(folder, f"{folder.files_at(commit)}/{path}", path)

    def _seen(self, folder: RepoFolder, place: str, path: str) -> Leaf | None:
        """The file that has or is linked to by this name, unless its real place is none to be served."""
        real = os.path.realpath(self.root / place)
        if not real.startswith(f"{self.root}/".replace("//", "/")):
            return None
        below = os.path.relpath(real, self.root)
        hidden = any(part.startswith(".") and part not in _KEPT_HIDDEN for part in below.split("/"))
        is_kept = folder.is_cached and below.startswith(f"{folder.place}/snapshots/")
        return None if hidden and not is_kept else self._at(folder, below, path)

    def _at(self, folder: RepoFolder, place: str, path: str) -> Leaf | None:
        facts = _facts(self.root / place)
        if facts is None or not stat.S_ISREG(facts.st_mode):
            return None
        above, _, name = place.rpartition("/")
        is_blob = folder.is_cached and above == f"{folder.place}/blobs" and _BLOB.fullmatch(name)
        return Leaf(path, place, Identity.of(facts), name if is_blob else "")

    def open(self, place: str) -> int:
        """Open a file for reading, on a way without links; whoever closes it owns the number. Raises `OSError`."""
        *folders, name = place.split("/")
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for one in folders:
                below = os.open(one, _FOLDER, dir_fd=here)
                os.close(here)
                here = below
            fd = os.open(name, _FILE, dir_fd=here)
        finally:
            os.close(here)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "no plain file", place)
        return fd

    def _ref(self, place: str) -> str:
        try:
            fd = self.open(place)
        except OSError:
            return ""
        try:
            return os.read(fd, _REF_BYTES).decode("ascii", "replace").strip()
        finally:
            os.close(fd)

    def _is_folder(self, place: str) -> bool:
        """Whether it is a folder, and every folder on the way to it no link."""
        here = self.root
        for part in place.split("/"):
            here /= part
            facts = _facts(here)
            if facts is None or not stat.S_ISDIR(facts.st_mode):
                return False
        return True

    def _has_files(self, place: str) -> bool:
        with os.scandir(self.root / place) as found:
            return any(one.is_file() and not _is_left_out(one.name) for one in found)


class DirectorySource:
    """The bytes of a directory's files; see `Source`. What they hash to is for others to find out."""

    def __init__(self, name: str, directory: Directory) -> None:
        self.name = name
        self._directory = directory

    def __repr__(self) -> str:
        return f"<DirectorySource {self.name} in {self._directory.root}>"

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """See `Source.manifest`: there is none until somebody has hashed it all."""
        raise UsageError(f"{self.name} is a directory and lists no {repo} at {revision!r}")

    def open(
        self,
        request: Request,
        session: HttpSession,  # noqa: ARG002 - a lane's connection; a file needs none
        located: Callable[[], None] = lambda: None,
    ) -> FileStream:
        """See `Source.open`."""
        stream = self.read(request.content, request.range)
        located()
        return stream

    def read(self, content: Content, wanted: Range) -> FileStream:
        """A part of a file. One of another size is another file by now.

        Raises:
            RepoNotFound, EntryNotFound: it is not here.
            BrokenStream: it cannot be opened.
            OSError: the disk fails.
        """
        folder = self._directory.find(content.repo)
        if folder is None:
            raise RepoNotFound(f"{self.name} has no {content.repo}")
        leaf = self._directory.leaf(folder, content.commit, content.entry.path)
        if leaf is None or leaf.identity.size != content.entry.size:
            raise EntryNotFound(f"{self.name} has that version of {content.entry.path!r} no more")
        try:
            fd = self._directory.open(leaf.place)
        except OSError as error:
            raise BrokenStream(f"{self.name} cannot open {content.entry.path!r}: {error.strerror}") from error
        return FileStream(self.name, fd, wanted.start, wanted.stop)


class FileStream:
    """Bytes of an open file, which it closes; see `Stream`."""

    can_splice = False
    address = ""
    siblings = ("",)

    def __init__(self, name: str, fd: int, start: int, stop: int) -> None:
        self.host = f"directory {name}"
        self._fd = fd
        self._position = start
        self._stop = stop

    def readinto(self, buffer: memoryview) -> int:
        """See `Stream.readinto`."""
        try:
            count = os.preadv(self._fd, [buffer[: self._stop - self._position]], self._position)
        except OSError as error:
            raise BrokenStream(f"{self.host} cannot be read: {error.strerror}") from error
        self._position += count
        return count

    def splice(self, pipe: int, most: int) -> int | None:  # noqa: ARG002
        """See `Stream.splice`: a file's pages in a pipe would still change with the file."""
        return None

    def close(self) -> None:
        """See `Stream.close`."""
        os.close(self._fd)


def _facts(path: Path) -> os.stat_result | None:
    """What there is under this name; None for nothing. Raises `OSError` where that cannot be told."""
    try:
        return path.lstat()
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names suffice
    except OSError:
        return []


def _repo(name: str, kind: RepoKind) -> Iterator[Repo]:
    with suppress(UsageError):
        yield Repo(name, kind)


def _is_cached_name(name: str) -> bool:
    return name.startswith(tuple(_CACHED))


def _is_left_out(name: str) -> bool:
    hidden = name.startswith(".") and name not in _KEPT_HIDDEN
    return hidden or name.lower().endswith(_UNFINISHED)

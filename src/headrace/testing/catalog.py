"""The repos in a folder: what they hold, and under which commit.

A repo is a plain folder, `models/ORG/NAME`, `datasets/ORG/NAME` or `spaces/ORG/NAME`, and can be
edited while the hub runs: each question is answered from the disk. Another revision is a sibling,
`NAME@REVISION`, with `%2F` for a slash. A folder right below `models` is a bare legacy repo (`gpt2`)
if it holds a `.hub.json` or any regular file, and an organisation otherwise.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

SETTINGS_FILE = ".hub.json"
DEFAULT_REVISION = "main"
KINDS = ("model", "dataset", "space")
_HASHED_AT_ONCE = 1 << 20  # bytes
# What the hub writes into a new repo's .gitattributes.
_LFS_GLOBS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gguf *.gz *.h5 *.joblib *.mlmodel *.model *.msgpack *.npy *.npz "
    "*.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors *.tar *.tflite *.tgz *.wasm "
    "*.xz *.zip *.zst saved_model/* *tfevents*"
)
_NAME = re.compile(r"[\w.-]{1,96}", re.ASCII)  # the hub's own rule
_ABBREVIATED_COMMIT = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class Settings:
    """A repo's `.hub.json`; every field may be left out."""

    private: bool = False
    gated: bool | str = False  # False, "auto" or "manual"
    disabled: bool = False
    renamed_to: str | None = None  # where this repo is now: `org/name`
    lfs: tuple[str, ...] = tuple(_LFS_GLOBS.split())
    lfs_min_bytes: int = 10 * 1024 * 1024
    tree_extra: tuple[Any, ...] = ()  # appended to the tree answer as they are
    tree_replace: tuple[Any, ...] | None = None  # given instead of the real entries
    digests: dict[str, str] = field(default_factory=dict)  # path → hex, taken on trust: lies, huge files
    tags: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    history: tuple[str, ...] = ()  # revisions that this one was at before, newest first
    xet: bool = False  # whether large files are offered by Xet, too: clients that know it leave for it

    @classmethod
    def read(cls, file: Path) -> Settings:
        """Read `file`; a missing one means the defaults.

        Raises:
            ValueError: not JSON, or a field that does not exist.
        """
        try:
            given = json.loads(file.read_bytes())
        except FileNotFoundError:
            return cls()
        unknown = set(given) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(f"{file}: unknown settings {sorted(unknown)}")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        return cls(**values)

    def is_lfs(self, path: str, size: int) -> bool:
        """Whether the hub keeps this file in large file storage."""
        return size >= self.lfs_min_bytes or any(fnmatch.fnmatchcase(path, glob) for glob in self.lfs)


Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Entry:
    """One file of a commit. `digest` is a sha256 for LFS files, else git's blob id; in hex."""

    path: str
    file: Path
    size: int
    lfs: bool
    digest: str
    stamp: Stamp

    @property
    def git_oid(self) -> str:
        """The id of what git itself stores: the pointer file's, for LFS."""
        if not self.lfs:
            return self.digest
        hasher = _git_hasher(len(self.pointer))
        hasher.update(self.pointer)
        return hasher.hexdigest()

    @property
    def xet_hash(self) -> str:
        """What the file is called in Xet, which nobody can tell from the content."""
        return hashlib.sha256(f"xet:{self.digest}".encode()).hexdigest()

    @property
    def pointer(self) -> bytes:
        """The text that git keeps in place of an LFS file."""
        spec = "https://git-lfs.github.com/spec/v1"
        return f"version {spec}\noid sha256:{self.digest}\nsize {self.size}\n".encode()


@dataclass(frozen=True)
class Commit:
    """A revision's files at the moment of asking. `sha` is a hash over path, size and digest."""

    sha: str
    revision: str
    settings: Settings
    entries: dict[str, Entry]
    modified_s: float

    @property
    def folders(self) -> set[str]:
        """Every folder that holds a file, directly or deeper."""
        found: set[str] = set()
        for path in self.entries:
            parts = path.split("/")[:-1]
            found.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        return found

    @property
    def tree_ids(self) -> dict[str, str]:
        """Git's id of each folder; all files are plain ones."""
        lines: dict[str, list[tuple[bytes, bytes]]] = {folder: [] for folder in self.folders}
        lines[""] = []

        def put(path: str, mode: str, end: str, oid: str) -> None:
            folder, _, name = path.rpartition("/")
            raw = name.encode(errors="surrogateescape")
            lines[folder].append(
                (raw + end.encode(), b"%s %s\0%s" % (mode.encode(), raw, bytes.fromhex(oid)))
            )

        for entry in self.entries.values():
            put(entry.path, "100644", "", entry.git_oid)
        ids = {}
        for folder in sorted(self.folders, key=lambda one: one.count("/"), reverse=True):
            body = b"".join(line for _, line in sorted(lines[folder]))
            ids[folder] = hashlib.sha1(b"tree %d\0%s" % (len(body), body), usedforsecurity=False).hexdigest()
            put(folder, "40000", "/", ids[folder])
        return ids


@dataclass(frozen=True)
class Repo:
    """`kind` is model, dataset or space; `name` is `org/name`, or a bare legacy `name`."""

    kind: str
    name: str
    settings: Settings
    revisions: dict[str, Path]

    @property
    def url_path(self) -> str:
        """The percent-encoded name."""
        return quote(self.name)


class Catalog:
    """All repos under a root folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._digests: dict[tuple[Stamp, bool], str] = {}
        self._known: dict[tuple[str, str, str], Commit] = {}
        self._lock = threading.Lock()

    def repo(self, kind: str, name: str) -> Repo | None:
        """Find a repo by name, or None."""
        shelf = self._root / f"{kind}s"
        organisation, slash, last = name.rpartition("/")
        if not _is_plain(last) or (slash and not _is_plain(organisation)):
            return None
        if slash and _holds_a_file(shelf / organisation):
            return None  # a folder of a bare repo
        revisions = _revisions(shelf / organisation / last)
        if not slash and not any(_holds_a_file(folder) for folder in revisions.values()):
            return None  # an organisation
        if not revisions:
            return None
        home = revisions.get(DEFAULT_REVISION) or next(iter(revisions.values()))
        return Repo(kind, name, Settings.read(home / SETTINGS_FILE), revisions)

    def repos(self, kind: str) -> list[Repo]:
        """All repos of a kind, sorted by name."""
        shelf = self._root / f"{kind}s"
        folders = [one for one in shelf.iterdir() if one.is_dir()] if shelf.is_dir() else []
        names = {one.name.partition("@")[0] for one in folders}
        names |= {f"{one.name}/{inner.name.partition('@')[0]}" for one in folders for inner in one.iterdir()}
        return [repo for name in sorted(names) if (repo := self.repo(kind, name)) is not None]

    def commit(self, repo: Repo, revision: str) -> Commit | None:
        """Resolve a branch, a tag, a ref or a commit hash (of at least 7 digits), or None."""
        folder = repo.revisions.get(revision)
        if folder is not None:
            return self._list(repo, revision, folder)
        if not _ABBREVIATED_COMMIT.fullmatch(revision):
            return None
        for name, folder in repo.revisions.items():
            commit = self._list(repo, name, folder)
            if commit.sha.startswith(revision):
                return commit
        return None

    def entry(self, repo: Repo, revision: str, path: str) -> tuple[Commit | None, Entry | None]:
        """One file of a revision.

        A full hash seen before needs no look at the whole folder: a download asks once per file, and
        listing thousands of files each time would make the hub the slow part of every measurement.
        """
        known = self._known.get((repo.kind, repo.name, revision))
        if known is not None and path in known.entries:
            entry = known.entries[path]
            if _stamp_of(entry.file) == entry.stamp:
                return known, entry
        commit = self.commit(repo, revision)
        return commit, commit.entries.get(path) if commit else None

    def _list(self, repo: Repo, revision: str, folder: Path) -> Commit:
        own = folder / SETTINGS_FILE
        settings = Settings.read(own) if own.exists() else repo.settings
        entries = {}
        modified_s = 0.0
        for path, file in _files(folder):
            status = file.stat()
            lfs = settings.is_lfs(path, status.st_size)
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            digest = settings.digests.get(path) or self._digest(file, stamp, lfs=lfs)
            entries[path] = Entry(path, file, status.st_size, lfs, digest, stamp)
            modified_s = max(modified_s, status.st_mtime)
        sha = _commit_sha(entries, settings)
        commit = Commit(sha, revision, settings, entries, modified_s)
        self._known[repo.kind, repo.name, sha] = commit
        return commit

    def _digest(self, file: Path, stamp: Stamp, *, lfs: bool) -> str:
        # Held while hashing: the requests that wait want the same file, and would hash it again.
        with self._lock:
            if (stamp, lfs) not in self._digests:
                self._digests[stamp, lfs] = _hash(file, hashlib.sha256() if lfs else _git_hasher(stamp[1]))
            return self._digests[stamp, lfs]


def _hash(file: Path, hasher: hashlib._Hash) -> str:
    with file.open("rb") as stream:
        while block := stream.read(_HASHED_AT_ONCE):
            hasher.update(block)
    return hasher.hexdigest()


def _git_hasher(size: int) -> hashlib._Hash:
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _commit_sha(entries: dict[str, Entry], settings: Settings) -> str:
    listing: list[Any] = [[e.path, e.size, e.digest] for e in entries.values()]
    if settings.tree_extra or settings.tree_replace is not None:
        # Clients keep a commit's tree for ever, so an edited tree must be another commit.
        listing.append([settings.tree_extra, settings.tree_replace])
    return hashlib.sha1(json.dumps(listing).encode(), usedforsecurity=False).hexdigest()


def _is_plain(part: str) -> bool:
    return _NAME.fullmatch(part) is not None and part not in {".", ".."}


def _holds_a_file(folder: Path) -> bool:
    try:
        with os.scandir(folder) as children:
            return any(child.is_file() for child in children)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _revisions(home: Path) -> dict[str, Path]:
    found = {DEFAULT_REVISION: home} if home.is_dir() else {}
    prefix = f"{home.name}@"
    if home.parent.is_dir():
        for sibling in sorted(home.parent.iterdir()):
            if sibling.name.startswith(prefix) and sibling.is_dir():
                found[unquote(sibling.name[len(prefix) :])] = sibling
    return found


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below `folder` but the settings, as (path with slashes, file), sorted by path."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            path = file.relative_to(folder).as_posix()
            if path != SETTINGS_FILE and file.is_file():
                found.append((path, file))
    yield from sorted(found)


def _stamp_of(file: Path) -> Stamp | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns

"""A manifest: what a commit holds, checked before anything of it is used.

Paths come from other people's servers and become paths on this disk, so `Manifest` refuses what could leave
its folder, hide a file behind another, or not be stored as named; nothing is repaired or guessed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from headrace.errors import BadManifest
from headrace.names import Repo, is_commit

SIZE_LIMIT = 2**53
"""Sizes from here on are no sizes: JSON readers elsewhere could not even hold them exactly."""

_SHA256_DIGITS = 64
_SIBLINGS_TRUSTED = 50_000
_LARGE_FROM_BYTES = 16 * 1024 * 1024
_FIRST_NAMES = (
    "config",
    "tokenizer",
    "generation_config",
    "preprocessor_config",
    "vocab",
    "merges",
    "special_",
)
_NUMBER = re.compile(r"([0-9]+)")
_COMPONENT_LIMIT = 255  # bytes in one file name, on every file system we write to
_PATH_LIMIT = 3072  # bytes; leaves room for the folder in front under Linux' limit of 4096


@dataclass(frozen=True, order=True)
class Digest:
    r"""What content hashes to. Raises `BadManifest` for anything that is not a digest.

    `sha256` over the bytes, for large files; `git-blob-sha1` (git's id of a blob: sha1 over
    `b"blob <size>\0"` and the bytes) for small ones.
    """

    algorithm: str
    hex: str

    SHA256: ClassVar[str] = "sha256"
    GIT_BLOB_SHA1: ClassVar[str] = "git-blob-sha1"
    _HEX: ClassVar[dict[str, re.Pattern[str]]] = {
        SHA256: re.compile(r"[0-9a-f]{64}"),
        GIT_BLOB_SHA1: re.compile(r"[0-9a-f]{40}"),
    }

    def __post_init__(self) -> None:
        pattern = self._HEX.get(self.algorithm)
        if pattern is None or pattern.fullmatch(self.hex) is None:
            raise BadManifest(f"not a digest: {self.algorithm}:{self.hex[:80]!r}")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:hex`, as `str()` writes it."""
        algorithm, _, hexadecimal = text.partition(":")
        return cls(algorithm, hexadecimal)

    @classmethod
    def of_etag(cls, hexadecimal: str) -> Digest:
        """Read the bare hex that hubs use as an ETag: its length tells the algorithm."""
        return cls(cls.SHA256 if len(hexadecimal) == _SHA256_DIGITS else cls.GIT_BLOB_SHA1, hexadecimal)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True)
class Entry:
    """One file of a commit: `path` with forward slashes, `size` in bytes, `digest` of its content."""

    path: str
    size: int
    digest: Digest

    def __post_init__(self) -> None:
        _check_path(self.path)
        # True and 1.0 are no sizes either, and what was JSON may be anything.
        if type(self.size) is not int or not 0 <= self.size < SIZE_LIMIT:
            raise BadManifest(f"{self.path!r} claims an impossible size: {str(self.size)[:80]!r}")


@dataclass(frozen=True)
class Manifest:
    """The entries of one commit of a repo, sorted by path.

    `revision` is what was asked, `commit` what it resolved to, `source` the name of who said so.
    Raises `BadManifest` where the entries cannot stand side by side in one folder.
    """

    repo: Repo
    revision: str
    commit: str
    entries: tuple[Entry, ...]
    source: str

    def __post_init__(self) -> None:
        if not is_commit(self.commit):
            raise BadManifest(
                f"{self.source} resolves {self.revision!r} of {self.repo} to {self.commit!r}, no commit"
            )
        _check_siblings(self.entries)

    @property
    def total_bytes(self) -> int:
        """Sum of the sizes of all entries."""
        return sum(entry.size for entry in self.entries)

    def select(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Manifest:
        """The same manifest with only the wanted entries.

        Globs are matched as hub clients do: case counts, `*` crosses slashes, and a pattern that ends in a
        slash means everything below that folder; a backslash counts as a slash. No `include` means everything.
        """
        wanted, unwanted = _any_of(include), _any_of(exclude)
        kept = (e for e in self.entries if (not include or wanted(e.path)) and not unwanted(e.path))
        return replace(self, entries=tuple(kept))

    def entry(self, path: str) -> Entry | None:
        """The entry at this path, or None."""
        return next((entry for entry in self.entries if entry.path == path), None)


def state_of(entries: Iterable[Entry]) -> str:
    """What stands for these entries where no commit does: 40 hex digits, the same for the same paths and content.

    The sha1 of the sorted list of `[path, size, digest]` as JSON; no git repo has it as a commit.
    """
    rows = sorted([entry.path, entry.size, str(entry.digest)] for entry in entries)
    return hashlib.sha1(json.dumps(rows).encode(), usedforsecurity=False).hexdigest()


def in_fetch_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries in the order in which to fetch them: what is useful by itself comes first.

    Configuration and tokenizers, whose readers need no weights; then all that is small, so that nothing but
    large files is open in the end; then those, as people count: `model-2` before `model-10`.
    """
    return tuple(sorted(entries, key=_fetch_rank))


def _fetch_rank(entry: Entry) -> tuple[int, list[str | int], str]:
    name = entry.path.rpartition("/")[2]
    if name.startswith(_FIRST_NAMES) or name.endswith(".index.json"):
        group = 0
    else:
        group = 1 if entry.size < _LARGE_FROM_BYTES else 2
    # Text and numbers take turns, so that like is compared with like.
    parts = _NUMBER.split(entry.path)
    natural: list[str | int] = [int(part) if index % 2 else part for index, part in enumerate(parts)]
    return group, natural, entry.path


def entries_of(raw: Iterable[Any]) -> tuple[Entry, ...]:
    """Entries from the objects of a hub's tree answer (`type`, `path`, `size`, `oid`, `lfs`), sorted by path.

    Folders are left out; a file's digest is its LFS sha256 where it has one, else its git blob id.

    Raises:
        BadManifest: an object that is no such thing.
    """
    return tuple(
        sorted((_entry_of(item) for item in raw if not _is_folder(item)), key=lambda entry: entry.path)
    )


def siblings_of(raw: Any) -> tuple[Entry, ...] | None:
    """Entries from the `siblings` of a repo's info, as hubs list them with `blobs=true`; None where they do not tell.

    Some mirrors leave sizes and digests out, and hubs cut the lists of very large repos short: above the number
    from which on the stock client asks for the tree, so do we.

    Raises:
        BadManifest: what is told is impossible.
    """
    if not isinstance(raw, list) or not 0 < len(raw) <= _SIBLINGS_TRUSTED:
        return None
    files = []
    for item in raw:
        if not isinstance(item, dict) or item.get("size") is None or item.get("blobId") is None:
            return None
        lfs = item.get("lfs")
        if isinstance(lfs, dict):
            lfs = {"oid": lfs.get("sha256"), "size": lfs.get("size")}
        files.append({"path": item.get("rfilename"), "size": item["size"], "oid": item["blobId"], "lfs": lfs})
    return entries_of(files)


def _is_folder(item: Any) -> bool:
    if not isinstance(item, dict):
        raise BadManifest(f"a tree entry is no object: {str(item)[:80]!r}")
    return item.get("type") == "directory"


def _entry_of(item: dict[str, Any]) -> Entry:
    path, oid, lfs = (item.get(key) for key in ("path", "oid", "lfs"))
    size: Any = item.get("size")
    if not isinstance(path, str):
        raise BadManifest(f"a tree entry has no path: {str(item)[:80]!r}")
    if lfs is None:
        return Entry(path, size, Digest(Digest.GIT_BLOB_SHA1, _text(oid)))
    if not isinstance(lfs, dict):
        raise BadManifest(f"{path!r} has LFS facts that are none: {str(lfs)[:80]!r}")
    size = lfs.get("size")
    return Entry(path, size, Digest(Digest.SHA256, _text(lfs.get("oid"))))


def _text(raw: Any) -> str:
    return raw if isinstance(raw, str) else repr(raw)


def _check_path(path: str) -> None:
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise BadManifest(f"{path!r} is not a file name: it is not Unicode text") from None
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise BadManifest(f"{path!r} is not a path inside a repo")
    if length > _PATH_LIMIT or any(len(part.encode()) > _COMPONENT_LIMIT for part in parts):
        raise BadManifest(f"{path[:80]!r}… is too long a file name to be stored ({length} bytes)")


def _check_siblings(entries: Sequence[Entry]) -> None:
    files: set[str] = set()
    for entry in entries:
        if entry.path in files:
            raise BadManifest(f"{entry.path!r} is listed twice")
        files.add(entry.path)
    for path in files:
        at = path.find("/")
        while at != -1:
            if path[:at] in files:
                raise BadManifest(f"{path[:at]!r} is both a file and a folder")
            at = path.find("/", at + 1)


def _any_of(globs: Sequence[str]) -> Callable[[str], bool]:
    patterns = [_slashed(glob + "*" if glob.endswith(("/", "\\")) else glob) for glob in globs]
    return lambda path: any(fnmatchcase(_slashed(path), pattern) for pattern in patterns)


def _slashed(text: str) -> str:
    return text.replace("\\", "/")

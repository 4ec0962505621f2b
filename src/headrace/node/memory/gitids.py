"""The ids by which git knows what a commit holds: of files, of pointers to large files, and of folders.

Manifests tell the first only; the others follow from them (git's own documentation, "git objects"; git-lfs,
docs/spec.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from headrace.manifest import Digest
from headrace.node.memory.catalog import Row

TITLE = "The files as they are"
"""What commits say that are made here."""


def blob_id(digest: Digest, size: int) -> str:
    """The id of what git itself keeps: the file, or the pointer to it."""
    if digest.algorithm == Digest.GIT_BLOB_SHA1:
        return digest.hex
    return _hashed("blob", pointer(digest, size))


def pointer(digest: Digest, size: int) -> bytes:
    """The text that git keeps in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest.hex}\nsize {size}\n".encode()


def tree_ids(rows: Iterable[Row]) -> dict[str, str]:
    """The id of each folder that holds one of the files, sorted by path.

    Files are taken for plain ones (mode 100644), as those that hubs make are.
    """
    return {path: oid for path, oid in _trees(rows).items() if path}


def commit_id(rows: Iterable[Row]) -> str:
    """The id of a commit that holds these files and has no past, made by nobody at the beginning of time.

    So it follows from the files alone: what is the same is the same commit everywhere.
    """
    by = "Headrace <headrace@localhost> 0 +0000"
    text = f"tree {_trees(rows)['']}\nauthor {by}\ncommitter {by}\n\n{TITLE}\n"
    return _hashed("commit", text.encode())


def _trees(rows: Iterable[Row]) -> dict[str, str]:
    """The id of each folder; of all of them together under the empty path."""
    below: dict[str, list[tuple[bytes, bytes]]] = {"": []}
    for row in rows:
        if row.digest is not None:
            folder, _, name = row.path.rpartition("/")
            _make_room(below, folder)
            below[folder].append((name.encode(), _line("100644", name, blob_id(row.digest, row.size))))
    found = {}
    # The deepest first: a folder's id is made of those of what is in it.
    for folder in sorted(filter(None, below), key=lambda path: path.count("/"), reverse=True):
        found[folder] = _hashed("tree", b"".join(line for _, line in sorted(below[folder])))
        above, _, name = folder.rpartition("/")
        # Git sorts folders as if their names ended in a slash.
        below[above].append((f"{name}/".encode(), _line("40000", name, found[folder])))
    found[""] = _hashed("tree", b"".join(line for _, line in sorted(below[""])))
    return dict(sorted(found.items()))


def _make_room(below: dict[str, list[tuple[bytes, bytes]]], folder: str) -> None:
    while folder not in below:
        below[folder] = []
        folder = folder.rpartition("/")[0]


def _line(mode: str, name: str, oid: str) -> bytes:
    return f"{mode} {name}\0".encode() + bytes.fromhex(oid)


def _hashed(kind: str, content: bytes) -> str:
    return hashlib.sha1(
        b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False
    ).hexdigest()

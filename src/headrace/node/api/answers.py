"""Answers in the hub's shape, made of what is known here: no socket, no request.

What a client sees of a repo is made from its manifest, so any kind of source can stand behind it. `xetHash` is
not among it: a client that sees one leaves the mirror.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from headrace.errors import (
    UsageError,
)
from headrace.manifest import Digest, Entry
from headrace.node.api.refusals import HEADER_SAFE
from headrace.node.memory.catalog import Row
from headrace.wire import LINKED_ETAG, LINKED_SIZE, REPO_COMMIT

_XET_KEYS = frozenset({"xetHash", "xetEnabled"})


def rows_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Tree entries as the hub lists them."""
    return [_row_json(row) for row in rows]


def siblings_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """A repo's files as its info lists them with `blobs=true`."""
    siblings = []
    for row in rows:
        if row.digest is None:
            continue
        sibling: dict[str, Any] = {
            "rfilename": row.path,
            "size": row.size,
            "blobId": _git_oid(row.digest, row.size),
        }
        if row.digest.algorithm == Digest.SHA256:
            pointer_size = len(_pointer(row.digest, row.size))
            sibling["lfs"] = {"sha256": row.digest.hex, "size": row.size, "pointerSize": pointer_size}
        siblings.append(sibling)
    return siblings


def without_xet(value: Any) -> Any:
    """The same JSON without the keys that lead a client to another place."""
    if isinstance(value, dict):
        return {key: without_xet(one) for key, one in value.items() if key not in _XET_KEYS}
    return [without_xet(one) for one in value] if isinstance(value, list) else value


def write_cursor(after: str) -> str:
    """Where the next page begins, as clients hand it back."""
    return base64.urlsafe_b64encode(after.encode()).decode()


def read_cursor(cursor: str) -> str:
    """The path that a page comes after. Raises `UsageError` for a cursor nobody wrote."""
    try:
        return base64.urlsafe_b64decode(cursor).decode()
    except (binascii.Error, ValueError):
        raise UsageError("the cursor is not one of ours", hint="begin again without it") from None


def file_headers(entry: Entry, commit: str) -> dict[str, str]:
    """What is said about a file, whichever part of it is asked for."""
    etag = f'"{entry.digest.hex}"'
    name = entry.path.rpartition("/")[2]
    plain = "".join(c if c in HEADER_SAFE and c not in '"\\%' else "_" for c in name)
    return {
        # Whatever the file is, a browser must not run it in this node's name.
        "Content-Type": "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
        "ETag": etag,
        "Accept-Ranges": "bytes",
        REPO_COMMIT: commit,
        LINKED_ETAG: etag,
        LINKED_SIZE: str(entry.size),
    }


def _row_json(row: Row) -> dict[str, Any]:
    if row.digest is None:
        # Git's id of a folder needs the modes of all files below; clients want forty stable digits.
        oid = hashlib.sha1(row.path.encode(), usedforsecurity=False).hexdigest()
        return {"type": "directory", "oid": oid, "size": 0, "path": row.path}
    told: dict[str, Any] = {
        "type": "file",
        "oid": _git_oid(row.digest, row.size),
        "size": row.size,
        "path": row.path,
    }
    if row.digest.algorithm == Digest.SHA256:
        pointer_size = len(_pointer(row.digest, row.size))
        told["lfs"] = {"oid": row.digest.hex, "size": row.size, "pointerSize": pointer_size}
    return told


def _git_oid(digest: Digest, size: int) -> str:
    """The id of what git itself keeps: the file, or the pointer to it."""
    if digest.algorithm == Digest.GIT_BLOB_SHA1:
        return digest.hex
    pointer = _pointer(digest, size)
    return hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()


def _pointer(digest: Digest, size: int) -> bytes:
    """The text that git keeps in place of a large file (git-lfs, docs/spec.md)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest.hex}\nsize {size}\n".encode()

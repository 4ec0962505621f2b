"""Answers in the hub's shape, made of what is known here: no socket, no request.

What a client sees of a repo is made from its manifest, so any kind of source can stand behind it. `xetHash` is
not among it: a client that sees one leaves the mirror.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from headrace.errors import UsageError
from headrace.manifest import Digest, Entry
from headrace.node.api.refusals import HEADER_SAFE
from headrace.node.memory.catalog import Row
from headrace.node.memory.gitids import blob_id, pointer
from headrace.wire import LINKED_ETAG, LINKED_SIZE, REPO_COMMIT

_SMALL, _LARGE = "text/plain; charset=utf-8", "application/octet-stream"  # as hubs say, whatever the file is
_XET_KEYS = frozenset({"xetHash", "xetEnabled"})


def rows_json(rows: Iterable[Row], folders: Mapping[str, str]) -> list[dict[str, Any]]:
    """Tree entries as the hub lists them; `folders` has git's id of each folder."""
    return [_row_json(row, folders) for row in rows]


def siblings_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """A repo's files as its info lists them with `blobs=true`."""
    siblings = []
    for row in rows:
        if row.digest is None:
            continue
        sibling: dict[str, Any] = {
            "rfilename": row.path,
            "size": row.size,
            "blobId": blob_id(row.digest, row.size),
        }
        if row.digest.algorithm == Digest.SHA256:
            pointer_size = len(pointer(row.digest, row.size))
            sibling["lfs"] = {"sha256": row.digest.hex, "size": row.size, "pointerSize": pointer_size}
        siblings.append(sibling)
    return siblings


def without_xet(value: Any) -> Any:
    """The same JSON without the keys that lead a client to another place."""
    if isinstance(value, dict):
        return {key: without_xet(one) for key, one in value.items() if key not in _XET_KEYS}
    return [without_xet(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Place:
    """Where a page of a tree begins: behind this path, of the folders, which come first, or of the files."""

    after: str = ""
    in_files: bool = False

    @property
    def cursor(self) -> str:
        """As clients hand it back."""
        return base64.urlsafe_b64encode(f"{'f' if self.in_files else 'd'}{self.after}".encode()).decode()

    @classmethod
    def of(cls, cursor: str) -> Place:
        """Read a cursor; an empty one is the beginning. Raises `UsageError` for a cursor nobody wrote."""
        if not cursor:
            return cls()
        try:
            told = base64.urlsafe_b64decode(cursor).decode()
        except (binascii.Error, ValueError):
            told = ""
        if told[:1] not in ("d", "f"):
            raise UsageError("the cursor is not one of ours", hint="begin again without it")
        return cls(told[1:], told[0] == "f")


def file_headers(entry: Entry, commit: str) -> dict[str, str]:
    """What is said about a file, whichever part of it is asked for."""
    etag = f'"{entry.digest.hex}"'
    name = entry.path.rpartition("/")[2]
    plain = "".join(c if c in HEADER_SAFE and c not in '"\\%' else "_" for c in name)
    return {
        # Whatever the file is, a browser must not run it in this node's name.
        "Content-Type": _SMALL if entry.digest.algorithm == Digest.GIT_BLOB_SHA1 else _LARGE,
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f"inline; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
        "ETag": etag,
        "Accept-Ranges": "bytes",
        REPO_COMMIT: commit,
        LINKED_ETAG: etag,
        LINKED_SIZE: str(entry.size),
    }


def _row_json(row: Row, folders: Mapping[str, str]) -> dict[str, Any]:
    if row.digest is None:
        return {"type": "directory", "oid": folders[row.path], "size": 0, "path": row.path}
    told: dict[str, Any] = {
        "type": "file",
        "oid": blob_id(row.digest, row.size),
        "size": row.size,
        "path": row.path,
    }
    if row.digest.algorithm == Digest.SHA256:
        pointer_size = len(pointer(row.digest, row.size))
        told["lfs"] = {"oid": row.digest.hex, "size": row.size, "pointerSize": pointer_size}
    return told

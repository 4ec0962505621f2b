"""Answers in the hub's shape, made of what is known here: no socket, no request.

What a client sees of a repo is made from its manifest, so any kind of source can stand behind it. `xetHash` is
not among it: a client that sees one leaves the mirror.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from headrace.errors import (
    AccessDenied,
    AllSourcesFailed,
    Busy,
    EntryNotFound,
    HeadraceError,
    IntegrityError,
    NoSpace,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
    SourceError,
    Stalled,
    UsageError,
)
from headrace.manifest import Digest, Entry
from headrace.node.catalog import Row, Visibility
from headrace.node.fills import FillFailed
from headrace.node.lines import flat
from headrace.wire import ERROR_CODE, ERROR_MESSAGE, LINKED_ETAG, LINKED_SIZE, REPO_COMMIT

_HEADER_SAFE = "".join(map(chr, range(0x20, 0x7F)))
_XET_KEYS = frozenset({"xetHash", "xetEnabled"})

_STATUSES: tuple[tuple[type[HeadraceError], int], ...] = (
    (NotFound, 404),
    (AccessDenied, 403),
    (UsageError, 400),
    (Busy, 503),
    (Stalled, 504),
    (AllSourcesFailed, 502),
    (SourceError, 502),
    (IntegrityError, 502),
    (NoSpace, 507),
)
_FILL_STATUSES = {"no_space": 507, "stalled": 504, "busy": 503}  # by the code of the error that ended a fill
_CODES: dict[type[HeadraceError], str] = {
    RepoNotFound: "RepoNotFound",
    RevisionNotFound: "RevisionNotFound",
    EntryNotFound: "EntryNotFound",
}


@dataclass(frozen=True)
class Refusal:
    """An error as the hub words it: in the headers for machines, in JSON for people."""

    status: int
    message: str
    headers: Mapping[str, str]

    @property
    def body(self) -> bytes:
        """The JSON."""
        return json.dumps({"error": self.message}).encode()


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Refusal:
    """A refusal; `code` is one of RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo, or None."""
    told = {ERROR_MESSAGE: header_text(message)} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }
    if code is not None:
        told[ERROR_CODE] = code
    if status == HTTPStatus.UNAUTHORIZED:
        told["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    return Refusal(status, flat(message), told)


def refusal_of(error: HeadraceError, *, signed_in: bool, commit: str | None = None) -> Refusal:
    """What a client is told of an error of ours. `signed_in` says whether it sent credentials."""
    if isinstance(error, RepoNotFound):
        return no_repo(signed_in=signed_in)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    if isinstance(error, FillFailed):
        status = _FILL_STATUSES.get(error.why, 502)
    told = refusal(status, error.message, _CODES.get(type(error)))
    more = {REPO_COMMIT: commit} if commit else {}
    if isinstance(error, SourceError) and error.retry_after_s is not None:
        more["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return Refusal(told.status, told.message, {**told.headers, **more})


def no_repo(*, signed_in: bool) -> Refusal:
    """No such repo, or none that this caller may see: the hub does not tell the two apart."""
    if signed_in:
        return refusal(404, "Repository not found", "RepoNotFound")
    return refusal(401, "Invalid username or password.", "RepoNotFound")


def closed_repo(visibility: Visibility, name: str, *, signed_in: bool) -> Refusal:
    """Why a repo that is not public is refused."""
    if visibility is Visibility.DISABLED:
        return refusal(403, "Access to this resource is disabled.")
    if visibility is Visibility.GATED:
        message = f"Access to {name} is restricted: this mirror serves public repos only. Ask the hub itself."
        return refusal(403 if signed_in else 401, message, "GatedRepo")
    return no_repo(signed_in=signed_in)


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
    plain = "".join(c if c in _HEADER_SAFE and c not in '"\\%' else "_" for c in name)
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


def header_text(text: str) -> str:
    """The text as it may stand in a header: names of files end up there, and must neither break nor forge one."""
    return quote(text, safe=_HEADER_SAFE)


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

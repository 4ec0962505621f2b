"""Refusals as the hub words them: every error of ours, and every repo that is not for everybody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
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
    ReadOnly,
    RepoNotFound,
    RevisionNotFound,
    SourceError,
    Stalled,
    StoreError,
    UsageError,
)
from headrace.node.body.sender import Doubted
from headrace.node.disk.holding import RoomTaken, TooLarge
from headrace.node.fill.fill import FillFailed
from headrace.node.lines import flat
from headrace.node.memory.catalog import Visibility
from headrace.node.memory.origin import BadCredentials
from headrace.wire import ERROR_CODE, ERROR_MESSAGE, REPO_COMMIT

HEADER_SAFE = "".join(map(chr, range(0x20, 0x7F)))
"""The characters that may stand in a header."""

_STATUSES: tuple[tuple[type[HeadraceError], int], ...] = (
    (NotFound, 404),
    (AccessDenied, 403),
    (UsageError, 400),
    (Doubted, 409),
    (Busy, 503),
    (Stalled, 504),
    (AllSourcesFailed, 502),
    (SourceError, 502),
    (IntegrityError, 502),
    (NoSpace, 507),
    (StoreError, 503),
)
_FILL_STATUSES = {
    "no_space": 507,
    "room_taken": 507,
    "too_large": 507,
    "stalled": 504,
    "busy": 503,
    "spent": 503,
}  # by the code of the error that ended a fill
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
    is_json: bool = True

    @property
    def body(self) -> bytes:
        """The JSON, or the bare text."""
        return json.dumps({"error": self.message}).encode() if self.is_json else f"{self.message}\n".encode()

    @property
    def content_type(self) -> str:
        """What the body is."""
        return f"{'application/json' if self.is_json else 'text/plain'}; charset=utf-8"


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
    if isinstance(error, BadCredentials):
        return refusal(401, error.message)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    if isinstance(error, FillFailed):
        status = _FILL_STATUSES.get(error.why, 502)
    told = refusal(status, _words_of(error), _CODES.get(type(error)))
    more = {REPO_COMMIT: commit} if commit else {}
    if isinstance(error, SourceError) and error.retry_after_s is not None:
        more["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return Refusal(told.status, told.message, {**told.headers, **more})


def _words_of(error: HeadraceError) -> str:
    """What happened, without the folders of this machine: what is said of a disk names them."""
    code = error.why if isinstance(error, FillFailed) else error.code
    if code == TooLarge.code:
        return error.message
    if code in (NoSpace.code, RoomTaken.code):
        return "this mirror has no room left on its disk"
    if isinstance(error, StoreError) or code in (StoreError.code, ReadOnly.code):
        return "this mirror's disk does not do what it should; its log says more"
    return error.message


def read_only(method: str, *, allowed: str) -> Refusal:
    """A mirror changes nothing."""
    told = (
        f"{method} is not for this path: this mirror only reads. To create, upload or change anything, "
        "ask the hub itself (HF_ENDPOINT unset, or set to the hub's URL)."
    )
    return refusal(405, told, Allow=allowed)


def no_git(*, writes: bool) -> Refusal:
    """Git is told in plain text: that is what it shows to people."""
    if writes:
        told = "this mirror only reads: push to the hub itself (git remote set-url --push origin HUB_URL)"
        return replace(refusal(405, told, Allow="GET, HEAD"), is_json=False)
    told = "this mirror does not speak git: clone from the hub itself, or get the files by `hf download`"
    return replace(refusal(404, told), is_json=False)


def no_account(*, signed_in: bool) -> Refusal:
    """What only an owner is told; whose token it is, only the hub knows."""
    if signed_in:
        return refusal(401, "This mirror knows no accounts: ask the hub itself.")
    return refusal(401, "Invalid username or password.")


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
        restricted = f"Access to {name} is restricted"
        if signed_in:
            return refusal(403, f"{restricted} and you are not in the authorized list.", "GatedRepo")
        told = f"{restricted}. You must have access to it and be authenticated to access it. Please log in."
        return refusal(401, told, "GatedRepo")
    return no_repo(signed_in=signed_in)


def header_text(text: str) -> str:
    """The text as it may stand in a header: names of files end up there, and must neither break nor forge one."""
    return quote(text, safe=HEADER_SAFE)

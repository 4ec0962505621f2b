"""What a node answers besides the hub's paths: one description, of which routes, access and the OpenAPI document are made.

A new one is described here, and a handler given for it where the application is put together; the two are held against
each other when a node starts. Those below `/_headrace/admin/` want `Admission.ADMIN`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.blocklist import BLOCKS_PATH
from headrace.wire import BLOCK_BYTES

OWN = "/_headrace/"
ADMIN = OWN + "admin/"
BLOBS_PATH = OWN + "blobs/"
STATUS_PATH = OWN + "status.json"
OPENAPI_PATH = OWN + "openapi.json"

Schema = Mapping[str, Any]


class Admission(enum.Enum):
    """Who may ask; the words are for people."""

    ANYBODY = "Anybody."
    WATCHER = "Anybody while the node has no tokens; else this machine, and who shows a node token or the admin token."
    GUEST = "Anybody while the node has no tokens; else who shows one."
    ADMIN = "Who shows the admin token."


@dataclass(frozen=True)
class Parameter:
    """One of a path, a query or a header."""

    name: str
    where: str
    what: str
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    is_required: bool = True


@dataclass(frozen=True)
class Answer:
    """What comes back with a status: the schema of its JSON, or another media type; neither where it has no body."""

    what: str
    schema: Schema | None = None
    media: str = "application/json"


@dataclass(frozen=True)
class Operation:
    """One method on one path. `posted` is the schema of the JSON that it takes."""

    name: str
    method: str
    path: str
    what: str
    admission: Admission
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    posted: Schema | None = None


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SECONDS: Schema = {"type": "number", "description": "seconds since 1970"}
_MAYBE_SECONDS: Schema = {"type": ["number", "null"], "description": "seconds since 1970"}
_BYTES: Schema = {"type": "string", "format": "binary"}
_GLOBS: Schema = {"type": "array", "items": _TEXT, "description": "globs of repos; none is all"}
_TOKEN = {
    "id": _COUNT,
    "name": _TEXT,
    "state": {"type": "string", "enum": ["valid", "expired", "revoked"]},
    "repos": _GLOBS,
    "created": _SECONDS,
    "expires": _MAYBE_SECONDS,
    "used": {"type": ["number", "null"], "description": "the day of its last use, in seconds since 1970"},
    "revoked": _MAYBE_SECONDS,
}
_STATUS = _object(
    version=_TEXT,
    uptime_s={"type": "number"},
    sources={
        "type": "array",
        "items": _object(name=_TEXT, up={"type": "boolean"}),
        "description": "the trusted hub and the directories, and whether they answered last",
    },
    blobs=_object(count=_COUNT, bytes=_COUNT),
    fills=_COUNT,
    open={"type": "boolean", "description": "whether it has no tokens"},
)

_ONE_TOKEN = Parameter("token", "path", "its name or number")
_LINKED = (
    Parameter("digest", "path", "`ALGORITHM:HEX` of the file"),
    Parameter("repo", "query", "from the link"),
    Parameter("until", "query", "from the link"),
    Parameter("proof", "query", "from the link"),
)
_RANGE = Parameter("Range", "header", "one range of bytes", is_required=False)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "healthz",
        "GET",
        "/healthz",
        "Whether the process answers.",
        Admission.ANYBODY,
        {200: Answer("It does.", _TEXT, "text/plain")},
    ),
    Operation(
        "readyz",
        "GET",
        "/readyz",
        "Whether the node can work: its worker runs, its catalog can be read.",
        Admission.ANYBODY,
        {
            200: Answer("It can.", _TEXT, "text/plain"),
            503: Answer("It cannot; the text says why.", _TEXT, "text/plain"),
        },
    ),
    Operation(
        "metrics",
        "GET",
        "/metrics",
        "What the node does, for Prometheus. No names of repos.",
        Admission.WATCHER,
        {200: Answer("The metrics.", _TEXT, "text/plain")},
    ),
    Operation(
        "status",
        "GET",
        STATUS_PATH,
        "How the node does. No names of repos.",
        Admission.WATCHER,
        {200: Answer("Its state.", _STATUS)},
    ),
    Operation(
        "openapi",
        "GET",
        OPENAPI_PATH,
        "This document.",
        Admission.WATCHER,
        {200: Answer("The document.", {"type": "object"})},
    ),
    Operation(
        "blobs",
        "GET",
        BLOBS_PATH + "{digest}",
        "A verified file by its digest, or a part of it. The file's own answer links here.",
        Admission.GUEST,
        {
            200: Answer("The file.", _BYTES, "application/octet-stream"),
            206: Answer("The part that `Range` asks for.", _BYTES, "application/octet-stream"),
            304: Answer("`If-None-Match` names it."),
            404: Answer("The node does not have the whole file."),
            416: Answer("The file has no such part."),
        },
        (*_LINKED, _RANGE),
    ),
    Operation(
        "blocks",
        "GET",
        BLOCKS_PATH + "{digest}",
        f"What each {BLOCK_BYTES} bytes of a file hash to. The file's own answer links here.",
        Admission.GUEST,
        {
            200: Answer(
                "SHA-256 of each block, 32 bytes each, in order.", _BYTES, "application/octet-stream"
            ),
            404: Answer("The node does not have the whole file."),
            503: Answer("The list is being made: ask again after `Retry-After`."),
        },
        _LINKED,
    ),
    Operation(
        "list_tokens",
        "GET",
        ADMIN + "tokens",
        "All node tokens, revoked and expired ones too.",
        Admission.ADMIN,
        {
            200: Answer(
                "What is known of them; no secrets.",
                _object(tokens={"type": "array", "items": _object(**_TOKEN)}),
            )
        },
    ),
    Operation(
        "create_token",
        "POST",
        ADMIN + "tokens",
        "Make a node token. From the first one on the node is closed to whoever shows none.",
        Admission.ADMIN,
        {
            201: Answer(
                "The token; `token` is its text, and is told this once.", _object(**_TOKEN, token=_TEXT)
            ),
            400: Answer("The name is taken, or something is not as it must be."),
        },
        posted={
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {
                "name": _TEXT,
                "repos": _GLOBS,
                "life_s": {
                    "type": ["number", "null"],
                    "exclusiveMinimum": 0,
                    "description": "null is for ever",
                },
            },
        },
    ),
    Operation(
        "revoke_token",
        "DELETE",
        ADMIN + "tokens/{token}",
        "Let a node token be valid no more. It stays in the list, and the node stays closed.",
        Admission.ADMIN,
        {200: Answer("The token.", _object(**_TOKEN)), 404: Answer("There is none such.")},
        (_ONE_TOKEN,),
    ),
)

BY_NAME: Mapping[str, Operation] = {one.name: one for one in OPERATIONS}

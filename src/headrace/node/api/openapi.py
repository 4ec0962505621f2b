"""The OpenAPI document of what a node answers besides the hub's paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.node.access.credentials import TOKEN_HEADER
from headrace.node.api.operations import Admission, Answer, Operation

_ERROR = {"$ref": "#/components/schemas/Error"}
_REFUSALS: dict[Admission, dict[int, str]] = {
    Admission.ANYBODY: {},
    Admission.WATCHER: {
        401: "Nothing was shown that counts.",
        429: "Too often: ask again after `Retry-After`.",
    },
    Admission.GUEST: {
        401: "No node token was shown that is valid.",
        403: "The token or the link is not for this.",
        429: "Too often: ask again after `Retry-After`.",
    },
    Admission.ADMIN: {
        401: "The admin token was not shown.",
        429: "Too many wrong tokens: ask again after `Retry-After`.",
    },
}
_WAYS: dict[Admission, tuple[str, ...]] = {
    Admission.ANYBODY: (),
    Admission.WATCHER: ("", "node", "basic", "header", "admin"),
    Admission.GUEST: ("", "node", "basic", "header"),
    Admission.ADMIN: ("admin",),
}
"""Schemes of which one does; empty for none at all."""

_SCHEMES = {
    "node": {"type": "http", "scheme": "bearer", "description": "a node token, `hrn_…`"},
    "basic": {"type": "http", "scheme": "basic", "description": "any user name, a node token as password"},
    "header": {"type": "apiKey", "in": "header", "name": TOKEN_HEADER, "description": "a node token"},
    "admin": {"type": "http", "scheme": "bearer", "description": "the admin token, `hra_…`"},
}
_ABOUT = (
    "What a Headrace node answers besides the hub's own paths. GET is answered to HEAD, too. Refusals say why in JSON "
    "and in the header X-Error-Message, as hubs do."
)


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The document (OpenAPI 3.1) of these operations."""
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _described(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace node", "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {
            "securitySchemes": _SCHEMES,
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {"error": {"type": "string"}},
                }
            },
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    answers = {status: Answer(what, _ERROR) for status, what in _REFUSALS[operation.admission].items()}
    answers |= {
        status: Answer(answer.what, _ERROR) if status >= 400 and answer.schema is None else answer  # noqa: PLR2004
        for status, answer in operation.answers.items()
    }
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.what,
        "description": operation.admission.value,
        "security": [{way: []} if way else {} for way in _WAYS[operation.admission]],
        "responses": {str(status): _answer(answer) for status, answer in sorted(answers.items())},
    }
    if operation.parameters:
        told["parameters"] = [
            {
                "name": one.name,
                "in": one.where,
                "required": one.is_required,
                "description": one.what,
                "schema": dict(one.schema),
            }
            for one in operation.parameters
        ]
    if operation.posted is not None:
        content = {"application/json": {"schema": dict(operation.posted)}}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _answer(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = {"description": answer.what}
    if answer.schema is not None:
        told["content"] = {answer.media: {"schema": dict(answer.schema)}}
    return told

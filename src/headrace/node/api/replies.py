"""Answers as the web server takes them."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from headrace.node.api.refusals import Refusal, header_text, refusal
from headrace.node.memory.metadata import Resolved
from headrace.wire import REPO_COMMIT, WARNING


def json_reply(value: Any, at: Resolved | None, stale_s: float | None = None) -> web.Response:
    """An answer about a repo, or about none; `stale_s`: how old it is, where the source could not be asked."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if at is not None:
        headers[REPO_COMMIT] = at.commit
    headers |= stale_headers(stale_s if stale_s is not None else at.stale_s if at else None)
    return web.Response(body=json.dumps(value).encode(), headers=headers)


def stale_headers(stale_s: float | None) -> dict[str, str]:
    """What says that an answer is old."""
    if stale_s is None:
        return {}
    told = f"mirror; the hub cannot be asked: this is what was known {stale_s:.0f} s ago"
    return {WARNING: told, "Age": f"{stale_s:.0f}", "Cache-Status": "headrace; hit; detail=stale-if-error"}


def refused(told: Refusal, headers: dict[str, str] | None = None) -> web.Response:
    """A refusal, with those of the answer's headers that still hold."""
    kept = {
        name: text
        for name, text in (headers or {}).items()
        if name not in ("Content-Type", "Content-Disposition")
    }
    return web.Response(
        status=told.status,
        body=told.body,
        headers={**kept, **told.headers, "Content-Type": told.content_type},
    )


def no_page() -> Refusal:
    """No hub has such a path."""
    return refusal(404, "Sorry, we can't find the page you are looking for.")


def next_link(request: web.Request, target: str) -> str:
    """The next page, on the address by which the client knows this node."""
    return header_text(f'<{request["view"].address}{target}>; rel="next"')

"""Answers as the web server takes them."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from headrace.node.access.caller import Caller
from headrace.node.api.refusals import Refusal, header_text, refusal
from headrace.node.memory.freshness import Freshness
from headrace.node.memory.standing import Resolved
from headrace.wire import REPO_COMMIT


def json_reply(value: Any, at: Resolved, freshness: Freshness | None = None) -> web.Response:
    """An answer about a repo; `freshness` where it is not that of `at`."""
    headers = {"Content-Type": "application/json; charset=utf-8", REPO_COMMIT: at.commit}
    headers |= (freshness or at.freshness).headers
    return web.Response(body=json.dumps(value).encode(), headers=headers)


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


def is_signed_in(request: web.Request) -> bool:
    """Whether who asks has shown anything, be it worth something or not."""
    caller: Caller = request["caller"]
    return not caller.is_anybody


def no_page() -> Refusal:
    """No hub has such a path."""
    return refusal(404, "Sorry, we can't find the page you are looking for.")


def next_link(request: web.Request, target: str) -> str:
    """The next page, on the address by which the client knows this node."""
    return header_text(f'<{request["view"].address}{target}>; rel="next"')

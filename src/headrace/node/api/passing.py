"""What the trusted source says to anybody, passed on: lists, people, papers, talk about repos.

The source is asked without credentials, so nothing is passed on that it would not tell a stranger; but for talk about a
repo that is not for everybody, which who asks may read: of that it is asked with their own. What leads to
bytes in other places never gets here: `calls.py` knows no such path, and Xet hints are taken out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from headrace.errors import BadAnswer, UsageError
from headrace.names import Repo, RepoKind
from headrace.node.access.caller import ANYBODY, Caller
from headrace.node.access.gate import Pass
from headrace.node.api.answers import without_xet
from headrace.node.api.refusals import header_text
from headrace.node.api.replies import next_link, no_page, refused
from headrace.node.memory.freshness import Freshness
from headrace.node.memory.metadata import Metadata
from headrace.source.hub import HubAnswer
from headrace.wire import ERROR_CODE, ERROR_MESSAGE, REPO_COMMIT, WARNING

_PASSED = (ERROR_CODE, ERROR_MESSAGE, REPO_COMMIT, WARNING, "X-Total-Count", "WWW-Authenticate")
_FROM_ROWS = re.compile(r"https?://[^/]+(?:/[^?#]*?)?(/api/datasets/[^?#]+/parquet/[^?#]+)")


@dataclass(frozen=True)
class Page:
    """An answer of the source, as it may be passed on; `link` is the target of its next page there."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str]
    link: str | None = None


class PassingApi:
    """The hub's paths that the node knows nothing about itself."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    async def json(
        self,
        request: web.Request,
        path: str,
        repo: Repo | None = None,
        *,
        addressed: bool = False,
        caller: Caller = ANYBODY,
    ) -> web.StreamResponse:
        """The JSON at a path of the source, with the request's query; `addressed`: its URLs are made the node's.

        `repo` is what it is about, if any, and `caller` who was just found to be let into that.
        """
        page, freshness = await self._page(request, path, repo, caller)
        if page is None or page.content_type != "json":
            return refused(no_page())
        body = page.body
        if repo is None and request["pass"].names_repos:
            body = _given_out(body, path, request["pass"])
        if addressed and body:
            body = json.dumps(_addressed(json.loads(body), request["view"].address)).encode()
        return _reply(request, replace(page, body=body), "application/json; charset=utf-8", freshness)

    async def text(self, request: web.Request, path: str) -> web.StreamResponse:
        """The text at a path of the source. Whatever it is, a browser must not run it in this node's name."""
        page, freshness = await self._page(request, path)
        if page is None:
            return refused(no_page())
        kind = "application/json" if page.content_type == "json" else "text/plain"
        return _reply(request, page, f"{kind}; charset=utf-8", freshness)

    async def _page(
        self, request: web.Request, path: str, repo: Repo | None = None, caller: Caller = ANYBODY
    ) -> tuple[Page | None, Freshness]:
        query = request.raw_path.partition("?")[2]
        target = f"{path}?{query}" if query else path
        return await self._metadata.relayed(target, page_of, repo=repo, caller=caller)


def page_of(answer: HubAnswer, link: str | None) -> Page | None:
    """The answer as it may be passed on; None where it is neither JSON nor text.

    Raises:
        BadAnswer: it says that it is JSON, and is none.
    """
    kind = (answer.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if not (kind.endswith("json") or kind in ("text/plain", "text/markdown")):
        return None
    body, content_type = answer.body, "json" if kind.endswith("json") else "text"
    if content_type == "json" and body:
        try:
            told = json.loads(body)
            body = json.dumps(without_xet(told)).encode() if b"xet" in body.lower() else body
        except (ValueError, RecursionError):
            raise BadAnswer("the source answers with something that is no JSON") from None
    headers = {name: header_text(text) for name in _PASSED if (text := answer.headers.get(name))}
    return Page(answer.status, body, content_type, headers, link)


def _reply(request: web.Request, page: Page, content_type: str, freshness: Freshness) -> web.Response:
    headers = {**page.headers, "Content-Type": content_type, "X-Content-Type-Options": "nosniff"}
    headers |= freshness.headers
    if page.link:
        headers["Link"] = next_link(request, page.link)
    return web.Response(status=page.status, body=page.body, headers=headers)


def _given_out(body: bytes, path: str, admitted: Pass) -> bytes:
    """A list of repos without those that are not for who asks: a directory's names are nobody else's to know."""
    kind = next((one for one in RepoKind if path.strip("/") == f"api/{one.plural}"), None)
    told = json.loads(body) if kind is not None and body else None
    if kind is None or not isinstance(told, list):
        return body
    return json.dumps([row for row in told if _is_for(admitted, row, kind)]).encode()


def _is_for(admitted: Pass, row: Any, kind: RepoKind) -> bool:
    name = row.get("id") if isinstance(row, dict) else None
    if not isinstance(name, str):
        return False
    try:
        return admitted.objection(Repo(name, kind)) is None
    except UsageError:
        return False


def _addressed(value: Any, address: str) -> Any:
    """The same JSON, with URLs of files under the API on the address by which the client knows this node."""
    if isinstance(value, dict):
        return {key: _addressed(one, address) for key, one in value.items()}
    if isinstance(value, list):
        return [_addressed(one, address) for one in value]
    match = _FROM_ROWS.fullmatch(value) if isinstance(value, str) else None
    return address + match.group(1) if match else value

"""The hub's paths: which of them is asked for, and who answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from headrace.node.api.answers import without_xet
from headrace.node.api.calls import Call, Chore, parse_call
from headrace.node.api.files import FileApi
from headrace.node.api.refusals import refusal
from headrace.node.api.replies import json_reply, next_link, no_page, refused
from headrace.node.api.repos import RepoApi
from headrace.node.body.sender import Sender
from headrace.node.memory.metadata import Metadata


class HubApi:
    """The hub's paths."""

    def __init__(self, metadata: Metadata, sender: Sender, page_entries: int) -> None:
        self._metadata = metadata
        repos, files = RepoApi(metadata, page_entries), FileApi(metadata, sender)
        self._calls: dict[str, Callable[[web.Request, Call], Awaitable[web.StreamResponse]]] = {
            "info": repos.info,
            "tree": repos.tree,
            "paths-info": repos.paths_info,
            "refs": repos.passed,
            "commits": repos.passed,
            "auth-check": repos.auth_check,
            "resolve": files.resolve,
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer any path that is not the node's own."""
        call = parse_call(request.raw_path.partition("?")[0])
        if call is None:
            return refused(no_page())
        if isinstance(call, Chore):
            request["route"] = "api"
            return await self._chore(request, call)
        request["route"], request["repo"] = call.verb, str(call.repo)
        if request.method not in ("GET", "HEAD") and not (
            call.verb == "paths-info" and request.method == "POST"
        ):
            return refused(refusal(405, f"{request.method} is not for this path", Allow="GET, HEAD"))
        answer = self._calls.get(call.verb)
        if answer is None:
            return refused(no_page())
        return await answer(request, call)

    async def _chore(self, request: web.Request, chore: Chore) -> web.StreamResponse:
        if chore.name == "telemetry":
            return web.Response(status=204)
        if chore.name == "agent-harnesses":
            return web.json_response({"standardEnvVars": [], "harnesses": {}})
        if chore.name == "whoami-v2":
            return refused(refusal(401, "This mirror knows no accounts; ask the hub itself."))
        if chore.name in ("models", "datasets", "spaces") and request.method in ("GET", "HEAD"):
            told = await self._metadata.searched(request.raw_path)
            response = json_reply(without_xet(told.value), None, told.freshness)
            if told.link:
                response.headers["Link"] = next_link(request, told.link)
            return response
        return refused(no_page())

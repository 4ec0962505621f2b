"""The hub's paths: which of them is asked for, and who answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from headrace.errors import RevisionNotFound
from headrace.node.access.caller import ANYBODY, Caller
from headrace.node.api.calls import Call, Chore, is_git, parse_call, path_of
from headrace.node.api.files import FileApi
from headrace.node.api.passing import PassingApi
from headrace.node.api.refusals import no_account, no_git, read_only
from headrace.node.api.replies import is_signed_in, no_page, refused
from headrace.node.api.repos import RepoApi, resolved
from headrace.node.memory.metadata import Metadata

_READING = ("GET", "HEAD")
_FILES = ("resolve", "raw")


class HubApi:
    """The hub's paths."""

    def __init__(self, metadata: Metadata, files: FileApi, page_entries: int) -> None:
        self._metadata = metadata
        self._passing = PassingApi(metadata)
        repos = RepoApi(metadata, page_entries)
        self._calls: dict[str, Callable[[web.Request, Call], Awaitable[web.StreamResponse]]] = {
            "info": repos.info,
            "tree": repos.tree,
            "paths-info": repos.paths_info,
            "refs": repos.refs,
            "commits": repos.commits,
            "auth-check": repos.auth_check,
            "resolve": files.resolve,
            "raw": files.raw,
            "owners": self._owners,
            "passed": self._passed,
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer any path that is not the node's own."""
        path = path_of(request.raw_path)
        if is_git(path):
            return refused(no_git(writes=_is_push(request)))
        call = parse_call(path)
        if isinstance(call, Chore) and call.name == "telemetry":
            return web.Response(status=204)  # nobody's business but the hub's, and not the hub's from here
        asks = request.method in _READING
        if isinstance(call, Call) and call.verb == "paths-info":
            if request.method != "POST":
                return refused(read_only(request.method, allowed="POST"))
        elif not asks:
            return refused(read_only(request.method, allowed=", ".join(_READING)))
        if call is None:
            return refused(no_page())
        if isinstance(call, Chore):
            request["route"] = "api"
            return await self._chore(request, call)
        request["route"], request["repo"] = call.verb, str(call.repo)
        request["pass"].check(call.repo)
        if call.verb in _FILES and request.method == "GET":
            with request["pass"].streaming():
                return await self._calls[call.verb](request, call)
        return await self._calls[call.verb](request, call)

    async def _chore(self, request: web.Request, chore: Chore) -> web.StreamResponse:
        if chore.name == "agent-harnesses":
            return web.json_response({"standardEnvVars": [], "harnesses": {}})
        if chore.name == "owners":
            return refused(no_account(signed_in=is_signed_in(request)))
        if chore.name == "paper-text":
            return await self._passing.text(request, chore.path)
        return await self._passing.json(request, chore.path)

    async def _passed(self, request: web.Request, call: Call) -> web.StreamResponse:
        caller = await self._reader(request, call)
        is_addressed = "/parquet" in call.path
        return await self._passing.json(request, call.path, call.repo, addressed=is_addressed, caller=caller)

    async def _owners(self, request: web.Request, call: Call) -> web.StreamResponse:
        await self._reader(request, call)
        return refused(no_account(signed_in=is_signed_in(request)))

    async def _reader(self, request: web.Request, call: Call) -> Caller:
        """On whose behalf to ask about the repo, which may be read."""
        try:
            return (await resolved(self._metadata, request, call)).caller
        except RevisionNotFound:
            if request["pass"].names_repos:
                raise  # it may have another name by now, and not be meant
            return ANYBODY  # the repo is readable, and has no branch of that name: what is asked is not about a branch


def _is_push(request: web.Request) -> bool:
    """Whether git wants to write. It asks what there is before it sends anything."""
    return request.query.get("service") == "git-receive-pack" or request.path.endswith(
        ("/git-receive-pack", "/info/lfs/objects/batch", "/info/lfs/locks")
    )

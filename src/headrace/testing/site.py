"""The hub's own host: finds out which repo a URL means, and who answers for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from headrace.testing import api, listing
from headrace.testing.access import Access, Refused
from headrace.testing.answer import Answer, Request, json_answer, refusal
from headrace.testing.catalog import DEFAULT_REVISION, KINDS, Catalog, Commit, Repo
from headrace.testing.resolve import Resolver

_PLURALS = {f"{kind}s": kind for kind in KINDS}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAMESPACED_REFS = {"pr", "convert", "heads", "tags"}
_NO_PAGE = refusal(404, "Sorry, we can't find the page you are looking for.")
RepoCall = Callable[[Repo, Request, list[str]], Answer]


@dataclass(frozen=True)
class HubSite:
    """Answers for the endpoint: the API, resolve and resolve-cache."""

    catalog: Catalog
    access: Access
    resolver: Resolver
    page_size: int

    def answer(self, request: Request) -> Answer:
        """Answer any request; errors are answers too."""
        try:
            if request.segments[:1] == ("api",):
                return self._api(request, list(request.segments[1:]))
            return self._resolve(request)
        except Refused as refused:
            return refused.answer

    def _api(self, request: Request, rest: list[str]) -> Answer:
        noun = rest[0] if rest else ""
        if noun == "telemetry":
            return Answer(204)
        if noun == "agent-harnesses":
            return json_answer({"standardEnvVars": [], "harnesses": {}})
        caller = self.access.caller(request)
        if noun == "whoami-v2":
            return api.whoami(caller)
        if noun == "resolve-cache" and len(rest) > 1 and rest[1] in _PLURALS:
            return self._cached(request, _PLURALS[rest[1]], rest[2:], caller)
        if noun not in _PLURALS or not rest[1:]:
            return _NO_PAGE
        name, verb, arguments = _split_repo_call(rest[1:], set(self._calls))
        repo = self.access.require_sight(self.catalog.repo(_PLURALS[noun], name), caller, request)
        call = self._calls.get(verb)
        return call(repo, request, arguments) if call else _NO_PAGE

    @property
    def _calls(self) -> dict[str, RepoCall]:
        return {
            "": self._info,
            "revision": self._info,
            "tree": self._tree,
            "paths-info": self._paths_info,
            "refs": self._refs,
            "commits": self._commits,
            "auth-check": self._auth_check,
            "xet-read-token": self._xet_token,
        }

    def _info(self, repo: Repo, request: Request, arguments: list[str]) -> Answer:
        commit = self._commit(repo, "/".join(arguments))
        return api.info(repo, commit, listing.siblings(commit, blobs=request.flag("blobs")), request)

    def _tree(self, repo: Repo, request: Request, arguments: list[str]) -> Answer:
        revision, path = _split_revision(arguments)
        return listing.tree(self._commit(repo, revision), path, request, self.page_size)

    def _paths_info(self, repo: Repo, request: Request, arguments: list[str]) -> Answer:
        return listing.paths_info(self._commit(repo, "/".join(arguments)), request)

    def _refs(self, repo: Repo, request: Request, _arguments: list[str]) -> Answer:
        return api.refs(self.catalog, repo, include_pulls=request.flag("include_prs"))

    def _commits(self, repo: Repo, _request: Request, arguments: list[str]) -> Answer:
        return api.commits(self.catalog, repo, self._commit(repo, "/".join(arguments)))

    def _auth_check(self, repo: Repo, request: Request, _arguments: list[str]) -> Answer:
        self.access.require_content(repo, self.access.caller(request))
        return json_answer({})

    def _xet_token(self, repo: Repo, _request: Request, arguments: list[str]) -> Answer:
        return self.resolver.xet_token(self._commit(repo, "/".join(arguments)))

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = self.catalog.commit(repo, revision or DEFAULT_REVISION)
        if commit is None:
            raise Refused(api.no_revision(revision))
        return commit

    def _resolve(self, request: Request) -> Answer:
        segments = list(request.segments)
        kind = _PLURALS.get(segments[0], "model")
        parts = segments[1:] if segments[0] in _PLURALS else segments
        at = next((index for index in (1, 2) if parts[index : index + 1] == ["resolve"]), None)
        if at is None or len(parts) < at + 3:
            return _NO_PAGE
        caller = self.access.caller(request)
        repo = self.access.require_sight(self.catalog.repo(kind, "/".join(parts[:at])), caller, request)
        self.access.require_content(repo, caller)
        revision, path = _split_revision(parts[at + 1 :])
        return self.resolver.resolve(repo, revision, path, request)

    def _cached(self, request: Request, kind: str, parts: list[str], caller: str | None) -> Answer:
        # Two names come before the commit, or one for a bare repo; a commit is told by its shape.
        at = 1 if len(parts) > 1 and _is_commit(parts[1]) else 2
        if len(parts) < at + 2:
            return _NO_PAGE
        repo = self.access.require_sight(self.catalog.repo(kind, "/".join(parts[:at])), caller, request)
        self.access.require_content(repo, caller)
        return self.resolver.cached(repo, parts[at], "/".join(parts[at + 1 :]), request)


def _split_repo_call(parts: list[str], verbs: set[str]) -> tuple[str, str, list[str]]:
    """`org/name/verb/…` or `name/verb/…` as (name, verb, the rest)."""
    length = 1 if len(parts) == 1 or parts[1] in verbs else 2
    verb = parts[length] if len(parts) > length else ""
    return "/".join(parts[:length]), verb, parts[length + 1 :]


def _split_revision(parts: list[str]) -> tuple[str, str]:
    """Revision and path. `refs/pr/1` also comes with bare slashes, typed by people into a browser."""
    length = 3 if parts[0] == "refs" and parts[1:2] and parts[1] in _NAMESPACED_REFS else 1
    return "/".join(parts[:length]), "/".join(parts[length:])


def _is_commit(text: str) -> bool:
    return _COMMIT.fullmatch(text) is not None

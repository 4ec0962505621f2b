"""The hub's own host: finds out which repo a URL means, and who answers for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from headrace.testing import api, listing, lists, talk
from headrace.testing.access import Access, Refused, moved
from headrace.testing.answer import Answer, Request, json_answer, refusal
from headrace.testing.catalog import DEFAULT_REVISION, KINDS, Catalog, Commit, Repo
from headrace.testing.resolve import Resolver

_PLURALS = {f"{kind}s": kind for kind in KINDS}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OWNERS_VERBS = {"secrets", "variables", "lfs-files", "user-access-request", "logs", "settings"}
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
        told = lists.answer(self.catalog, request, rest)
        if told is not None:
            return told
        if noun not in _PLURALS or not rest[1:]:
            return _NO_PAGE
        name, verb, arguments = _split_repo_call(rest[1:], {*self._calls, *talk.VERBS, *_OWNERS_VERBS})
        repo = self._seen(_PLURALS[noun], name, caller, request)
        if verb in _OWNERS_VERBS:
            return refusal(401, "Invalid username or password.")
        if verb in talk.VERBS:
            return talk.answer(self.catalog, repo, request, verb, arguments)
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

    def _commits(self, repo: Repo, request: Request, arguments: list[str]) -> Answer:
        return api.commits(
            self.catalog, repo, self._commit(repo, "/".join(arguments)), request, self.page_size
        )

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

    def _seen(self, kind: str, name: str, caller: str | None, request: Request) -> Repo:
        """The repo, if the caller may know of it; who writes its name in other letters is led to it."""
        repo = self.catalog.repo(kind, name)
        if repo is None:
            known = (one for one in self.catalog.repos(kind) if one.name.lower() == name.lower())
            called = next((one.name for one in known if not one.settings.private), None)
            if called is not None:
                raise Refused(moved(request, name, called))
        return self.access.require_sight(repo, caller, request)

    def _resolve(self, request: Request) -> Answer:
        segments = list(request.segments)
        if segments[0] == "papers":
            return lists.paper_text(segments[-1])
        kind = _PLURALS.get(segments[0], "model")
        parts = segments[1:] if segments[0] in _PLURALS else segments
        at = next((index for index in (1, 2) if parts[index : index + 1] in (["resolve"], ["raw"])), None)
        if at is None or len(parts) < at + 3:
            return _NO_PAGE
        caller = self.access.caller(request)
        repo = self._seen(kind, "/".join(parts[:at]), caller, request)
        self.access.require_content(repo, caller)
        revision, path = _split_revision(parts[at + 1 :])
        if parts[at] == "raw":
            return self.resolver.raw(repo, revision, path, request)
        return self.resolver.resolve(repo, revision, path, request)

    def _cached(self, request: Request, kind: str, parts: list[str], caller: str | None) -> Answer:
        # Two names come before the commit, or one for a bare repo; a commit is told by its shape.
        at = 1 if len(parts) > 1 and _is_commit(parts[1]) else 2
        if len(parts) < at + 2:
            return _NO_PAGE
        repo = self._seen(kind, "/".join(parts[:at]), caller, request)
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

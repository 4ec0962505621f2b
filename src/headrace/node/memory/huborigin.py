"""The trusted hub, asked: what a repo is now, what a commit holds."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from http import HTTPStatus
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from headrace.errors import (
    AccessDenied,
    BadAnswer,
    BadManifest,
    EntryNotFound,
    HeadraceError,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
    SourceError,
    UsageError,
)
from headrace.manifest import Manifest, entries_of, siblings_of
from headrace.names import Repo, is_commit
from headrace.node.access.caller import ANYBODY, Caller
from headrace.node.config import OUTAGE_S
from headrace.node.memory.catalog import (
    Catalog,
    Kept,
    Ref,
    Row,
    Seen,
    Told,
    Visibility,
    called,
    info_key,
    name_key,
)
from headrace.node.memory.origin import BadCredentials, is_same
from headrace.node.memory.outage import Outage
from headrace.node.memory.rations import Rations, Spent
from headrace.ranges import Range
from headrace.source.access import Access
from headrace.source.contract import Content, Request
from headrace.source.http import Dialer, HttpSession
from headrace.source.hub import HubAnswer, HubSource
from headrace.wire import ERROR_CODE, ERROR_MESSAGE, api_path, parse_next_link

T = TypeVar("T")

_SMALL = 64 * 1024
"""Characters of what is told of a repo, digests left out, up to which asking for all of it again costs nothing."""


class HubOrigin:
    """Asks `source` and writes down what it says; see `Origin`."""

    def __init__(
        self,
        source: HubSource,
        dialer: Dialer,
        rations: Rations,
        catalog: Catalog,
        is_elsewhere: Callable[[Repo], bool] = lambda _: False,
        was_let_in: Callable[[Repo, Caller], bool] = lambda *_: False,
        *,
        hears_tokens: bool = True,
    ) -> None:
        """`hears_tokens`: whether callers' tokens may be sent there.

        `was_let_in`: whether this caller could read a repo that is not for everybody when that was asked last.

        `is_elsewhere`: whether a repo is another origin's, so that nothing of this one may go by its name.
        """
        self._source = source
        self._is_elsewhere = is_elsewhere
        self._was_let_in = was_let_in
        self._hears_tokens = hears_tokens
        self._rations = rations
        self._dialer = dialer
        self._catalog = catalog
        self._local = threading.local()
        self.outage = Outage(source.name, OUTAGE_S)

    def __repr__(self) -> str:
        return f"<HubOrigin {self._source.name}{' away' if self.outage.lasts else ''}>"

    def put(self, asked_at: float, question: Callable[..., T], *arguments: Any) -> T:
        """See `Origin.put`."""
        self.outage.check(asked_at)
        try:
            answer = question(*arguments)
        except SourceError as error:
            worded = self._worded(error)
            if not isinstance(error, Spent):
                self.outage.failed(worded)
            raise worded from error
        except HeadraceError:
            self.outage.answered()
            raise
        self.outage.answered()
        return answer

    def learn(self, repo: Repo, revision: str, known: str | None, caller: Caller) -> Told:
        """See `Origin.learn`. One call, which also says what the commit holds where that is not known or not much."""
        if not self._hears_tokens:
            caller = ANYBODY
        whole = known is None or self._is_small(repo, known)
        seen, asked_at = self._catalog.seen(repo), time.time()
        is_known = known is not None and seen is not None and self._is_usual(repo, caller)
        with nullcontext() if is_known else self._rations.modestly():
            target = api_path(repo, "revision", revision) + ("?blobs=true" if whole else "")
            answer = self._ask(target, caller)
        if answer.status != HTTPStatus.OK and answer.headers.get(ERROR_CODE) == "RevisionNotFound":
            if known is not None and not is_commit(revision):
                self._catalog.point(repo, revision, None)
            raise RevisionNotFound(answer.headers.get(ERROR_MESSAGE) or f"Invalid rev id: {revision}")
        if answer.status != HTTPStatus.OK:
            told = Told(Seen(self._refused(answer, caller), asked_at))
        else:
            told = self._told(repo, revision, _parsed(answer), asked_at, caller)
        # Of a repo that nobody here has read nothing is kept: anybody could fill the catalog with names.
        if told.is_open or seen is not None:
            told = self._learned(repo, revision, told)
        self._note_name(repo, told)
        return told

    def _learned(self, repo: Repo, revision: str, told: Told) -> Told:
        seen = self._catalog.learn(told.repo or repo, revision, told)
        is_closed = seen != told.seen and seen.visibility is not Visibility.PUBLIC and not told.granted
        return Told(seen) if is_closed else told  # somebody asked later, and was answered before

    def fetch_manifest(self, repo: Repo, commit: str, caller: Caller) -> None:
        """See `Origin.fetch_manifest`."""
        if self._catalog.kept(info_key(repo, commit)) is None:
            self.learn(repo, commit, None, caller)  # for most repos this says it all
            if self._catalog.has_manifest(repo, commit):
                return
        try:
            self._catalog.keep_manifest(self._as(caller).manifest(repo, commit))
        except NotFound as error:
            # The repo was just seen: what a hub does not find now is the commit.
            raise RevisionNotFound(f"Invalid rev id: {commit}") from error

    def look_up(self, repo: Repo, commit: str, path: str, caller: Caller) -> Row | None:
        """See `Origin.look_up`."""
        posted = json.dumps({"paths": [path], "expand": False}).encode()
        answer = self._ask(api_path(repo, "paths-info", commit), caller, posted)
        told = _parsed(answer) if answer.status == HTTPStatus.OK else None
        if not isinstance(told, list):
            raise BadAnswer(f"{self._source.name} does not say what a commit of {repo} has at a path")
        named = [one for one in told if isinstance(one, dict) and one.get("path") == path]
        if not named:
            return None
        files = entries_of(named)
        return Row(path, files[0].size, files[0].digest) if files else Row(path, 0, None)

    def fetch(self, target: str, caller: Caller) -> Kept:
        """See `Origin.fetch`."""
        with nullcontext() if self._catalog.kept(target) is not None else self._rations.modestly():
            answer = self._ask(target, caller)
        if answer.status != HTTPStatus.OK:
            message = answer.headers.get(ERROR_MESSAGE) or f"HTTP {answer.status}"
            known = {one.__name__: one for one in (RevisionNotFound, RepoNotFound, EntryNotFound)}
            if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise AccessDenied(message)
            raise known.get(answer.headers.get(ERROR_CODE, ""), NotFound)(message)
        _parsed(answer)
        kept = Kept(answer.body.decode(), self._following(answer), time.time())
        self._catalog.keep(target, kept)
        return kept

    def relay(
        self, target: str, posted: bytes = b"", caller: Caller = ANYBODY
    ) -> tuple[HubAnswer, str | None]:
        """See `Origin.relay`."""
        with self._rations.modestly():
            answer = self._ask(target, caller, posted)
        return answer, self._following(answer)

    def delivers(self, content: Content, wanted: Range, file: BinaryIO, caller: Caller) -> bool:
        """See `Origin.delivers`."""
        is_whole = len(wanted) == content.entry.size
        session = HttpSession(
            self._dialer
        )  # whatever is left of a long answer must not hold up what is asked next
        try:
            asked = Request(content, wanted, is_whole, "", "", self._source.home.patience_s)
            return is_same(self._as(caller).open(asked, session), file, wanted)
        finally:
            session.close()

    def _note_name(self, repo: Repo, told: Told) -> None:
        """Remember by what name the source calls what was asked for by this one."""
        kept = self._catalog.kept(name_key(repo))
        if told.repo is None:
            # What is closed is so by all its names, but for one that is another's by now.
            if kept is not None and not self._is_elsewhere(called(kept, repo)):
                self._catalog.see(called(kept, repo), told.seen)
        elif kept is not None or told.repo != repo:
            self._catalog.keep(name_key(repo), Kept(json.dumps(str(told.repo)), None, told.seen.at))

    def _following(self, answer: HubAnswer) -> str | None:
        """The next page, as a path and query below the source's endpoint."""
        link = parse_next_link(answer.headers.get("Link"))
        if not link:
            return None
        parts = urlsplit(link)
        path = parts.path.removeprefix(urlsplit(self._source.endpoint).path)
        return f"{path}?{parts.query}"

    def _ask(self, target: str, caller: Caller, posted: bytes = b"") -> HubAnswer:
        if not hasattr(self._local, "session"):
            self._local.session = HttpSession(self._dialer)
        return self._as(caller).ask(target, self._local.session, posted)

    def _as(self, caller: Caller) -> HubSource:
        """The hub as this caller asks it."""
        if not caller.token or not self._hears_tokens:
            return self._source
        return self._source.on_behalf(Access(caller.token))

    def _refused(self, answer: HubAnswer, caller: Caller) -> Visibility:
        """Who may read a repo, by a refusal to tell this caller of it. Raises where that is about the caller alone."""
        code, message = answer.headers.get(ERROR_CODE), answer.headers.get(ERROR_MESSAGE) or ""
        if code == "GatedRepo":
            return Visibility.GATED
        if "disabled" in message:
            return Visibility.DISABLED
        if code is None and caller.token and answer.status == HTTPStatus.UNAUTHORIZED:
            raise BadCredentials("Invalid credentials in Authorization header")
        if code is None and caller.token and answer.status == HTTPStatus.FORBIDDEN:
            raise AccessDenied(message or "the hub does not let you read this")
        return Visibility.PRIVATE

    def _lets_in(self, repo: Repo, facts: Mapping[str, Any], caller: Caller) -> bool:
        """Whether the hub, which has just told this caller of a repo that is not for everybody, lets it read the files."""
        if not caller.token or facts.get("disabled"):
            return False
        if not facts.get("gated"):
            return True
        # What gated repos are, hubs tell anybody.
        answer = self._ask(api_path(repo, "auth-check"), caller)
        if answer.status == HTTPStatus.OK:
            return True
        self._refused(answer, caller)
        return False

    def _is_usual(self, repo: Repo, caller: Caller) -> bool:
        """Whether this caller is nobody new: as anybody can think of names, so of tokens."""
        return caller.is_anybody or self._was_let_in(repo, caller)

    def _is_small(self, repo: Repo, commit: str) -> bool:
        kept = self._catalog.kept(info_key(repo, commit))
        return kept is None or len(kept.body) <= _SMALL

    def _told(self, repo: Repo, revision: str, facts: Any, asked_at: float, caller: Caller) -> Told:
        commit = facts.get("sha") if isinstance(facts, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            raise BadAnswer(f"{self._source.name} does not say which commit {revision!r} of {repo} is")
        seen = Seen(_visibility_of(facts), asked_at)
        granted = seen.visibility is not Visibility.PUBLIC and self._lets_in(repo, facts, caller)
        asked, repo = repo, _called(facts.get("id"), repo)
        if seen.visibility is not Visibility.PUBLIC and not granted:
            return Told(seen)
        if repo != asked and self._is_elsewhere(repo):
            return Told(Seen(Visibility.PRIVATE, asked_at))
        manifest, siblings = None, facts.get("siblings")
        try:
            if (entries := siblings_of(siblings)) is not None:
                manifest = Manifest(repo, revision, commit, entries, self._source.name)
        except BadManifest:
            manifest = None  # who asks for a file hears why, when the tree says the same
        if isinstance(siblings, list):
            facts["siblings"] = [_named(one) for one in siblings]
        info = Kept(json.dumps(facts), None, asked_at)
        return Told(seen, Ref(commit, asked_at), info, manifest, repo, granted)

    def _worded(self, error: SourceError) -> SourceError:
        """The failure as any client may hear of it: not which repo another one asked for, nor our upstream's URL."""
        told = f"{self._source.name} cannot be asked now ({error.code.replace('_', ' ')})"
        return type(error)(told, retry_after_s=error.retry_after_s)


def _parsed(answer: HubAnswer) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise BadAnswer("the source answers with something that is no JSON") from None


def _called(name: Any, repo: Repo) -> Repo:
    """The repo by the name that the source tells: it may have been asked for by a former one, or in other letter case."""
    with suppress(UsageError):
        return Repo(name, repo.kind) if isinstance(name, str) else repo
    return repo


def _named(sibling: Any) -> Any:
    """A file of a repo as it is listed to who did not ask for digests."""
    if not isinstance(sibling, dict) or "rfilename" not in sibling:
        return sibling
    return {"rfilename": sibling["rfilename"]}


def _visibility_of(facts: dict[str, Any]) -> Visibility:
    if facts.get("disabled"):
        return Visibility.DISABLED
    if facts.get("private"):
        return Visibility.PRIVATE
    return Visibility.GATED if facts.get("gated") else Visibility.PUBLIC

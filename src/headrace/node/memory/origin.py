"""The trusted source, asked: what a repo is now, what a commit holds. Whatever it says is put in the catalog.

Called on threads. Which answers may still be believed, and what to do when there is none, is decided elsewhere.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from headrace.errors import (
    AccessDenied,
    BadAnswer,
    BadManifest,
    Busy,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
    SourceError,
)
from headrace.names import Repo, is_commit
from headrace.node.config import OUTAGE_S
from headrace.node.memory.catalog import Catalog, Kept, Ref, Seen, Visibility
from headrace.source.http import Dialer, HttpSession
from headrace.source.hub import HubAnswer, HubSource
from headrace.wire import ERROR_CODE, ERROR_MESSAGE, api_path, parse_next_link

T = TypeVar("T")


class Origin:
    """Asks `source` and writes down what it says."""

    def __init__(self, source: HubSource, dialer: Dialer, catalog: Catalog) -> None:
        self._source = source
        self._dialer = dialer
        self._catalog = catalog
        self._local = threading.local()
        self._outage: tuple[float, SourceError] | None = None

    def __repr__(self) -> str:
        return f"<Origin {self._source.name}{' away' if self._outage else ''}>"

    def refresh(self, repo: Repo, revision: str) -> None:
        """Ask what a revision means now and who may read the repo.

        Raises:
            RevisionNotFound: there is no such revision any more.
            SourceError: it cannot be asked now.
        """
        answer = self._ask(api_path(repo, "revision", revision))
        now = time.time()
        if answer.status != HTTPStatus.OK and answer.headers.get(ERROR_CODE) == "RevisionNotFound":
            self._catalog.point(repo, revision, None)
            raise RevisionNotFound(answer.headers.get(ERROR_MESSAGE) or f"Invalid rev id: {revision}")
        if answer.status != HTTPStatus.OK:
            self._catalog.see(repo, Seen(_visibility_of_refusal(answer), now))
            return
        facts = _parsed(answer)
        commit = facts.get("sha") if isinstance(facts, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            raise BadManifest(f"{self._source.name} does not say which commit {revision!r} of {repo} is")
        # The commit first: who sees the repo as public finds what it means.
        self._catalog.keep(info_key(repo, revision), Kept(answer.body.decode(), None, now))
        self._catalog.point(repo, revision, Ref(commit, now))
        self._catalog.see(repo, Seen(_visibility_of(facts), now))

    def fetch_manifest(self, repo: Repo, commit: str) -> None:
        """Ask what a commit holds. Raises as `Source.manifest`."""
        try:
            self._catalog.keep_manifest(self._watched(lambda: self._source.manifest(repo, commit)))
        except NotFound as error:
            # The repo was just seen: what a hub does not find now is the commit.
            raise RevisionNotFound(f"Invalid rev id: {commit}") from error

    def fetch(self, target: str) -> Kept:
        """The JSON at a path and query of the source, and remembered.

        Raises:
            NotFound, AccessDenied: the source says so.
            SourceError: it cannot be asked now.
        """
        answer = self._ask(target)
        if answer.status != HTTPStatus.OK:
            message = answer.headers.get(ERROR_MESSAGE) or f"HTTP {answer.status}"
            known = {"RevisionNotFound": RevisionNotFound, "RepoNotFound": RepoNotFound}
            if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise AccessDenied(message)
            raise known.get(answer.headers.get(ERROR_CODE, ""), NotFound)(message)
        _parsed(answer)
        kept = Kept(answer.body.decode(), self._following(answer), time.time())
        self._catalog.keep(target, kept)
        return kept

    def relay(self, target: str, posted: bytes = b"") -> tuple[HubAnswer, str | None]:
        """Whatever the source says to a GET of `target`, or to JSON that is posted there; and its next page's target.

        Raises:
            SourceError: it cannot be asked now.
        """
        answer = self._ask(target, posted)
        return answer, self._following(answer)

    def _following(self, answer: HubAnswer) -> str | None:
        """The next page, as a path and query below the source's endpoint."""
        link = parse_next_link(answer.headers.get("Link"))
        if not link:
            return None
        parts = urlsplit(link)
        path = parts.path.removeprefix(urlsplit(self._source.endpoint).path)
        return f"{path}?{parts.query}"

    def _ask(self, target: str, posted: bytes = b"") -> HubAnswer:
        if not hasattr(self._local, "session"):
            self._local.session = HttpSession(self._dialer)
        return self._watched(lambda: self._source.ask(target, self._local.session, posted))

    def _worded(self, error: SourceError) -> SourceError:
        """The failure as any client may hear of it: not which repo another one asked for, nor our upstream's URL."""
        told = f"{self._source.name} cannot be asked now ({error.code.replace('_', ' ')})"
        return type(error)(told, retry_after_s=error.retry_after_s)

    def _watched(self, question: Callable[[], T]) -> T:
        """Ask, unless there was no answer a moment ago: a source that is down must not cost each request a wait."""
        outage = self._outage
        if outage is not None and time.monotonic() < outage[0]:
            raise outage[1]
        try:
            answer = question()
        except SourceError as error:
            pause_s = min(OUTAGE_S, error.retry_after_s or 0.0) if isinstance(error, Busy) else OUTAGE_S
            if pause_s and not error.permanent:
                self._outage = (time.monotonic() + pause_s, self._worded(error))
            raise self._worded(error) from error
        self._outage = None
        return answer


def info_key(repo: Repo, revision: str) -> str:
    """Under which the catalog keeps what the source says about a revision."""
    return api_path(repo, "revision", revision)


def _parsed(answer: HubAnswer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        raise BadAnswer("the source answers with something that is no JSON") from None


def _visibility_of(facts: dict[str, Any]) -> Visibility:
    if facts.get("disabled"):
        return Visibility.DISABLED
    if facts.get("private"):
        return Visibility.PRIVATE
    return Visibility.GATED if facts.get("gated") else Visibility.PUBLIC


def _visibility_of_refusal(answer: HubAnswer) -> Visibility:
    if answer.headers.get(ERROR_CODE) == "GatedRepo":
        return Visibility.GATED
    if "disabled" in (answer.headers.get(ERROR_MESSAGE) or ""):
        return Visibility.DISABLED
    return Visibility.PRIVATE

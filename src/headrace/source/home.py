"""Where a source lives: what it is asked there, on whose behalf, and where its answers may lead.

Credentials go to the source's own origin and nowhere else. A redirect is followed unless it leads from https to
plain http, or from a public place into this machine or its network.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from headrace.errors import (
    AccessDenied,
    BadAnswer,
    Busy,
    EntryNotFound,
    HeadraceError,
    SourceError,
    SourceFull,
    Stalled,
)
from headrace.source.access import NOBODY, Access
from headrace.source.budget import Allowance, Budget
from headrace.source.http import URL_SAFE, Dialer, HttpResponse, HttpSession
from headrace.wire import ERROR_CODE, is_loopback, origin_of, retry_after_s, shown

REDIRECTS = frozenset((301, 302, 303, 307, 308))
PAGE_BYTES_MOST = 64 * 1024 * 1024

_HOPS_MOST = 10
_PATIENCE_MOST_S = 30.0
_REDIRECT_BODY_BYTES = 64 * 1024
_TRY_LATER = frozenset((408, 425, 429))
_GONE = frozenset((404, 410))

Route = Callable[[str], tuple[str, float]]
"""For the URL of each hop: which address to use (empty for any), and how many seconds of silence to bear."""


def bearer(token: str) -> Mapping[str, str]:
    """How most servers are told who asks."""
    return {"Authorization": f"Bearer {token}"}


class Home:
    """The place at `url` (normalised, no slash at its end) that users call `name`.

    Args:
        access: who asks.
        present: how a token is shown there.
        budget: counts what may still be asked; `counted_apart` is the beginning of paths that the server counts
            apart from others.
        patience_s: how long metadata may be silent.
    """

    def __init__(
        self,
        name: str,
        url: str,
        dialer: Dialer,
        *,
        access: Access = NOBODY,
        present: Callable[[str], Mapping[str, str]] = bearer,
        budget: Allowance | None = None,
        counted_apart: str = "",
        patience_s: float = 5.0,
    ) -> None:
        self.name = name
        self.url = url
        self.dialer = dialer
        self.access = access
        self.patience_s = patience_s
        self.is_private = False
        self._present = present
        self._budget = budget or Budget(name)
        self._counted_apart = counted_apart

    def __repr__(self) -> str:
        return f"<Home of {self.name} at {shown(self.url)}>"

    def owns(self, origin: tuple[str, str, int]) -> bool:
        """Whether an origin is this source's own."""
        return origin == origin_of(self.url)

    def get(
        self,
        session: HttpSession,
        url: str,
        accept: str = "*/*",
        method: str = "GET",
        on_redirect: Callable[[HttpResponse, str], None] | None = None,
    ) -> HttpResponse:
        """Ask for metadata, with the patience for such. Arguments and errors as `follow`."""
        return self.follow(
            session, url, {"Accept": accept}, lambda _: ("", self.patience_s), on_redirect, method=method
        )

    def post(self, session: HttpSession, url: str, posted: bytes) -> HttpResponse:
        """Ask for metadata with a question in JSON, which must bear to be asked twice. Errors as `follow`."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        return self.follow(session, url, headers, lambda _: ("", self.patience_s), method="POST", body=posted)

    def metadata(
        self, session: HttpSession, url: str, accept: str = "*/*", method: str = "GET"
    ) -> HttpResponse:
        """As `get`; where nothing comes it may only be slow, and the next one who asks waits longer."""
        try:
            return self.get(session, url, accept, method)
        except Stalled:
            self.patience_s = min(
                2 * self.patience_s, _PATIENCE_MOST_S
            )  # whoever is told of this failure knows
            raise

    def json(self, session: HttpSession, url: str) -> Any:
        """What stands at `url`, read as JSON.

        Raises:
            NotFound, AccessDenied, SourceError: see `refusal`.
            BadAnswer: it is none.
        """
        response = self.metadata(session, url, "application/json")
        try:
            if response.status != HTTPStatus.OK:
                raise self.refusal(response, shown(url))
            return self.json_of(response)
        finally:
            response.close()

    def json_of(self, response: HttpResponse) -> Any:
        """The body of an answer, read as JSON.

        Raises:
            BadAnswer: it is none.
        """
        try:
            return json.loads(response.read(PAGE_BYTES_MOST))
        except (ValueError, RecursionError):
            raise BadAnswer(f"{self.name} answers with something that is no JSON") from None

    def follow(
        self,
        session: HttpSession,
        url: str,
        headers: Mapping[str, str],
        route: Route,
        on_redirect: Callable[[HttpResponse, str], None] | None = None,
        method: str = "GET",
        body: bytes = b"",
    ) -> HttpResponse:
        """Ask, and follow where it leads; `on_redirect` is told of each such answer and of where it leads.

        Raises:
            BadAnswer: it leads where it may not.
            SourceError: no answer came.
        """
        for _ in range(_HOPS_MOST):
            at_home = self.owns(origin_of(url))
            credentials = self.credentials if at_home else {}
            address, patience_s = route(url)
            apart = bool(self._counted_apart) and urlsplit(url).path.startswith(self._counted_apart)
            kind = (origin_of(url), apart)
            with self._budget.request(kind, session.check):
                response = session.request(
                    method, url, {**headers, **credentials}, address=address, patience_s=patience_s, body=body
                )
                self._budget.learn(kind, response.status, response.headers)
            if response.status not in REDIRECTS:
                return response
            try:
                self.is_private = self.is_private or (at_home and response.is_private)
                target = self.target(url, response.headers.get("Location"))
                if on_redirect is not None:
                    on_redirect(response, target)
                with contextlib.suppress(
                    SourceError
                ):  # nobody needs it; the connection is kept if it was short
                    response.read(_REDIRECT_BODY_BYTES)
            finally:
                response.close()
            url = target
        raise BadAnswer(f"{self.name} redirects in circles at {shown(url)}")

    @property
    def credentials(self) -> Mapping[str, str]:
        """What goes to the source's own origin; over plain http not through a proxy on another machine, unless allowed."""
        if self.access.token is None:
            return {}
        home = origin_of(self.url)
        proxy = self.dialer.proxies.of(home) if home[0] == "http" else None
        if proxy is not None and not self.access.in_clear and not is_loopback(proxy.host):
            return {}
        return self._present(self.access.token)

    def target(self, url: str, location: str | None) -> str:
        """Where a redirect leads. Refuses to be led from a public place into this machine or its network."""
        try:
            # http.client reads heads as latin-1; some servers send UTF-8, and spaces.
            target = urljoin(url, quote((location or "").encode("latin-1", "replace"), safe=URL_SAFE))
            scheme, host, _ = origin_of(target)
        except ValueError:
            scheme, host, target = "", "", ""
        if not location or scheme not in ("http", "https") or not host:
            raise BadAnswer(f"{shown(url)} redirects to {shown(location or '')!r}")
        if scheme == "http" and self.url.startswith("https:"):
            raise BadAnswer(f"{shown(url)} redirects from https to plain http, {shown(target)}")
        self.check_reach(target, url)
        return target

    def check_reach(self, target: str, url: str) -> None:
        """Raise `BadAnswer` where `url` is public and `target` is not."""
        if self.is_private or self.owns(origin_of(target)):
            return
        if self.dialer.leads_inside(origin_of(target)):
            raise BadAnswer(f"{shown(url)} is public and redirects to a private address, {shown(target)}")

    def refusal(self, response: HttpResponse, what: str, said: str = "") -> HeadraceError:
        """The error that an answer other than success means, by its status alone; `what` was asked for."""
        status, told = response.status, said or f"HTTP {response.status}"
        wait_s = retry_after_s(response.headers)
        if status == HTTPStatus.INSUFFICIENT_STORAGE and wait_s is None:
            hint = "whoever runs it can give it more room; others may be named with `sources`"
            return SourceFull(f"{self.name} has no room for {what}: {told}", hint=hint)
        if is_passing(status):
            return Busy(f"{self.name} cannot give {what} now: {told}", retry_after_s=wait_s)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            blame = (
                "the token is wrong, expired or not allowed" if self.access.token else "a token may be needed"
            )
            hint = self.access.hint or hint_of_proxy(response) or blame
            return AccessDenied(f"{self.name} refuses {what}: {told}", hint=hint)
        if status in _GONE:
            return EntryNotFound(f"{self.name} has no {what}" + (f": {said}" if said else ""))
        return BadAnswer(f"{self.name} answers {told} when asked for {what}")


def is_passing(status: int) -> bool:
    """Whether this refusal is one of the moment."""
    return status in _TRY_LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def hint_of_proxy(response: HttpResponse) -> str | None:
    """Of plain http, what a proxy refuses looks like what the source refuses."""
    if response.proxy is None or response.headers.get(ERROR_CODE):
        return None
    named = response.proxy.variable
    return f"it may be {response.proxy.name} that refuses, which {named} names: ask its keepers, or use https"


def in_one_line(text: str) -> str:
    """What a server says, as terminals and logs can bear it."""
    told = " ".join(text.split())
    return "".join(character for character in told if character.isprintable())

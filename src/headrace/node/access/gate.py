"""Who may come in, for which repos, and how often: the node's own rules, before its source is asked anything.

Where no token was ever made, anybody may come in. Once there is one, each request needs one that is valid; that the
last one is revoked or expires opens nothing: only removing them all does. What a source says of its repos is another
matter, and comes after this.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from headrace.names import Repo
from headrace.node.access.credentials import ADMIN_TOKEN, TOKEN_HEADER, Credentials
from headrace.node.access.limits import Bucket, Clients, Streams, whose
from headrace.node.access.rules import Rules
from headrace.node.access.tokens import AdminToken, KnownTokens, NodeToken
from headrace.wire import NODE_REALM, is_loopback

STREAM_PAUSE_S = 10
"""For whoever has as many streams as it may. Hub clients try five times, so this bears streams of a minute."""

_GUESSES = 10  # a minute, of one client, at the admin token
_CHALLENGE = f'Basic {NODE_REALM}, charset="UTF-8", Bearer {NODE_REALM}'  # the first is all that some look at
_ADMIN_CHALLENGE = 'Bearer realm="headrace admin"'


class Denied(Exception):
    """What the node does not do for whoever asks: an HTTP status, words for people, and headers."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Pass:
    """What somebody who was let in may have."""

    client: str = ""
    rules: Rules = field(default_factory=Rules)
    token: NodeToken | None = None
    streams: Streams = field(default_factory=Streams)

    @property
    def names_repos(self) -> bool:
        """Whether it is for some repos alone."""
        return self.rules.names_repos or (self.token is not None and bool(self.token.repos))

    def check(self, repo: Repo) -> None:
        """Raise `Denied` for a repo that it is not for."""
        told = self.objection(repo)
        if told is not None:
            raise Denied(HTTPStatus.FORBIDDEN, told)

    def objection(self, repo: Repo) -> str | None:
        """Why it is not for a repo, in words for people; None where it is."""
        rule = self.rules.exclusion(repo)
        if rule is not None:
            return f"This mirror does not give out {repo.address}: its policy is `{rule}`."
        if self.token is not None and not self.token.is_for(repo):
            return f"The node token {self.token.name!r} is not for {repo.address}: ask who runs this mirror."
        return None

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """While a file is on its way. Raises `Denied` where as many are already as may be."""
        most = self.rules.streams_per_client
        if most and self.streams[self.client] >= most:
            told = f"This mirror sends {most} files at once to one client: wait for one of them to end."
            raise Denied(
                HTTPStatus.TOO_MANY_REQUESTS,
                told,
                {"Retry-After": str(STREAM_PAUSE_S), "RateLimit": f'"streams";r=0;t={STREAM_PAUSE_S}'},
            )
        with self.streams.one_more(self.client):
            yield


class Gate:
    """Lets in who may come in. Belongs to one event loop; each serving process counts for itself."""

    def __init__(self, rules: Rules, tokens: KnownTokens, admin: AdminToken) -> None:
        self._rules = rules
        self._tokens = tokens
        self._admin = admin
        self._clients = Clients(rules.requests_per_minute)
        self._guesses = Clients(_GUESSES)
        self._streams = Streams()

    async def enter(self, credentials: Credentials, remote: str) -> tuple[Pass, dict[str, str]]:
        """A pass for whoever asks from the address `remote`, and headers that tell what it has left.

        Raises:
            Denied: it needs a token that is valid, or asks too often.
        """
        known = await self._tokens.current()
        token = await self._tokens.valid(credentials.token) if known and credentials.token else None
        client = whose(remote) if token is None else f"token {token.id}"
        told = self._counted(self._clients.bucket(client, time.monotonic())) if self._clients.most else {}
        if known and token is None:
            raise _token_wanted(credentials.token)
        return Pass(client, self._rules, token, self._streams), told

    async def watch(self, credentials: Credentials, remote: str) -> None:
        """Let in who may see how the node does, as a machine: the node's own machine, who rules it, who may use it."""
        if not await self._tokens.current() or is_loopback(remote) or self._admin.is_it(credentials.token):
            return
        await self.enter(credentials, remote)

    def rule(self, credentials: Credentials, remote: str) -> None:
        """Let in who rules the node. Raises `Denied` for all others; who guesses gets only so many tries."""
        if self._admin.is_it(credentials.token):
            return
        bucket, now = self._guesses.bucket(whose(remote), time.monotonic()), time.monotonic()
        if not bucket.take(now):
            raise _too_many(bucket, now)
        told = "This needs the admin token of this node: it is in the file admin.token of its data folder."
        raise Denied(HTTPStatus.UNAUTHORIZED, told, {"WWW-Authenticate": _ADMIN_CHALLENGE})

    def _counted(self, bucket: Bucket) -> dict[str, str]:
        now = time.monotonic()
        if not bucket.take(now):
            raise _too_many(bucket, now)
        return bucket.headers(now)


def _token_wanted(shown: str) -> Denied:
    ways = f"as HF_TOKEN, as the password of Basic authentication, or in the header {TOKEN_HEADER}"
    if not shown:
        told = f"This mirror wants a token of its own: send one (hrn_...) {ways}."
    elif shown.startswith(ADMIN_TOKEN):
        told = f"The admin token is for admin calls only: send a node token (hrn_...) {ways}."
    else:
        told = "This mirror's token is wrong, expired or revoked: ask who runs this mirror for another."
    return Denied(HTTPStatus.UNAUTHORIZED, told, {"WWW-Authenticate": _CHALLENGE})


def _too_many(bucket: Bucket, now: float) -> Denied:
    wait_s = bucket.wait_s(now)
    told = f"This mirror answers {bucket.most} requests a minute of one client: ask again in {wait_s} s."
    return Denied(HTTPStatus.TOO_MANY_REQUESTS, told, {**bucket.headers(now), "Retry-After": str(wait_s)})

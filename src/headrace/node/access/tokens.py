"""Tokens that let somebody use a node, and the one that lets somebody rule it.

Of a node token only its SHA-256 is kept: 32 random bytes need no slow hash. Looking one up compares hashes, which tell
nothing of how near a guess was.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from headrace.errors import Corrupt, StoreError, UsageError
from headrace.names import Repo
from headrace.node.access.credentials import ADMIN_TOKEN
from headrace.node.access.rules import Globs
from headrace.node.access.secretfile import kept_secret
from headrace.node.memory.database import Database, is_row
from headrace.node.memory.schema import tokens
from headrace.node.threads import Threads
from headrace.wire import NODE_TOKEN

BELIEVED_S = 1.0
"""For how long a node goes by what it read of its tokens: one that is revoked stops working within two seconds."""

DAY_S = 86400.0
LIFE_MOST_S = 100 * 366 * DAY_S
TOKENS_MOST = 10_000

_TOKEN_BYTES = 32
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.@-]{0,63}")
_ADMIN_FILE = "admin.token"

_log = logging.getLogger("headrace.node")


@dataclass(frozen=True)
class NodeToken:
    """What is known of a token; times are seconds since 1970, of `used` the day's first, None for never.

    Attributes:
        repos: globs of the repos it is for; none is all that the node gives out.
    """

    id: int
    name: str
    repos: tuple[str, ...]
    created: float
    expires: float | None = None
    used: float | None = None
    revoked: float | None = None

    @cached_property
    def globs(self) -> Globs:
        """`repos`, ready to be compared with."""
        return Globs(self.repos)

    def state(self, now: float) -> str:
        """`valid`, `revoked` or `expired`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"

    def facts(self, now: float) -> dict[str, Any]:
        """All that is told of it, as JSON."""
        told = {name: getattr(self, name) for name in ("created", "expires", "used", "revoked")}
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state(now),
            "repos": list(self.repos),
            **told,
        }

    def is_for(self, repo: Repo) -> bool:
        """Whether it is for this repo."""
        return not self.repos or self.globs.naming(repo) is not None


class TokenBook:
    """All tokens of a node, in its database. Safe to use from several processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, repos: Sequence[str], life_s: float | None, now: float
    ) -> tuple[NodeToken, str]:
        """A new token and its text, which is told this once.

        Raises:
            UsageError: the name is taken or is none, a glob is none, or it would have expired already.
        """
        if _NAME.fullmatch(name) is None:
            hint = "begin with a letter; letters, digits and . _ @ - may follow, 64 in all"
            raise UsageError(f"{name!r} is no name for a token", hint=hint)
        if life_s is not None and not 0 < life_s <= LIFE_MOST_S:
            hint = "say for how long it shall be: 12h, 30d, a hundred years at most"
            raise UsageError("that is no time for which a token could be valid", hint=hint)
        Globs(tuple(repos))
        text = NODE_TOKEN + secrets.token_urlsafe(_TOKEN_BYTES)
        expires = None if life_s is None else now + life_s
        values = {"name": name, "repos": json.dumps(list(repos)), "created": now, "expires": expires}
        with self._database.writing(lasting=True) as connection:
            if connection.scalar(sa.select(tokens.c.id).where(tokens.c.name == name)) is not None:
                hint = "choose another name, or remove that one"
                raise UsageError(f"there is a token {name!r} already", hint=hint)
            if (connection.scalar(sa.select(sa.func.count()).select_from(tokens)) or 0) >= TOKENS_MOST:
                raise UsageError(f"there are {TOKENS_MOST} tokens", hint="remove some that are revoked")
            made = connection.execute(sa.insert(tokens).values(hash=hash_of(text), **values))
            key = made.inserted_primary_key
        return NodeToken(int(key[0]) if key else 0, name, tuple(repos), now, expires), text

    def all(self) -> list[NodeToken]:
        """All there are, revoked and expired ones too, in the order in which they were made."""
        return list(self.by_hash().values())

    def by_hash(self) -> dict[str, NodeToken]:
        """All there are, by what their text hashes to."""
        found = self._database.all(sa.select(tokens).order_by(tokens.c.id))
        return {
            row.hash: NodeToken(
                row.id,
                row.name,
                tuple(json.loads(row.repos)),
                row.created,
                row.expires,
                row.used,
                row.revoked,
            )
            for row in found
        }

    def state(self) -> tuple[int, ...]:
        """What differs whenever a token was made, revoked or removed."""
        counts = (
            sa.func.count(),
            sa.func.coalesce(sa.func.max(tokens.c.id), 0),
            sa.func.count(tokens.c.revoked),
        )
        found = self._database.one(sa.select(*counts).select_from(tokens))
        return tuple(map(int, found)) if found is not None else ()

    def revoke(self, name_or_id: str, now: float) -> NodeToken | None:
        """Let a token be valid no more, for good; None where there is none of this name or number."""
        found = self.find(name_or_id)
        if found is None or found.revoked is not None:
            return found
        with self._database.writing(lasting=True) as connection:
            connection.execute(sa.update(tokens).where(is_row(tokens, {"id": found.id})).values(revoked=now))
        return self.find(str(found.id))

    def remove(self, name_or_id: str) -> NodeToken | None:
        """Forget a token. A node that knows of none is open to everybody. None where there is none such."""
        found = self.find(name_or_id)
        if found is not None:
            with self._database.writing(lasting=True) as connection:
                connection.execute(sa.delete(tokens).where(is_row(tokens, {"id": found.id})))
        return found

    def use(self, key: int, day: float) -> None:
        """Remember the day on which a token was used last."""
        with self._database.writing() as connection:
            connection.execute(sa.update(tokens).where(is_row(tokens, {"id": key})).values(used=day))

    def find(self, name_or_id: str) -> NodeToken | None:
        """The token of this name or number."""
        return next((one for one in self.all() if name_or_id in (one.name, str(one.id))), None)


class KnownTokens:
    """The tokens as a serving process knows them: read again when somebody asks and a second has passed.

    Belongs to one event loop.
    """

    def __init__(self, book: TokenBook, threads: Threads) -> None:
        self._book = book
        self._threads = threads
        self._known: Mapping[str, NodeToken] = {}
        self._state: tuple[int, ...] = ()
        self._at = float("-inf")
        self._used: dict[int, float] = {}

    async def current(self) -> Mapping[str, NodeToken]:
        """All there are, by hash."""
        if time.monotonic() - self._at >= BELIEVED_S:
            await self._threads.once(("tokens",), self._read)
        return self._known

    def forget(self) -> None:
        """Read them again when somebody asks: they were changed here."""
        self._at = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether there was none when it was looked last."""
        return not self._known

    async def valid(self, text: str) -> NodeToken | None:
        """The token of this text, if it is valid now. That it was used is written down once a day."""
        found = (await self.current()).get(hash_of(text))
        now = time.time()
        if found is None or found.state(now) != "valid":
            return None
        day = now // DAY_S * DAY_S
        if max(found.used or 0.0, self._used.get(found.id, 0.0)) < day:
            self._used[found.id] = day
            await self._threads.once(("token used", found.id), lambda: self._note(found.id, day))
        return found

    async def _read(self) -> None:
        began = time.monotonic()
        await self._threads.disk(self._look)
        self._at = began

    def _look(self) -> None:
        state = self._book.state()
        if state != self._state:
            self._known, self._state = self._book.by_hash(), state

    async def _note(self, key: int, day: float) -> None:
        try:
            await self._threads.disk(self._book.use, key, day)
        except (StoreError, sa.exc.SQLAlchemyError) as error:
            _log.info("the day on which a token was used is not written down: %s", type(error).__name__)


class AdminToken:
    """Recognises the admin token of a data folder, which is kept there for its owner alone to read."""

    def __init__(self, text: str) -> None:
        self._hash = hash_of(text)

    @classmethod
    def in_folder(cls, data: Path) -> AdminToken:
        """The one of a node's data folder, made where there is none. Raises as `admin_token`."""
        return cls(admin_token(data))

    def is_it(self, text: str) -> bool:
        """Whether this is the admin token."""
        return hmac.compare_digest(self._hash, hash_of(text))


def admin_token(data: Path) -> str:
    """The text of a data folder's admin token: made once, the same for all processes.

    Raises:
        StoreError: it cannot be had on this disk.
        Corrupt: what is there is none.
    """
    path = data / _ADMIN_FILE
    kept = kept_secret(path, f"{ADMIN_TOKEN}{secrets.token_urlsafe(_TOKEN_BYTES)}\n".encode())
    text = kept.decode("ascii", "replace").strip()
    if not text.startswith(ADMIN_TOKEN) or len(text) < _TOKEN_BYTES:
        raise Corrupt(f"{path} is no token", hint="remove it: another is made when the node starts")
    return text


def hash_of(text: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()

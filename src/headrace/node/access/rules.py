"""What an operator lets a node do for whom: which repos it gives out, and how much to one client.

A glob names repos: `org/name`, `org/*`, `*`; with `models/`, `datasets/` or `spaces/` before it, those of one kind
alone. Hubs tell no two repos apart by the case of their names, so globs do not either: else a name in other letters
would be a way around one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import translate

from headrace.errors import UsageError
from headrace.names import Repo, RepoKind

_GLOB = re.compile(r"[A-Za-z0-9_.\-*?\[\]!]+(?:/[A-Za-z0-9_.\-*?\[\]!]+){0,2}")
_KINDS = tuple(f"{kind.plural}/" for kind in RepoKind)


@dataclass(frozen=True)
class Globs:
    """Some repos, by their names. Raises `UsageError` for a glob that no name could match."""

    words: tuple[str, ...] = ()
    _patterns: tuple[tuple[str, re.Pattern[str]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = tuple((word, re.compile(translate(check_glob(word).lower()))) for word in self.words)
        object.__setattr__(self, "_patterns", patterns)

    def naming(self, repo: Repo) -> str | None:
        """The first glob that names this repo; None where none does."""
        name, qualified = repo.name.lower(), f"{repo.kind.plural}/{repo.name}".lower()
        for word, pattern in self._patterns:
            if pattern.match(qualified if word.lower().startswith(_KINDS) else name):
                return word
        return None


def check_glob(word: str) -> str:
    """Give a glob back if a repo's name could match it.

    Raises:
        UsageError: none could.
    """
    parts = word.count("/") + 1 - word.lower().startswith(_KINDS)
    if _GLOB.fullmatch(word) is None or parts > 2:  # noqa: PLR2004  # organisation and name
        hint = "write ORG/NAME or ORG/*, with datasets/, spaces/ or models/ before it for one kind alone"
        raise UsageError(f"{word!r} names no repos", hint=hint)
    return word


@dataclass(frozen=True)
class Rules:
    """The operator's rules. Raises `UsageError` for what is no glob.

    Attributes:
        allow: globs of the repos that are given out; none is all.
        deny: globs of those that are not, whatever `allow` says.
        requests_per_minute: of one client; 0 is no limit.
        streams_per_client: files on their way to one client at once; 0 is no limit.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    requests_per_minute: int = 0
    streams_per_client: int = 0
    _allowed: Globs = field(init=False, repr=False, compare=False)
    _denied: Globs = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.requests_per_minute, self.streams_per_client) < 0:
            raise UsageError("a limit of less than nothing", hint="0 is no limit")
        object.__setattr__(self, "_allowed", Globs(self.allow))
        object.__setattr__(self, "_denied", Globs(self.deny))

    @property
    def names_repos(self) -> bool:
        """Whether they tell one repo from another."""
        return bool(self.allow or self.deny)

    def exclusion(self, repo: Repo) -> str | None:
        """The rule by which a repo is not given out, in words; None where it is."""
        denied = self._denied.naming(repo)
        if denied is not None:
            return f"deny {denied}"
        if self.allow and self._allowed.naming(repo) is None:
            return f"allow {', '.join(self.allow)}"
        return None

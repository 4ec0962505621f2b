"""Names: what a user types to say which repo, at which revision.

A repo is a kind and a name; `org/name`, or a bare legacy `name`. A revision is what was asked (branch, tag,
`refs/pr/N`, commit); a commit is the 40-digit hash it resolves to.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import total_ordering

from headrace.errors import UsageError

_NAME_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]*[A-Za-z0-9_\-])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF_PART_LIMIT = 255  # bytes in a file name: what was asked becomes one
_NAME_LIMIT = 96  # the hub's own limit for each part of a repo's name

DEFAULT_REVISION = "main"


@total_ordering
class RepoKind(enum.Enum):
    """The three kinds of repo a hub holds; the value is the singular word that hubs and users write."""

    MODEL = "model"
    DATASET = "dataset"
    SPACE = "space"

    def __lt__(self, other: RepoKind) -> bool:
        return self.value < other.value

    @property
    def plural(self) -> str:
        """The word in API paths and cache folders: `models`, `datasets`, `spaces`."""
        return f"{self.value}s"

    @property
    def url_prefix(self) -> str:
        """What precedes the name in file URLs: nothing for models, else the plural and a slash."""
        return "" if self is RepoKind.MODEL else f"{self.plural}/"


@dataclass(frozen=True, order=True)
class Repo:
    """A repo: `kind` and `name`. Raises `UsageError` for a name no hub could have."""

    name: str
    kind: RepoKind = RepoKind.MODEL

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        sound = (
            self.name.count("/") <= 1
            and all(len(part) <= _NAME_LIMIT and _NAME_PART.fullmatch(part) for part in parts)
            and ".." not in self.name
            and "--" not in self.name
        )
        if not sound:
            raise UsageError(
                f"{self.name!r} is not a repo name",
                hint="write ORG/NAME, for example sentence-transformers/all-MiniLM-L6-v2",
            )

    def __str__(self) -> str:
        return self.name

    @property
    def address(self) -> str:
        """The name with its kind in front where it is no model, as in hub URLs: `datasets/org/name`."""
        return self.kind.url_prefix + self.name


def parse_address(text: str) -> tuple[Repo, str]:
    """Read `[datasets/|spaces/]ORG/NAME[@REVISION]`; the revision is the default branch where none is written.

    Raises:
        UsageError: not such a thing.
    """
    name, revision = split_revision(text)
    for kind in (RepoKind.DATASET, RepoKind.SPACE):
        if name.startswith(kind.url_prefix):
            return Repo(name.removeprefix(kind.url_prefix), kind), revision or DEFAULT_REVISION
    return Repo(name), revision or DEFAULT_REVISION


def split_revision(text: str) -> tuple[str, str | None]:
    """Split `REPO@REV` at the first `@`; the revision is None where none is written.

    Raises:
        UsageError: an `@` with nothing behind it, or with what cannot be a revision.
    """
    name, at, revision = text.partition("@")
    if at and not revision:
        raise UsageError(f"{text!r} names no revision after @", hint="write REPO@BRANCH, or REPO alone")
    return name, check_revision(revision) if at else None


def check_revision(revision: str) -> str:
    """Give the revision back if it can be one: a git ref name or a hash.

    Raises:
        UsageError: characters or parts that git refuses in a ref and that would leave a folder of refs.
    """
    parts = revision.split("/")
    sound = (
        revision
        and all(part not in ("", ".", "..") for part in parts)
        and not any(character < " " or character in "\x7f ~^:?*[\\" for character in revision)
        # "ignore" leaves lone surrogates out: they cannot be sent, and stored only by luck
        and revision.encode(errors="ignore").decode() == revision
        and all(len(part.encode()) <= _REF_PART_LIMIT for part in parts)
    )
    if not sound:
        raise UsageError(
            f"{revision!r} is not a revision", hint="a branch, a tag, refs/pr/N or a commit hash"
        )
    return revision


def is_commit(revision: str) -> bool:
    """Whether this is a full commit hash, which never needs to be resolved."""
    return _COMMIT.fullmatch(revision) is not None

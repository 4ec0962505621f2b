"""Globs of repos, and what they make of names."""

from __future__ import annotations

import pytest

from headrace.errors import UsageError
from headrace.names import Repo, RepoKind
from headrace.node.access.rules import Globs, Rules

MODEL, DATA = Repo("Org/Name"), Repo("Org/Name", RepoKind.DATASET)


@pytest.mark.parametrize(
    ("glob", "named"),
    [
        ("Org/Name", (MODEL, DATA)),
        ("org/name", (MODEL, DATA)),
        ("org/*", (MODEL, DATA)),
        ("*", (MODEL, DATA)),
        ("*/n?me", (MODEL, DATA)),
        ("[oz]rg/*", (MODEL, DATA)),
        ("models/org/*", (MODEL,)),
        ("datasets/ORG/*", (DATA,)),
        ("models/*", (MODEL,)),
        ("m*", ()),
        ("org", ()),
        ("other/*", ()),
    ],
)
def test_what_a_glob_names(glob: str, named: tuple[Repo, ...]) -> None:
    globs = Globs((glob,))
    assert tuple(repo for repo in (MODEL, DATA) if globs.naming(repo) == glob) == named
    assert {globs.naming(repo) for repo in (MODEL, DATA)} <= {glob, None}


@pytest.mark.parametrize(
    "glob", ["", " ", "a/b/c", "datasets/a/b/c", "org/ name", "org/\n", "ü/x", "/org", "org/"]
)
def test_what_names_nothing_is_refused(glob: str) -> None:
    with pytest.raises(UsageError, match="names no repos"):
        Rules(deny=(glob,))


def test_deny_wins() -> None:
    rules = Rules(allow=("org/*", "legacy"), deny=("datasets/org/name",))
    assert rules.exclusion(MODEL) is None
    assert rules.exclusion(DATA) == "deny datasets/org/name"
    assert rules.exclusion(Repo("legacy")) is None
    assert rules.exclusion(Repo("other/x")) == "allow org/*, legacy"
    assert Rules().exclusion(MODEL) is None


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(UsageError):
        Rules(streams_per_client=-1)

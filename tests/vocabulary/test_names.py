"""A name or revision that could leave its folder, or that no hub could have, is refused."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UsageError
from headrace.names import Repo, RepoKind, check_revision, is_commit, parse_address, split_revision


@pytest.mark.parametrize(
    "name", ["gpt2", "org/name", "a/b", "0/1", "o.r-g/n_a.m-e", "_x/y_", "a" * 96 + "/" + "b" * 96]
)
def test_accepts_names(name: str) -> None:
    assert str(Repo(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "a/b/c",
        "..",
        "../x",
        "x/..",
        "a..b",
        "a--b",
        "-a",
        "a/-b",
        ".a",
        "a.",
        "a b",
        "a\n",
        "a\0",
        "a\\b",
        "a:b",
        "a%2fb",
        "café",
        "a" * 97,
        "\udcff",
    ],
)
def test_refuses_names(name: str) -> None:
    with pytest.raises(UsageError):
        Repo(name)


@given(st.text("aZ0_.-/", min_size=1, max_size=9))
def test_every_name_that_the_hub_has_is_a_name(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return
    assert Repo(name).name == name


def test_repos_can_be_sorted() -> None:
    kinds = [Repo("a", RepoKind.SPACE), Repo("a", RepoKind.MODEL), Repo("a", RepoKind.DATASET)]
    assert [repo.kind.value for repo in sorted(kinds)] == ["dataset", "model", "space"]
    assert max(kinds) >= min(kinds)


@pytest.mark.parametrize(
    "revision", ["main", "v1.0", "refs/pr/1", "feature/slash", "a" * 40, "a.b", ".hidden", "ünï", "a@b", "-x"]
)
def test_accepts_revisions(revision: str) -> None:
    assert check_revision(revision) == revision


@pytest.mark.parametrize(
    "revision",
    [
        "",
        ".",
        "..",
        "a/../b",
        "/main",
        "main/",
        "a//b",
        "a b",
        "a\n",
        "\0",
        "a\x7f",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[b",
        "a\\b",
        "\udcff",
        "a" * 256,
    ],
)
def test_refuses_revisions(revision: str) -> None:
    with pytest.raises(UsageError):
        check_revision(revision)


def test_a_revision_follows_the_first_at() -> None:
    assert split_revision("org/name") == ("org/name", None)
    assert split_revision("org/name@refs/pr/1") == ("org/name", "refs/pr/1")
    assert split_revision("org/name@a@b") == ("org/name", "a@b")
    for text in ("org/name@", "org/name@../x"):
        with pytest.raises(UsageError):
            split_revision(text)


def test_an_address_says_kind_name_and_revision() -> None:
    assert parse_address("org/name") == (Repo("org/name"), "main")
    assert parse_address("datasets/org/name@v1") == (Repo("org/name", RepoKind.DATASET), "v1")
    assert parse_address("spaces/name") == (Repo("name", RepoKind.SPACE), "main")
    assert parse_address(Repo("org/name", RepoKind.SPACE).address)[0] == Repo("org/name", RepoKind.SPACE)


def test_a_commit_is_forty_lower_case_digits() -> None:
    assert is_commit("0123456789" * 4)
    assert not any(map(is_commit, ["a" * 39, "a" * 41, "A" * 40, "g" * 40, "a" * 40 + "\n", ""]))

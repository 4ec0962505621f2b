"""The tokens of a node, as they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import Corrupt, UsageError
from headrace.names import Repo, RepoKind
from headrace.node.access.tokens import TokenBook, admin_token, hash_of
from headrace.node.memory.database import Database

NOW = 1_800_000_000.0


@pytest.fixture
def book(tmp_path: Path) -> Iterator[TokenBook]:
    database = Database.in_folder(tmp_path)
    yield TokenBook(database)
    database.close()


def test_what_is_kept_of_a_token(book: TokenBook) -> None:
    made, text = book.create("ci", ["org/*"], 60.0, NOW)
    assert book.by_hash() == {hash_of(text): made}
    assert [made.state(NOW + after) for after in (0, 59, 60)] == ["valid", "valid", "expired"]
    assert made.is_for(Repo("org/x", RepoKind.DATASET))
    assert not made.is_for(Repo("other/x"))
    every, other = book.create("every", [], None, NOW)
    assert other != text
    assert every.is_for(Repo("other/x"))
    assert every.state(NOW * 2) == "valid"


def test_revoked_is_for_good_and_a_number_never_means_another(book: TokenBook) -> None:
    first, _ = book.create("ci", [], None, NOW)
    revoked = book.revoke("ci", NOW + 1)
    assert revoked is not None
    assert revoked.state(NOW) == "revoked"
    assert book.revoke(str(first.id), NOW + 2) == revoked
    assert book.remove("ci") == revoked
    assert book.all() == []
    second, _ = book.create("ci", [], None, NOW)
    assert second.id > first.id
    assert (book.revoke("nobody", NOW), book.remove("99"), book.find("x")) == (None, None, None)


def test_whatever_changes_is_noticed(book: TokenBook) -> None:
    seen = [book.state()]
    book.create("a", [], None, NOW)
    seen.append(book.state())
    book.create("b", [], None, NOW)
    seen.append(book.state())
    book.revoke("a", NOW)
    seen.append(book.state())
    book.remove("a")
    book.revoke("b", NOW - 1)
    seen.append(book.state())
    book.remove("b")
    book.create("c", [], None, NOW)
    seen.append(book.state())
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("name", ["", "1", "-x", "a b", "a\n", "ü", "x" * 65, "taken"])
def test_names_that_are_none(book: TokenBook, name: str) -> None:
    book.create("taken", [], None, NOW)
    with pytest.raises(UsageError):
        book.create(name, [], None, NOW)
    assert len(book.all()) == 1


@pytest.mark.parametrize("life_s", [0.0, -1.0, 1e11, float("inf"), float("nan")])
def test_lives_that_are_none(book: TokenBook, life_s: float) -> None:
    with pytest.raises(UsageError, match="no time for which"):
        book.create("x", [], life_s, NOW)


def test_what_is_no_admin_token_is_told(tmp_path: Path) -> None:
    assert admin_token(tmp_path) == admin_token(tmp_path)
    (tmp_path / "admin.token").write_text("short\n")
    with pytest.raises(Corrupt, match="is no token"):
        admin_token(tmp_path)

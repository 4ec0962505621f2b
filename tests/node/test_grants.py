"""What is written down about callers and repos, and where a caller's token may go."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.manifest import Digest
from headrace.names import Repo
from headrace.node.access.caller import ANYBODY, Callers
from headrace.node.access.grants import Grants
from headrace.node.access.holders import Holder, Holders
from headrace.node.config import Upstream
from headrace.node.memory.database import Database

REPO, OTHER = Repo("org/x"), Repo("org/y")
DIGEST = Digest(Digest.SHA256, "a" * 64)
CALLER = Callers(b"key").of("Bearer hf_token")


def test_a_caller_is_known_by_a_hash_that_only_this_node_can_make() -> None:
    assert Callers(b"key").of("bearer  hf_token ") == CALLER
    assert CALLER.key != Callers(b"other").of("Bearer hf_token").key
    assert "hf_token" not in repr(CALLER) + CALLER.key
    assert Callers(b"key").of(None) is Callers(b"key").of("") is ANYBODY
    for garbage in (
        "Bearer",
        "Basic aGZfdG9rZW4=",
        "Bearer a b",
        "Bearer t\u00f6ken",
        f"Bearer {'a' * 5000}",
    ):
        told = Callers(b"key").of(garbage)
        assert (told.token, told.is_anybody) == ("", False)


def test_who_answers_late_gives_back_no_right(tmp_path: Path) -> None:
    grants = Grants(Database.in_folder(tmp_path))
    grants.grant(REPO, CALLER, 1.0)
    grants.grant(OTHER, CALLER, 1.0)
    grants.revoke(REPO, CALLER, 3.0)
    grants.grant(REPO, CALLER, 2.0)
    again = Grants(Database.in_folder(tmp_path))
    assert (again.at(REPO, CALLER), again.at(OTHER, CALLER)) == (None, 1.0)
    again.expel(OTHER, CALLER, 4.0)
    assert Grants(Database.in_folder(tmp_path)).at(OTHER, CALLER) is None


def test_what_is_forgotten_has_to_be_proved_again(tmp_path: Path) -> None:
    holders = Holders(Database.in_folder(tmp_path))
    holders.began(DIGEST, REPO)
    holders.began(DIGEST, OTHER)
    holders.prove(DIGEST, REPO)
    holders.left(DIGEST, REPO)  # what was proved stays so
    assert set(holders.of(DIGEST)) == {Holder(REPO, proven=True), Holder(OTHER, proven=False)}
    assert holders.knows(DIGEST, REPO)
    holders.forget(DIGEST)
    assert not holders.knows(DIGEST, REPO)
    assert not holders.of(DIGEST)


@pytest.mark.parametrize(
    ("url", "hears"),
    [("https://hub.example", True), ("http://127.0.0.1:8090", True), ("http://hub.example", False)],
)
def test_tokens_go_where_nobody_reads_them_on_the_way(url: str, *, hears: bool) -> None:
    assert Upstream("hub", url).hears_tokens is hears
    assert Upstream("hub", url, plain_http_token=True).hears_tokens

"""`headrace node token`, and a pull from a node that wants one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.cli.shell import TOKEN, Shell, Told, next_event

TEXT = re.compile(r"hrn_[A-Za-z0-9_-]{43}")


@contextmanager
def serving(headrace: Shell) -> Iterator[str]:
    """A node on the folder `data`; its endpoint."""
    process: subprocess.Popen[bytes] = headrace.start(
        "serve", "--json", "--listen", "127.0.0.1:0", "--data", "data"
    )
    try:
        yield next_event(process, lambda event: event["event"] == "ready")["endpoint"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@pytest.fixture
def token(headrace: Shell) -> Callable[..., Told]:
    """`token("list", …)` runs `headrace node token list … --data data`."""
    return lambda *words: headrace("node", "token", *words, "--data", "data")


def test_a_tokens_life(token: Callable[..., Told]) -> None:
    made = token("create", "ci", "--repo", "team/*", "--repo", "datasets/org/data", "--expires", "30d")
    assert (made.code, len(made.lines)) == (0, 1)
    assert TEXT.fullmatch(made.lines[0])
    assert "shown once" in made.err
    assert "answers nobody who shows none" in made.err
    second = token("create", "anna", "--json")
    told = json.loads(second.out)
    assert TEXT.fullmatch(told.pop("token"))
    assert "first" not in second.err
    first, anna = token("list", "--json").events
    assert anna == told
    assert first["repos"] == ["team/*", "datasets/org/data"]
    assert first["expires"] - first["created"] == 30 * 86400
    listed = token("list")
    assert [line.split()[:3] for line in listed.lines] == [
        ["id", "name", "state"],
        ["1", "ci", "valid"],
        ["2", "anna", "valid"],
    ]
    assert made.lines[0] not in listed.out
    assert "token 1 (ci) is revoked" in token("revoke", "ci").err
    assert "token 1 (ci) is removed" in token("remove", "1").err
    assert "it was the last one" in token("remove", "anna").err
    assert token("list").out == ""


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["create", "x", "--repo", "a/b/c"], 2, "'a/b/c' names no repos"),
        (["create", "x", "--expires", "soon"], 2, "'soon' is no time"),
        (["revoke", "nobody"], 10, "there is no node in"),
    ],
)
def test_what_makes_no_sense(token: Callable[..., Told], words: list[str], code: int, told: str) -> None:
    refused = token(*words)
    assert refused.code == code
    assert told in refused.err
    assert refused.out == ""


def test_a_pull_from_a_node_that_wants_a_token(headrace: Shell, token: Callable[..., Told]) -> None:
    narrow = token("create", "narrow", "--repo", "other/*").lines[0]
    text = token("create", "all").lines[0]
    with serving(headrace) as endpoint:
        told = headrace("pull", "org/tiny", HF_ENDPOINT=endpoint)
        assert told.code == 11
        assert "wants a token of its own" in told.err
        assert "hint: set HF_TOKEN to a token of this node (hrn_…)" in told.err
        wrong = headrace("pull", "org/tiny", "--json", HF_ENDPOINT=endpoint, HF_TOKEN=text + "x")
        assert wrong.code == 11
        assert wrong.events[-1]["event"] == "error"
        assert "wrong, expired or revoked" in wrong.err
        assert text not in wrong.err + wrong.out
        told = headrace("pull", "org/tiny", HF_ENDPOINT=endpoint, HF_TOKEN=narrow)
        assert told.code == 11
        assert "'narrow' is not for org/tiny" in told.err
        assert "who runs this node" in told.err
        told = headrace("pull", "org/private", HF_ENDPOINT=endpoint, HF_TOKEN=text)
        assert told.code in (10, 11)
        assert "set HF_TOKEN to hrn_…:hf_…" in told.err
        told = headrace("pull", "org/tiny", HF_ENDPOINT=endpoint, HF_TOKEN=text)
        assert told.code == 0, told.err
        assert headrace("node", "token", "revoke", "all", "--data", "data").code == 0
        time.sleep(2)
        assert (
            headrace("pull", "org/data", "--type", "dataset", HF_ENDPOINT=endpoint, HF_TOKEN=text).code == 11
        )


def test_a_node_that_is_open_says_what_its_hub_wants(headrace: Shell) -> None:
    with serving(headrace) as endpoint:
        for shown in ("", TOKEN):
            told = headrace("pull", "org/gated", HF_ENDPOINT=endpoint, HF_TOKEN=shown)
            assert told.code == 11
            assert "ask for access on the hub that this node mirrors" in told.err
            assert endpoint not in told.err.partition("hint:")[2]

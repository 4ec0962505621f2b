"""Who comes from another program is told what it is called here; and what a pull says on its way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli import habits
from headrace.cli.board import Board
from headrace.cli.lines import progress_line
from headrace.cli.picture import ASCII, Picture
from headrace.cli.root import COMMANDS
from headrace.events import BlobStarted, BytesLanded, PullStarted
from headrace.testing import ChaosHub
from tests.cli.shell import Shell

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["pull", "org/tiny", "--revision", "main"], "REPO@REVISION"),
        (["pull", "org/tiny", "--local-dir=x"], "--dest"),
        (["pull", "org/tiny", "--token", "hf_secret"], "HF_TOKEN"),
        (["pull", "org/tiny", "--max-workers", "8"], "--lanes"),
        (["pull", "org/tiny", "--repo-type", "dataset"], "--type"),
        (["pull", "org/tiny", "--cache-dir", "x"], "--cache DIR"),
        (["pull", "-x16", "org/tiny"], "--lanes"),
        (
            ["pull", "org/tiny", "config.json", "a b.json"],
            "pull org/tiny --include config.json --include 'a b.json'",
        ),
        (["download", "org/tiny"], "headrace pull"),
        (["pul", "org/tiny"], "headrace pull"),
    ],
)
def test_habits_are_known(headrace: Shell, arguments: list[str], word: str) -> None:
    told = headrace(*arguments)
    assert told.code == 2
    (hint,) = [line for line in told.err.splitlines() if line.startswith("hint: ")]
    assert word in hint
    assert "ean" not in told.err.splitlines()[0]  # no guess beside what is known
    assert "hf_secret" not in told.err


def test_hints_lead_to_what_there_is(headrace: Shell) -> None:
    options = {
        word.rstrip(",.:;") for hint in habits.OPTIONS.values() for word in hint.split() if word[:2] == "--"
    }
    known = headrace("pull", "--help").out
    assert [one for one in options if one not in known] == []
    assert not set(habits.OPTIONS) & {word.rstrip(",") for word in known.split()}
    assert {name.split()[0] for name in habits.COMMANDS.values()} <= set(COMMANDS)


def test_a_glob_among_several_that_matches_nothing_is_told(headrace: Shell) -> None:
    told = headrace("pull", "org/tiny", "--include", "*.json", "--include", "*.gguf")
    assert told.code == 0
    assert "warning: no file of org/tiny matches *.gguf" in told.err
    assert "matches *.json" not in told.err


def test_who_asks_for_a_gated_repo_is_told_where_to_ask_for_access(headrace: Shell) -> None:
    told = headrace("pull", "org/gated")
    assert told.code == 11
    assert f"{headrace.env['HF_ENDPOINT']}/org/gated" in told.err


def test_while_nobody_answers_it_says_for_how_long_it_will_try(headrace: Shell) -> None:
    told = headrace("pull", "org/tiny", HF_ENDPOINT="http://127.0.0.1:9", HEADRACE_GIVE_UP="1.5")
    assert told.code == 12
    assert any("(tried for " in line and "s at most); again" in line for line in told.err.splitlines())


@pytest.fixture
def node(tmp_path: Path, shelf: Path, headrace: Shell) -> Iterator[tuple[str, ChaosHub]]:
    """A node that believes nothing for long, and the hub it mirrors."""
    with ChaosHub(shelf) as hub:
        own = {"HEADRACE_REF_TTL": "0", "HEADRACE_DATA": str(tmp_path / "node")}
        process = headrace.start(
            "serve", "--json", "--listen", "127.0.0.1:0", "--source", f"hub={hub.endpoint}", **own
        )
        assert process.stdout is not None
        ready = process.stdout.readline().decode()
        try:
            yield ready.split('"endpoint": "')[1].split('"')[0], hub
        finally:
            process.terminate()
            process.communicate(timeout=20)


def test_what_a_node_warns_of_is_shown(node: tuple[str, ChaosHub], headrace: Shell) -> None:
    endpoint, hub = node
    assert headrace("pull", "org/tiny", HF_ENDPOINT=endpoint).code == 0
    hub.stop()
    told = headrace("pull", "org/tiny", HF_ENDPOINT=endpoint)
    assert told.code == 0
    assert told.err.count("the hub cannot be asked: this is what was known") == 1


def test_during_a_stall_it_says_how_long_nothing_came() -> None:
    board = Board()
    board.take(PullStarted("org/a", "model", "main", "c" * 40, 1, 30 * MIB, "hub"), 0.0)
    board.take(BlobStarted("b", "B", 30 * MIB, 0), 0.0)
    assert board.silent_s(20.0) is None  # nothing has begun to come
    board.take(BytesLanded("B", 0, 3 * MIB, "hub"), 1.0)
    assert board.silent_s(2.0) is None
    assert "0:" in progress_line(board, 1, 2.0)
    assert board.silent_s(13.0) == 12.0
    assert "no byte for 12 s" in progress_line(board, 1, 13.0)
    picture = Picture(board, "org/a", ASCII).draw(80, 4, 13.0).plain.splitlines()
    assert "no byte for 12 s" in picture[-1]
    assert max(map(len, picture)) <= 80
    board.take(BytesLanded("B", 3 * MIB, 4 * MIB, "hub"), 14.0)
    assert board.silent_s(14.0) is None


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("folder", ["", "transformer/", "a/rather/deep/folder/of/weights/"])
def test_shards_can_be_told_apart_on_a_narrow_terminal(width: int, folder: str) -> None:
    board = Board()
    board.take(PullStarted("org/a", "model", "main", "c" * 40, 30, 30 * MIB, "hub"), 0.0)
    for n in range(1, 7):
        board.take(BlobStarted(f"{folder}diffusion-model-{n:05}-of-00030.safetensors", str(n), MIB, 0), 0.0)
    rows = Picture(board, "org/a", ASCII).draw(width, 6, 1.0).plain.splitlines()
    names = [row.partition("  ")[0] for row in rows[:6]]
    assert len(set(names)) == 6
    assert all(f"{n:05}-of-00030" in name for n, name in enumerate(names, 1)) or width < 80

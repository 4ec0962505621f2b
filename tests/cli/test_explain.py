"""Who gave what and why: the summary of a pull from several sources, and `--explain`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.board import Board
from headrace.cli.explain import explanation
from headrace.cli.notes import Notes
from headrace.cli.picture import ASCII, Picture
from headrace.cli.summary import summarise
from headrace.events import (
    BlobRepaired,
    BlobStarted,
    BlocksAsked,
    BytesLanded,
    Done,
    Explained,
    PullStarted,
    SourceLied,
    SourceReturned,
    SourceStruck,
    as_json,
)
from headrace.testing import ChaosHub, Fault, content
from headrace.transfer.account import Account, SourceAccount
from tests.cli.shell import Shell, next_event
from tests.pull.mirrors import mirror, web_page

MIB = 1024 * 1024
UNUSED = SourceAccount("idle", 0, 0.0, 0.0, 0.0, 0, 0.0, 0, 0, 0, 0, "", (), "")
FAST = replace(
    UNUSED, name="fast", bytes=60 * MIB, share=0.6, work_s=10.0, rate=6.0 * MIB, lanes_most=4, answers=9
)
SLOW = replace(FAST, name="slow", bytes=40 * MIB, share=0.4, rate=4.0 * MIB, first_byte_s=0.12, lanes_most=1)
DONE = Done("org/x", "c" * 40, "/x", 3, 100 * MIB, 100 * MIB, 0, 10.0, {"fast": 60 * MIB, "slow": 40 * MIB})


def told(*sources: SourceAccount, **sums: Any) -> Explained:
    common: dict[str, Any] = {"seconds": 10.0, "retries": 0, "refetched_bytes": 0, "best": "", "saved_s": 0.0}
    return Account(sources, **(common | sums)).event()


def test_why_in_words() -> None:
    liar = replace(SLOW, name="liar", lied_about="model.bin", refetched_bytes=40 * MIB)
    page = replace(UNUSED, name="page", reasons=("answers with a web page where 'a' was expected",))
    down = replace(UNUSED, name="down", retries=3, trouble="cannot connect")
    shaky = replace(FAST, name="shaky", retries=2, trouble="reset", segments_given_away=1)
    lines = explanation(told(FAST, liar, page, down, shaky, UNUSED, best="fast", saved_s=6.6))
    assert (
        lines[0]
        == "fast: used, for 60.0 MiB (60 %), 6.0 MiB/s in the 10 s it was at work, up to 4 connections"
    )
    assert "1 connection, 120 ms to the first byte; gave wrong bytes of 'model.bin': 40.0 MiB" in lines[1]
    assert lines[2] == "page: not used: answers with a web page where 'a' was expected"
    assert lines[3] == "down: not used: failed 3 times, last: cannot connect"
    assert lines[4].endswith("failed 2 times, last: reset; others took over from it once")
    assert lines[5] == "idle: not asked: the others had taken all there was to fetch"
    assert lines[6] == "alone, at the rate it showed, fast would have taken about 6.6 s longer"


def test_nobody_is_asked_where_everything_is_here() -> None:
    (line,) = explanation(Explained(0.0, 0, 0, "", 0.0))
    assert "no source was asked" in line


def test_words_from_servers_are_harmless() -> None:
    (line,) = explanation(told(replace(UNUSED, name="a\x1b[2J", reasons=("b\x1b[31m\nc",))))
    assert line.isprintable()


def test_the_summary_of_several_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    page = replace(
        UNUSED, name="a-mirror", reasons=("answers with a web page where 'model.bin' was expected",)
    )
    shaky = replace(SLOW, retries=2, trouble="reset")
    sums = {"retries": 2, "refetched_bytes": MIB, "best": "fast", "saved_s": 6.6}
    summarise(DONE, told(FAST, shaky, page, UNUSED, **sums), 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "org/x: 3 files, 100 MiB, all verified, in 10 s"
    assert lines[1] == "  fast   60.0 MiB   60 %    6.0 MiB/s"
    assert lines[2] == "  slow   40.0 MiB   40 %    4.0 MiB/s  2 retries"
    assert lines[3] == "  2 retries, 1.0 MiB fetched again, about 6.6 s saved against fast alone"
    assert lines[4] == "  a-mirror was not used: answers with a web page where 'model.bin' was expected"
    assert len(lines) == 5


def test_the_summary_of_one_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    summarise(replace(DONE, sources={"fast": 100 * MIB}), told(FAST, UNUSED), MIB)
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  100 MiB from fast, 10.0 MiB/s",
        "  1.0 MiB did not have to be fetched",
    ]


def test_sources_at_work_are_seen_and_one_is_not_named() -> None:
    board = Board()
    board.take(PullStarted("org/x", "model", "main", "c" * 40, 1, 100 * MIB, "fast"), 0.0)
    board.take(BlobStarted("b", "B", 100 * MIB, 0), 0.0)
    board.take(BytesLanded("B", 0, 6 * MIB, "fast"), 1.0)
    assert len(drawn(board)) == 2
    board.take(BytesLanded("B", 6 * MIB, 10 * MIB, "a slow one\n"), 1.0)
    assert drawn(board)[-1] == r"from fast 6.0 MiB/s, a slow one\n 4.0 MiB/s"
    assert drawn(board, 40)[-1] == "from fast 6.0 MiB/s and 1 more"


def drawn(board: Board, width: int = 80) -> list[str]:
    return Picture(board, "org/x", ASCII).draw(width, 8, 1.0).plain.split("\n")


def test_what_becomes_of_sources_is_told() -> None:
    notes = Notes(verbose=False)
    struck = SourceStruck("m", "a", "D", "bad_answer", "m has other content at 'a'")
    assert notes.of(struck, 0.0) == "m has other content at 'a'; not asked for it again"
    assert notes.of(SourceReturned("m", 12.4), 0.0) == "m delivers again, after 12 s"
    assert (
        notes.of(SourceLied("m", "a", "D", 9), 0.0)
        == "m gave wrong bytes of a; others are asked in its stead"
    )


@pytest.fixture
def second(chaos: ChaosHub) -> Iterator[ChaosHub]:
    """Another hub with the content of the first."""
    with ChaosHub(chaos.root) as hub:
        yield hub


FLIPS = [Fault("flip", offset=offset) for offset in range(0, 20_000_000, 20_000)]


def test_a_liar_is_named_in_the_summary_and_by_explain(
    at_chaos: Shell, chaos: ChaosHub, second: ChaosHub
) -> None:
    chaos.set_faults(Fault("rate", rate=4_000_000))
    second.set_faults(Fault("rate", rate=4_000_000), *FLIPS)
    name = second.endpoint.removeprefix("http://")
    sources = ("--source", chaos.endpoint, "--source", second.endpoint)
    said = at_chaos("pull", "org/big", "--explain", *sources)
    assert said.code == 0
    assert Path(said.lines[-1], "model.safetensors").read_bytes() == content(12_000_000)
    assert f"{name} gave wrong bytes of model.safetensors" in said.err
    assert f"{name}: used, for" in said.err
    assert "fetched again" in said.err


def test_why_a_source_was_left_out_is_an_object_before_done(at_chaos: Shell, chaos: ChaosHub) -> None:
    with mirror(web_page) as endpoint:
        sources = ("--source", endpoint, "--source", chaos.endpoint)
        said = at_chaos("pull", "org/tiny", "--json", "--explain", *sources)
    explained, done = said.events[-2:]
    assert (explained["event"], done["event"]) == ("explained", "done")
    page, hub = explained["sources"].values()
    assert "web page" in page["why"]
    assert page["why"].startswith("not used: ")
    assert hub["why"].startswith("used, for")
    assert sum(one["bytes"] for one in explained["sources"].values()) == done["network_bytes"]


def test_where_nothing_is_fetched_it_says_so(headrace: Shell) -> None:
    headrace("pull", "org/tiny")
    said = headrace("pull", "org/tiny", "--explain")
    assert said.code == 0
    assert "everything was here already: no source was asked" in said.err
    explained, done = headrace("pull", "org/tiny", "--explain", "--json").events[-2:]
    assert (explained["event"], explained["sources"], done["event"]) == ("explained", {}, "done")


def test_without_the_option_json_has_no_account(at_chaos: Shell) -> None:
    assert "explained" not in {event["event"] for event in at_chaos("pull", "org/tiny", "--json").events}


def test_where_it_fails_it_is_explained_all_the_more(
    at_chaos: Shell, chaos: ChaosHub, second: ChaosHub
) -> None:
    for hub in (chaos, second):
        hub.set_faults(*FLIPS)
    sources = ("--source", chaos.endpoint, "--source", second.endpoint)
    said = at_chaos("pull", "org/tiny", "--explain", *sources)
    assert said.code == 13
    assert said.out == ""
    assert "fetched again" in said.err
    assert said.err.index("used, for") < said.err.index("error: ")


def test_killed_while_a_liars_bytes_are_replaced_the_next_pull_gets_the_right_file(
    at_chaos: Shell, chaos: ChaosHub, second: ChaosHub
) -> None:
    chaos.set_faults(Fault("total", rate=6_000_000))
    second.set_faults(Fault("total", rate=6_000_000), *FLIPS)
    sources = ("--source", chaos.endpoint, "--source", second.endpoint)
    with at_chaos.start("pull", "org/big", "--json", *sources) as process:
        next_event(process, lambda event: event["event"] == "blob_mismatch")
        process.kill()
    said = at_chaos("pull", "org/big", *sources)
    assert said.code == 0, said.err
    assert Path(said.lines[-1], "model.safetensors").read_bytes() == content(12_000_000)


def test_repaired_blocks_are_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    one = BlobRepaired("model.bin", "D", 512, 3, {"slow": 9, "": 2}, {"fast": 11})
    line = "model.bin: 3 of 512 blocks were wrong, from slow, an earlier run; fetched again from fast"
    account = told(FAST, SLOW, repairs=(one,))
    assert line in explanation(account)
    assert Notes(verbose=False).of(one, 0.0) == line
    asked = BlocksAsked("model.bin", "D", ("fast", "slow"))
    assert (
        Notes(verbose=False).of(asked, 0.0)
        == "model.bin does not match its digest: asking fast, slow which blocks are wrong"
    )
    summarise(DONE, account, 0)
    summarise(replace(DONE, sources={"fast": 100 * MIB}), told(FAST, repairs=(one,)), 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[3] == "  3 blocks repaired"
    assert lines[5] == "  100 MiB from fast, 10.0 MiB/s, 3 blocks repaired"
    assert json.loads(json.dumps(as_json(account)))["repairs"][0]["wrong"] == 3

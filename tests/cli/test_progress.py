"""The model behind the bars, and the picture drawn from it: fed with events, no clock, no terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli.board import Board, Stage
from headrace.cli.notes import Notes
from headrace.cli.picture import ASCII, Glyphs, Picture
from headrace.cli.words import clock, duration, part, percent, rate, safe, size
from headrace.events import (
    BlobAwaited,
    BlobFailed,
    BlobMismatch,
    BlobPublished,
    BlobStarted,
    BytesForgotten,
    BytesHashed,
    BytesLanded,
    Checking,
    Done,
    Event,
    FileReused,
    PullStarted,
    SegmentFailed,
    Warned,
)

MIB = 1024 * 1024
STARTED = PullStarted("org/tiny", "model", "main", "c" * 40, 3, 30 * MIB, "hub")


def board_of(*events: Event, step_s: float = 1.0) -> Board:
    board = Board()
    for index, event in enumerate(events):
        board.take(event, index * step_s)
    return board


def test_what_was_here_makes_no_rate() -> None:
    board = board_of(
        STARTED, FileReused("a", "A", 10 * MIB), BlobStarted("b", "B", 10 * MIB, resumed=5 * MIB)
    )
    assert (board.landed, board.earlier, board.rate(3.0), board.seconds_left(3.0)) == (
        15 * MIB,
        15 * MIB,
        0.0,
        None,
    )
    board.take(BytesLanded("B", 0, 2 * MIB, "hub"), 4.0)
    assert board.landed == 17 * MIB
    assert board.rate(4.0) == pytest.approx(MIB)  # 2 MiB in the two seconds since the fetch began
    assert board.seconds_left(4.0) == pytest.approx(13)


def test_a_rate_goes_down_when_nothing_comes() -> None:
    board = board_of(STARTED, BlobStarted("b", "B", 10 * MIB, 0), BytesLanded("B", 0, 5 * MIB, "hub"))
    assert board.rate(2.0) > board.rate(4.0) > 0
    assert board.rate(8.0) == 0
    assert board.seconds_left(8.0) is None


def test_landed_is_not_verified_is_not_in_place() -> None:
    board = board_of(STARTED, BlobStarted("b", "B", MIB, 0), BytesLanded("B", 0, MIB, "hub"))
    assert (board.landed, board.verified, board.files_in_place) == (MIB, 0, 0)
    board.take(BytesHashed("B", MIB), 3.0)
    assert (board.verified, board.files_in_place) == (MIB, 0)
    board.take(BlobPublished("b", "B", MIB, MIB), 4.0)
    assert (board.files_in_place, [one.stage for one in board.recent(5)]) == (1, [Stage.VERIFIED])


def test_skipped_events_are_made_up_for() -> None:
    board = board_of(STARTED, BlobStarted("b", "B", 4 * MIB, 0), BytesHashed("B", 3 * MIB))
    assert board.landed == 3 * MIB
    board.take(BlobPublished("b", "B", 4 * MIB, 4 * MIB), 3.0)
    assert board.landed == board.verified == 4 * MIB


def test_a_mismatch_takes_bytes_back() -> None:
    landed = (STARTED, BlobStarted("b", "B", 4 * MIB, MIB), BytesLanded("B", MIB, 4 * MIB, "hub"))
    board = board_of(
        *landed, BytesHashed("B", 4 * MIB), BytesForgotten("B", 0, 2 * MIB), BlobMismatch("b", "B", "x", 1)
    )
    assert (board.landed, board.verified, board.earlier) == (2 * MIB, 0, 0)
    assert board.active()[0].mismatched


def test_what_is_kept() -> None:
    board = board_of(
        STARTED,
        FileReused("a", "A", 3 * MIB),
        BlobStarted("big", "B", 8 * MIB, 0),
        BytesLanded("B", 0, 5 * MIB, "hub"),
        BlobStarted("small", "C", MIB, 0),
        BytesLanded("C", 0, MIB // 2, "hub"),
    )
    assert board.kept(least=4 * MIB) == 8 * MIB
    board.take(BlobFailed("big", "B", "digest_mismatch", ""), 9.0)
    assert board.kept(least=4 * MIB) == 3 * MIB


def test_checking_and_waiting_have_rows() -> None:
    board = board_of(
        STARTED, Checking("a", "A", 4 * MIB, MIB), BlobAwaited("b", "B", 4 * MIB, 2 * MIB, "pid 7")
    )
    assert [one.stage for one in board.active()] == [Stage.CHECKING, Stage.AWAITED]
    assert (board.verified, board.landed) == (0, 2 * MIB)
    board.take(Checking("c", "C", MIB, 0), 3.0)
    assert [one.path for one in board.active()] == ["b", "c"]


def draw(
    board: Board, width: int = 100, rows: int = 8, now: float = 9.0, glyphs: Glyphs = ASCII
) -> list[str]:
    return Picture(board, "org/tiny", glyphs).draw(width, rows, now).plain.split("\n")


def test_the_picture() -> None:
    board = board_of(
        STARTED,
        Checking("old.bin", "O", 8 * MIB, 2 * MIB),
        FileReused("a.bin", "A", 10 * MIB),
        BlobAwaited("other.bin", "C", 4 * MIB, MIB, "pid 7"),
        BlobStarted("b.bin", "B", 10 * MIB, 5 * MIB),
        BytesLanded("B", 5 * MIB, 8 * MIB, "hub"),
        BytesHashed("B", 4 * MIB),
    )
    reused, checked, awaited, fetched, total = draw(board, now=6.0)
    assert "100%" in reused
    assert reused.endswith("already here")
    assert "25%" in checked
    assert checked.endswith("checking")
    assert awaited.endswith("in other process")
    assert "=#" in fetched.replace("=" * 10, "=")
    assert " 80%" in fetched
    assert "8.0/10.0 MiB" in fetched
    assert fetched.endswith("0:01")
    assert total.startswith("1 of 3 files verified")
    assert "19.0/30.0 MiB" in total
    board.take(Done("org/tiny", "c" * 40, "/x", 3, 30 * MIB, 0, 0, 1.0), 9.0)
    assert "100%" in draw(board)[-1]


def test_rows_keep_their_place() -> None:
    board = board_of(STARTED, *(BlobStarted(name, name, MIB, 0) for name in "abcd"))
    picture = Picture(board, "org/tiny", ASCII)

    def names() -> list[str]:
        return [line[0] for line in picture.draw(80, 3, 9.0).plain.split("\n")]

    assert names() == ["a", "b", "c", "a", "0"]  # the fourth line says "and 1 file more"
    board.take(BlobPublished("b", "b", MIB, MIB), 9.0)
    assert names() == ["a", "d", "c", "1"]


def test_before_anything_is_known() -> None:
    assert draw(Board()) == ["org/tiny: asking for the list of files"]


@given(
    st.lists(st.tuples(st.text(max_size=80), st.integers(0, 2**50), st.integers(0, 2**50)), max_size=12),
    st.integers(20, 200),
    st.integers(1, 8),
)
def test_no_line_is_too_long_and_none_can_act(
    files: list[tuple[str, int, int]], width: int, rows: int
) -> None:
    board = board_of(STARTED)
    for index, (path, whole, landed) in enumerate(files):
        board.take(BlobStarted(path, str(index), whole, min(whole, landed) // 2), 1.0)
        board.take(BytesLanded(str(index), min(whole, landed) // 2, min(whole, landed), "hub"), 2.0)
    lines = draw(board, width, rows, glyphs=Glyphs())
    assert len(lines) <= rows + 2
    text = Picture(board, "x", Glyphs()).draw(width, rows, 3.0)
    assert all(line.cell_len <= width for line in text.split("\n"))
    assert all(line.isprintable() for line in lines)


def retry(source: str = "hub", code: str = "busy") -> SegmentFailed:
    return SegmentFailed("a", "A", source, "1.2.3.4", code, "answers 503", 2.0)


def test_the_same_thing_is_not_said_over_and_over() -> None:
    notes = Notes(verbose=False)
    assert notes.of(retry(), 0.0) == "hub: answers 503; again in 2 s"
    assert [notes.of(retry(), at) for at in (0.1, 1.0, 4.9)] == [None, None, None]
    assert notes.of(retry("other"), 1.0) == "other: answers 503; again in 2 s"
    assert notes.of(retry(), 5.0) == "hub: answers 503; again in 2 s (and 3 more like this)"
    assert Notes(verbose=True).of(retry(), 0.0) == "hub: answers 503; again in 2 s"


def test_notes_are_harmless() -> None:
    assert Notes(verbose=False).of(Warned("x", "a\x1b[2J\nb"), 0.0) == r"warning: a\x1b[2J\nb"


def test_numbers_in_words() -> None:
    assert [size(n) for n in (0, 999, 1000, 1023, 10 * MIB, 1.5 * 1024**4)] == [
        *("0 B", "999 B", "1.0 KiB", "1.0 KiB", "10.0 MiB", "1.5 TiB"),
    ]
    assert part(5 * MIB, 2048 * MIB) == "0.0/2.0 GiB"
    assert rate(112 * MIB) == "112 MiB/s"
    assert [clock(s) for s in (None, 1e9, 0.4, 61, 3723)] == ["-:--", "-:--", "0:00", "1:01", "1:02:03"]
    assert [duration(s) for s in (0.04, 9.96, 42, 185, 3720)] == [
        "0.0 s",
        "10.0 s",
        "42 s",
        "3 min 5 s",
        "1 h 2 min",
    ]
    assert [percent(*pair) for pair in ((0, 10), (1, 3), (10, 10), (0, 0))] == [0, 33, 99, 99]


@given(st.text())
def test_safe_text_is_printable_and_ordinary_text_unchanged(text: str) -> None:
    assert safe(text).isprintable()
    if text.isprintable():
        assert safe(text) == text

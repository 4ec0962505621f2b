"""What is said in words while a pull runs: retries, mismatches, waits, warnings. Never the same thing over and over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.cli.explain import repair
from headrace.cli.words import duration, percent, safe, size
from headrace.events import (
    BlobAwaited,
    BlobFailed,
    BlobMismatch,
    BlobPublished,
    BlobRepaired,
    BlobStarted,
    BlocksAsked,
    Event,
    FileReused,
    PullStarted,
    SegmentFailed,
    SegmentOpened,
    SourceLied,
    SourceReturned,
    SourceSilent,
    SourceStruck,
    Warned,
    WritingInOrder,
    as_json,
)

_QUIET_S = 5.0  # how long the same thing is not said again
_COMMIT_DIGITS = 12


class Notes:
    """Turns events into lines; remembers what was said.

    Args:
        verbose: tell of every file and every connection.
    """

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._said: dict[tuple[str, ...], float] = {}
        self._unsaid: dict[tuple[str, ...], int] = {}

    def of(self, event: Event, now: float) -> str | None:
        """The line that tells of this event, safe for a terminal, if one should be written now."""
        told = _ALWAYS.get(type(event)) or (_VERBOSE.get(type(event)) if self._verbose else None)
        if told is None:
            return None
        topic, text = told(event)
        if topic and not self._verbose and now - self._said.get(topic, float("-inf")) < _QUIET_S:
            self._unsaid[topic] = self._unsaid.get(topic, 0) + 1
            return None
        if topic:
            self._said[topic] = now
        more = self._unsaid.pop(topic, 0)
        return safe(f"{text} (and {more} more like this)" if more else text)


_Told = tuple[tuple[str, ...], str]


def _started(event: PullStarted) -> _Told:
    if event.kind == "file":
        return (), f"{event.repo}: {size(event.bytes)}, verified by the digest in {event.trusted}"
    kind = "" if event.kind == "model" else f"{event.kind} "
    revision = event.revision if event.revision != event.commit else ""
    commit = event.commit[:_COMMIT_DIGITS]
    where = f"{revision} ({commit})" if revision else commit
    many = "1 file" if event.files == 1 else f"{event.files:,} files"
    return (), f"{kind}{event.repo} at {where}: {many}, {size(event.bytes)}, as listed by {event.trusted}"


def _segment_failed(event: SegmentFailed) -> _Told:
    wait = f"again in {event.retry_in_s:.0f} s" if event.retry_in_s >= 1 else "again at once"
    told = event.message if event.message.startswith(event.source) else f"{event.source}: {event.message}"
    return (event.source, event.code), f"{told}; {wait}"


def _silent(event: SourceSilent) -> _Told:
    return (
        event.source,
        "silent",
    ), f"{event.source} has sent nothing for {event.silent_s:.0f} s; still waiting"


def _struck(event: SourceStruck) -> _Told:
    told = event.message if event.message.startswith(event.source) else f"{event.source}: {event.message}"
    what = "asked for it in one stream only" if event.code == "range_ignored" else "not asked for it again"
    return (event.source, "struck", event.code), f"{told}; {what}"


def _returned(event: SourceReturned) -> _Told:
    return (event.source, "returned"), f"{event.source} delivers again, after {duration(event.after_s)}"


def _lied(event: SourceLied) -> _Told:
    return (), f"{event.source} gave wrong bytes of {event.path}; others are asked in its stead"


def _mismatch(event: BlobMismatch) -> _Told:
    again = f"fetching {size(event.refetch)} of it again"
    return (), f"{event.path} is not what was promised: its digest does not match; {again}"


def _asked(event: BlocksAsked) -> _Told:
    whom = ", ".join(event.sources)
    return (), f"{event.path} does not match its digest: asking {whom} which blocks are wrong"


def _repaired(event: BlobRepaired) -> _Told:
    return (), repair(as_json(event))


def _awaited(event: BlobAwaited) -> _Told:
    far = f"{percent(event.landed, event.size)} % of {size(event.size)}"
    return ("awaited",), f"{event.path}: {event.holder} is fetching it and has {far}; waiting for it"


def _warned(event: Warned) -> _Told:
    return (event.topic, event.message), f"warning: {event.message}"


def _failed(event: BlobFailed) -> _Told:
    return ("failed",), f"{event.path}: failed ({event.code.replace('_', ' ')})"


def _file_started(event: BlobStarted) -> _Told:
    resumed = f", {size(event.resumed)} of it from an earlier attempt" if event.resumed else ""
    return (), f"{event.path}: fetching {size(event.size)}{resumed}"


def _opened(event: SegmentOpened) -> _Told:
    span = f"{size(event.stop - event.start)} from byte {event.start:,}"
    return (), f"{event.source} ({event.address}) answers after {event.first_byte_s * 1000:.0f} ms: {span}"


def _published(event: BlobPublished) -> _Told:
    return (), f"{event.path}: verified, {event.digest}"


def _reused(event: FileReused) -> _Told:
    where = f"copied from {event.place}" if event.place else "was here already"
    return (), f"{event.path}: verified, {where}"


def _in_order(event: WritingInOrder) -> _Told:
    return (), f"writing in order, with few lanes: {event.why}"


_ALWAYS: dict[type[Event], Callable[[Any], _Told]] = {
    PullStarted: _started,
    SegmentFailed: _segment_failed,
    SourceSilent: _silent,
    SourceStruck: _struck,
    SourceReturned: _returned,
    SourceLied: _lied,
    BlobMismatch: _mismatch,
    BlocksAsked: _asked,
    BlobRepaired: _repaired,
    BlobAwaited: _awaited,
    Warned: _warned,
}
_VERBOSE: dict[type[Event], Callable[[Any], _Told]] = {
    BlobFailed: _failed,
    BlobStarted: _file_started,
    SegmentOpened: _opened,
    BlobPublished: _published,
    FileReused: _reused,
    WritingInOrder: _in_order,
}

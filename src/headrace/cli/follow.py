"""Follows a pull: hands its events to whatever shows them, and says at the end what it came to."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import click

from headrace.cli.board import Board
from headrace.cli.explain import explanation
from headrace.cli.jsonlines import JsonLines
from headrace.cli.lines import Lines
from headrace.cli.notes import Notes
from headrace.cli.summary import summarise
from headrace.cli.talk import is_terminal, log_to_stderr, say
from headrace.cli.words import part
from headrace.errors import Interrupted
from headrace.events import Event
from headrace.transfer.dispatch import Subscriber
from headrace.wire import shown


@dataclass(frozen=True)
class Manner:
    """How much to say, and in which form; `explain`: at the end, why each source was used or not."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    explain: bool = False


class View(Protocol):
    """Shows events to somebody."""

    def take(self, event: Event, now: float) -> None:
        """An event came; the board has it already. On the events' thread."""

    def close(self) -> None:
        """No more will come."""


@contextmanager
def following(what: str, manner: Manner) -> Iterator[Subscriber]:
    """Show a pull of `what` while this holds. An interruption is told with what was kept and how to go on."""
    board, lock = Board(), threading.RLock()
    views = _views(board, manner, lock, what)
    failures: list[Exception] = []

    def on_event(event: Event) -> None:
        now = time.monotonic()
        with lock:
            board.take(event, now)
        try:
            # Not under the lock: a view may wait for a frame that is being drawn, which waits for the lock.
            for view in views:
                view.take(event, now)
        except Exception as error:
            # The engine goes on without us, and logs that; the command must not end as if all were told.
            failures.append(error)
            log_to_stderr("WARNING")
            raise

    try:
        yield on_event
    except (KeyboardInterrupt, Interrupted):
        from headrace.store.partial import JOURNALLED_FROM_BYTES  # noqa: PLC0415 - only now

        kept = f"{part(board.kept(JOURNALLED_FROM_BYTES), board.total, ' of ')} are kept"
        message = f"interrupted: {kept}" if board.started else "interrupted before anything was fetched"
        raise Interrupted(message, hint=f"to go on: {_command_line()}") from None
    finally:
        for view in views:
            view.close()
        _tell_the_end(board, manner)
    if failures:
        raise failures[0]


def _tell_the_end(board: Board, manner: Manner) -> None:
    """What a pull came to; and why, which is asked for most where it failed."""
    if manner.quiet:
        return
    if board.done is not None:
        summarise(board.done, board.explained, board.earlier)
    if manner.explain and board.explained is not None:
        for line in explanation(board.explained):
            say(line)


def _command_line() -> str:
    """The running command as it was typed, quoted for a shell: a hint that can be pasted, unless it has secrets."""
    if any("://" in word and shown(word) != word for word in sys.argv[1:]):  # signatures end in logs
        return "the same command again"
    root = click.get_current_context().find_root()
    return f"{root.info_name} {shlex.join(sys.argv[1:])}"


def _views(board: Board, manner: Manner, lock: threading.RLock, what: str) -> list[View]:
    views: list[View] = [JsonLines(board, explain=manner.explain)] if manner.json else []
    if manner.quiet:
        return views
    notes = Notes(verbose=manner.verbose)
    # JSON lines on the same screen would tear the bars apart.
    clash = manner.json and sys.stdout is not None and sys.stdout.isatty()
    if is_terminal() and not clash:
        from headrace.cli.bars import Bars  # noqa: PLC0415 - rich takes as long to import as all the rest

        return [*views, Bars(board, notes, lock, what)]
    return [*views, Lines(board, notes)]

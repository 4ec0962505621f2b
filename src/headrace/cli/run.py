"""`headrace run`."""

from __future__ import annotations

import functools
import os
import signal
from typing import Any

import click

from headrace.cli.endpoint import with_environment
from headrace.cli.options import Command
from headrace.cli.talk import say
from headrace.cli.words import duration, files, safe, size
from headrace.settings import load_settings

TYPE_CHECKING = False  # as type checkers understand it, and without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.errors import HeadraceError
    from headrace.events import Event
    from headrace.facade.client import Snapshot
    from headrace.settings import Settings

EXAMPLES = """\b
Examples:
  headrace run -- hf download org/model
  headrace run -- python train.py
  headrace run --for org/model -- vllm serve org/model
  headrace run --prefetch org/model -- python app.py

\b
The exit code is the command's; 127 where there is no such command, 126 where
it cannot be run.
"""
_NOT_RUN, _NOT_FOUND = 126, 127  # as POSIX has it for env, nohup and the shell


def with_prefetch(command: Command) -> Command:
    """`--prefetch`, `--quiet` and `--verbose`: what is to be brought is on its way before `command` is called."""

    @click.option(
        "--prefetch",
        "repos",
        multiple=True,
        metavar="REPO[@REVISION]",
        help="Bring this model while the command begins; may be repeated.",
    )
    @click.option("-q", "--quiet", is_flag=True, help="Say nothing of what is prefetched.")
    @click.option(
        "-v", "--verbose", is_flag=True, help="Say what is prefetched, how far it is, and what went wrong."
    )
    @functools.wraps(command)
    def wrapped(*, repos: tuple[str, ...], quiet: bool, verbose: bool, **others: Any) -> Any:
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other")
        if repos:
            _begin(repos, quiet=quiet, verbose=verbose)
        return command(**others)

    return wrapped


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=EXAMPLES,
    short_help="Run a command with the best endpoint.",
)
@with_prefetch
@with_environment
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def run(command: tuple[str, ...], variables: dict[str, str]) -> int:
    """Run a command that speaks to a hub, with the variables that `headrace env` prints.

    The command takes this process's place: input, output, terminal, signals and exit code are its own.

    With --prefetch another process brings models into the cache meanwhile, one after the other, and ends with the
    command. What it cannot bring is told in one line, and is no reason not to run. A program that loads with
    Headrace reads what has landed; one that uses the hub's own client waits for the files and finds them in place.
    """
    os.environ.update(variables)
    # Python ignores these, and what it ignores stays ignored in what it becomes.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606  # no shell is wanted
    except OSError as error:
        say(f"cannot run {safe(command[0])}: {error.strerror}", mark="error: ", color="red")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUN


def _begin(repos: tuple[str, ...], *, quiet: bool, verbose: bool) -> None:
    from headrace.cli.beside import beside_this_process  # noqa: PLC0415  # only who prefetches waits for these
    from headrace.names import parse_address  # noqa: PLC0415

    for repo in repos:
        parse_address(repo)  # a name that can be none is a mistake, not bad luck
    settings = load_settings()
    try:
        beside_this_process(_Prefetching(settings, repos, quiet=quiet, verbose=verbose))
    except OSError as error:
        if not quiet:
            say(f"nothing is prefetched: {error.strerror}", mark="warning: ", color="yellow")


class _Prefetching:
    """A head start that is told of on standard error: what fails, and what happens, where that is wanted."""

    def __init__(self, settings: Settings, repos: tuple[str, ...], *, quiet: bool, verbose: bool) -> None:
        from headrace.facade.headstart import HeadStart  # noqa: PLC0415  # only who prefetches waits for it

        self._start = HeadStart(settings, self._take if verbose else None)
        self._lines: Callable[[Event], None] | None = None
        self._repos = repos
        self._quiet = quiet
        self._verbose = verbose

    def run(self) -> None:
        self._start.run(self._repos, self._tell)

    def stop(self) -> None:
        self._start.stop()

    def _take(self, event: Event) -> None:
        if self._lines is None:
            self._lines = _plain_lines()
        self._lines(event)

    def _tell(self, repo: str, outcome: Snapshot | HeadraceError) -> None:
        from headrace.errors import HeadraceError  # noqa: PLC0415  # known by now

        self._lines = None  # what comes next is of the next repo
        if isinstance(outcome, HeadraceError):
            if not self._quiet:
                why = safe(" ".join(outcome.message.splitlines()))
                say(f"{safe(repo)} is not prefetched: {why}", mark="warning: ", color="yellow")
        elif self._verbose:
            what = f"{files(outcome.files)}, {size(outcome.bytes)}, {size(outcome.network_bytes)} fetched"
            say(f"{safe(repo)} is prefetched: {what}, {duration(outcome.seconds)}")


def _plain_lines() -> Callable[[Event], None]:
    """Says of one repo what `pull` says where nobody looks; the terminal is the command's, and has no bars of ours."""
    import time  # noqa: PLC0415  # only who wants to hear of it waits for these

    from headrace.cli.board import Board  # noqa: PLC0415
    from headrace.cli.lines import Lines  # noqa: PLC0415
    from headrace.cli.notes import Notes  # noqa: PLC0415

    board = Board()
    lines = Lines(board, Notes(verbose=False), "prefetch: ")

    def take(event: Event) -> None:
        now = time.monotonic()
        board.take(event, now)
        lines.take(event, now)

    return take

"""How a failure is told: one line with what and where, a hint what to do, an exit code; a traceback never."""

from __future__ import annotations

import re
import sys
import traceback
from dataclasses import dataclass

import click

from headrace.cli.exits import BUG, exit_code
from headrace.cli.habits import hint_for
from headrace.cli.interrupt import INTERRUPTED
from headrace.cli.output import put_json
from headrace.cli.talk import say
from headrace.cli.words import safe
from headrace.errors import HeadraceError, Interrupted, StoreError, UsageError
from headrace.settings.environment import is_debugging

OPTIONS = {
    "data": "--data",
    "dest": "--dest",
    "exclude": "--exclude",
    "listen": "--listen",
    "offline": "--offline",
    "quota": "--quota",
    "repo": "--repo",
    "sha256": "--sha256",
    "source": "--source",
    "sources": "--source",
    "tls_cert": "--tls-cert",
    "tls_key": "--tls-key",
}
"""How what hints name is said on the command line: an argument or a setting, by its name in Python."""

_NAMED = re.compile(r"`(\w+)`")


@dataclass(frozen=True)
class Failure:
    """What went wrong, as it is told to people and programs."""

    code: str
    message: str
    hint: str | None
    exit: int


def failure_of(error: BaseException) -> Failure:
    """What to tell about an exception, expected or not."""
    if isinstance(error, HeadraceError):
        return Failure(error.code, error.message, in_options(error.hint), exit_code(type(error)))
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return failure_of(Interrupted("interrupted"))
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        habit = hint_for(error.option_name) if isinstance(error, click.NoSuchOption) else None
        hint = habit or (f"`{context.command_path} --help` tells what can be said" if context else None)
        # What click would guess from the spelling is wrong where it is known what was meant.
        message = error.message if habit else error.format_message()
        return failure_of(UsageError(message.rstrip("."), hint=hint))
    message = f"unexpected {type(error).__name__}: {error}; this is a bug"
    return Failure("bug", message, "set HEADRACE_DEBUG=1 to see where, and report it", BUG)


def in_options(hint: str | None) -> str | None:
    """A hint for who types: where it names an argument or a setting, it names the option."""
    return hint and _NAMED.sub(lambda named: OPTIONS.get(named[1], named[0]), hint)


def report(error: BaseException, *, as_json: bool) -> int:
    """Tell of a failure, on standard error and, if wanted, as the last JSON object; its exit code is the answer."""
    failure = failure_of(error)
    if is_debugging():
        traceback.print_exception(error, file=sys.stderr)
    if as_json:
        failure = _told_as_json(failure)
    # Who pressed Ctrl-C knows that it is no error.
    say(_one_line(failure.message), mark="error: " if failure.exit != INTERRUPTED else "", color="red")
    if failure.hint:
        say(_one_line(failure.hint), mark="hint: ", color="cyan")
    return failure.exit


def _told_as_json(failure: Failure) -> Failure:
    facts = {"code": failure.code, "message": failure.message, "hint": failure.hint, "exit": failure.exit}
    try:
        put_json({"event": "error", **facts})
    except StoreError as error:
        return failure_of(error)
    return failure


def _one_line(text: str) -> str:
    return safe(" ".join(text.splitlines()))

"""`headrace run`."""

from __future__ import annotations

import os
import signal

import click

from headrace.cli.endpoint import with_environment
from headrace.cli.talk import say
from headrace.cli.words import safe

EXAMPLES = """\b
Examples:
  headrace run -- hf download org/model
  headrace run -- python train.py
  headrace run --for org/model -- vllm serve org/model

\b
The exit code is the command's; 127 where there is no such command, 126 where
it cannot be run.
"""
_NOT_RUN, _NOT_FOUND = 126, 127  # as POSIX has it for env, nohup and the shell


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=EXAMPLES,
    short_help="Run a command with the best endpoint.",
)
@with_environment
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def run(command: tuple[str, ...], variables: dict[str, str]) -> int:
    """Run a command that speaks to a hub, with the variables that `headrace env` prints.

    The command takes this process's place: input, output, terminal, signals and exit code are its own.
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

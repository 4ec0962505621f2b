"""`headrace`: finds the command, runs it, and tells of failures the same way for all of them."""

from __future__ import annotations

import importlib
import sys

import click

from headrace import __version__
from headrace.cli.habits import stranger
from headrace.cli.interrupt import in_two_stages
from headrace.cli.output import prepare_streams
from headrace.cli.report import report
from headrace.cli.talk import log_to_stderr
from headrace.settings.environment import is_debugging

# name → what it is for, as its own help begins. A command is a module of this package, imported when it is run:
# `headrace --help` and `headrace pull` must not wait for a server's or a tensor library's import.
COMMANDS = {
    "pull": "Get a repo's files, every byte verified.",
    "lock": "Write down what repos hold, to pull it again exactly.",
    "serve": "Run a mirror node.",
    "node": "Rule a mirror node: its tokens, what it keeps.",
    "sources": "The places bytes come from: list, probe, choose.",
    "urls": "Where files can be had, for aria2, wget, curl and others.",
    "env": "Shell lines that lead other tools to the best endpoint.",
    "run": "Run a command with the best endpoint.",
    "config": "Show settings and where they come from.",
    "bench": "Measure this machine and its line.",
    "demo": "The whole road once, on a real model, measured.",
}

EPILOG = """\b
Examples:
  headrace pull sentence-transformers/all-MiniLM-L6-v2
  headrace pull --help

\b
Completion of commands and options, for bash (zsh, fish likewise):
  eval "$(_HEADRACE_COMPLETE=bash_source headrace)"
"""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is run, and not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of this name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"headrace.cli.{cmd_name}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"headrace.cli.{cmd_name} has no command {cmd_name}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant; what is none is answered with what there is."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise stranger(args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """Write the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@click.pass_context
def headrace(context: click.Context) -> None:
    """Pull large models from hubs, verified and resumable; serve them from mirrors."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run() -> int:
    """Run the command line; the exit code is the answer."""
    prepare_streams()
    if is_debugging():
        log_to_stderr("DEBUG")
    with in_two_stages():
        try:
            code = headrace.main(prog_name="headrace", standalone_mode=False)
        except SystemExit:
            raise
        except (
            click.exceptions.NoArgsIsHelpError
        ) as error:  # a group alone asks what there is, as `headrace` does
            click.echo(error.ctx.get_help())
            return 0
        except BaseException as error:  # noqa: BLE001 - the process's outermost frame: nobody else tells of it
            return report(error, as_json="--json" in _own_words(sys.argv))
    return code if isinstance(code, int) else 0


def _own_words(words: list[str]) -> list[str]:
    """The command line without that of the program that `run` runs: standard output is that program's."""
    return [] if words[1:2] == ["run"] else words

"""`headrace env`."""

from __future__ import annotations

import re

import click

from headrace.cli.endpoint import with_environment
from headrace.cli.output import put_json, put_line
from headrace.cli.tools.names import quoted

EXAMPLES = """\b
Examples:
  eval "$(headrace env)" && hf download org/model
  headrace env --shell fish | source
  headrace env --probe
"""
_POWERSHELL = re.compile("['\u2018\u2019\u201a\u201b]")  # all of these end its quotes
_LINES = {"sh": "export {}={}", "fish": "set -gx {} {}", "powershell": "$env:{} = {}"}


@click.command(epilog=EXAMPLES, short_help="Shell lines that lead other tools to the best endpoint.")
@with_environment
@click.option(
    "--shell", type=click.Choice(list(_LINES)), default="sh", show_default=True, help="Who reads the lines."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all variables.")
def env(variables: dict[str, str], shell: str, *, as_json: bool) -> None:
    """Print shell lines that lead hub clients to the best endpoint: the first hub in use.

    `headrace sources use` says which that is; without it, it is what is configured. Other tools believe the endpoint
    they are given. No token is printed, and where yours may not go they are told not to send it.
    """
    if as_json:
        put_json(variables)
        return
    for name, value in variables.items():
        inside = "'" + _POWERSHELL.sub(r"\g<0>\g<0>", value) + "'" if shell == "powershell" else quoted(value)
        put_line(_LINES[shell].format(name, inside))

"""`headrace demo`."""

from __future__ import annotations

import click

from headrace.cli.follow import Manner, following
from headrace.cli.talk import log_to_stderr

EXAMPLES = """\b
Examples:
  headrace demo
  headrace demo --repo sentence-transformers/all-MiniLM-L6-v2 --source https://huggingface.co
"""


@click.command(epilog=EXAMPLES, short_help="The whole road once, on a real model, measured.")
@click.help_option("-h", "--help")
@click.option("--repo", metavar="ORG/NAME", help="A repo of a real hub, instead of the packaged model.")
@click.option("--source", metavar="URL", help="That hub.  [default: https://huggingface.co]")
def demo(repo: str | None, source: str | None) -> None:
    """Get a real model over one connection, with Headrace, and through a node; then ask it a question.

    Without options nothing leaves this machine: a far hub is played by a server here (2 MiB/s a connection, 150 ms
    to each first byte) that holds the real all-MiniLM-L6-v2.
    """
    from headrace.demo.run import run_demo  # noqa: PLC0415  # the demo brings a server and PyTorch along

    log_to_stderr("WARNING")
    run_demo(repo, source, lambda stage: following(stage, Manner()))

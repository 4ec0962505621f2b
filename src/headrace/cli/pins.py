"""The pins of a node: `pin`, `unpin` and `pins`, on its data folder, whether it runs or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli.options import FOLDER
from headrace.cli.output import put_json, put_line
from headrace.cli.talk import say
from headrace.cli.words import safe
from headrace.errors import NotFound, UsageError
from headrace.names import parse_address
from headrace.settings import load_settings

if TYPE_CHECKING:
    from headrace.node.disk.pins import Pins

PIN_EXAMPLES = """\b
Examples:
  headrace node pin Qwen/Qwen3-8B
  headrace node pin Qwen/Qwen3-8B@v1 --data /srv/headrace
"""
UNPIN_EXAMPLES = """\b
Examples:
  headrace node unpin Qwen/Qwen3-8B
"""
PINS_EXAMPLES = """\b
Examples:
  headrace node pins
  headrace node pins --json | jq -r .repo
"""
_SHORT = 12  # hex digits of a commit, for people
_DATA = click.option("--data", type=FOLDER, metavar="DIR", help="The node's data folder, as for serve.")


@click.command(epilog=PIN_EXAMPLES, short_help="Keep what a repo holds, however much room is wanted.")
@click.argument("repo", metavar="REPO[@REVISION]")
@_DATA
def pin(repo: str, data: Path | None) -> None:
    """Keep what a repo holds, as far as it is here and as it comes, however much room is wanted.

    A branch is followed: once it means another commit, that one's files are kept. Nothing is fetched.
    """
    named, revision = parse_address(repo)
    with _pins(data) as kept:
        kept.pin(named, revision)
    say(f"{safe(repo)} is pinned")


@click.command(epilog=UNPIN_EXAMPLES, short_help="Let a repo's files go when room is wanted.")
@click.argument("repo", metavar="REPO[@REVISION]")
@_DATA
def unpin(repo: str, data: Path | None) -> None:
    """Let a repo's files go when room is wanted."""
    named, revision = parse_address(repo)
    with _pins(data) as kept:
        was = kept.unpin(named, revision)
    if not was:
        raise NotFound(f"{repo} is not pinned", hint="headrace node pins shows what is")
    say(f"{safe(repo)} is pinned no more")


@click.command(epilog=PINS_EXAMPLES, short_help="Show what is pinned.")
@_DATA
@click.option("--json", "as_json", is_flag=True, help="One JSON object per pin.")
def pins(data: Path | None, *, as_json: bool) -> None:
    """Show what is pinned, and which commit that is now."""
    with _pins(data) as kept:
        found = kept.all()
    for one in found:
        name = f"{one.repo.address}@{one.revision}"
        if as_json:
            facts = {
                "repo": one.repo.address,
                "revision": one.revision,
                "commit": one.commit,
                "since": one.at,
            }
            put_json(facts)
        else:
            put_line(f"{safe(name)}  {one.commit[:_SHORT] if one.commit else 'not asked for yet'}")
    if not found and not as_json:
        say("nothing is pinned")


COMMANDS = (pin, unpin, pins)
"""For the group of commands about a node."""


@contextmanager
def _pins(data: Path | None) -> Iterator[Pins]:
    folder: Path = load_settings(data=data)["data"].absolute()
    if not (folder / "catalog.sqlite").is_file():
        raise UsageError(f"{folder} is no data folder of a node", hint="name the one of `serve` with --data")
    try:
        from headrace.node.disk.pins import Pins  # noqa: PLC0415 - brings a database along
        from headrace.node.memory.database import Database  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise UsageError(f"a node needs {error.name}", hint="pip install 'headrace[serve]'") from error
    database = Database.in_folder(folder)
    try:
        yield Pins(database)
    finally:
        database.close()

"""`headrace node`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli import pins
from headrace.cli.options import FOLDER
from headrace.cli.output import put_json, put_line
from headrace.cli.talk import say
from headrace.cli.words import safe
from headrace.errors import NotFound, UsageError
from headrace.settings import load_settings

if TYPE_CHECKING:
    from headrace.node.access.tokens import TokenBook

NODE_EXAMPLES = """\b
Examples:
  headrace node token create ci --repo 'team/*' --expires 30d
  headrace node pin org/model
"""
EXAMPLES = """\b
Examples:
  headrace node token create ci --repo 'team/*' --expires 30d
  headrace node token list
  headrace node token revoke ci
"""
CREATE_EXAMPLES = """\b
Examples:
  headrace node token create anna
  headrace node token create ci --repo 'team/*' --repo datasets/org/data --expires 30d
  HF_ENDPOINT=http://node:8090 HF_TOKEN=hrn_... hf download team/model
"""
LIST_EXAMPLES = """\b
Examples:
  headrace node token list
  headrace node token list --json | jq -r 'select(.state == "valid").name'
"""
REVOKE_EXAMPLES = """\b
Examples:
  headrace node token revoke ci
  headrace node token revoke 3 --data /srv/headrace
"""
REMOVE_EXAMPLES = """\b
Examples:
  headrace node token remove ci
"""
_LIFE = re.compile(r"([0-9]{1,6})(m|h|d|w|)")
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0, "": 86400.0}
_DATA = click.option("--data", type=FOLDER, metavar="DIR", help="The node's data folder, as for serve.")


@click.group(epilog=NODE_EXAMPLES, short_help="Rule a mirror node: its tokens, what it keeps.")
def node() -> None:
    """Rule a mirror node: who may use it, and what it keeps.

    These commands work on a node's data folder, whether it runs or not; one that runs goes by them within two
    seconds.
    """


for _command in pins.COMMANDS:
    node.add_command(_command)


@node.group(epilog=EXAMPLES, short_help="Make, list, revoke and remove a node's tokens.")
def token() -> None:
    """Make, list, revoke and remove a node's tokens.

    A node without tokens is open to whoever reaches it. From the first one on, every request needs one that is
    valid; a node is open again only when all are removed.
    """


@token.command(epilog=CREATE_EXAMPLES, short_help="Make a token, and show it once.")
@click.argument("name")
@click.option(
    "--repo", "repos", multiple=True, metavar="GLOB", help="Only for repos that match; may be repeated."
)
@click.option(
    "--expires", metavar="TIME", help="For how long it is valid: 90m, 12h, 30d, 8w.  [default: for ever]"
)
@_DATA
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def create(
    name: str, repos: tuple[str, ...], expires: str | None, data: Path | None, *, as_json: bool
) -> None:
    """Make a token, and show it once: only its hash is kept.

    The token goes to standard output. A repo is named as ORG/NAME or by a glob like ORG/*; with datasets/, spaces/
    or models/ before it, only that kind is meant.
    """
    life_s = _parse_life(expires) if expires is not None else None
    now = time.time()
    with _book(data, make=True) as book:
        made, text = book.create(name, repos, life_s, now)
        is_first = len(book.all()) == 1
    if as_json:
        put_json({**made.facts(now), "token": text})
    else:
        put_line(text)
    say(f"this is shown once: clients send it as HF_TOKEN (token {made.id}, {safe(name)})")
    if is_first:
        say("it is the first one: from now on a node with this data folder answers nobody who shows none")


@token.command("list", epilog=LIST_EXAMPLES, short_help="Show all tokens but their secrets.")
@_DATA
@click.option("--json", "as_json", is_flag=True, help="One JSON object per token.")
def list_(data: Path | None, *, as_json: bool) -> None:
    """Show all tokens but their secrets: number, name, state, repos, end and day of last use."""
    now = time.time()
    with _book(data) as book:
        found = book.all()
    if as_json:
        for one in found:
            put_json(one.facts(now))
        return
    rows = [("id", "name", "state", "expires", "last used", "repos")] * bool(found)
    rows += [
        (
            str(one.id),
            one.name,
            one.state(now),
            _day(one.expires),
            _day(one.used),
            " ".join(one.repos) or "all",
        )
        for one in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        put_line("  ".join(f"{safe(word):{width}}" for word, width in zip(row, widths, strict=True)).rstrip())
    if not found:
        say("there are no tokens: this node answers whoever reaches it")


@token.command(epilog=REVOKE_EXAMPLES, short_help="Let a token be valid no more.")
@click.argument("name", metavar="NAME|ID")
@_DATA
def revoke(name: str, data: Path | None) -> None:
    """Let a token be valid no more, for good.

    It stays in the list, and the node stays closed to whoever shows no token.
    """
    with _book(data) as book:
        found = book.revoke(name, time.time())
    if found is None:
        raise _none_such(name)
    say(f"token {found.id} ({safe(found.name)}) is revoked")


@token.command(epilog=REMOVE_EXAMPLES, short_help="Forget a token.")
@click.argument("name", metavar="NAME|ID")
@_DATA
def remove(name: str, data: Path | None) -> None:
    """Forget a token: its name may be used again.

    With the last one the node is open to whoever reaches it.
    """
    with _book(data) as book:
        found, left = book.remove(name), len(book.all())
    if found is None:
        raise _none_such(name)
    say(f"token {found.id} ({safe(found.name)}) is removed")
    if not left:
        say("it was the last one: this node answers whoever reaches it")


@contextmanager
def _book(data: Path | None, *, make: bool = False) -> Iterator[TokenBook]:
    """The tokens of a node; the folder is made for one that has not run yet, if it may be."""
    try:
        from headrace.node.access.tokens import TokenBook  # noqa: PLC0415 - brings a database along
        from headrace.node.body.tree import DataTree  # noqa: PLC0415 - as above
        from headrace.node.memory.database import Database  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise UsageError(f"a node needs {error.name}", hint="pip install 'headrace[serve]'") from error
    folder = load_settings(data=data)["data"].absolute()
    if make and not (folder / "catalog.sqlite").is_file():
        DataTree(folder).prepare()
        say(
            f"no node has run in {safe(str(folder))} yet: this counts for one that is served with --data of that"
        )
    if not make and not (folder / "catalog.sqlite").is_file():
        raise NotFound(f"there is no node in {folder}", hint="name its folder with --data, as for serve")
    database = Database.in_folder(folder)
    try:
        yield TokenBook(database)
    finally:
        database.close()


def _parse_life(text: str) -> float:
    match = _LIFE.fullmatch(text.strip().lower())
    if match is None or not int(match.group(1)):
        raise UsageError(f"{text!r} is no time", hint="write a number with m, h, d or w behind it: 30d, 12h")
    return int(match.group(1)) * _UNITS_S[match.group(2)]


def _day(seconds: float | None) -> str:
    return "never" if seconds is None else f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}"


def _none_such(name: str) -> NotFound:
    return NotFound(f"there is no token {name!r}", hint="headrace node token list shows them all")

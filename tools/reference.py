"""Writes the reference from the code: commands from click, settings from their specifications, errors from their classes.

python tools/reference.py            writes docs/reference/
python tools/reference.py --check    writes nothing, and exits 1 where a page is not what the code says
"""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import click

from headrace import __version__, errors, events
from headrace.cli.exits import exit_code
from headrace.cli.root import COMMANDS, headrace
from headrace.node.api.openapi import document
from headrace.node.api.operations import OPERATIONS
from headrace.settings.files import ANYBODYS
from headrace.settings.sources import BUILT_IN_SOURCES
from headrace.settings.specs import SPECS

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
_WIDTH = 80
_NOTE = "<!-- Written by tools/reference.py from the code; changes made here are lost. -->"

# What to do, by code; classes that are not here say what the class above them says.
_ADVICE = {
    "usage": "Correct the argument, the variable or the line of the file that is named.",
    "not_found": "Check the name, the revision behind `@`, the globs. Hubs call missing what you may not see.",
    "access_denied": "Ask for access on the repo's page, then set `HF_TOKEN` to a token that may read it. Of a node: see the hint.",
    "source": "Try again later: what was fetched is kept. Or name another source with `--source`.",
    "unreachable": "Check the network, `HF_ENDPOINT` and proxies; see the guide to proxies.",
    "unknown_host": "Check the name in `HF_ENDPOINT` or `--source`, and this machine's DNS.",
    "untrusted": "See the guide to proxies: name your network's own authority in `HEADRACE_CA_BUNDLE`.",
    "proxy": "Check the proxy's address, user and password; except hosts with `NO_PROXY`.",
    "bad_answer": "Something else answers in the hub's place, a login page for one; or the source is broken.",
    "integrity": "Use another source. Nothing wrong was published. Tell the source's keepers.",
    "store": "Read the hint: another folder with `--dest`, another cache with `HF_HUB_CACHE`.",
    "no_space": "Free the space that is named; the same command goes on where it ended.",
    "locked": "Wait for the other process, or end it.",
    "load": "The files are right: look at the framework's version and arguments.",
    "interrupted": "Nothing; the same command goes on where it ended.",
}


def pages() -> dict[str, str]:
    """File name → text of every page."""
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "cli.md": _commands,
        "settings.md": _settings,
        "errors.md": _errors,
        "events.md": _events,
    }
    written = {name: f"{_NOTE}\n\n" + "\n".join(make()) + "\n" for name, make in makers.items()}
    return {**written, "openapi.json": json.dumps(document(OPERATIONS, __version__), indent=2) + "\n"}


def _commands() -> Iterator[str]:
    yield "# Commands"
    yield ""
    yield "What each command says about itself with `--help`."
    root = click.Context(headrace, info_name="headrace", terminal_width=_WIDTH, **headrace.context_settings)
    yield from _command(root, headrace)


def _command(context: click.Context, command: click.Command) -> Iterator[str]:
    yield from ("", f"## {context.command_path}", "", "```text", command.get_help(context).rstrip(), "```")
    if isinstance(command, click.Group):
        names = COMMANDS if command is headrace else command.list_commands(context)
        for name in names:
            found = command.get_command(context, name)
            if found is not None:
                inner = click.Context(found, context, name, terminal_width=_WIDTH)
                yield from _command(inner, found)


def _settings() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "A value comes from, in this order: an option of the command line or an argument in Python, the environment,"
    yield "`headrace.toml` of the project (in the working directory or above), `headrace.toml` of the user"
    yield "(`headrace config path`), the default. `headrace config show` says where each came from."
    yield ""
    yield "| key in `headrace.toml` | variables | default | what it is | written as |"
    yield "|---|---|---|---|---|"
    for one in SPECS:
        variables = ", ".join(f"`{name}`" for name in one.variables)
        default = "" if one.default in (None, ()) else f"`{str(one.default).lower()}`"
        yield f"| `{one.key}` | {variables} | {default} | {one.help} | {one.wanted} |"
    yield ""
    yield "The default of `cache` is `HF_HOME/hub`, where `HF_HOME` is `~/.cache/huggingface` unless set; that of"
    yield "`data` is a folder of the user's own data; ModelScope's cache is `~/.cache/modelscope/hub`, torch hub's home"
    yield "`~/.cache/torch`."
    yield ""
    yield "A project's file arrives with somebody else's checkout. It may have"
    yield ", ".join(f"`{one.key}`" for one in SPECS if one.key in ANYBODYS)
    yield "and nothing else: the rest could have a token sent anywhere, or files believed that nobody verified."
    yield ""
    yield "## Sources"
    yield ""
    yield "Only the user's own file may have these: otherwise any checkout could have a token sent anywhere."
    yield ""
    yield "| in `[sources.NAME]` | what it is |"
    yield "|---|---|"
    known = ", ".join(f"`{name}`" for name in BUILT_IN_SOURCES)
    yield f"| `url` | where it is, `KIND+URL` if it is no hub; not needed for {known} |"
    yield '| `names` | what repos are called there, a table: `"ORG/NAME" = "ORG THERE/NAME THERE"` |'
    yield "| `trusted` | its lists of files are believed; for one source, and `HF_ENDPOINT` comes before it |"
    yield "| `token` | it may have the token; the trusted source, and `modelscope` its own, may without being told |"
    yield "| `plain_http_token` | it may have the token over plain http to another machine |"
    yield ""
    yield "## Variables of other programs"
    yield ""
    yield "| variable | what it is here |"
    yield "|---|---|"
    yield "| `HF_ENDPOINT` | the trusted source |"
    yield "| `HEADRACE_LENT_ENDPOINT` | an `HF_ENDPOINT` that only leads other tools: `headrace env` sets both |"
    yield "| `HF_TOKEN` | the token; empty means none |"
    yield "| `HF_TOKEN_PATH`, `HF_HOME` | the file the token is in; `HF_HOME/token` is where `hf auth login` writes it |"
    yield "| `MODELSCOPE_API_TOKEN` | the token for sources of the kind `modelscope`, which never get the other |"
    yield "| `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | proxies, as for curl; in lower case, too |"
    yield "| `XDG_CONFIG_HOME`, `XDG_CACHE_HOME`, `XDG_DATA_HOME` | where configuration, caches and data are |"
    yield "| `NO_COLOR` | no colours |"
    yield "| `HEADRACE_DEBUG` | `1` shows where an error came from |"


def _errors() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "A command that fails says `error:` with what and where, mostly `hint:` with what to do, and ends with the exit"
    yield 'code of its class. With `--json` the last line is `{"event": "error", "code": …, "message": …, "hint": …,'
    yield '"exit": …}`. In Python the classes are in `headrace.errors`; where hints name options here, `hint` names arguments'
    yield "and settings there: `dest` for `--dest`. Code 0 is success, 1 a bug: set `HEADRACE_DEBUG=1` and report it; only"
    yield "`headrace lock --check` says with 1 that something moved."
    yield ""
    yield "| class | code | exit | what happened | what to do |"
    yield "|---|---|---|---|---|"
    yield from _below(errors.HeadraceError, 0)
    yield ""
    yield "## Events of failure"
    yield ""
    yield "What goes wrong on the way and is mended is told by events, as lines and in `--json`:"
    yield ""
    for event in (
        events.SegmentFailed,
        events.SourceSilent,
        events.BlobMismatch,
        events.BlocksAsked,
        events.BlobRepaired,
        events.BlobFailed,
        events.Warned,
    ):
        yield textwrap.fill(f"- `{events.name_of(event)}`: {_first_line(event)}", 118, subsequent_indent="  ")


def _events() -> Iterator[str]:
    yield "# Events"
    yield ""
    yield "What happens, in the order it happens: one JSON object a line with `--json`, whose `event` is the name below, and"
    yield "in Python values of the classes of `headrace.events`, handed to `on_event` on a thread of its own. Those marked"
    yield "with * may be left out where the reader is slow; on the command line a line `progress`, twice a second, sums them"
    yield "up. Sizes and offsets are bytes, times seconds, rates bytes a second."
    for event in events.Event.__subclasses__():
        yield ""
        yield f"## `{events.name_of(event)}`{' *' if event.droppable else ''}"
        yield ""
        yield textwrap.fill(" ".join((inspect.getdoc(event) or "").split()), 118)
        yield ""
        yield textwrap.fill("Fields: " + ", ".join(f"`{one.name}`" for one in fields(event)) + ".", 118)


def _below(family: type[errors.HeadraceError], depth: int) -> Iterator[str]:
    for one in family.__subclasses__():
        if one.__module__ != errors.__name__:
            continue
        known = (above.code for above in one.__mro__ if issubclass(above, errors.HeadraceError))
        advice = next(_ADVICE[code] for code in known if code in _ADVICE)
        name = "&nbsp;" * 4 * depth + f"`{one.__name__}`"
        yield f"| {name} | `{one.code}` | {exit_code(one)} | {_first_line(one)} | {advice} |"
        yield from _below(one, depth + 1)


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n\n")[0].replace("\n", " ")


def main() -> int:
    """Write the pages, or with `--check` say which are not current."""
    check = "--check" in sys.argv[1:]
    stale = [name for name, text in pages().items() if not _is(FOLDER / name, text)]
    for name in stale:
        print(f"docs/reference/{name}: {'not current; run tools/reference.py' if check else 'written'}")
        if not check:
            (FOLDER / name).write_text(pages()[name], encoding="utf-8")
    return int(check and bool(stale))


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())

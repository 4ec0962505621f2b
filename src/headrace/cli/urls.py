"""`headrace urls`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import click

import headrace
from headrace.cli.follow import Manner, following
from headrace.cli.options import FOLDER, with_choice
from headrace.cli.output import put_json, put_text
from headrace.cli.talk import say
from headrace.cli.tools.aria2 import input_file
from headrace.cli.tools.metalink import metalink
from headrace.cli.tools.names import attribute, one_word
from headrace.cli.tools.script import curl_script, wget_script
from headrace.cli.words import safe
from headrace.errors import UsageError
from headrace.facade.urls import Urls
from headrace.settings import load_settings

EXAMPLES = """\b
Examples:
  headrace urls Qwen/Qwen3-8B --format aria2 > q.txt && aria2c -i q.txt
  headrace urls Qwen/Qwen3-8B --format curl | sh
  headrace urls Qwen/Qwen3-8B --format wget --source hf-mirror > get.sh
  headrace urls Qwen/Qwen3-8B --format metalink --include '*.gguf' > q.meta4
  headrace urls Qwen/Qwen3-8B --json | jq -r '.urls[0]'
"""
_WRITERS = {"aria2": input_file, "wget": wget_script, "curl": curl_script, "metalink": metalink}
_NAMED = {"aria2": one_word, "metalink": attribute}
"""Those that cannot carry every name, and what they make of it."""


@click.command(epilog=EXAMPLES, short_help="Where files can be had, for aria2, wget, curl and others.")
@with_choice
@click.option(
    "--format",
    "form",
    type=click.Choice([*_WRITERS, "list"]),
    default="list",
    show_default=True,
    help="What reads it.",
)
@click.option("--dest", type=FOLDER, metavar="DIR", help="Where it puts files.  [default: the repo's name]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file, with all its URLs.")
def urls(address: str, form: str, dest: Path | None, *, as_json: bool, **wanted: Any) -> None:
    """Print where the files of a repo can be had, for other download programs.

    aria2 and Metalink files name all mirrors, wget and curl files are scripts for sh; `list` has the URL at the first
    source, a line each. Digests are the trusted source's. No token is written: see the guide.
    """
    with following(address, Manner()) as on_event:
        found = headrace.urls(address, settings=load_settings(), on_event=on_event, **wanted)
    if as_json:
        for one in found.files:
            facts = {"path": one.entry.path, "size": one.entry.size, "digest": str(one.entry.digest)}
            put_json({**facts, "urls": [mirror.url for mirror in one.mirrors]})
        return
    if form == "list":
        put_text("".join(f"{one.mirrors[0].url}\n" for one in found.files))
        return
    folder = _Folder(dest or Path(found.manifest.repo.name.rpartition("/")[2]))
    put_text(_WRITERS[form](found, folder.of(form)))
    _warn(found, form)


@dataclass(frozen=True)
class _Folder:
    path: Path

    def of(self, form: str) -> str:
        """The folder as this format has it. Raises `UsageError` where it cannot."""
        name = str(self.path)
        if form in _NAMED and (_NAMED[form](name) != name or not _is_text(name)):
            raise UsageError(
                f"a file for {form} cannot name the folder {name!r}", hint="choose another --dest"
            )
        if form == "metalink" and (self.path.is_absolute() or ".." in PurePosixPath(name).parts):
            hint = "name one below the folder in which it is used: aria2c --dir says which that is"
            raise UsageError(f"names in a Metalink are relative, and {name} is not below", hint=hint)
        return "" if name == "." and form == "metalink" else name


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no characters
        return False
    return True


def _warn(found: Urls, form: str) -> None:
    for one in found.files if form in _NAMED else ():
        if (name := _NAMED[form](one.entry.path)) != one.entry.path:
            say(f"{safe(one.entry.path)} is called {safe(name)} there", mark="warning: ", color="yellow")

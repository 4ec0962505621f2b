"""`headrace pull`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import headrace
from headrace.cli.follow import Manner, following
from headrace.cli.habits import extra
from headrace.cli.options import FOLDER, of_kind, with_kind, with_manner, with_settings, with_sources
from headrace.cli.output import put_path
from headrace.cli.preview import show_preview
from headrace.cli.pullurls import is_url, pull_urls
from headrace.errors import UsageError
from headrace.settings import Settings

EXAMPLES = """\b
Examples:
  headrace pull sentence-transformers/all-MiniLM-L6-v2
  headrace pull openai-community/gpt2@main --include '*.safetensors' --include '*.json'
  headrace pull squad --type dataset --dest ./squad
  headrace pull Qwen/Qwen3-8B --source hf-mirror --source http://node:8090
  headrace pull Qwen/Qwen3-8B --dry-run --json
  headrace pull Qwen/Qwen3-8B --limit-rate 20M
  headrace pull Qwen/Qwen3-8B --reuse /mnt/models
  headrace pull Qwen/Qwen3-8B --locked headrace.lock --source http://node:8090
  headrace pull https://a.example/m.zip https://b.example/m.zip --sha256 HEX
  model=$(headrace pull -q Qwen/Qwen3-8B)

\b
Exit codes: 0 done, 2 usage, 10 not found, 11 access denied, 12 no source could
deliver, 13 integrity, 14 storage, 130 interrupted (the same command goes on).
"""


@click.command(
    epilog=EXAMPLES,
    short_help="Get a repo's files, every byte verified.",
)
@click.argument("words", metavar="REPO[@REVISION] | URL...", nargs=-1, required=True)
@with_kind
@click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; may be repeated.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match; may be repeated.")
@with_sources
@click.option("--dest", type=FOLDER, metavar="DIR", help="A plain folder of real files instead of the cache.")
@click.option(
    "--reuse",
    multiple=True,
    type=FOLDER,
    metavar="DIR",
    help="Copy from this folder what is wanted of it; may be repeated.",
)
@click.option(
    "--locked",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Get what this lock file says; see `headrace lock`.",
)
@click.option("--sha256", metavar="HEX", help="Of URLs: what the file must hash to.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and touch nothing.")
@click.option("--force", is_flag=True, help="Fetch what is here already, too.")
@click.option("--explain", is_flag=True, help="Say at the end why each source was used or not.")
@with_settings
@with_manner
def pull(
    words: tuple[str, ...],
    kind: str | None,
    sha256: str | None,
    manner: Manner,
    settings: Settings,
    *,
    reuse: tuple[Path, ...],
    explain: bool,
    dry_run: bool,
    **wanted: Any,
) -> None:
    """Get a repo's files, every byte verified, into the hub cache.

    REPO is ORG/NAME, as on the hub; REVISION a branch, a tag, refs/pr/N or a commit. What an earlier attempt
    fetched is kept and continued. The last line on standard output is the folder the files are in.

    URLs are all places of one file, used together; it is put into the working directory, or DIR, under the name
    in the first URL, and the last line is its path. Its digest is the --sha256 that is given, or else one that a
    server promises.
    """
    repo, *others = words
    settings = settings.having(reuse=reuse) if reuse else settings
    manner = replace(manner, explain=explain)
    if is_url(repo):
        pull_urls(words, sha256, manner, settings, dry_run=dry_run, kind=kind, **wanted)
        return
    if sha256 is not None:
        raise UsageError(
            "--sha256 is for URLs of one file", hint="a repo's digests are its trusted source's word"
        )
    if others:
        raise extra(repo, others)
    address = of_kind(kind, repo)
    if dry_run:
        with following(repo, manner) as on_event:
            preview = headrace.preview(address, settings=settings, on_event=on_event, **wanted)
        show_preview(preview, manner)
        return
    with following(repo, manner) as on_event:
        snapshot = headrace.pull(address, settings=settings, on_event=on_event, **wanted)
    if not manner.json:
        put_path(snapshot.path)

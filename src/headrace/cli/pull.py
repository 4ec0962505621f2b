"""`headrace pull`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

import headrace
from headrace.cli.follow import Manner, following
from headrace.cli.habits import extra
from headrace.cli.options import FOLDER, with_manner, with_settings
from headrace.cli.output import put_path
from headrace.cli.preview import show_preview
from headrace.names import RepoKind
from headrace.settings import Settings

EXAMPLES = """\b
Examples:
  headrace pull sentence-transformers/all-MiniLM-L6-v2
  headrace pull openai-community/gpt2@main --include '*.safetensors' --include '*.json'
  headrace pull squad --type dataset --dest ./squad
  headrace pull Qwen/Qwen3-8B --source hf-mirror --source http://node:8090
  headrace pull Qwen/Qwen3-8B --dry-run --json
  headrace pull Qwen/Qwen3-8B --limit-rate 20M
  model=$(headrace pull -q Qwen/Qwen3-8B)

\b
Exit codes: 0 done, 2 usage, 10 not found, 11 access denied, 12 no source could
deliver, 13 integrity, 14 storage, 130 interrupted (the same command goes on).
"""


@click.command(
    context_settings={"allow_extra_args": True},
    epilog=EXAMPLES,
    short_help="Get a repo's files, every byte verified.",
)
@click.argument("repo", metavar="REPO[@REVISION]")
@click.option(
    "--type",
    "kind",
    type=click.Choice([kind.value for kind in RepoKind]),
    help="What kind of repo it is.  [default: model]",
)
@click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; may be repeated.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match; may be repeated.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME|URL",
    help="Who carries the bytes, instead of those configured; may be repeated.",
)
@click.option("--dest", type=FOLDER, metavar="DIR", help="A plain folder of real files instead of the cache.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched, and touch nothing.")
@click.option("--force", is_flag=True, help="Fetch what is here already, too.")
@click.option("--explain", is_flag=True, help="Say at the end why each source was used or not.")
@with_settings
@with_manner
def pull(
    repo: str,
    kind: str | None,
    manner: Manner,
    settings: Settings,
    *,
    dry_run: bool,
    explain: bool,
    **wanted: Any,
) -> None:
    """Get a repo's files, every byte verified, into the hub cache.

    REPO is ORG/NAME, as on the hub; REVISION a branch, a tag, refs/pr/N or a commit. What an earlier attempt
    fetched is kept and continued. The last line on standard output is the folder the files are in.
    """
    if words := click.get_current_context().args:
        raise extra(repo, words)
    prefix = RepoKind(kind).url_prefix if kind else ""
    address = prefix + repo.removeprefix(prefix)
    if dry_run:
        with following(repo, manner) as on_event:
            preview = headrace.preview(address, settings=settings, on_event=on_event, **wanted)
        show_preview(preview, manner)
        return
    with following(repo, replace(manner, explain=explain)) as on_event:
        snapshot = headrace.pull(address, settings=settings, on_event=on_event, **wanted)
    if not manner.json:
        put_path(snapshot.path)

"""`headrace lock`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

import headrace
from headrace.cli.notes import Notes
from headrace.cli.options import of_kind, with_kind
from headrace.cli.output import put_line
from headrace.cli.talk import say
from headrace.cli.words import files, safe, size
from headrace.errors import UsageError
from headrace.events import Event
from headrace.facade.lock import moved, write_lock
from headrace.settings import Settings, load_settings

EXAMPLES = """\b
Examples:
  headrace lock Qwen/Qwen3-8B openai-community/gpt2@main > headrace.lock
  headrace lock Qwen/Qwen3-8B -o headrace.lock
  headrace lock squad --type dataset > data.lock
  headrace pull Qwen/Qwen3-8B --locked headrace.lock
  headrace lock --check headrace.lock
"""
_COMMIT_DIGITS = 12
_MOVED = 1


@click.command(epilog=EXAMPLES, short_help="Write down what repos hold, to pull it again exactly.")
@click.argument("repos", nargs=-1, metavar="REPO[@REVISION]...")
@with_kind
@click.option(
    "--source", "sources", multiple=True, metavar="NAME|URL", help="As for pull: the first may be trusted."
)
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Say what is at another commit by now than in FILE; exit code 1 if anything is.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to FILE once all is known: what was there is not lost where something fails.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def lock(
    repos: tuple[str, ...],
    kind: str | None,
    sources: tuple[str, ...],
    check: Path | None,
    output: Path | None,
    *,
    quiet: bool,
) -> int:
    """Write down what repos hold, to pull it again exactly.

    The trusted source says which commit each is at, and path, size and digest of every file. That is written to
    standard output as a lock file. `headrace pull REPO --locked FILE` gets exactly those files, from whatever
    source: none needs to be trusted, since none is asked what the repo holds.
    """
    if check is not None and (repos or kind or output):
        raise UsageError("--check FILE says which repos, and writes nothing: name no others")
    notes = Notes(verbose=False)

    def on_event(event: Event) -> None:
        told = notes.of(event, time.monotonic())
        if told is not None and not quiet:
            say(told)

    settings = load_settings()
    if check is not None:
        return _tell_moved(check, sources, settings, on_event, quiet=quiet)
    written = headrace.lock(
        [of_kind(kind, repo) for repo in repos], sources=sources, settings=settings, on_event=on_event
    )
    if output is None:
        put_line(written.render().rstrip("\n"))
    else:
        write_lock(written, output)
    if not quiet:
        for one in written.manifests:
            what = f"{files(len(one.entries))}, {size(one.total_bytes)}, as listed by {one.source}"
            say(safe(f"{one.repo} at {one.revision} ({one.commit[:_COMMIT_DIGITS]}): {what}"))
    return 0


def _tell_moved(
    check: Path,
    sources: tuple[str, ...],
    settings: Settings,
    on_event: Callable[[Event], None],
    *,
    quiet: bool,
) -> int:
    found = moved(check, sources=sources, settings=settings, on_event=on_event)
    for address, before, now in found:
        there = f"now {now[:_COMMIT_DIGITS]}" if now else "now not there, or not shown to you"
        put_line(f"{address}: locked to {before[:_COMMIT_DIGITS]}, {there}")
    if not found and not quiet:
        say(f"everything is as {safe(str(check))} says")
    return _MOVED if found else 0

"""`headrace bench`."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli.options import FOLDER, with_sources
from headrace.cli.output import put_json, put_line
from headrace.cli.talk import say
from headrace.cli.words import safe, size
from headrace.errors import StoreError
from headrace.settings import Settings, load_settings

if TYPE_CHECKING:
    from headrace.cli.race import Race, Run
    from headrace.events import Event

GROUP_EXAMPLES = """\b
Examples:
  headrace bench load Qwen/Qwen3-0.6B
"""
EXAMPLES = """\b
Examples:
  headrace bench load Qwen/Qwen3-0.6B
  headrace bench load Qwen/Qwen3-0.6B --rounds 5 --source http://node:8090
  headrace bench load Qwen/Qwen3-0.6B --json | jq 'select(.event == "bench")'
"""
_REMOVALS, _REMOVED_EVERY_S = 20, 0.2


@click.group(epilog=GROUP_EXAMPLES, short_help="Measure this machine and its line.")
def bench() -> None:
    """Measure on this machine, with its line and its disk, how long things take."""


@bench.command(epilog=EXAMPLES, short_help="Load a model in several ways, and compare.")
@click.argument("repo", metavar="REPO[@REVISION]")
@with_sources
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="How often each way is gone."
)
@click.option("--folder", type=FOLDER, metavar="DIR", help="Where caches are made.  [default: beside yours]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per load, and one for them all.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and the outcome.")
def load(
    repo: str, sources: tuple[str, ...], rounds: int, folder: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """Load a model in several ways, each in a process of its own, and compare how long it takes.

    From the start of a process to the model: with the hub's own client, which downloads and then loads, where that
    is installed; with Headrace, which loads while it downloads; and both again when the files are here. Each round
    fetches the model anew into caches of its own, which are removed in the end: twice its size of disk is needed.
    Your own cache is not touched. --source is for Headrace; the hub's own client asks the trusted source.

    Shown is of each way the run in the middle.
    """
    from headrace.cli.race import Race  # noqa: PLC0415  # it brings the whole road along

    settings = load_settings(offline=False)
    with _scratch(folder or settings.cache.parent) as scratch:
        race = Race(repo, settings, sources, Path(scratch))
        _introduce(race, settings, sources, quiet=quiet)
        runs = _run(race, rounds, as_json=as_json, quiet=quiet)
    middle = [_middle([one for one in runs if one.way is way]) for way in race.ways()]
    if as_json:
        _put_outcome(race, middle, rounds)
        return
    from headrace.cli.chart import chart  # noqa: PLC0415  # only now

    encoding = sys.stdout.encoding if sys.stdout is not None else "ascii"
    for line in chart(middle, shutil.get_terminal_size().columns, encoding):
        put_line(line)


def _run(race: Race, rounds: int, *, as_json: bool, quiet: bool) -> list[Run]:
    from headrace.cli.loadline import shown_loading  # noqa: PLC0415  # only now

    runs = []
    for number in range(1, rounds + 1):
        for way in race.ways():
            with (
                nullcontext(_nothing)
                if quiet
                else shown_loading(f"{way.name}, {number} of {rounds}") as watch
            ):
                run = race.run(way, watch)
            runs.append(run)
            if as_json:
                put_json({"event": "run", "round": number, **_facts(run)})
    return runs


def _nothing(_: Event) -> None:
    """Nobody wants to see it."""


def _introduce(race: Race, settings: Settings, sources: tuple[str, ...], *, quiet: bool) -> None:
    if quiet:
        return
    carriers = ", ".join(safe(one.name) for one in settings.carriers(sources))
    count = len(race.manifest.entries)
    say(f"{safe(race.manifest.repo.name)}: {count} files, {size(race.manifest.total_bytes)}, from {carriers}")
    if race.left_out:
        say(f"not compared with a download first: {race.left_out}")


def _middle(runs: list[Run]) -> Run:
    """The run whose time is the median, or next above it: its stages add up."""
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def _facts(run: Run) -> dict[str, object]:
    return {
        "way": run.way.name,
        "verified": run.way.verified,
        "seconds": round(run.seconds, 3),
        "transfer": round(run.transfer, 3),
        "imports": round(run.imports, 3),
        "load": round(run.load, 3),
    }


def _put_outcome(race: Race, middle: list[Run], rounds: int) -> None:
    first = middle[0].seconds
    ways = [{**_facts(run), "ratio": round(run.seconds / first, 3)} for run in middle]
    manifest = race.manifest
    facts = {"repo": manifest.repo.name, "commit": manifest.commit, "bytes": manifest.total_bytes}
    put_json({"event": "bench", **facts, "rounds": rounds, "ways": ways})


@contextmanager
def _scratch(beside: Path) -> Iterator[str]:
    """A folder for caches, removed in the end; after a Ctrl-C who still writes there is gone in a moment."""
    try:
        beside.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix="headrace-bench-", dir=beside)
    except OSError as error:
        hint = "name another: --folder DIR"
        raise StoreError(f"cannot make a folder in {beside}: {error.strerror}", hint=hint) from error
    try:
        yield folder
    finally:
        for _ in range(_REMOVALS):
            shutil.rmtree(folder, ignore_errors=True)
            if not Path(folder).exists():
                break
            time.sleep(_REMOVED_EVERY_S)

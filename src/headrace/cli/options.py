"""Options that several commands share, gathered into the values the code below works with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from headrace.cli.follow import Manner
from headrace.names import RepoKind
from headrace.settings import load_settings

Command = Callable[..., Any]

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


def with_kind(command: Command) -> Command:
    """`--type`, handed over as `kind`; see `of_kind`."""
    return click.option(
        "--type",
        "kind",
        type=click.Choice([kind.value for kind in RepoKind]),
        help="What kind of repo it is.  [default: model]",
    )(command)


def of_kind(kind: str | None, repo: str) -> str:
    """A repo as it was typed, with what says its kind before it."""
    prefix = RepoKind(kind).url_prefix if kind else ""
    return prefix + repo.removeprefix(prefix)


def with_sources(command: Command) -> Command:
    """`--source`, handed over as `sources`."""
    return click.option(
        "--source",
        "sources",
        multiple=True,
        metavar="NAME|URL",
        help="Who carries the bytes, instead of those configured; may be repeated.",
    )(command)


def with_manner(command: Command) -> Command:
    """`--json`, `--quiet` and `--verbose`, handed over as `manner`."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON object per line on standard output.")
    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
    @click.option("-v", "--verbose", is_flag=True, help="Tell of every file and connection.")
    @functools.wraps(command)
    def wrapped(*, as_json: bool, quiet: bool, verbose: bool, **others: Any) -> None:
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other")
        command(manner=Manner(as_json, quiet, verbose), **others)

    return wrapped


def with_front(command: Command) -> Command:
    """`--tls-cert`, `--tls-key`, `--x-accel` and `--access-log`, handed over by these names."""

    @click.option(
        "--tls-cert", type=FILE, metavar="FILE", help="Speak TLS, with this certificate chain (PEM)."
    )
    @click.option("--tls-key", type=FILE, metavar="FILE", help="The key of that certificate (PEM).")
    @click.option(
        "--x-accel", metavar="PATH", help="Where nginx in front has the blobs, to send them itself: /_blobs/."
    )
    @click.option(
        "--access-log", metavar="FILE|-", help="A JSON object a line for each request; - is stdout."
    )
    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        command(**given)

    return wrapped


def with_choice(command: Command) -> Command:
    """What to have: a repo, `--type`, `--include`, `--exclude`, `--source`; handed over as `address` and as in `pull`."""

    @click.argument("repo", metavar="REPO[@REVISION]")
    @with_kind
    @click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; may be repeated.")
    @click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match; may be repeated.")
    @with_sources
    @functools.wraps(command)
    def wrapped(*, repo: str, kind: str | None, **others: Any) -> None:
        command(address=of_kind(kind, repo), **others)

    return wrapped


def with_settings(command: Command) -> Command:
    """`--cache`, `--offline`, `--lanes` and `--limit-rate`, on top of environment and files, handed over as `settings`."""

    @click.option("--cache", type=FOLDER, help="The hub cache.  [default: HF_HUB_CACHE]")
    @click.option("--offline", is_flag=True, help="Use no network: verify what the cache has.")
    @click.option("--lanes", type=click.IntRange(1), metavar="N", help="Connections in all, at most.")
    @click.option("--limit-rate", metavar="RATE", help="Bytes a second in all, at most: 50M, 800K.")
    @functools.wraps(command)
    def wrapped(
        *, cache: Path | None, offline: bool, lanes: int | None, limit_rate: str | None, **others: Any
    ) -> None:
        given: dict[str, Any] = {
            "cache": cache,
            "offline": offline or None,
            "lanes": lanes,
            "limit_rate": limit_rate,
        }
        command(settings=load_settings(**given), **others)

    return wrapped

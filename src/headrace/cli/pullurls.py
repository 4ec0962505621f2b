"""`headrace pull URL…`: one file by the URLs it is at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import headrace
from headrace.cli.follow import Manner, following
from headrace.cli.output import put_path
from headrace.cli.preview import show_file_preview
from headrace.errors import UsageError
from headrace.settings import Settings
from headrace.wire import shown

_OF_REPOS = {
    "kind": "--type",
    "include": "--include",
    "exclude": "--exclude",
    "sources": "--source",
}


def is_url(word: str) -> bool:
    """Whether this is meant as a URL: no repo has this in its name."""
    return "://" in word


def pull_urls(
    urls: Sequence[str],
    sha256: str | None,
    manner: Manner,
    settings: Settings,
    *,
    dest: Path | None,
    force: bool,
    dry_run: bool,
    **of_repos: Any,
) -> None:
    """Pull the file, and say where it is; `of_repos` are the values of options that make no sense for it.

    Raises:
        UsageError: one of those was given, or a word that is no URL.
    """
    for option, value in of_repos.items():
        if value:
            raise UsageError(
                f"{_OF_REPOS.get(option, f'--{option}')} is for repos, not for the URLs of one file",
                hint="name a repo: headrace pull ORG/NAME",
            )
    for one in urls:
        if not is_url(one):
            raise UsageError(f"{one!r} is no URL", hint="URLs of one file, or one repo, are pulled at a time")
    wanted: dict[str, Any] = {"sha256": sha256, "dest": dest or Path(), "force": force, "settings": settings}
    with following(shown(urls[0]), manner) as on_event:
        if dry_run:
            preview = headrace.preview_file(urls, on_event=on_event, **wanted)
        else:
            pulled = headrace.pull_file(urls, on_event=on_event, **wanted)
    if dry_run:
        show_file_preview(preview, manner)
    elif not manner.json:
        put_path(pulled.path)

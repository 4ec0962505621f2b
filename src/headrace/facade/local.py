"""Files and folders of this disk, where a repo could be named, too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.errors import LoadError, UsageError
from headrace.facade.client import at_home
from headrace.load.adapter import adapted, base_of
from headrace.load.framework import Loadable, is_of_diffusers, load_from_folder
from headrace.load.needed import Need
from headrace.load.readahead import ReadAhead, weights_in


def path_of(repo_or_path: str | os.PathLike[str]) -> Path | None:
    """The file or folder that is meant; None for a repo. What exists is meant, as everywhere in transformers.

    Raises:
        UsageError: only a path can be meant, and there is nothing.
    """
    path = at_home(Path(repo_or_path))
    if path.is_file() or path.is_dir():
        return path
    if isinstance(repo_or_path, str) and not repo_or_path.startswith(("/", "./", "../", "~")):
        return None
    raise UsageError(
        f"there is no file or folder {os.fspath(repo_or_path)}", hint=f"this program is in {Path.cwd()}"
    )


def load_folder(
    cls: Loadable, need: Need, folder: Path, arguments: dict[str, Any], load_base: Callable[[str], Any]
) -> Any:
    """What the class makes of a folder; `load_base` loads what an adapter in it names.

    A model's weights are read ahead where that pays.

    Raises `LoadError` as `load_from_folder`, and `UsageError` for what is no folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name the folder that it is in")
    if need is not Need.A_MODEL or is_of_diffusers(cls):
        return load_from_folder(cls, folder, arguments)
    base = base_of(folder)
    if base is not None:
        inner = path_of(base)
        if inner is not None and base_of(inner) is not None:
            raise LoadError(f"{inner} is an adapter, and another one, {folder}, is for it")
        return adapted(load_base(base), folder, arguments)
    with ReadAhead(weights_in(folder)) as ahead:
        made = load_from_folder(cls, folder, arguments)
        ahead.while_it_lives(made)
    return made

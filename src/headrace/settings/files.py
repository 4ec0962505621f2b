"""Where settings files lie, and what may stand in them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from headrace.errors import UsageError
from headrace.settings.sources import check_sources
from headrace.settings.specs import SPECS, parse_path

FILE_NAME = "headrace.toml"

ANYBODYS = frozenset(
    ("offline", "lanes", "lanes_per_host", "limit_rate", "idle_timeout_s", "give_up_s", "ref_ttl_s")
)
"""What a project's file may say: it arrives with somebody else's checkout, and these give nothing away."""

_HINT = "it must be TOML: lines like lanes = 8"
_ON_LINUX: bool = sys.platform.startswith("linux")


def user_file(environment: Mapping[str, str] | None = None) -> Path:
    """Where the user's own `headrace.toml` is looked for."""
    environment = os.environ if environment is None else environment
    return own_folder(environment, "XDG_CONFIG_HOME", "~/.config", "user_config_dir") / FILE_NAME


def settings_files(environment: Mapping[str, str] | None = None, directory: Path | None = None) -> list[Path]:
    """Where settings are read from: the project's file if there is one, and the user's; the first wins."""
    folders: list[Path] = []
    with suppress(FileNotFoundError):  # a shell may stand in a folder that is gone
        directory = directory or Path.cwd()
        folders = [directory, *directory.parents]
    above = next((folder / FILE_NAME for folder in folders if is_file(folder / FILE_NAME)), None)
    return [*([above] if above else []), user_file(environment)]


def is_file(path: Path) -> bool:
    """Whether a file is there that we may come near."""
    try:
        return path.is_file()
    except OSError:  # behind a folder that we may not enter
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there that we may come near."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_toml(path: Path, own: Path, *, mine: bool) -> dict[str, Any]:
    """Read a settings file; one that is not the user's own may only say how, not from whom, where to or for whom.

    Otherwise any checkout that somebody steps into could have the token sent to a host of its choice, or bring a
    cache whose ledger vouches for bytes that nobody verified.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint=_HINT) from error
    return check_toml(text, path, own, mine=mine)


def check_toml(text: str, path: Path, own: Path, *, mine: bool) -> dict[str, Any]:
    """What a settings file says, read and checked as `read_toml` does; `text` is what stands in it."""
    if sys.version_info >= (3, 11):  # here: it is seldom that there is a file
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"cannot read {path}: {error}", hint=_HINT) from error
    known = {spec.key for spec in SPECS} | {"sources"}
    if unknown := sorted(set(table) - known):
        raise UsageError(
            f"{path} has no setting {unknown[0]!r}", hint=f"known are: {', '.join(sorted(known))}"
        )
    if not mine and (foreign := sorted(set(table) - ANYBODYS)):
        hint = f"whom to trust, and where things are, is said in your own file: {own}"
        raise UsageError(f"{path} may not name {foreign[0]}", hint=hint)
    check_sources(table.get("sources", {}), path)
    return table


def own_folder(environment: Mapping[str, str], variable: str, default: str, kind: str) -> Path:
    """A folder of the program's own, by the XDG specification; elsewhere than on Linux as is usual there."""
    named = environment.get(variable, "")
    if named or _ON_LINUX:
        return Path(named if Path(named).is_absolute() else default).expanduser() / "headrace"
    import platformdirs  # noqa: PLC0415 - only where it is not known already

    return Path(getattr(platformdirs, kind)("headrace"))


def hf_home(environment: Mapping[str, str]) -> Path:
    """The folder of all that hub clients keep."""
    if environment.get("HF_HOME"):
        return parse_path(environment["HF_HOME"])
    return parse_path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"

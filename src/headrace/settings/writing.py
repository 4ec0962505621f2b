"""Changes of the user's own `headrace.toml`: comments and order stay as their owner wrote them.

The new file is written beside the old one and takes its place whole, with its mode; what lies behind a symbolic link
is what is changed. What would not be read again is not written.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from headrace.errors import ReadOnly, StoreError, UsageError
from headrace.settings.files import check_toml, is_file, read_toml, user_file
from headrace.settings.sources import BUILT_IN_SOURCES, Location

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_WRITABLE = 0o222  # a file without any of these is meant to stay as it is, whoever runs this

Document = MutableMapping[str, Any]
"""The file's tables, which remember how they were written."""


def add_source(
    name: str, url: str, *, token: bool = False, environment: Mapping[str, str] | None = None
) -> Path:
    """Write a source down; `token` says that it may have the token. The file is the answer.

    Raises:
        UsageError: a name or URL that cannot be, a name that is taken, or a file that cannot be read.
        StoreError: the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a source", hint="letters, digits, and _ . - between them")
    place = str(Location.parse(url))
    if name in BUILT_IN_SOURCES:
        raise UsageError(
            f"{name!r} is a built-in source, {BUILT_IN_SOURCES[name]}", hint="choose another name"
        )

    def change(document: Document) -> None:
        table = _table_of(document, name)
        if str(table.get("url", place)) != place:
            hint = f"headrace sources remove {name}, or choose another name"
            raise UsageError(f"there is a source {name!r} already, {table['url']}", hint=hint)
        table["url"] = place
        if token:
            table["token"] = True

    return _edit(change, environment)


def remove_source(name: str, *, environment: Mapping[str, str] | None = None) -> Path:
    """Forget a source, also where it is used. Raises as `add_source`."""

    def change(document: Document) -> None:
        if name not in document.get("sources", {}):
            known = "built in, and nothing is said of it" if name in BUILT_IN_SOURCES else "not there"
            raise UsageError(
                f"source {name!r} is {known}", hint="`headrace sources list` shows all there are"
            )
        del document["sources"][name]
        if not document["sources"]:
            del document["sources"]
        if isinstance(document.get("use"), str):
            document["use"] = [one.strip() for one in document["use"].split(",")]
        if name in document.get("use", ()):
            document["use"].remove(name)
            if not document["use"]:
                del document["use"]

    return _edit(change, environment)


def trust_source(name: str, *, environment: Mapping[str, str] | None = None) -> Path:
    """Believe this source's lists of files and no other's. Raises as `add_source`."""
    if "://" in name:
        raise UsageError(f"{name!r} is no name", hint=f"headrace sources add NAME {name}, then trust NAME")

    def change(document: Document) -> None:
        _check_known(document, name)
        for other in document.get("sources", {}).values():
            other.pop("trusted", None)
        _table_of(document, name)["trusted"] = True

    return _edit(change, environment)


def use_sources(names: tuple[str, ...], *, environment: Mapping[str, str] | None = None) -> Path:
    """Let pulls use these, names or URLs, in this order; none: all that are configured. Raises as `add_source`."""

    def change(document: Document) -> None:
        for name in names:
            _check_known(document, name)
        if names:
            document["use"] = list(names)
        else:
            document.pop("use", None)

    return _edit(change, environment)


def _check_known(document: Document, name: str) -> None:
    if "://" in name:
        Location.parse(name)
    elif name not in BUILT_IN_SOURCES and name not in document.get("sources", {}):
        hint = f"headrace sources add {name} URL, or one of: "
        known = sorted({*BUILT_IN_SOURCES, *document.get("sources", {})})
        raise UsageError(f"there is no source {name!r}", hint=hint + ", ".join(known))


def _table_of(document: Document, name: str) -> Document:
    import tomlkit  # noqa: PLC0415

    if "sources" not in document:
        document["sources"] = tomlkit.table(is_super_table=True)
    sources: Document = document["sources"]
    if name not in sources:
        sources[name] = tomlkit.table()
    table: Document = sources[name]
    return table


def _edit(change: Callable[[Document], None], environment: Mapping[str, str] | None) -> Path:
    import tomlkit  # noqa: PLC0415 - heavy, and only here is anything written

    path = user_file(environment)
    text = ""
    if is_file(path):
        read_toml(path, path, mine=True)  # says in our words what is wrong with it
        text = path.read_bytes().decode("utf-8")
    document = tomlkit.parse(text)
    change(document)
    written = tomlkit.dumps(document)
    check_toml(written, path, path, mine=True)
    if written != text:
        _replace(path, written.encode("utf-8"))
    return path


def _replace(path: Path, data: bytes) -> None:
    try:
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o7777 if path.exists() else None
        if mode is not None and not (mode & _WRITABLE and os.access(path, os.W_OK)):
            raise PermissionError(errno.EACCES, "it may only be read")
        new = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), "wb") as file:  # noqa: PTH123
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                new.chmod(mode)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        told = f"cannot write {path}: {error.strerror}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "make it writable, or write the change into it yourself"
            raise ReadOnly(told, hint=hint) from None
        raise StoreError(told, hint="check the disk and the folder") from None

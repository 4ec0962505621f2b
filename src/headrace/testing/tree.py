"""A plain web server on this machine: files below a folder, with an index of the folders or without."""

from __future__ import annotations

import hashlib
import html
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from headrace.testing.answer import Answer, Request
from headrace.testing.catalog import Entry
from headrace.testing.local import LocalServer
from headrace.testing.ranged import file_answer

STYLES = ("none", "python", "nginx", "apache", "json")


class FakeTree(LocalServer):
    """`with FakeTree(folder, style="nginx") as there:` serves the files below `folder` with ranges."""

    def __init__(self, folder: str | os.PathLike[str], style: str = "none") -> None:
        self.site = TreeSite(Path(folder), style)
        super().__init__(tree=self.site)

    @property
    def endpoint(self) -> str:
        """Where it is."""
        return self.origin("tree")


@dataclass
class TreeSite:
    """Answers with files; a folder's index is of the given style, one of `STYLES`."""

    folder: Path
    style: str = "none"

    def answer(self, request: Request) -> Answer:
        """The file, the index, or 404."""
        path = self.folder.joinpath(*request.segments)
        if any(part in ("..", ".") for part in request.segments):
            return _missing()
        if path.is_file():
            return self._file(path, request)
        if not path.is_dir() or self.style == "none" or not request.path.endswith("/"):
            return _missing()
        return self._index(path, request.path)

    def _file(self, path: Path, request: Request) -> Answer:
        status, data = path.stat(), path.read_bytes()
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        digest = hashlib.sha256(data).hexdigest()
        entry = Entry(path.relative_to(self.folder).as_posix(), path, status.st_size, True, digest, stamp)  # noqa: FBT003
        return file_answer(entry, request.headers, f'"{status.st_mtime_ns:x}-{status.st_size:x}"')

    def _index(self, folder: Path, path: str) -> Answer:
        rows = sorted((one.name, one.is_dir(), one.stat().st_size) for one in folder.iterdir())
        if self.style == "json":
            told = [
                {"name": name, "type": "directory"}
                if is_folder
                else {"name": name, "type": "file", "size": size}
                for name, is_folder, size in rows
            ]
            return Answer(200, (("Content-Type", "application/json"),), json.dumps(told).encode())
        lines = [self._line(name, size, is_folder=is_folder) for name, is_folder, size in rows]
        title = f"{'Directory listing for' if self.style == 'python' else 'Index of'} {html.escape(path)}"
        up = (
            '<a href="../">../</a>'
            if self.style == "nginx"
            else '<a href="?C=N;O=D">Name</a> <a href="/">Up</a>'
        )
        body = f"<html><head><title>{title}</title></head><body><h1>{title}</h1><hr><pre>{up}\n"
        return Answer(200, (("Content-Type", "text/html; charset=utf-8"),), (body + "".join(lines)).encode())

    def _line(self, name: str, size: int, *, is_folder: bool) -> str:
        slash = "/" if is_folder else ""
        link = f'<a href="{quote(name)}{slash}">{html.escape(name)}{slash}</a>'
        told = {"nginx": "-" if is_folder else str(size), "apache": f"{size / 1024:.1f}K"}.get(self.style, "")
        return f"{link}      22-Nov-2026 14:00      {told}\n" if self.style == "nginx" else f"{link} {told}\n"


def _missing() -> Answer:
    return Answer(404, (("Content-Type", "text/html"),), b"<html><title>404 Not Found</title></html>")


def sums(folder: str | os.PathLike[str], name: str = "SHA256SUMS") -> Path:
    """Write the digests of all files below `folder` beside them, as `sha256sum` does."""
    base = Path(folder)
    files = sorted(one for one in base.rglob("*") if one.is_file() and one.name != name)
    lines = (
        f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.relative_to(base).as_posix()}" for one in files
    )
    (base / name).write_text("".join(f"{line}\n" for line in lines))
    return base / name

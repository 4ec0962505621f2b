"""A recorder of everything the store does to a disk, and a model of what a loss of power leaves of it.

The model promises only what POSIX does. Content outlasts once an fdatasync that began after the write has ended; a
name once an fsync of its folder did. All else survives or not, page by page and name by name, as chance decides,
in any order. With `ordered`, names survive as ext4 and its like keep them: all up to some moment and none after it.
"""

from __future__ import annotations

import io
import itertools
import os
import pathlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headrace.store.reserving import reserve

_PAGE = 4096
_SECTOR = 512


@dataclass
class File:
    """One inode, whatever its names. `number` is that of the real one; numbers are used again."""

    number: int
    target: str | None = None  # of a symbolic link
    changes: list[Change] = field(default_factory=list)
    syncs: list[Sync] = field(default_factory=list)


@dataclass(frozen=True)
class Change:
    """Bytes written at `offset`; or, without any, a length given to the file."""

    moment: int
    offset: int
    data: bytes | None


@dataclass
class Sync:
    """From when to when it lasted, in moments; still under way while it has no end."""

    began: int
    ended: int | None = None


@dataclass(frozen=True)
class Naming:
    """A name was given (`file`) or taken away (None). `twin` gives another in the same step: a renaming."""

    moment: int
    path: str
    file: File | str | None  # a str is a folder
    taken: str | None = None


class Trace:
    """What happened below `root`, each step at a moment of its own; `times` says when, in seconds."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.namings: list[Naming] = []
        self.folder_syncs: dict[str, list[Sync]] = {}
        self.times: list[float] = []
        self._files: dict[str, File] = {}  # by path, as it is now
        self._open: dict[int, File] = {}
        self._lock = threading.RLock()

    def moment(self) -> int:
        """The next moment."""
        self.times.append(time.monotonic())
        return len(self.times) - 1

    def covers(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self.root}/")

    # What was done, by the function it was done with

    def open(self, real: Callable[..., int], path: Any, flags: int, *mode: int, **more: Any) -> int:
        name = os.fspath(path)
        with self._lock:
            fd = real(path, flags, *mode, **more)
            if not isinstance(name, str) or not self.covers(name):
                self._open.pop(fd, None)
                return fd
            facts = os.fstat(fd)
            if Path(name).is_dir():
                self._open[fd] = File(facts.st_ino, target=name)
                return fd
            if name not in self._files:
                self._files[name] = File(facts.st_ino)
                self.namings.append(Naming(self.moment(), name, self._files[name]))
            self._open[fd] = self._files[name]
            if flags & os.O_TRUNC:
                self._files[name].changes.append(Change(self.moment(), 0, None))
            return fd

    def dup(self, real: Callable[..., int], fd: int) -> int:
        with self._lock:
            twin = real(fd)
            if fd in self._open:
                self._open[twin] = self._open[fd]
            return twin

    def close(self, real: Callable[..., None], fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            real(fd)

    def write(self, real: Callable[..., int], fd: int, data: Any) -> int:
        with self._lock:
            offset = os.fstat(fd).st_size if self._open.get(fd) else 0  # the store only ever appends
            count = real(fd, data)
            self._wrote(fd, bytes(data[:count]), offset)
            return count

    def pwrite(self, real: Callable[..., int], fd: int, data: Any, offset: int) -> int:
        with self._lock:
            count = real(fd, data, offset)
            self._wrote(fd, bytes(data[:count]), offset)
            return count

    def splice(self, real: Callable[..., int], source: int, fd: int, count: int, **where: int) -> int:
        if fd not in self._open:  # from a socket into a pipe
            return real(source, fd, count, **where)
        with self._lock:
            count = real(source, fd, count, **where)
            self._wrote(fd, os.pread(fd, count, where["offset_dst"]), where["offset_dst"])
            return count

    def resize(self, real: Callable[..., Any], fd: int, size: int) -> Any:
        with self._lock:
            answer = real(fd, size)
            if fd in self._open:
                self._open[fd].changes.append(Change(self.moment(), size, None))
            return answer

    def sync(self, real: Callable[..., None], fd: int) -> None:
        """Not done for real: how long a disk takes is no matter of ours."""
        with self._lock:
            file = self._open.get(fd)
            if file is None:
                return
            one = Sync(self.moment())
            (self.folder_syncs.setdefault(file.target, []) if file.target else file.syncs).append(one)
        time.sleep(0.002)  # others go on meanwhile
        with self._lock:
            one.ended = self.moment()

    def replace(self, real: Callable[..., None], source: Any, target: Any) -> None:
        with self._lock:
            real(source, target)
            old, new = os.fspath(source), os.fspath(target)
            file = self._files.pop(old)
            self._files[new] = file
            self.namings.append(Naming(self.moment(), new, file, taken=old))

    def link(self, real: Callable[..., None], source: Any, target: Any, **more: Any) -> None:
        with self._lock:
            real(source, target, **more)
            self._files[os.fspath(target)] = self._files[os.fspath(source)]
            self.namings.append(Naming(self.moment(), os.fspath(target), self._files[os.fspath(source)]))

    def unlink(self, real: Callable[..., None], path: Any, **more: Any) -> None:
        with self._lock:
            real(path, **more)
            if self._files.pop(os.fspath(path), None):
                self.namings.append(Naming(self.moment(), os.fspath(path), None))

    def symlink(self, real: Callable[..., None], target: Any, path: Any, *more: Any, **others: Any) -> None:
        with self._lock:
            real(target, path, *more, **others)
            name = os.fspath(path)
            self._files[name] = File(os.lstat(name).st_ino, os.fspath(target))
            self.namings.append(Naming(self.moment(), name, self._files[name]))

    def mkdir(self, real: Callable[..., None], path: Any, *more: Any, **others: Any) -> None:
        with self._lock:
            real(path, *more, **others)
            self.namings.append(Naming(self.moment(), os.fspath(path), "folder"))

    def _wrote(self, fd: int, data: bytes, offset: int) -> None:
        if fd in self._open:
            self._open[fd].changes.append(Change(self.moment(), offset, data))


class _Raw(io.RawIOBase):
    """A file whose writes go through `os.write`, where they are seen."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: Any) -> int:
        return os.write(self._fd, data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._fd)


@contextmanager
def recorded(root: Path) -> Iterator[Trace]:
    """Records what this process does below `root`."""
    trace = Trace(root)
    methods: dict[str, Callable[..., Any]] = {
        "open": trace.open,
        "dup": trace.dup,
        "close": trace.close,
        "write": trace.write,
        "pwrite": trace.pwrite,
        "splice": trace.splice,
        "ftruncate": trace.resize,
        "fsync": trace.sync,
        "fdatasync": trace.sync,
        "replace": trace.replace,
        "link": trace.link,
        "unlink": trace.unlink,
        "symlink": trace.symlink,
        "mkdir": trace.mkdir,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, method in methods.items():
            spy = _spy(method, getattr(os, name))
            patch.setattr(os, name, spy)
            accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 holds on to the real ones
            if accessor is not None and hasattr(accessor, name):
                patch.setattr(accessor, name, staticmethod(spy))
        patch.setattr(Path, "open", _opening(Path.open))
        for module in ("journal", "partial"):
            name = f"headrace.store.{module}.reserve"
            patch.setattr(name, _spy(trace.resize, reserve))
        patch.setattr("headrace.store.lasting._settled", set())
        yield trace


def _spy(method: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **more: method(real, *arguments, **more)


def _opening(real: Callable[..., Any]) -> Callable[..., Any]:
    flags = {
        "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
        "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    }

    def opening(path: Path, mode: str = "r", *more: Any, **others: Any) -> Any:
        if mode[0] not in flags:
            return real(path, mode, *more, **others)
        file = io.BufferedWriter(_Raw(os.open(path, flags[mode[0]] | os.O_CLOEXEC, 0o666)))
        return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8")

    return opening


class Remains:
    """What a loss of power before `moment` left, as `chance` decided: path → file, and what is in each."""

    def __init__(self, trace: Trace, moment: int, chance: random.Random) -> None:
        self._trace = trace
        self._moment = moment
        self._chance = chance
        self._lucky = chance.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        self._ordered = chance.random() < 0.5
        self._kept: dict[int, bytes] = {}
        names: dict[str, File | str] = {}
        for naming in self._surviving():
            if naming.taken is not None and not (
                not self._ordered and not self._synced(naming.taken, naming.moment) and self._survives()
            ):
                names.pop(naming.taken, None)  # else: renamed, and yet under its old name, too
            if naming.file is None:
                names.pop(naming.path, None)
            else:
                names[naming.path] = naming.file
        self.names = {path: file for path, file in names.items() if self._leads_to(path, names)}

    def files(self) -> Iterator[tuple[Path, File]]:
        """All but folders."""
        for path, file in self.names.items():
            if isinstance(file, File):
                yield Path(path), file

    def content(self, file: File) -> bytes:
        """What stands in a file: the same, whenever it is asked."""
        if id(file) not in self._kept:
            self._kept[id(file)] = bytes(self._content(file))
        return self._kept[id(file)]

    def _content(self, file: File) -> bytearray:
        synced = max(
            (one.began for one in file.syncs if one.ended is not None and one.ended < self._moment),
            default=-1,
        )
        content = bytearray()
        for change in file.changes:
            if change.moment >= self._moment:
                break
            is_safe = change.moment < synced
            if change.data is None:
                if is_safe or self._survives():
                    _resize(content, change.offset)
            elif is_safe:
                _put(content, change.offset, change.data)
            else:
                for offset, piece in self._torn(change.offset, change.data):
                    _put(content, offset, piece)
        return content

    def _torn(self, offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The pages of a write that were written out, some of them only in part."""
        position = 0
        while position < len(data):
            end = min(len(data), position + _PAGE - (offset + position) % _PAGE)
            if self._survives():
                piece = data[position:end]
                if self._chance.random() > 0.98:
                    piece = piece[: self._chance.randrange(0, _PAGE, _SECTOR)]
                yield offset + position, piece
            position = end

    def _surviving(self) -> Iterator[Naming]:
        before = [naming for naming in self._trace.namings if naming.moment < self._moment]
        if self._ordered:
            safe = max(
                (naming.moment for naming in before if self._synced(naming.path, naming.moment)), default=-1
            )
            last = self._chance.randint(safe, self._moment)
            return iter([naming for naming in before if naming.moment <= last])
        return iter(
            [naming for naming in before if self._synced(naming.path, naming.moment) or self._survives()]
        )

    def _synced(self, path: str, moment: int) -> bool:
        syncs = self._trace.folder_syncs.get(str(Path(path).parent), ())
        return any(one.began > moment and one.ended is not None and one.ended < self._moment for one in syncs)

    def _survives(self) -> bool:
        return self._chance.random() < self._lucky

    def _leads_to(self, path: str, names: dict[str, File | str]) -> bool:
        above = itertools.takewhile(lambda one: str(one) != self._trace.root, Path(path).parents)
        return all(names.get(str(folder)) == "folder" for folder in above)


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data

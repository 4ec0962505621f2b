"""A file system in user space that hands everything on to a folder, without what it is told to lack.

    python -m tests.pull.passthrough FOLDER MOUNTPOINT FAULTS [symlink] [link] [fallocate]

Words name what it refuses, as file systems without it do. The file FAULTS is shared with the test (see `Faults`):
each operation that stores something is counted, and the chosen ones fail. So a disk fails wherever a test wants,
whatever way the bytes took through the interpreter.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import mfusepy  # type: ignore[import-untyped]

from tests.pull.mounts import Faults

_SPOILED_BYTES = 64 * 1024
F = TypeVar("F", bound=Callable[..., Any])


def storing(operation: F) -> F:
    """An operation that takes something of the disk."""

    def counted(self: Passthrough, *arguments: Any) -> Any:
        self.faults.count += 1
        if self.faults.first and 0 <= self.faults.count - self.faults.first < self.faults.many:
            raise mfusepy.FuseOSError(self.faults.code)
        return operation(self, *arguments)

    return counted  # type: ignore[return-value]


class Passthrough(mfusepy.Operations):  # type: ignore[misc]
    """See the module."""

    use_ns = True

    def __init__(self, folder: str, lacks: set[str], faults: Faults) -> None:
        self.folder = folder
        self.lacks = lacks
        self.faults = faults

    def at(self, path: str) -> Path:
        return Path(self.folder + path)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        facts = os.fstat(fh) if fh is not None else os.lstat(self.at(path))
        names = ("mode", "nlink", "uid", "gid", "size", "ino", "blocks")
        times = {f"st_{one}": getattr(facts, f"st_{one}_ns") for one in ("atime", "mtime", "ctime")}
        return {f"st_{name}": getattr(facts, f"st_{name}") for name in names} | times

    def access(self, path: str, amode: int) -> int:
        if not os.access(self.at(path), amode):
            raise mfusepy.FuseOSError(errno.EACCES)
        return 0

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        with os.scandir(self.at(path)) as found:  # a name without an inode would be taken for a deleted one
            return [(one.name, {"st_ino": one.inode(), "st_mode": 0}, 0) for one in found]

    def readlink(self, path: str) -> str:
        return str(self.at(path).readlink())

    def statfs(self, path: str) -> dict[str, int]:
        facts = os.statvfs(self.at(path))
        names = (
            "bavail",
            "bfree",
            "blocks",
            "bsize",
            "favail",
            "ffree",
            "files",
            "flag",
            "frsize",
            "namemax",
        )
        return {f"f_{name}": getattr(facts, f"f_{name}") for name in names}

    def open(self, path: str, flags: int) -> int:
        return os.open(self.at(path), flags & ~os.O_APPEND)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self.faults.waiting += 1
        while self.faults.held:
            time.sleep(0.005)
        self.faults.waiting -= 1
        if offset < self.faults.spoiled and offset + size > self.faults.spoiled - _SPOILED_BYTES:
            raise mfusepy.FuseOSError(errno.EIO)
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def unlink(self, path: str) -> int:
        self.at(path).unlink()
        return 0

    def rmdir(self, path: str) -> int:
        self.at(path).rmdir()
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        if times is None:
            os.utime(self.at(path))
        else:
            os.utime(self.at(path), ns=times)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self.at(path).chmod(mode)
        return 0

    @storing
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    @storing
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    @storing
    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self.at(path) if fh is None else fh, length)
        return 0

    @storing
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    @storing
    def mkdir(self, path: str, mode: int) -> int:
        self.at(path).mkdir(mode)
        return 0

    def rename(self, old: str, new: str) -> int:
        if "/.fuse_hidden" in new:  # how libfuse removes what somebody has open still
            return self.hide(old, new)
        return self.rename_for_good(old, new)

    @storing
    def rename_for_good(self, old: str, new: str) -> int:
        return self.hide(old, new)

    def hide(self, old: str, new: str) -> int:
        self.at(old).rename(self.at(new))
        return 0

    @storing
    def symlink(self, target: str, source: str) -> int:
        if "symlink" in self.lacks:
            raise mfusepy.FuseOSError(errno.EPERM)
        self.at(target).symlink_to(source)
        return 0

    @storing
    def link(self, target: str, source: str) -> int:
        if "link" in self.lacks:
            raise mfusepy.FuseOSError(errno.EPERM)
        os.link(self.at(source), self.at(target))
        return 0

    @storing
    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        if mode or "fallocate" in self.lacks:
            raise mfusepy.FuseOSError(errno.EOPNOTSUPP)
        os.posix_fallocate(fh, offset, size)
        return 0


def main() -> None:
    """Mount until unmounted."""
    folder, mountpoint, shared, *lacks = sys.argv[1:]
    os.umask(0)
    passthrough = Passthrough(folder, set(lacks), Faults.at(Path(shared)))
    mfusepy.FUSE(passthrough, mountpoint, foreground=True, use_ino=True, default_permissions=True)


if __name__ == "__main__":
    main()

"""What everything in the store does with the disk: errors in our words, and names that nobody else uses."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from headrace.errors import NoSpace, ReadOnly, StoreError

ELSEWHERE = "choose another folder with --dest, or another cache with HF_HUB_CACHE"
_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a write into our errors."""
    try:
        yield
    except OSError as error:
        raise told(error, path) from error


def told(error: OSError, path: Path) -> StoreError:
    """What the operating system said of a file, in our words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space; the same command continues where this one ended"
        which = "quota" if error.errno == errno.EDQUOT else "space"
        return NoSpace(f"no {which} left for {path.name} in {path.parent}", hint=hint)
    message = f"cannot write {path}: {error.strerror or error}"
    if error.errno in _UNWRITABLE:
        return ReadOnly(message, hint=ELSEWHERE)
    if error.errno == errno.EIO:
        return StoreError(message, hint=f"the disk may be failing: see the system's log, or {ELSEWHERE}")
    return StoreError(message, hint=ELSEWHERE)


def make_folders(root: Path, folders: Sequence[Path]) -> None:
    """Make folders below `root` and see that this process may write in them.

    Raises:
        ReadOnly: it may not.
        StoreError: something else stands in the way.
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_writable = os.access(folder, os.W_OK | os.X_OK)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise told(error, folder) from error
            is_writable = False
        if not is_writable:
            raise ReadOnly(f"{_why_not(root, folder)}, and something must be written there", hint=ELSEWHERE)


def scratch(workshop: Path, purpose: str) -> Path:
    """A name for something short-lived. Random: threads share a pid, and so do containers that share a cache."""
    workshop.mkdir(parents=True, exist_ok=True)
    return workshop / f"{purpose}.{secrets.token_hex(8)}"


def has_size(path: Path, size: int) -> bool:
    """Whether there is a file of this size."""
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False


def write_all(fd: int, data: bytes | memoryview, *, at: int | None = None) -> None:
    """Write everything, at a place or where the file stands; a full disk may take a part first. Raises `OSError`."""
    view = memoryview(data)
    while view:
        count = os.write(fd, view) if at is None else os.pwrite(fd, view, at)
        view = view[count:]
        at = None if at is None else at + count


def _why_not(root: Path, folder: Path) -> str:
    near = folder
    while not os.path.lexists(near) and near != near.parent:
        near = near.parent
    with suppress(OSError):
        if os.statvfs(near).f_flag & os.ST_RDONLY:
            return f"{root} is read-only"
    return f"{root} is read-only for this user ({near} belongs to another)"

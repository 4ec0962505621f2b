"""What everything in the store does with the disk: errors in our words, and names that nobody else uses."""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from headrace.errors import NoSpace, ReadOnly, StoreError

ELSEWHERE = "choose another folder with `dest`, or another cache with HF_HUB_CACHE"
_QUICK_BYTES = 4 * 1024 * 1024
_BEAT_S = 0.5
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
        hint = "free some space; the same pull continues where this one ended"
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


def keep(fd: int, beat: Callable[[], None]) -> None:
    """Make the content of an open file outlast a loss of power: fdatasync(2). Raises `OSError`.

    Of a large file that may take minutes, in which Python hears no signal: it is waited for on another thread, and
    `beat` is called meanwhile.
    """
    if os.fstat(fd).st_size <= _QUICK_BYTES:
        os.fdatasync(fd)
        return
    failures: list[OSError] = []

    def work() -> None:
        try:
            os.fdatasync(fd)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True, name="keep")
    thread.start()
    while thread.is_alive():
        thread.join(_BEAT_S)
        beat()
    if failures:
        raise failures[0]


def device_of(path: Path) -> int:
    """The device that something lies on, or would: that of the nearest thing above it that exists."""
    for near in (path, *path.parents):
        with suppress(OSError):
            return near.stat().st_dev
    return 0


def see_ways(workshop: Path, finals: Iterable[Path]) -> None:
    """Make sure that what is finished in the workshop can get these names, before the first byte is fetched for it.

    Raises:
        StoreError: something stands in the way, or lies on another disk, where nothing can be renamed to.
    """
    home = _disk_of(workshop)
    by_folder: dict[Path, list[Path]] = {}
    for final in finals:
        by_folder.setdefault(final.parent, []).append(final)
    for folder, names in by_folder.items():
        near = _nearest(folder)
        if not _is_folder(near):
            raise StoreError(
                f"cannot make the folder {folder}: {near} is none", hint="move it out of the way"
            )
        if _disk_of(near) != home:
            message = (
                f"{near} is on another disk than {workshop.parent.parent}: nothing can be renamed to there"
            )
            raise StoreError(
                message, hint="move or link the whole folder, not a part of it, to the other disk"
            )
        taken = next((name for name in names if _is_folder(name) and not name.is_symlink()), None)
        if taken is not None:
            raise StoreError(f"cannot write {taken}: it is a folder", hint="move it out of the way")


def _is_folder(path: Path) -> bool:
    with suppress(OSError):  # what cannot be looked at is told of by whoever writes there
        return path.is_dir()
    return False


def same_disk(one: Path, other: Path) -> bool:
    """Whether files can be renamed from one folder to another; neither need exist yet."""
    return _disk_of(one) == _disk_of(other)


def _disk_of(path: Path) -> tuple[int, int]:
    """Device and mount: rename(2) crosses neither, not even to another mount of the same device."""
    try:
        fd = os.open(_nearest(path), os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return (0, 0)
    try:
        device, mount = os.fstat(fd).st_dev, 0
        with suppress(OSError, ValueError):
            told = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
            mount = int(told.partition("mnt_id:")[2].split("\n")[0] or 0)
        return device, mount
    finally:
        os.close(fd)


def _nearest(path: Path) -> Path:
    """The path itself or the nearest above it that is there, if only as a link to nowhere."""
    return next((near for near in (path, *path.parents) if os.path.lexists(near)), path)


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

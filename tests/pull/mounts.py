"""File systems for tests: one in user space that lacks and fails what a test wants, and a small one in memory."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

import pytest

_HERE = Path(__file__).parents[2]


class Faults(ctypes.Structure):
    """What test and file system both see: operations that stored something so far; the first that fails (0: none
    does), how many do, and the errno; whether reads have to wait, and how many do; and up to which byte, with the
    64 KiB before it, reads fail (0: none does)."""

    _fields_ = (
        ("count", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("many", ctypes.c_int64),
        ("code", ctypes.c_int64),
        ("held", ctypes.c_int64),
        ("waiting", ctypes.c_int64),
        ("spoiled", ctypes.c_int64),
    )
    count: int
    first: int
    many: int
    code: int
    held: int
    waiting: int
    spoiled: int

    @classmethod
    def at(cls, path: Path) -> Faults:
        """Those in a file, shared with whoever else opens it."""
        path.touch()
        os.truncate(path, ctypes.sizeof(cls))
        with path.open("r+b") as file:
            return cls.from_buffer(mmap.mmap(file.fileno(), ctypes.sizeof(cls)))

    def fail(self, first: int, many: int, code: int) -> None:
        """Fail `many` operations with `code`, the `first` of which is so many ahead; 0 fails none any more."""
        self.count, self.many, self.code = 0, many, code
        self.first = first


@contextmanager
def in_user_space(base: Path, *lacks: str) -> Iterator[tuple[Path, Faults]]:
    """A mounted file system that hands on to a folder: where, and its faults. Skips where FUSE is not to be had."""
    with served(base, "tests.pull.passthrough", *lacks) as point:
        yield point, Faults.at(base / "faults")


@contextmanager
def served(base: Path, program: str, *words: str) -> Iterator[Path]:
    """Where a file system is mounted that this module serves from `base/behind`. Skips where FUSE is not to be had."""
    for reason, missing in (
        ("no /dev/fuse that may be opened", not os.access("/dev/fuse", os.R_OK | os.W_OK)),
        ("fusermount3 and libfuse3 are not installed", not find_library("fuse3")),
        ("mfusepy is not installed", importlib.util.find_spec("mfusepy") is None),
    ):
        if missing:
            pytest.skip(reason)
    folder, point, shared = base / "behind", base / "mount", base / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    point.mkdir()
    Faults.at(shared)
    command = [sys.executable, "-W", "ignore", "-m", program, str(folder), str(point)]
    process = subprocess.Popen(
        [*command, str(shared), *words],
        cwd=_HERE,
        env={**os.environ, "FUSE_LIBRARY_NAME": "fuse3"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 20
        while not point.is_mount():
            if process.poll() is not None:
                pytest.skip(f"FUSE cannot be mounted here: {process.communicate()[1].strip()[-200:]}")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield point
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(point)], check=False, capture_output=True)
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def in_memory(point: Path, options: str) -> Iterator[Path]:
    """A tmpfs. Skips where this process may not mount one."""
    point.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "headrace-test", str(point)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@contextmanager
def sharing_blocks(base: Path) -> Iterator[Path]:
    """A file system that can share blocks between files (XFS in a sparse file). Skips where none can be mounted."""
    image, point = base / "image", base / "mount"
    point.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(320 * 1024 * 1024)
    for command in (
        ["mkfs.xfs", "-q", "-m", "reflink=1", str(image)],
        ["mount", "-o", "loop", str(image), str(point)],
    ):
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no XFS can be made and mounted here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)

"""What quotas leave of a file system: those of a user and of a group, as quotactl(2) tells them.

A project's quota needs no question: ext4 and XFS answer statvfs with it. Quotas of a network file system are kept
by its server; there the first refused write tells.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_GETQUOTA = 0x800007
_USER, _GROUP = 0, 1
_BLOCK_BYTES = 1024  # limits are counted in these, whatever the file system's own blocks are
_LIMITS_VALID = 0x1 | 0x4  # QIF_BLIMITS, QIF_ILIMITS


class _Answer(ctypes.Structure):
    """`struct dqblk`."""

    _fields_ = (
        ("bytes_hard", ctypes.c_uint64),
        ("bytes_soft", ctypes.c_uint64),
        ("bytes_used", ctypes.c_uint64),
        ("files_hard", ctypes.c_uint64),
        ("files_soft", ctypes.c_uint64),
        ("files_used", ctypes.c_uint64),
        ("bytes_grace", ctypes.c_uint64),
        ("files_grace", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Quota:
    """What one quota leaves; None where it sets no limit."""

    whose: str
    bytes_left: int | None
    files_left: int | None


Ask = Callable[[int, bytes, int, "_Answer"], bool]
"""Fills the answer for a kind (user, group), a block device and an id; whether there is one."""


def quotas(folder: Path, source: str) -> list[Quota]:
    """The quotas that bind this process in a folder that lies on the block device `source`."""
    if not source.startswith("/dev/"):
        return []
    facts = folder.stat()
    inherits = facts.st_mode & 0o2000  # setgid: what is made here belongs to the folder's group
    group = facts.st_gid if inherits else os.getegid()
    found = (
        quota_of(f"user {os.geteuid()}", _USER, source, os.geteuid()),
        quota_of(f"group {group}", _GROUP, source, group),
    )
    return [one for one in found if one is not None]


def quota_of(whose: str, kind: int, source: str, number: int, ask: Ask | None = None) -> Quota | None:
    """One quota, or None where there is none, or none that may be asked for.

    Soft limits are none: they may be exceeded for days.
    """
    answer = _Answer()
    if not (ask or _ask)(kind, os.fsencode(source), number, answer) or not answer.valid & _LIMITS_VALID:
        return None
    limit, used = answer.bytes_hard * _BLOCK_BYTES, answer.bytes_used
    bytes_left = max(0, limit - used) if limit else None
    files_left = max(0, answer.files_hard - answer.files_used) if answer.files_hard else None
    if bytes_left is None and files_left is None:
        return None
    return Quota(whose, bytes_left, files_left)


def _ask(kind: int, source: bytes, number: int, answer: _Answer) -> bool:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        command = ctypes.c_int((_GETQUOTA << 8 | kind) - (1 << 32))
        return bool(libc.quotactl(command, source, ctypes.c_int(number), ctypes.byref(answer)) == 0)
    except (OSError, AttributeError, ctypes.ArgumentError):
        return False

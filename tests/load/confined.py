"""Work where no program can be started, as under a strict seccomp(2) profile. It holds for one thread, and goes with it."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

_Result = TypeVar("_Result")

_EXECS = {"x86_64": (59, 322), "aarch64": (221, 281)}  # execve, execveat
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2  # of prctl(2)
_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06  # of the filter's language; the system's number is what is at 0
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]  # ctypes wants it so


def where_nothing_can_be_started(work: Callable[[], _Result]) -> _Result:
    """What the work comes to; what it raises is raised."""
    results: list[_Result] = []
    errors: list[BaseException] = []
    forbidden: list[bool] = []

    def run() -> None:
        forbidden.append(_forbid_exec())
        try:
            if forbidden[0]:
                results.append(work())
        except BaseException as error:  # noqa: BLE001  # it is another thread that raises it
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if not forbidden[0]:
        pytest.skip("this kernel lets nobody forbid himself anything")
    if errors:
        raise errors[0]
    return results[0]


def _forbid_exec() -> bool:
    execs = _EXECS.get(platform.machine(), ())
    steps = [(_LOAD, 0, 0, 0)]
    steps += [(_IS, len(execs) - at, 0, number) for at, number in enumerate(execs)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in steps))
    program = _Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None)
    return bool(execs) and not (
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program))
    )

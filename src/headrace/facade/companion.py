"""A companion: a process of ours that runs a prefetcher, and the line to it.

It has a session of its own: a Ctrl-C of the terminal is for the program, which then says what comes of it. It finds
this package and what it needs where this program found them, and is told nothing else by variables that are for
Python: a program may have been started without them for a reason. What it writes to standard error is kept for the
one who asks how it ended, without the secrets that may be in it.

The line is closed in every child that is forked: while somebody has it, the companion would not hear of our end.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from headrace.errors import LoadError
from headrace.wire import redacted

_FAREWELL_S = 5.0  # a prefetcher ends by itself before
_MESSAGE_S = 20.0  # half of a message is not waited for any longer
_STOPPED_S = 2.0  # who stops all that somebody runs stops this program as well, and wakes both
_LOOK_S = 0.2
_WORDS_BYTES = 16 * 1024
_WORDS_MOST = 300  # characters of them that are told
_HINT = "headrace.load and headrace.pull do without it"
_BEGIN = (
    "import sys; sys.path.insert(0, {package!r}); from headrace.facade.prefetcher import main; "
    "sys.path.pop(0); sys.path.extend({search!r}); main()"
)


class NoCompanion(LoadError):
    """No process of ours can be run beside this one: the program has to do without."""

    code = "no_companion"


class Companion:
    """A running prefetcher. For any thread that has its user's lock, and for one process.

    Attributes:
        last_words: the last line that it wrote to standard error, once it has ended; not more than fits into an error.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Start it; `secrets` are never among its words. Raises `NoCompanion` where there is no Python to run, or no process may be made."""
        if not sys.executable or getattr(
            sys, "frozen", False
        ):  # what is frozen names itself there: it would start itself
            raise NoCompanion("this program does not know which Python runs it", hint=_HINT)
        self.last_words = ""
        self._secrets = tuple(secrets)
        self._looked_at = self._stopped_at = float("-inf")
        self._is_stopped = False
        self._words = _paper()
        try:
            self._process, line = _started(self._words)
        except OSError as error:
            if self._words is not None:
                self._words.close()
            raise NoCompanion(f"cannot start {sys.executable}: {error.strerror}", hint=_HINT) from error
        for bound in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            line.setsockopt(socket.SOL_SOCKET, bound, struct.pack("@ll", int(_MESSAGE_S), 0))
        self._line = Connection(line.detach())
        _companions.add(self)

    def __repr__(self) -> str:
        return f"<Companion {self._process.pid}>"

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def say(self, word: object) -> None:
        """Send it a word. Raises `OSError` where it has ended."""
        try:
            self._line.send(word)
        except (BrokenPipeError, ConnectionResetError):
            raise  # what it said before it ended is still to be heard
        except BaseException:  # an interrupt, or it does not listen: half of a word may be on the line
            self.end(0.0)
            raise

    def hear(self) -> object | None:
        """The next word, if there is one. Raises `EOFError` or `OSError` where it has ended."""
        try:
            return self._line.recv() if self._line.poll() else None
        except (EOFError, OSError):
            raise
        except BaseException:  # an interrupt: where the next word begins is not known any more
            self.end(0.0)
            raise

    def is_stopped(self) -> bool:
        """Whether somebody stopped the process, and has not let it go on since."""
        now = time.monotonic()
        gap_s, before = now - self._looked_at, self._is_stopped
        if gap_s < _LOOK_S:
            return False
        self._looked_at, self._is_stopped = now, _is_stopped(self._process.pid)
        if not (self._is_stopped and before and gap_s < _STOPPED_S):  # we may have been stopped ourselves
            self._stopped_at = now
        return self._is_stopped and now - self._stopped_at >= _STOPPED_S

    def end(self, patience_s: float = _FAREWELL_S) -> int:
        """Hang up, and see it end; by force where it does not. The exit code is the answer, or minus the signal."""
        self._hang_up()
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if self._words is not None:
            with suppress(OSError):
                self.last_words = _last_line(self._words, self._secrets)
            self._words.close()
            self._words = None
        return code

    def _hang_up(self) -> None:
        """Close the line: it will end by itself."""
        if self._line.closed:
            return
        # A fork that Python did not make may still have a copy of the descriptor.
        with suppress(OSError), socket.socket(fileno=os.dup(self._line.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)
        self._line.close()
        _companions.discard(self)

    def abandon(self) -> None:
        """Have nothing to do with it any more: it is the parent's, of which this process is a fork."""
        self._line.close()
        if self._words is not None:
            self._words.close()
        self._process.returncode = 0  # nobody is to wait for it here


_companions: weakref.WeakSet[Companion] = weakref.WeakSet()


def _abandon_all() -> None:
    for companion in list(_companions):
        companion.abandon()
    _companions.clear()


os.register_at_fork(after_in_child=_abandon_all)


def _started(words: IO[bytes] | None) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process, and our end of the line to it. Raises `OSError`."""
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(  # our own interpreter and module
            [sys.executable, *_flags(), "-c", _program(), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words or subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def _paper() -> IO[bytes] | None:
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return None  # then nobody learns why it ended


def _last_line(paper: IO[bytes], secrets: Iterable[str]) -> str:
    """The last one that says something; not its end alone, in which no secret could be made out. Raises `OSError`."""
    start = max(0, os.fstat(paper.fileno()).st_size - _WORDS_BYTES)
    paper.seek(start)
    lines = paper.read().decode("utf-8", "replace").split("\n")
    said = next((line.strip() for line in reversed(lines[1 if start else 0 :]) if line.strip()), "")
    told = redacted(said, secrets)
    return told if len(told) <= _WORDS_MOST else told[: _WORDS_MOST - 1] + "…"


def _flags() -> list[str]:
    """As isolated as can be, and apart from that as this interpreter."""
    return ["-I", *(["-X", "utf8"] if sys.flags.utf8_mode else [])]


def _program() -> str:
    package = str(Path(__file__).parents[2])
    search = [path for path in sys.path if path not in ("", package)]
    return _BEGIN.format(package=package, search=[*search, package])


def _is_stopped(pid: int) -> bool:
    with suppress(OSError):
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    return False

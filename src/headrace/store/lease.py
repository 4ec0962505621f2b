"""A lease: one process at a time works on a blob.

Claimed by creating `<digest>.lease.<generation>` exclusively, which is atomic wherever files are; flock is never
relied on, since it silently succeeds on Lustre, GPFS and some NFS. A holder on this machine and in this pid
namespace is taken to be dead when no process has its pid and start time. Any other holder (another machine, a
container) is watched: it touches its lease every few seconds, and when that has not moved for `SILENCE_S` on the
watcher's own clock it counts as dead. Clocks are never compared: any change of the time that the file system gives
is a sign of life. A takeover is the next generation; of several takers one wins the exclusive create.

Who was only silent might wake up, and its files must not be worked on further. Until its taker has files of its own,
the word that it was left stays in its lease: should the taker die, the next one still knows. The holder that wakes
finds that its lease is not its own any more.

A taker looks again after its create and withdraws if it finds a lease that it has not judged. Of any two claims
the later create therefore sees the earlier one, however long either process slept in between, and generations
may begin again at one after a release. What a lease says is unique, so that nobody mistakes another's for its own.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from headrace.layout import WorkshopLayout
from headrace.store.disk import scratch, storing

SILENCE_S = 30.0
BEAT_S = 5.0

_LEFT = "left"
_STOPPED = ("T", "t")  # proc(5): by a signal, by a tracer


@dataclass(frozen=True)
class Holder:
    """Who holds a lease; `claim` tells one lease of a process from its others."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    started: str
    claim: str

    @classmethod
    def me(cls) -> Holder:
        """This process, with a claim of its own."""
        pid, claim = os.getpid(), secrets.token_hex(8)
        return cls(socket.gethostname(), boot_id(), _pid_namespace(), pid, _stat_of(pid)[1], claim)

    def is_alive(self) -> bool | None:
        """Whether it runs; None where that cannot be told from here: another machine or pid namespace."""
        if not (self.boot_id == boot_id() != "" and self.pid_namespace == _pid_namespace() != ""):
            return None
        state, started = _stat_of(self.pid)
        if not state and _is_hidden(self.pid):
            return None
        return state not in ("", "Z", "X") and started == self.started

    def is_stopped(self) -> bool:
        """Whether somebody stopped it (SIGSTOP, Ctrl-Z, a debugger), as far as that can be told from here."""
        return self.is_alive() is True and _stat_of(self.pid)[0] in _STOPPED

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass
class Lease:
    """A lease held by this process.

    Attributes:
        text: what stands in it.
        inherited: the files of the last holder may be worked on further: there was none, or it is certainly
            dead. A holder that was only silent might wake up, so its files are left to it: `succeed` says when
            there are new ones.
        left: the leases of such holders.
    """

    path: Path
    text: str
    inherited: bool
    _fd: int
    left: list[Path] = field(default_factory=list)
    _beaten_at: float = field(default_factory=time.monotonic)  # it was written just now

    def beat(self, now: float) -> None:
        """Show that this holder lives; cheap to call often. By descriptor, so that no successor's lease is meant."""
        if self._fd >= 0 and now - self._beaten_at >= BEAT_S:
            self._beaten_at = now
            with suppress(OSError):  # the disk is gone: publishing will find out
                os.utime(self._fd)

    def succeed(self) -> None:
        """Now this holder has files of its own: those that the silent ones left are nobody's business any more."""
        while self.left:
            with suppress(OSError):
                self.left.pop().unlink(missing_ok=True)

    def still_held(self) -> bool:
        """Whether nobody took the blob over."""
        return _read(self.path) == self.text

    def release(self) -> None:
        """Let others have the blob. Never fails: a lease that cannot be removed dies with this process."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with suppress(OSError):
            if self.still_held():
                self.path.unlink()
        with suppress(OSError):
            os.close(fd)


class LeaseWatch:
    """Tries for the lease of one blob; remembers what it saw of the holder between tries.

    Attributes:
        holder: who had it at the last try, as far as that could be read.
    """

    def __init__(self, layout: WorkshopLayout, clock: Callable[[], float] = time.monotonic) -> None:
        self._layout = layout
        self._clock = clock
        self._seen: dict[
            int, tuple[tuple[str, int], float]
        ] = {}  # generation → what was seen, and since when
        self.holder: Holder | None = None

    def acquire(self) -> Lease | None:
        """The lease, or None while somebody has it.

        Raises:
            StoreError: the workshop cannot be written.
        """
        with storing(self._layout.folder):
            found = self._claims()
            verdicts = {generation: self._verdict(generation, text) for generation, text in found.items()}
            if None in verdicts.values():
                return None
            generation = max(found, default=0) + 1
            path, text = self._layout.lease(generation), json.dumps(asdict(Holder.me()))
            try:
                file = path.open("x")
            except FileExistsError:
                return None  # somebody was there first
            try:
                with file:
                    file.write(text)  # closed, it is seen by other machines, too
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return None  # before the text somebody took it for the one that was judged
            except BaseException:
                path.unlink(missing_ok=True)  # an empty one would be waited for
                raise
            lease = Lease(path, text, all(verdicts.values()), fd)
            try:
                others = self._claims()
                if others.pop(generation, None) != text or not others.items() <= found.items():
                    lease.release()
                    return None
                lease.left = [self._layout.lease(one) for one in others if not verdicts[one]]
                for path in (self._layout.lease(one) for one in others if verdicts[one]):
                    path.unlink(missing_ok=True)
                for path in lease.left:
                    word = scratch(self._layout.folder, "text")
                    word.write_text(_LEFT)
                    word.replace(path)
            except BaseException:
                lease.release()
                raise
            return lease

    def _claims(self) -> dict[int, str]:
        """What stands in the leases of all generations that there are."""
        prefix = self._layout.lease(0).name.removesuffix("0")
        claims = {}
        for name in os.listdir(self._layout.folder):  # noqa: PTH208  # paths would cost ten times that, twice a blob
            number = name.removeprefix(prefix)
            if name.startswith(prefix) and number.isascii() and number.isdigit():
                text = _read(self._layout.folder / name)
                if text is not None:
                    claims[int(number)] = text
        return claims

    def _verdict(self, generation: int, text: str) -> bool | None:
        """None: the holder lives. True: it is certainly dead. False: it has been silent for too long."""
        if text == _LEFT:
            return False
        self.holder = _holder_in(text)
        is_alive = self.holder.is_alive() if self.holder is not None else None
        if is_alive is not None:
            return None if is_alive else True
        try:
            seen = (text, self._layout.lease(generation).stat().st_mtime_ns)
        except FileNotFoundError:
            return True  # released this moment
        if generation not in self._seen or self._seen[generation][0] != seen:
            self._seen[generation] = (seen, self._clock())
        if self._clock() - self._seen[generation][1] < SILENCE_S:
            return None
        # Who died before it had written a word never touched the files; should it live, it will see us first.
        return not text


def boot_id() -> str:
    """What tells this boot of this machine from any other; empty where the system has no such thing."""
    return _told("/proc/sys/kernel/random/boot_id")


def _holder_in(text: str) -> Holder | None:
    try:
        holder = Holder(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None  # being written, or torn: judged by its silence
    return holder if type(holder.pid) is int else None


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _stat_of(pid: int) -> tuple[str, str]:
    """State letter and start time (clock ticks since boot) of a process; empty where none is to be seen."""
    fields = _told(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (fields[0], fields[19]) if fields else ("", "")


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process that /proc does not show (`hidepid`): another user's."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _told(path: str) -> str:
    """What the kernel says there; nothing where it does not."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _read(path: Path) -> str | None:
    """What stands in a lease; None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # removed by another machine
            return None
        raise

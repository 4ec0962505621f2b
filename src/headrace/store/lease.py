"""A lease: one process at a time works on a blob.

Claimed by creating `<digest>.lease.<generation>` exclusively, which is atomic wherever files are; flock is never
relied on, since it silently succeeds on Lustre, GPFS and some NFS. A holder on this machine and in this pid
namespace is taken to be dead when no process has its pid and start time. Any other holder (another machine, a
container) is watched: it touches its lease every few seconds, and when that has not moved for `SILENCE_S` on the
watcher's own clock it is dead. A takeover is the next generation; of several takers one wins the exclusive create.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.layout import WorkshopLayout

SILENCE_S = 30.0
BEAT_S = 5.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Holder:
        """This process."""
        return cls(socket.gethostname(), boot_id(), _pid_namespace(), os.getpid(), _start_time(os.getpid()))

    def is_neighbour(self) -> bool:
        """Whether its pid means something here: same boot, same pid namespace."""
        return self.boot_id == boot_id() and self.pid_namespace == _pid_namespace()

    def is_alive(self) -> bool:
        """Whether this neighbour still runs."""
        return _start_time(self.pid) == self.started != ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass
class Lease:
    """A lease held by this process. `clean_takeover` says that the last holder is surely gone: its inode is safe."""

    path: Path
    generation: int
    inherited: bool
    _beaten_at: float = 0.0

    def beat(self, now: float) -> None:
        """Show that this holder lives; cheap to call often."""
        if now - self._beaten_at >= BEAT_S:
            self._beaten_at = now
            try:
                os.utime(self.path)
            except OSError:
                pass  # taken over meanwhile, or the disk is gone: publishing will find out

    def still_held(self) -> bool:
        """Whether nobody took the blob over."""
        return self.path.exists()

    def release(self) -> None:
        """Let others have the blob."""
        self.path.unlink(missing_ok=True)


class LeaseWatch:
    """Tries for the lease of one blob; remembers what it saw of the holder between tries."""

    def __init__(self, layout: WorkshopLayout, clock: Callable[[], float] = time.monotonic) -> None:
        self._layout = layout
        self._clock = clock
        self._seen: tuple[Path, int] | None = None
        self._seen_at = 0.0
        self.holder: Holder | None = None

    def acquire(self) -> Lease | None:
        """The lease, or None while `holder` has it.

        `Lease.inherited` is true where the files of the last holder may be worked on further: there was none, or
        it is certainly dead. A holder that was only silent might wake up, so its files are left to it.
        """
        generation, path = self._newest()
        inherited = True
        if path is not None:
            self.holder = _read_holder(path)
            verdict = self._verdict(path)
            if verdict is None:
                return None
            inherited = verdict
        mine = self._layout.lease(generation + 1)
        try:
            fd = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return None
        with os.fdopen(fd, "w") as file:
            json.dump(asdict(Holder.me()), file)
        if path is not None:
            path.unlink(missing_ok=True)
        if self._newest()[1] != mine:  # an older watcher was slower and won a later generation
            mine.unlink(missing_ok=True)
            return None
        return Lease(mine, generation + 1, inherited)

    def _newest(self) -> tuple[int, Path | None]:
        prefix = self._layout.lease(0).name.removesuffix("0")
        found = [
            (int(name.removeprefix(prefix)), self._layout.folder / name)
            for name in os.listdir(self._layout.folder)
            if name.startswith(prefix) and name.removeprefix(prefix).isdigit()
        ]
        return max(found, default=(0, None))

    def _verdict(self, path: Path) -> bool | None:
        """None: the holder lives. True: it is certainly dead. False: it has been silent for too long."""
        if self.holder is not None and self.holder.is_neighbour():
            return None if self.holder.is_alive() else True
        try:
            seen = (path, path.stat().st_mtime_ns)
        except FileNotFoundError:
            return True  # released this moment
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        return False if self._clock() - self._seen_at >= SILENCE_S else None


def boot_id() -> str:
    """What tells this boot of this machine from any other; empty where the system has no such thing."""
    return _read("/proc/sys/kernel/random/boot_id")


def _read_holder(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None  # being written, or torn: judged by its silence


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """When the process with this pid began, in clock ticks since boot; empty when there is none or it is a zombie."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return "" if not fields or fields[0] in "ZX" else fields[19]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""

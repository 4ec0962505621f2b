"""One whole process, measured by the operating system.

Wall time runs from before the start until the process has ended. Processor time, user and system, is that of the
process and of all descendants it waited for (wait4). Bytes written are `write_bytes` of /proc/PID/io, pages made
dirty on the way to a disk, read while the ended process is still a zombie: then nothing can be missing any more,
and descendants it waited for are in it. The memory peak is `VmHWM` of the largest process in the tree, sampled
every 20 ms: `ru_maxrss` will not do, since a child that was made by vfork starts with the peak of its parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SAMPLED_EVERY_S = 0.02
_ERRORS_KEPT = 2000


@dataclass(frozen=True)
class Figures:
    """What one run cost. `code` is its exit code, negative for a signal; `errors` the end of its standard error."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    written_bytes: int
    code: int
    errors: str = ""


@dataclass(frozen=True)
class Sample:
    """At an instant of the monotonic clock, s: memory of the process and its children that is no file's, bytes."""

    at_s: float
    anonymous_bytes: int


def measure(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    kill_when: Callable[[int], bool] | None = None,
    limit_s: float = 1800.0,
    samples: list[Sample] | None = None,
) -> Figures:
    """Run `command` to its end.

    Args:
        command: program and arguments.
        environment: all of its environment.
        kill_when: asked every 20 ms with the bytes it has written so far; SIGKILL once it says yes.
        limit_s: seconds after which it is killed whatever happens.
        samples: what is seen every 20 ms is added here.
    """
    with tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )
        watch = _Watch(process.pid, kill_when, began + limit_s, [] if samples is None else samples)
        watch.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall_s = time.monotonic() - began
        watch.finish()
        written = _facts(f"/proc/{process.pid}/io").get("write_bytes", 0)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - _ERRORS_KEPT))
        said = errors.read().decode(errors="replace")
    return Figures(
        wall_s, usage.ru_utime + usage.ru_stime, watch.peak_bytes, written, process.returncode, said
    )


class _Watch(threading.Thread):
    """Looks at a process while it lives."""

    def __init__(
        self, pid: int, kill_when: Callable[[int], bool] | None, deadline: float, samples: list[Sample]
    ) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._pid = pid
        self._kill_when = kill_when
        self._deadline = deadline
        self._samples = samples
        self._ended = threading.Event()

    def finish(self) -> None:
        """The process has ended."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Sample until told to stop."""
        while not self._ended.is_set():
            tree = list(_tree(self._pid))
            facts = [_facts(f"/proc/{pid}/status") for pid in tree]
            self.peak_bytes = max(self.peak_bytes, *(one.get("VmHWM", 0) * 1024 for one in facts))
            anonymous = sum(one.get("RssAnon", 0) * 1024 for one in facts)
            self._samples.append(Sample(time.monotonic(), anonymous))
            if self._is_to_die(tree):
                for pid in tree:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self._ended.wait(_SAMPLED_EVERY_S)

    def _is_to_die(self, tree: list[int]) -> bool:
        if time.monotonic() > self._deadline:
            return True
        if self._kill_when is None:
            return False
        return self._kill_when(sum(_written(pid) for pid in tree))


def _tree(pid: int) -> Iterator[int]:
    """The process and what it has started, as far as they live at this instant."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def _facts(path: str) -> dict[str, int]:
    """The lines `name: number …` of a file in /proc; none where the process is gone."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, value = line.partition(":")
        first = value.split()[:1]
        if first and first[0].isdecimal():
            found[name] = int(first[0])
    return found


def _written(pid: int) -> int:
    """Bytes a process has written: `wchar` knows nothing of spliced ones, `write_bytes` of those not on a disk."""
    facts = _facts(f"/proc/{pid}/io")
    return max(facts.get("wchar", 0), facts.get("write_bytes", 0))

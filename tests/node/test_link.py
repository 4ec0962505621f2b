"""A worker that fails to start, or cannot be understood: another one begins."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.node.config import NodeConfig, Upstream
from headrace.node.fill.link import WorkerLink

RAVES_ONCE = f"""#!{sys.executable}
import pathlib, sys
if not (marker := pathlib.Path(__file__ + ".raved")).exists():
    marker.touch()
    print("x" * 3_000_000, flush=True)
sys.stdin.read()
"""

BEATS = f"""#!{sys.executable}
import time
while True:
    print(flush=True)
    time.sleep(0.05)
"""


def put(script: Path, text: str) -> None:
    fresh = script.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o755)
    fresh.replace(script)


async def until(met: Callable[[], bool]) -> None:
    while not met():  # noqa: ASYNC110 - a process is watched, not a task
        await asyncio.sleep(0.01)


def test_whatever_becomes_of_a_worker_another_one_begins(tmp_path: Path) -> None:
    script = tmp_path / "worker"
    lives: list[int | None] = []

    async def act() -> None:
        link = WorkerLink(NodeConfig((Upstream("hub", "http://127.0.0.1:9"),), tmp_path), [str(script)])
        link.bereaved = lambda: lives.append(link.pid)
        put(script, RAVES_ONCE)
        await link.start()
        await until(lambda: len(lives) == 1)
        script.unlink()
        (pid,) = lives
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.5)  # some attempts fail
        assert lives == [pid]
        assert link.pid is None
        put(script, RAVES_ONCE)
        await until(lambda: len(lives) == 2)
        assert lives[1] not in (None, pid)
        await link.stop(4.0)

    asyncio.run(asyncio.wait_for(act(), 15))


def test_a_worker_that_is_frozen_is_replaced(tmp_path: Path) -> None:
    script = tmp_path / "worker"
    put(script, BEATS)
    lives: list[int | None] = []

    async def act() -> None:
        config = NodeConfig((Upstream("hub", "http://127.0.0.1:9"),), tmp_path)
        link = WorkerLink(config, [str(script)], silence_s=2.0)
        link.bereaved = lambda: lives.append(link.pid)
        await link.start()
        frozen = link.pid
        assert frozen is not None
        await asyncio.sleep(0.5)  # it has begun to beat
        os.kill(frozen, signal.SIGSTOP)
        await until(lambda: bool(lives))
        assert lives == [link.pid] != [frozen]
        with pytest.raises(ProcessLookupError):
            os.kill(frozen, 0)
        os.kill(link.pid or 0, signal.SIGKILL)
        await link.stop(4.0)

    asyncio.run(asyncio.wait_for(act(), 50))

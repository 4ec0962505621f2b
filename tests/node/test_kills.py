"""Node and worker killed at random moments under load, while things go and rot: right bytes, an index that agrees."""

from __future__ import annotations

import http.client
import os
import random
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node.asking import ask
from tests.node.keeping import assert_agrees, flip

MIB = 1024 * 1024
QUOTA = 16 * MIB
OFTEN_DAYS = 0.3 / 86400
FILES = {f"{seed}.bin": content(MIB // 2 + seed * 400_000, seed) for seed in range(14)}
FILES |= {f"{seed}.json": b"%d" % seed for seed in range(10)}


class Crowd:
    """Readers that never stop; what is answered as a whole must be right."""

    def __init__(self, endpoint: str, seed: int) -> None:
        self._endpoint = endpoint
        self._over = threading.Event()
        self.wrong: list[str] = []
        self.right = 0
        self._threads = [threading.Thread(target=self._read, args=(seed + one,)) for one in range(3)]
        for thread in self._threads:
            thread.start()

    def _read(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self._over.is_set():
            path = dice.choice(sorted(FILES))
            try:
                reply = ask(f"{self._endpoint}/org/x/resolve/main/{path}")
            except (OSError, http.client.HTTPException):
                self._over.wait(0.02)  # cut off, or nobody there: all but a whole wrong file is fine
                continue
            if reply.status == http.HTTPStatus.OK and reply.body != FILES[path]:
                self.wrong.append(path)
            self.right += reply.status == http.HTTPStatus.OK

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def kill(process: int) -> None:
    """End a process at once, and wait until it has."""
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        os.kill(process, signal.SIGKILL)
        assert select.select([watched], [], [], 10)[0]
    finally:
        os.close(watched)


@pytest.mark.parametrize("rounds", [6, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_at_any_moment_it_goes_on_with_right_bytes(
    rounds: int, tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    data, dice, right = tmp_path / "node", random.Random(rounds), 0
    write_repo(tmp_path / "hub", "org/x", FILES)
    with ChaosHub(tmp_path / "hub") as hub:
        for number in range(rounds):
            node = start_node(hub, quota=QUOTA, free_space=0, scrub_rate=2**30, scrub_days=OFTEN_DAYS)
            crowd = Crowd(node.endpoint, number)
            try:
                time.sleep(dice.uniform(0.05, 0.8))
                if number % 2:
                    kill(node.worker)
                    time.sleep(dice.uniform(0.0, 0.4))
                kill(node.pid)
                kill(node.worker)
            finally:
                crowd.stop()
            node.stop()
            assert not crowd.wrong
            right += crowd.right
            assert_agrees(data)
            if blobs := sorted(data.glob("blobs/sha256/*/*")):
                flip(dice.choice(blobs), dice.randrange(1000))
        assert right
        node = start_node(hub, quota=QUOTA, free_space=0)
        for path, body in FILES.items():
            assert ask(f"{node.endpoint}/org/x/resolve/main/{path}").body == body
        node.stop()
        assert_agrees(data)

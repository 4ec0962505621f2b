"""How looking after the disk ends."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from headrace.node.disk.rounds import Rounds
from headrace.node.threads import Threads
from headrace.plan.eviction import Care
from tests.node.keeping import Folder


def test_a_disk_that_hangs_keeps_no_node_from_its_end(tmp_path: Path) -> None:
    hangs = threading.Event()
    keeper = Folder(tmp_path, Care(free_space=0)).keeper

    def write() -> None:
        hangs.wait(20)

    keeper.unwritten = (write,)

    async def act() -> None:
        rounds = Rounds(keeper, Threads(), list, lambda: None)
        rounds.start()
        await asyncio.sleep(0)
        await rounds.stop(0.2)
        assert not hangs.is_set()
        hangs.set()

    asyncio.run(asyncio.wait_for(act(), 10))

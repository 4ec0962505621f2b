"""One of several hubs is killed while a pull is on its way, and comes back."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace.events import BytesLanded, Event, SegmentFailed
from headrace.testing import ChaosHub, content, write_repo
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

SIZE = 48_000_000
RETURN_S = 30.0


class Watch:
    """When bytes of one source came, and when it failed."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.landed_s: list[float] = []
        self.failed_s: list[float] = []
        self.some = threading.Event()

    def hear(self, event: Event) -> None:
        if isinstance(event, BytesLanded) and event.source == self.source:
            self.landed_s.append(time.monotonic())
            self.some.set()
        if isinstance(event, SegmentFailed) and event.source == self.source:
            self.failed_s.append(time.monotonic())


def test_a_hub_that_is_killed_and_comes_back_is_used_again(
    root: Path, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(SIZE)
    write_repo(root, "org/model", {"model.safetensors": data})
    ports = (free_port(), free_port())
    with ChaosHub(root, rate=200_000) as slow, ChaosHub(root, rate=1_000_000, ports=ports) as fast:
        monkeypatch.setenv("HF_ENDPOINT", slow.endpoint)
        watch = Watch(fast.endpoint.removeprefix("http://"))
        times: list[float] = []

        def kill_and_revive() -> None:
            watch.some.wait(20)
            time.sleep(0.5)
            fast.stop()
            times.append(time.monotonic())
            time.sleep(2.0)
            fast.start()
            times.append(time.monotonic())

        thread = threading.Thread(target=kill_and_revive)
        thread.start()
        settings = headrace.load_settings(cache=pull.cache)
        sources = [fast.endpoint, slow.endpoint]
        snapshot = headrace.pull("org/model", sources=sources, settings=settings, on_event=watch.hear)
        thread.join()
    killed_s, revived_s = times
    assert (snapshot.path / "model.safetensors").read_bytes() == data
    assert any(at_s >= killed_s - 0.2 for at_s in watch.failed_s), "nobody was told"
    assert not [at_s for at_s in watch.landed_s if killed_s + 1.0 < at_s < revived_s]
    again_s = [at_s for at_s in watch.landed_s if at_s > revived_s]
    assert again_s, "never used again"
    assert again_s[0] - revived_s <= RETURN_S

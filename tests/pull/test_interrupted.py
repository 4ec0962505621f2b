"""An interrupted pull: what was beginning ends soon, and what is told of it is told once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from headrace.errors import Interrupted
from headrace.events import BlobFailed
from headrace.store.hubcache import HubCache
from headrace.testing import ChaosHub, content, write_repo
from headrace.transfer import fetching
from headrace.transfer.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from headrace.manifest import Entry
    from tests.pull.conftest import Puller


def test_what_is_hashed_before_it_is_fetched_is_given_up(
    root: Path, hub: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another process put the content in place: to check a large one takes minutes.
    write_repo(root, "org/model", {"model.safetensors": content(30_000)})
    engines: list[Engine] = []
    ended = threading.Event()

    def reuse(_: HubCache, entries: Sequence[Entry], progress: Callable[[Entry, int], None]) -> bool:
        if not engines:
            return False
        progress(entries[0], 1)
        engines[0].stop()
        try:
            progress(entries[0], 2)
        except Interrupted:
            ended.set()
            raise
        return False

    class Remembered(Engine):
        def run(self, *, until_idle: bool) -> None:
            engines.append(self)
            super().run(until_idle=until_idle)

    monkeypatch.setattr(HubCache, "reuse", reuse)
    monkeypatch.setattr(fetching, "Engine", Remembered)
    with pytest.raises(Interrupted):
        pull("org/model")
    assert ended.is_set()
    assert pull.heard(BlobFailed) == []
    assert not list((pull.cache / ".locks" / "headrace").glob("*.lease.*"))


def test_what_it_came_to_is_told_of_the_moment_it_ended(
    root: Path, hub: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repo(root, "org/model", {"model.safetensors": content(30_000)})
    engines: list[Engine] = []

    def drive(engine: Engine) -> None:
        engines.append(engine)
        driven(engine)

    driven = fetching._drive
    monkeypatch.setattr(fetching, "_drive", drive)
    snapshot = pull("org/model")
    before = dict(snapshot.sources)
    engines[0].received["another"] = 5  # an engine that was interrupted may live a little longer
    assert snapshot.sources == before

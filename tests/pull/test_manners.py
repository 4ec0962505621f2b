"""What a pull may use, and what it fetches first."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace.events import BlobStarted, BytesLanded, Event, SegmentFailed, SegmentOpened, SourceSilent
from headrace.testing import ChaosHub, Fault, content, write_repo

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

BURST_S = 0.25  # promised


def most_at_once(hub: ChaosHub) -> int:
    """How many answers with content were on their way at the same time."""
    changes: list[tuple[float, int]] = []
    for one in hub.log().requests:
        if one.blob is not None and one.ended_s is not None:
            changes += [(one.started_s, 1), (one.ended_s, -1)]
    return max(itertools.accumulate(change for _, change in sorted(changes)))


@pytest.mark.parametrize("rate", [3_000_000, 700_000])
def test_no_more_comes_than_the_limit(
    rate: int, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    size = 4 * rate
    shards = {f"model-{n}.safetensors": content(size // 4, seed=n) for n in range(4)}
    write_repo(root, "org/limited", shards)
    heard: list[tuple[float, Event]] = []
    settings = headrace.load_settings(cache=pull.cache, limit_rate=rate, idle_timeout_s=5)
    began = time.monotonic()
    headrace.pull(
        "org/limited", settings=settings, on_event=lambda event: heard.append((time.monotonic(), event))
    )
    took_s = time.monotonic() - began
    landed = 0
    for at, event in heard:
        if isinstance(event, BytesLanded):
            landed += event.stop - event.start
            assert landed <= rate * (at - began + BURST_S)
    assert size / rate - BURST_S <= took_s < 3 * size / rate + 5
    # It is we who wait: nobody is blamed for it, and nothing is asked for twice.
    assert [event for _, event in heard if isinstance(event, (SegmentFailed, SourceSilent))] == []
    assert hub.log().blob_bytes < 1.05 * size


def test_connections_that_the_limit_would_starve_are_not_made(
    root: Path, hub: ChaosHub, pull: Puller
) -> None:
    write_repo(root, "org/limited", {"model.safetensors": content(2_000_000)})
    pull.settings |= {"limit_rate": "600K", "lanes": 16}
    hub.set_faults(Fault("rate", rate=100_000_000))
    pull("org/limited")
    assert 1 <= most_at_once(hub) <= 2


def test_lanes_are_the_most_connections_there_are(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/big", {"model.safetensors": content(6_000_000)})
    pull.settings["lanes"] = 2
    hub.set_faults(Fault("rate", rate=1_000_000))
    pull("org/big")
    assert len(pull.heard(SegmentOpened)) >= 2
    assert most_at_once(hub) == 2


def test_what_is_useful_alone_comes_first_and_shards_in_the_order_people_count(
    root: Path, hub: ChaosHub, pull: Puller
) -> None:
    large = 16 * 1024 * 1024
    files = {
        **{f"model-{n}-of-10.safetensors": content(large + n, seed=n) for n in (1, 2, 10)},
        "README.md": b"#",
        "assets/tiny.bin": b"tiny",
        "config.json": b"{}",
        "model.safetensors.index.json": b"{ }",
        "tokenizer.json": b"[]",
    }
    write_repo(root, "org/ordered", files)
    pull("org/ordered")
    begun = [event.path for event in pull.heard(BlobStarted)]
    wanted = [
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "README.md",
        "assets/tiny.bin",
        "model-1-of-10.safetensors",
        "model-2-of-10.safetensors",
        "model-10-of-10.safetensors",
    ]
    assert sorted(begun) == sorted(wanted)
    for at, path in enumerate(begun):  # two are opened at a time, and the other one may take long
        assert len(set(wanted[: wanted.index(path)]).difference(begun[:at])) <= 1, begun

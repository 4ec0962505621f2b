"""Several sources behind lines of their own that are cut and mended; needs the right to make network namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.line import Line, lines, why_not
from bench.mirrors import hub
from bench.repo import REPO, BenchRepo, digest_of, make_repo
from headrace.ranges import Range, RangeSet

SLOW, FAST = 16_000_000, 80_000_000  # bits a second
SIZE = 128_000_000  # the slow lines alone would need half a minute: time enough to find the fast one mended
CUT_S, MENDED_S = 1.0, 4.0
REASSIGNED_S = 3.0
MARGIN_S = 1.5  # for a busy machine; a patience that nobody shortened (5 s) still shows beside it


@pytest.fixture
def repo(tmp_path: Path) -> BenchRepo:
    return make_repo(tmp_path / "hub", 1, SIZE)


@pytest.fixture
def made() -> Iterator[tuple[Line, ...]]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with lines([SLOW, SLOW, FAST]) as three:
        yield three


class Telling:
    """A pull in the clients' namespace, and what it told."""

    def __init__(self, made: tuple[Line, ...], endpoints: list[str], folder: Path) -> None:
        script = Path(__file__).with_name("tell_events.py")
        command = [*made[0].at_client, sys.executable, str(script), REPO, str(folder / "out"), *endpoints]
        environment = {**os.environ, "HF_ENDPOINT": endpoints[0], "HF_HOME": str(folder / "home")}
        self.events: list[dict[str, Any]] = []
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def heard(self, kind: str, source: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == kind and one.get("source") == source]

    def wait_for_bytes(self, source: str) -> float:
        while not (landed := self.heard("bytes_landed", source)):
            assert self.process.poll() is None
            time.sleep(0.02)
        return float(landed[0]["at_s"])

    def end(self) -> int:
        code = self.process.wait(50)
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))  # others look at it meanwhile


@pytest.mark.alone
def test_a_line_that_is_cut_costs_little_and_one_that_is_mended_is_used_again(
    made: tuple[Line, ...], repo: BenchRepo, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        endpoints = [stack.enter_context(hub(repo, line, ())) for line in made]
        telling = Telling(made, endpoints, tmp_path)
        stack.callback(telling.process.kill)
        fast = endpoints[-1].partition("://")[2]
        began_s = telling.wait_for_bytes(fast)
        time.sleep(CUT_S)
        made[-1].cut()
        cut_s = time.monotonic()
        time.sleep(max(0.0, began_s + MENDED_S - time.monotonic()))
        made[-1].mend()
        mended_s = time.monotonic()
        assert telling.end() == 0
    (file,) = repo.files
    assert digest_of(tmp_path / "out" / file.path) == file.digest
    last_s = max(one["at_s"] for one in telling.heard("bytes_landed", fast) if one["at_s"] < cut_s + 0.5)
    told = next(one for one in telling.heard("segment_failed", fast) if one["at_s"] > last_s)
    assert told["code"] == "stalled"
    assert told["at_s"] - last_s <= REASSIGNED_S + MARGIN_S
    before = [one for one in telling.heard("segment_opened", fast) if one["at_s"] <= cut_s]
    here = RangeSet(
        Range(one["start"], one["stop"])
        for one in telling.events
        if one["event"] == "bytes_landed" and one["at_s"] <= told["at_s"] + 0.3
    )  # a lane that is recalled tells what it had
    for one in before:
        missing = next(here.gaps(Range(one["start"], one["stop"])), None)
        if missing is not None:
            takers = [other for other in telling.events if other["event"] == "segment_opened"]
            taken = [o for o in takers if o["start"] <= missing.start < o["stop"] and o != one]
            assert any(o["source"] != fast or o["at_s"] > mended_s for o in taken), missing
    again_s = [one["at_s"] for one in telling.heard("bytes_landed", fast) if one["at_s"] > mended_s]
    assert again_s, "never used again"
    assert again_s[0] - mended_s <= 30

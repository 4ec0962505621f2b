"""What readers of a fill are given, while the worker's news come in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from headrace.events import BlobFailed, BlobPublished, BlobStarted, BytesForgotten, BytesLanded, SegmentFailed
from headrace.manifest import Digest, Entry
from headrace.names import Repo
from headrace.node.fill.fill import Disrupted, Fill, FillFailed, Pulse, Reader
from headrace.ranges import Range
from headrace.source.contract import Content
from headrace.wire import BLOCK_BYTES

SIZE = 3 * BLOCK_BYTES
DIGEST = Digest(Digest.SHA256, "a" * 64)
CONTENT = Content(Repo("org/x"), "c" * 40, Entry("w.bin", SIZE, DIGEST))
KEY = str(DIGEST)
STARTED = BlobStarted("w.bin", KEY, SIZE, 0)
PUBLISHED = BlobPublished("w.bin", KEY, SIZE, SIZE)


def landed(start: int, stop: int, source: str = "hub") -> BytesLanded:
    return BytesLanded(KEY, start, stop, source)


class Steward:
    """Writes down what a fill asks for."""

    def __init__(self) -> None:
        self.wishes: list[Range] = []
        self.held: list[int] = []
        self.is_slow = False
        self.abandonments = 0

    def wish(self, fill: Fill, wanted: Range) -> None:
        self.wishes.append(wanted)

    async def hold(self, digest: Digest, block: int) -> None:
        if self.is_slow:
            await asyncio.sleep(3600)
        self.held.append(block)

    def abandoned(self, fill: Fill) -> None:
        self.abandonments += 1


class Scene:
    """A fill whose partial is on disk, as its worker would have made it."""

    def __init__(self, folder: Path) -> None:
        self.partial, self.final = folder / "partial", folder / "final"
        self.partial.write_bytes(b"x" * 10)
        self.pulse = Pulse()
        self.steward = Steward()
        self.fill = Fill(CONTENT, (self.partial, self.final), self.pulse, self.steward)
        self.fill.recall(None, is_lost=False)

    async def read(self, start: int, stop: int, generation: int = 0, patience_s: float | None = None) -> int:
        reader = Reader(self.fill)
        reader.generation = generation
        return await reader.reach(Range(start, stop), patience_s)

    async def waits(self, position: int, stop: int, generation: int = 0) -> bool:
        """Whether a reader has to wait there."""
        reading = asyncio.ensure_future(self.read(position, stop, generation))
        for _ in range(3):
            await asyncio.sleep(0)
        reading.cancel()
        return not reading.done()


Play = Callable[[Callable[[Scene], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    async def stage(act: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
        await asyncio.wait_for(act(Scene(tmp_path)), 10)

    return lambda act: asyncio.run(stage(act))


def test_readers_follow_what_landed_but_for_the_last_block(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        assert await scene.waits(0, SIZE)
        reading = asyncio.ensure_future(scene.read(0, SIZE, 0))
        fill.took(STARTED)
        fill.took(landed(0, 100))
        assert await reading == 100
        assert await scene.read(20, 50, 0) == 50
        assert await scene.waits(100, SIZE)
        fill.took(landed(100, SIZE))
        assert await scene.read(100, SIZE, 0) == SIZE - BLOCK_BYTES
        assert await scene.waits(SIZE - BLOCK_BYTES, SIZE)
        fill.took(PUBLISHED)
        assert await scene.read(SIZE - BLOCK_BYTES, SIZE, 0) == SIZE

    play(act)


def test_who_read_what_is_not_believed_is_cut_off(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        fill.took(STARTED)
        fill.took(landed(0, BLOCK_BYTES))
        reading = asyncio.ensure_future(scene.read(BLOCK_BYTES, SIZE, 0))
        assert fill.took(BytesForgotten(KEY, 0, SIZE))
        with pytest.raises(Disrupted):
            await reading
        assert await scene.waits(0, SIZE, fill.generation)
        fill.took(landed(0, 10))
        fill.took(PUBLISHED)
        with pytest.raises(Disrupted):
            await scene.read(0, SIZE, 0)
        assert await scene.read(0, SIZE, fill.generation) == SIZE

    play(act)


@pytest.mark.parametrize(("resumed", "generation"), [(SIZE // 2, 0), (SIZE // 2 - 1, 1)])
def test_after_a_worker_died_readers_go_on_if_all_they_read_counts(
    play: Play, resumed: int, generation: int
) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        fill.took(STARTED)
        fill.took(landed(0, SIZE // 2))
        fill.orphaned()
        assert await scene.waits(0, SIZE)
        fill.took(landed(0, resumed, source=""))
        assert await scene.waits(0, SIZE)  # it is not yet said whether that is all
        fill.took(STARTED)
        assert fill.generation == generation

    play(act)


def test_another_file_is_another_generation(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        fill.took(STARTED)
        fill.took(landed(0, 100))
        with fill.open() as file:
            assert file.read(3) == b"xxx"
        fill.orphaned()
        scene.partial.rename(scene.partial.with_name("old"))
        scene.partial.write_bytes(b"y")
        fill.took(landed(0, 100, source=""))
        assert fill.took(STARTED)

    play(act)


def test_the_file_is_found_under_its_final_name(play: Play) -> None:
    async def act(scene: Scene) -> None:
        scene.fill.took(STARTED)
        scene.fill.took(landed(0, 100))
        scene.partial.rename(scene.final)
        with scene.fill.open() as file:
            assert file.read(3) == b"xxx"
        scene.final.unlink()
        with pytest.raises(Disrupted):
            scene.fill.open()

    play(act)


def test_a_file_that_was_there_already_is_no_disruption(play: Play) -> None:
    async def act(scene: Scene) -> None:
        assert not scene.fill.took(PUBLISHED)
        assert await scene.read(0, SIZE, 0) == SIZE

    play(act)


def test_a_failure_is_told_to_all_who_wait(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        reading = asyncio.ensure_future(scene.read(0, SIZE, 0))
        fill.took(BlobFailed("w.bin", KEY, "no_space", "the disk is full"))
        with pytest.raises(FillFailed, match="disk is full") as caught:
            await reading
        assert caught.value.why == "no_space"

    play(act)


def test_a_client_that_got_nothing_waits_only_while_bytes_come(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        fill.took(SegmentFailed("w.bin", KEY, "hub", "", "unreachable", "cannot connect to hub", 1.0))
        with pytest.raises(FillFailed, match="cannot connect to hub") as caught:
            await scene.read(0, SIZE, 0, patience_s=0.01)
        assert caught.value.retry_after_s is not None

    play(act)


def test_a_fill_that_waits_for_its_turn_has_no_silent_source(play: Play) -> None:
    async def act(scene: Scene) -> None:
        loop = asyncio.get_running_loop()
        reading = asyncio.ensure_future(scene.read(0, SIZE, 0, patience_s=0.2))
        for _ in range(8):
            scene.pulse.at = loop.time()  # bytes of another fill
            await asyncio.sleep(0.05)
        assert not reading.done()
        with pytest.raises(FillFailed):
            await reading

    play(act)

"""What readers of a fill are given, while the worker's news come in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from headrace.events import BlobFailed, BlobPublished, BlobStarted, BytesForgotten, BytesLanded, SegmentFailed
from headrace.manifest import Digest, Entry
from headrace.names import Repo
from headrace.node.body.bodies import DRIP_BYTES, RESERVE_BYTES, Following
from headrace.node.fill.fill import Disrupted, Fill, FillFailed, Pulse, Reader
from headrace.node.fill.order import Order
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


async def nobody(_reader: Reader) -> None:
    raise AssertionError


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
        self.fill = Fill(Order(CONTENT), (self.partial, self.final), self.pulse, self.steward)
        self.fill.recall(None, frozenset({CONTENT.repo}), is_lost=False)

    async def read(self, start: int, stop: int, generation: int = 0, patience_s: float | None = None) -> int:
        reader = Reader(self.fill, CONTENT.repo)
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


def test_a_file_gets_its_final_name_while_it_is_looked_for(play: Play, tmp_path: Path) -> None:
    final = tmp_path / "final"

    class Leaving(type(tmp_path)):  # type: ignore[misc]  # the platform's own kind of path
        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            facts: os.stat_result = super().stat(follow_symlinks=follow_symlinks)
            self.rename(final)
            return facts

    async def act(scene: Scene) -> None:
        inode = scene.partial.stat().st_ino
        paths = (Leaving(scene.partial), final)
        fill = Fill(Order(CONTENT), paths, scene.pulse, scene.steward)
        assert not fill.took(STARTED)
        fill.took(PUBLISHED)
        with fill.open() as file:
            assert os.fstat(file.fileno()).st_ino == inode

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


def test_of_a_file_that_was_there_already_it_is_not_known_whose_it_is(play: Play) -> None:
    async def act(scene: Scene) -> None:
        assert not scene.fill.took(PUBLISHED)  # nobody was given anything that could be wrong
        with pytest.raises(Disrupted):
            await scene.read(0, SIZE, 0)

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


@pytest.mark.parametrize(
    ("code", "cut"), [("digest_mismatch", True), ("store", True), ("all_sources_failed", False)]
)
def test_what_a_disk_lost_is_not_joined_to_what_comes_instead(code: str, cut: bool, play: Play) -> None:  # noqa: FBT001
    async def act(scene: Scene) -> None:
        scene.fill.took(STARTED)
        scene.fill.took(landed(0, BLOCK_BYTES))
        assert scene.fill.took(BlobFailed("w.bin", KEY, code, "no")) is cut

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


def test_the_last_bytes_are_given_when_another_block_is_held_and_that_is_written_down(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill, steward = scene.fill, scene.steward
        fill.took(STARTED)
        fill.took(landed(SIZE - 8, SIZE))
        steward.is_slow = True
        assert await scene.waits(SIZE - 8, SIZE)
        scene = Scene(scene.partial.parent)
        scene.fill.took(STARTED)
        scene.fill.took(landed(SIZE - 8, SIZE))
        assert await scene.read(SIZE - 8, SIZE) == SIZE
        assert scene.steward.held == [SIZE - 2 * BLOCK_BYTES]
        scene.fill.took(landed(0, SIZE))
        assert await scene.read(0, SIZE) == SIZE - 2 * BLOCK_BYTES
        assert await scene.waits(SIZE - 2 * BLOCK_BYTES, SIZE)

    play(act)


def test_who_goes_on_to_the_end_waits_there_for_the_digest(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        fill.took(STARTED)
        fill.took(landed(0, SIZE))
        reader = fill.join(
            CONTENT.repo, resumes=True
        )  # may have a beginning from elsewhere, and would be complete
        assert await reader.reach(Range(10, SIZE)) == SIZE - BLOCK_BYTES
        end = asyncio.ensure_future(reader.reach(Range(SIZE - BLOCK_BYTES, SIZE)))
        await asyncio.sleep(0.01)
        assert not end.done()
        fill.took(PUBLISHED)
        assert await end == SIZE

    play(act)


def test_what_was_held_before_a_kill_stays_held(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        fill.recall(BLOCK_BYTES, frozenset({CONTENT.repo}), is_lost=False)
        fill.took(landed(0, SIZE, source=""))
        fill.took(STARTED)
        assert await scene.read(0, SIZE) == BLOCK_BYTES
        assert await scene.waits(BLOCK_BYTES, SIZE)
        assert await scene.read(2 * BLOCK_BYTES, SIZE) == SIZE

    play(act)


def test_after_a_loss_of_power_whoever_came_before_that_was_known_begins_anew(play: Play) -> None:
    async def act(scene: Scene) -> None:
        reader = scene.fill.join(CONTENT.repo)
        scene.fill.recall(None, frozenset({CONTENT.repo}), is_lost=True)
        scene.fill.took(STARTED)
        scene.fill.took(landed(0, 10))
        with pytest.raises(Disrupted):
            await reader.reach(Range(0, 10))
        assert await scene.fill.join(CONTENT.repo).reach(Range(0, 10)) == 10

    play(act)


def test_who_waits_has_what_it_needs_fetched_first_and_more_as_it_reads_on(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        reader, other = fill.join(CONTENT.repo), fill.join(CONTENT.repo)
        waiting = [asyncio.ensure_future(one.reach(Range(5, SIZE))) for one in (reader, other)]
        await asyncio.sleep(0)
        assert scene.steward.wishes == []
        fill.took(STARTED)
        await asyncio.sleep(0.01)
        assert scene.steward.wishes == [Range(5, 5 + BLOCK_BYTES)]  # for both
        fill.took(landed(5, 5 + BLOCK_BYTES))
        await asyncio.gather(*waiting)
        waiting = [asyncio.ensure_future(reader.reach(Range(5 + BLOCK_BYTES, SIZE)))]
        await asyncio.sleep(0.01)
        assert scene.steward.wishes[1:] == [Range(5 + BLOCK_BYTES, SIZE)]
        fill.orphaned()
        fill.took(landed(5, 5 + BLOCK_BYTES))
        fill.took(STARTED)
        await asyncio.sleep(0.01)
        assert scene.steward.wishes[2].start == 5 + BLOCK_BYTES  # the next worker is told too
        for one in waiting:
            one.cancel()

    play(act)


def test_the_bytes_before_the_last_ones_come_with_them(play: Play) -> None:
    async def act(scene: Scene) -> None:
        scene.fill.took(STARTED)
        assert await scene.waits(SIZE - 8, SIZE)
        (wish,) = scene.steward.wishes
        assert wish == Range(SIZE - 64 * 1024, SIZE)

    play(act)


def test_a_fill_whose_last_reader_has_gone_says_so(play: Play) -> None:
    async def act(scene: Scene) -> None:
        one, other = scene.fill.join(CONTENT.repo), scene.fill.join(CONTENT.repo)
        one.close()
        one.close()
        assert scene.steward.abandonments == 0
        other.close()
        assert scene.steward.abandonments == 1

    play(act)


def test_a_reader_gets_a_little_now_and_then_while_nothing_comes(play: Play) -> None:
    async def act(scene: Scene) -> None:
        fill = scene.fill
        fill.took(STARTED)
        fill.took(landed(0, BLOCK_BYTES))
        body = Following(fill.join(CONTENT.repo), patience_s=5, clear=nobody, drip_s=0.02)
        position = await body.reach(0, SIZE)
        assert position == BLOCK_BYTES - RESERVE_BYTES
        body.file()
        while position < BLOCK_BYTES:
            end = await body.reach(position, SIZE)
            assert 0 < end - position <= DRIP_BYTES
            position = end
        waiting = asyncio.ensure_future(body.reach(position, SIZE))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        fill.took(landed(BLOCK_BYTES, 2 * BLOCK_BYTES))
        assert await waiting == 2 * BLOCK_BYTES - RESERVE_BYTES
        body.close()

    play(act)

"""Wrong blocks are fetched again alone where a node can say which they are; whatever lists say, nobody is slandered."""

from __future__ import annotations

import base64
import hashlib
import http.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import headrace
from headrace.blocklist import BLOCKS, BLOCKS_PATH, BlockList
from headrace.errors import SourceError
from headrace.events import BlobMismatch, BlobRepaired, BlobStarted, BlocksAsked, SourceLied
from headrace.manifest import Digest
from headrace.node.process import NodeProcess
from headrace.ranges import Range
from headrace.testing import ChaosHub, Fault, content, write_repo
from headrace.wire import BLOCK_BYTES, parse_range_header
from tests.node.asking import ask
from tests.node.test_blocks import hashes_of
from tests.pull.conftest import Puller
from tests.quiet import QuietHandler, serving

SEGMENT = 8 * 1024 * 1024
REPO, FILE = "org/big", "model.safetensors"
DATA = content(18_000_000, seed=7)
DIGEST = Digest("sha256", hashlib.sha256(DATA).hexdigest())
FLIPS = [Fault("flip", offset=offset) for offset in range(0, len(DATA), 100_000)]
SLOW = Fault("rate", rate=3_000_000)
"""So that whoever else is there gives bytes, too."""
LATE = (Fault("latency", delay_s=0.3, host="cdn"), Fault("rate", rate=12_000_000))
"""So that whoever else is there gives nearly all."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of repos behind all hubs."""
    folder = tmp_path_factory.mktemp("hub")
    write_repo(folder, REPO, {FILE: DATA})
    return folder


@pytest.fixture(scope="module")
def node(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that has the file."""
    with ChaosHub(root) as hub, NodeProcess(tmp_path_factory.mktemp("node"), {"hub": hub.endpoint}) as node:
        assert ask(f"{node.endpoint}/{REPO}/resolve/main/{FILE}").body == DATA
        yield node


@pytest.fixture
def liar(root: Path) -> Iterator[ChaosHub]:
    """A hub that never gives a hundred thousand right bytes in a row."""
    with ChaosHub(root) as hub:
        hub.set_faults(SLOW, *FLIPS)
        yield hub


@pytest.fixture
def honest(root: Path) -> Iterator[ChaosHub]:
    """A hub without lists that gives what it promises."""
    with ChaosHub(root) as hub:
        yield hub


@pytest.fixture
def pull(tmp_path: Path) -> Puller:
    """A pull that reacts faster than a user's."""
    return Puller(tmp_path / "cache", {"idle_timeout_s": 0.5, "give_up_s": 2.0})


def named(endpoint: str) -> str:
    return endpoint.removeprefix("http://")


def size_of(blocks: int) -> int:
    return blocks * BLOCK_BYTES


@dataclass
class Mirror:
    """A mirror with a list, both as a test wants them; `asked` has the ranges of content that were asked for."""

    data: bytes = DATA
    hashes: bytes = hashes_of(DATA)
    asked: list[Range] = field(default_factory=list)
    lists: int = 0
    refusals: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """What is said with the list."""
        told = BlockList(DIGEST, len(DATA), hashes_of(DATA)).headers()
        own = base64.b64encode(hashlib.sha256(self.hashes).digest()).decode()
        return {**told, "Content-Digest": f"sha-256=:{own}:"}

    @contextmanager
    def running(self) -> Iterator[str]:
        """Its endpoint."""
        mirror = self

        class Handler(QuietHandler):
            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                status, headers, body = mirror.answer(
                    self.path, self.headers.get("Range"), with_body=with_body
                )
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

        with serving(Handler) as endpoint:
            yield endpoint

    def answer(self, path: str, wanted: str | None, *, with_body: bool) -> tuple[int, dict[str, str], bytes]:
        if path.startswith(BLOCKS_PATH):
            self.lists += 1
            if self.lists <= self.refusals:
                return 503, {"Retry-After": "0"}, b""
            return 200, self.headers, self.hashes
        if "/resolve/" not in path:
            return 404, {}, b""
        etag = f'"{DIGEST.hex}"'
        told = {BLOCKS: f"{BLOCKS_PATH}{DIGEST}?until=1&proof=x", "ETag": etag, "X-Linked-Etag": etag}
        part = parse_range_header(wanted, len(self.data))
        if part is None:
            return 200, told, self.data
        if with_body:
            self.asked.append(part)
        told["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(self.data)}"
        return 206, told, self.data[part.start : part.stop]


def wrong_in(*blocks: int, data: bytes = DATA) -> bytes:
    """The content with a bit flipped in each of these blocks."""
    flipped = bytearray(data)
    for number in blocks:
        flipped[number * BLOCK_BYTES + 12_345] ^= 4
    return bytes(flipped)


def is_right(snapshot: headrace.Snapshot) -> bool:
    return (snapshot.path / FILE).read_bytes() == DATA


def test_what_a_liar_gave_beside_a_node_is_repaired_block_by_block(
    node: NodeProcess, liar: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", node.endpoint)
    snapshot = pull(REPO, sources=[node.endpoint, liar.endpoint])
    assert is_right(snapshot)
    (repaired,) = pull.heard(BlobRepaired)
    assert repaired.blocks == 5
    assert [*repaired.gave] == [named(liar.endpoint)]
    assert [*repaired.mended] == [named(node.endpoint)]
    assert [one.source for one in pull.heard(SourceLied)] == [named(liar.endpoint)]
    (mismatch,) = pull.heard(BlobMismatch)
    assert mismatch.refetch <= size_of(repaired.wrong)
    (asked,) = pull.heard(BlocksAsked)
    assert set(asked.sources) == {named(node.endpoint), named(liar.endpoint)}
    assert snapshot.account is not None
    assert snapshot.account.refetched_bytes == mismatch.refetch
    assert snapshot.network_bytes == len(DATA) + mismatch.refetch
    assert snapshot.account.repairs == (repaired,)


def test_one_wrong_block_costs_one_block(
    pull: Puller, honest: ChaosHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", honest.endpoint)
    mirror = Mirror(wrong_in(2))
    honest.set_faults(*LATE)  # the mirror gives nearly all
    with mirror.running() as endpoint:
        snapshot = pull(REPO, sources=[honest.endpoint, endpoint])
    assert is_right(snapshot)
    (repaired,) = pull.heard(BlobRepaired)
    assert (repaired.wrong, [*repaired.gave]) == (1, [named(endpoint)])
    assert [one.source for one in pull.heard(SourceLied)] == [named(endpoint)]
    (mismatch,) = pull.heard(BlobMismatch)
    assert mismatch.refetch == size_of(1)
    assert snapshot.network_bytes == len(DATA) + size_of(1)
    asked = sum(map(len, mirror.asked)) + honest.settled_log().blob_bytes
    assert asked <= len(DATA) + size_of(1) + SEGMENT
    assert mirror.lists == 1


def test_a_list_that_is_being_made_is_waited_for(
    pull: Puller, honest: ChaosHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", honest.endpoint)
    mirror = Mirror(wrong_in(1), refusals=3)
    honest.set_faults(*LATE)
    with mirror.running() as endpoint:
        assert is_right(pull(REPO, sources=[honest.endpoint, endpoint]))
    assert mirror.lists == 4
    (repaired,) = pull.heard(BlobRepaired)
    assert repaired.wrong == 1


LISTS: dict[str, bytes] = {
    "one by which its own wrong bytes are right": hashes_of(wrong_in(1)),
    "one that marks a block of somebody else": hashes_of(wrong_in(1, 3)),
    "one that marks everything": hashes_of(bytes(len(DATA))),
}


@pytest.mark.parametrize("lying", LISTS)
def test_a_lying_list_costs_time_and_names_nobody_else(
    lying: str, pull: Puller, honest: ChaosHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", honest.endpoint)
    hashes = LISTS[lying]
    mirror = Mirror(wrong_in(1), hashes)
    honest.set_faults(*LATE)
    with mirror.running() as endpoint:
        snapshot = pull(REPO, sources=[honest.endpoint, endpoint])
    assert is_right(snapshot)
    assert {one.source for one in pull.heard(SourceLied)} <= {named(endpoint)}
    assert len(pull.heard(BlocksAsked)) <= 1
    assert mirror.lists <= 1
    asked = sum(map(len, mirror.asked)) + honest.settled_log().blob_bytes
    assert asked <= 4 * len(DATA)


def test_bits_that_rotted_in_a_partial_cost_their_blocks(
    node: NodeProcess, honest: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", honest.endpoint)
    honest.set_faults(Fault("reset", after_bytes=5_000_000, times=4), Fault("status", skip=10))
    with pytest.raises(SourceError):
        pull(REPO)
    (partial,) = pull.cache.glob(f".locks/headrace/*{DIGEST.hex}*.partial")
    here = partial.read_bytes()
    landed = [at for at in range(0, len(DATA), 100_000) if here[at : at + 100] == DATA[at : at + 100]]
    bad = {landed[0], landed[-1]}
    with partial.open("r+b") as file:
        for at in bad:
            file.seek(at)
            file.write(bytes([DATA[at] ^ 1]))
    blocks = {at // BLOCK_BYTES for at in bad}
    monkeypatch.setenv("HF_ENDPOINT", node.endpoint)
    snapshot = pull(REPO)
    assert is_right(snapshot)
    (repaired,) = pull.heard(BlobRepaired)
    assert repaired.wrong == len(blocks)
    assert "" in repaired.gave
    (mismatch,) = pull.heard(BlobMismatch)
    assert mismatch.refetch <= size_of(len(blocks))
    (started,) = pull.heard(BlobStarted)
    assert started.resumed > 0
    assert snapshot.network_bytes == len(DATA) - started.resumed + mismatch.refetch
    assert pull.heard(SourceLied) == []


def test_a_node_behind_a_node_repairs_what_it_got_from_elsewhere(
    node: NodeProcess, liar: ChaosHub, tmp_path: Path
) -> None:
    sources = {"inner": node.endpoint, "liar": liar.endpoint}
    with NodeProcess(tmp_path / "outer", sources) as outer:
        url = f"{outer.endpoint}/{REPO}/resolve/main/{FILE}"
        got = _until_whole(url)
        assert got == DATA
        told = ask(f"{outer.endpoint}/metrics").body.decode()
    (line,) = [one for one in told.splitlines() if one.startswith("headrace_repaired_blocks_total")]
    assert float(line.split()[1]) >= 1
    (received,) = [
        one for one in told.splitlines() if one.startswith('headrace_source_bytes_total{source="liar"}')
    ]
    assert float(received.split()[1]) < len(DATA)


def _until_whole(url: str) -> bytes:
    """The file, as a client gets it that comes again when it is cut off."""
    for _ in range(3):
        with suppress(OSError, http.client.IncompleteRead):
            return ask(url).body
    return b""

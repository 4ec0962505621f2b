"""Files that rot or are changed by hand in a node's data folder: never given out whole twice, and mended."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from headrace.manifest import Digest
from headrace.node.body.tree import DataTree
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from headrace.wire import BLOCK_BYTES
from tests.node.asking import ask, open_stream
from tests.node.holders import connected
from tests.node.test_blocks import list_of
from tests.node.test_sending import drop_pages, until
from tests.pull.mounts import in_user_space

StartNode = Callable[..., NodeProcess]
OFTEN = 0.3 / 86400  # days
GIVING_WAY_S = 50  # on a busy machine the scrubber waits for everybody
SIZE = 2 * BLOCK_BYTES + 4321
CUT = (ConnectionResetError, http.client.IncompleteRead)


def flipped(path: Path) -> None:
    """A bit, with the times of the file put back."""
    facts = path.stat()
    with path.open("r+b") as file:
        file.seek(BLOCK_BYTES + 99)
        byte = file.read(1)[0]
        file.seek(BLOCK_BYTES + 99)
        file.write(bytes([byte ^ 16]))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1_000_000)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replaced(path: Path) -> None:
    """By a file of the same size and time."""
    facts = path.stat()
    other = path.with_suffix(".other")
    other.write_bytes(bytes(facts.st_size))
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.replace(path)


def deleted(path: Path) -> None:
    path.unlink()


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "somebody's").write_text("own")


def made_a_link(path: Path) -> None:
    other = path.with_suffix(".target")
    path.rename(other)
    path.symlink_to(other)
    flipped(other)


def made_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES = (
    flipped,
    truncated,
    emptied,
    grown,
    replaced,
    deleted,
    made_a_folder,
    made_a_link,
    made_a_pipe,
)
FILES = {f"{damage.__name__}.bin": content(SIZE, seed) for seed, damage in enumerate(DAMAGES)}
FILES |= {"big.bin": content(10 * BLOCK_BYTES, 99), "small.json": b'{"a": 1}' * 40}
BIG = FILES["big.bin"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_repo(folder, "org/rot", FILES)
    return folder


@pytest.fixture
def source(root: Path) -> Iterator[ChaosHub]:
    with ChaosHub(root) as hub:
        yield hub


def url_of(node: NodeProcess, name: str) -> str:
    return f"{node.endpoint}/org/rot/resolve/main/{name}"


def digest_of(data: bytes) -> Digest:
    if len(data) > 1000:
        return Digest(Digest.SHA256, hashlib.sha256(data).hexdigest())
    return Digest(
        Digest.GIT_BLOB_SHA1, hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    )


def blob(data: Path, name: str) -> Path:
    return DataTree(data).blob(digest_of(FILES[name]))


def rot(data: Path, name: str) -> None:
    """What a disk does: other bytes, and nothing else has changed, as far as anybody can tell."""
    path = blob(data, name)
    times = path.stat()
    with path.open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    facts = path.stat()
    with closing(sqlite3.connect(data / "catalog.sqlite")) as catalog, catalog:
        told = (
            facts.st_size,
            facts.st_ino,
            facts.st_mtime_ns,
            facts.st_ctime_ns,
            str(digest_of(FILES[name])),
        )
        done = catalog.execute(
            "UPDATE blobs SET size = ?, inode = ?, modified_ns = ?, changed_ns = ? WHERE digest = ?", told
        )
        assert done.rowcount == 1
    drop_pages(path)


def whole(url: str) -> bytes | None:
    """The body of an answer that is complete; None where it is cut off."""
    with suppress(*CUT):
        return ask(url).body
    return None


def counted(node: NodeProcess, metric: str) -> float:
    told = ask(node.endpoint + "/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in told if line.startswith(f"{metric} "))


def is_right(data: Path, name: str) -> bool:
    path = blob(data, name)
    return path.is_file() and not path.is_symlink() and path.read_bytes() == FILES[name]


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_whatever_is_done_to_a_file_by_hand_its_bytes_are_right(
    state: str,
    source: ChaosHub,
    start_node: StartNode,
    tmp_path: Path,
    stock_client: Callable[..., object],
) -> None:
    node, data = start_node(source, scrub_rate=0), tmp_path / "node"
    for name, right in FILES.items():
        assert ask(url_of(node, name)).body == right
    if state == "stopped":
        node.stop()
    for damage in DAMAGES:
        damage(blob(data, f"{damage.__name__}.bin"))
    if state == "stopped":
        node = start_node(source, scrub_rate=0)
    for name, right in FILES.items():
        assert whole(url_of(node, name)) == right, name
        assert is_right(data, name), name
    assert counted(node, "headrace_rotten_blobs_total") == len(DAMAGES) - 1  # what is deleted is not wrong
    (moved,) = (data / "aside").iterdir()
    assert (moved / "somebody's").read_text() == "own"
    stock_client(node.endpoint, "-c", "from huggingface_hub import snapshot_download as get; get('org/rot')")
    names = {path.name: path for path in (tmp_path / "hf").rglob("snapshots/*/*")}
    assert {name: path.read_bytes() for name, path in names.items()} == FILES


def test_what_has_rotted_unseen_is_never_given_out_whole_twice(
    source: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node, data = start_node(source, scrub_rate=0), tmp_path / "node"
    rotten = ("big.bin", "small.json", "flipped.bin")
    for name in rotten:
        assert ask(url_of(node, name)).body == FILES[name]
    node.stop()
    for name in rotten:
        rot(data, name)
    node = start_node(source, scrub_rate=0)
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(whole, [url_of(node, name) for name in rotten for _ in range(6)]))
    right = [FILES[name] for name in rotten for _ in range(6)]
    for number, name in enumerate(rotten):
        bodies = got[6 * number : 6 * number + 6]
        wrong = [body for body in bodies if body is not None and body != FILES[name]]
        assert len(wrong) <= 1, name
    assert any(one == other for one, other in zip(got, right, strict=True))
    for name in rotten:
        until(partial(is_right, data, name))
        assert whole(url_of(node, name)) == FILES[name]


def test_the_scrubber_finds_what_has_rotted_and_mends_it_block_by_block(
    source: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node, data = start_node(source, scrub_days=OFTEN, scrub_rate=2**30), tmp_path / "node"
    names = ("big.bin", "flipped.bin", "truncated.bin", "grown.bin")
    for name in names:
        assert ask(url_of(node, name)).body == FILES[name]
    tree = DataTree(data)
    until(lambda: all(tree.blocks(digest_of(FILES[name])).exists() for name in names), GIVING_WAY_S)
    source.settled_log()
    source.clear_log()
    rot(data, "big.bin")
    for damage in (flipped, truncated, grown):
        damage(blob(data, f"{damage.__name__}.bin"))
    # Nobody asks for them.
    until(lambda: counted(node, "headrace_mended_blobs_total") == len(names), GIVING_WAY_S)
    assert all(is_right(data, name) for name in names)
    log = source.settled_log()
    asked = {name: log.bytes_of(digest_of(FILES[name]).hex) for name in names}
    assert asked == {
        "big.bin": BLOCK_BYTES,
        "flipped.bin": BLOCK_BYTES,
        "truncated.bin": BLOCK_BYTES + SIZE % BLOCK_BYTES,
        "grown.bin": SIZE % BLOCK_BYTES,
    }
    assert counted(node, "headrace_scrubbed_bytes_total") >= len(BIG)
    for name in names:
        assert whole(url_of(node, name)) == FILES[name]
    assert counted(node, "headrace_oldest_check_age_seconds") < 60


def test_a_part_that_came_from_the_disk_is_checked_by_its_blocks(
    source: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node, data = start_node(source, scrub_rate=0), tmp_path / "node"
    assert ask(url_of(node, "big.bin")).body == BIG
    assert list_of(node, url_of(node, "big.bin")).status == 200
    node.stop()
    rot(data, "big.bin")
    node = start_node(source, scrub_rate=0)
    for part in ((BLOCK_BYTES, 2 * BLOCK_BYTES), (0, 100)):
        assert ask(url_of(node, "big.bin"), Range=f"bytes={part[0]}-{part[1] - 1}").status == 206
    until(lambda: counted(node, "headrace_mended_blobs_total") == 1)
    assert is_right(data, "big.bin")
    # Whoever has that part gets the whole now.
    assert ask(url_of(node, "big.bin"), Range="bytes=0-99").body == BIG


def test_who_reads_what_is_found_to_have_rotted_is_cut_off(
    source: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node, data = start_node(source, scrub_days=OFTEN, scrub_rate=2**30), tmp_path / "node"
    assert ask(url_of(node, "big.bin")).body == BIG
    with open_stream(url_of(node, "big.bin")) as response:
        got = bytearray(response.read(1000))
        rot(data, "big.bin")
        until(lambda: counted(node, "headrace_rotten_blobs_total") == 1, GIVING_WAY_S)
        with suppress(*CUT):
            while piece := response.read1(1 << 20):
                got += piece
    assert len(got) < len(BIG)
    with open_stream(url_of(node, "big.bin"), Range=f"bytes={len(got)}-") as response:
        assert (response.status, response.read()) == (200, BIG)


def test_a_disk_that_fails_to_read_ends_in_a_reset_and_the_file_is_fetched_again(
    source: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node, path = start_node(source, scrub_rate=0), blob(tmp_path / "node", "big.bin")
    assert ask(url_of(node, "big.bin")).body == BIG
    with in_user_space(tmp_path / "fuse") as (point, faults):
        shutil.move(path.parent, point / "bad")
        path.parent.symlink_to(point / "bad")
        assert ask(url_of(node, "big.bin")).body == BIG
        drop_pages(path)
        faults.spoiled = 20_000_000
        with pytest.raises(CUT):
            ask(url_of(node, "big.bin"))
        until(lambda: not path.exists())
        path.parent.unlink()
    deadline = time.monotonic() + 20
    while (body := whole(url_of(node, "big.bin"))) != BIG:  # its mending found no folder
        assert time.monotonic() < deadline, body
    assert is_right(tmp_path / "node", "big.bin")


def test_what_a_server_finds_to_have_rotted_is_counted_and_mended_by_the_lead(
    source: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node, data = start_node(source, scrub_rate=0, workers=2), tmp_path / "node"
    assert ask(url_of(node, "big.bin")).body == BIG
    rot(data, "big.bin")
    time.sleep(1.1)  # it is read again what was known of the file
    with suppress(*CUT), connected(node, node.servers[0]) as server:
        server.request("GET", "/org/rot/resolve/main/big.bin")
        server.getresponse().read()
    until(lambda: counted(node, "headrace_mended_blobs_total") == 1)
    assert counted(node, "headrace_rotten_blobs_total") == 1
    assert is_right(data, "big.bin")


def test_what_a_web_server_has_to_read_from_the_disk_further_in_is_checked(
    source: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node, data = start_node(source, scrub_rate=0, x_accel="/_blobs/"), tmp_path / "node"
    assert ask(url_of(node, "big.bin")).body == BIG
    rot(data, "big.bin")
    with blob(data, "big.bin").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file.read(BLOCK_BYTES // 4)  # its beginning is in memory
    time.sleep(1.1)  # it is read again what was known of the file
    led = ask(url_of(node, "big.bin"), X_Sendfile_Type="X-Accel-Redirect")
    assert led.headers["x-accel-redirect"].startswith("/_blobs/")
    until(lambda: counted(node, "headrace_mended_blobs_total") == 1)
    assert is_right(data, "big.bin")

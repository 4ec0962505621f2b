"""Content that is not there yet: fetched once, given out as it comes, and never wrong at the end."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from headrace.testing import ChaosHub, Fault, content, write_repo
from headrace.wire import BLOCK_BYTES
from tests.node.asking import ask, open_stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headrace.node.process import NodeProcess
    from tests.node.conftest import Rig

CUT = (ConnectionResetError, http.client.IncompleteRead)


def read_until_cut(response: http.client.HTTPResponse, size: int) -> bytes:
    """What comes before the connection is reset; fails where the answer ends as if it were complete."""
    got = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while len(got) < size:
            got += response.read1(65536) or pytest.fail(f"the answer ended cleanly after {len(got)} bytes")
        pytest.fail("the answer is complete")
    return bytes(got)


def insist(url: str, **headers: Any) -> tuple[int, bytes]:
    """Ask until an answer is not cut off, as any client would."""
    while True:
        try:
            reply = ask(url, **headers)
        except CUT:
            continue
        return reply.status, reply.body


def test_a_cold_file_streams_while_it_is_fetched(rig: Rig) -> None:
    rig.hub.set_faults(Fault("rate", rate=500_000))
    with open_stream(rig.big_url) as response:
        assert response.status == 200
        first = response.read(100_000)
        left_the_hub = rig.hub.log().bytes_of(hashlib.sha256(rig.big).hexdigest())
        assert left_the_hub < len(rig.big) // 2
        rig.hub.clear_faults()
        assert first + response.read() == rig.big
    assert rig.fetched <= len(rig.big) * 1.02


def test_the_last_block_waits_for_the_digest(rig: Rig) -> None:
    rig.hub.set_faults(Fault("flip", offset=1_000_000))
    with open_stream(rig.big_url) as response:
        got = read_until_cut(response, len(rig.big))
    assert len(got) <= len(rig.big) - BLOCK_BYTES
    rig.hub.clear_faults()
    # A client with a bad beginning asks to go on: it gets everything from the beginning instead.
    assert insist(rig.big_url, Range=f"bytes={len(got) or 1}-") == (200, rig.big)
    assert ask(rig.big_url, Range="bytes=0-9").body == rig.big  # it may hold what follows
    # All but those that would keep what they have and take the rest.
    assert ask(rig.big_url, Range=f"bytes={len(got) or 1}-", User_Agent="Wget/1.21.3").status == 409
    assert ask(rig.big_url, User_Agent="Wget/1.21.3").body == rig.big


def test_a_doubt_holds_before_it_is_written_down(rig: Rig, rough: tuple[Path, object, object]) -> None:
    assert ask(rig.big_url, "HEAD").status == 200
    rig.hub.set_faults(Fault("flip", offset=1_000_000, times=1), Fault("total", rate=6_000_000))
    busy = sqlite3.connect(rough[0].with_name("node") / "catalog.sqlite")
    try:
        with open_stream(rig.big_url) as response:
            begun = response.read(100)
            busy.execute("BEGIN IMMEDIATE")
            got = begun + read_until_cut(response, len(rig.big))
        with open_stream(rig.big_url, Range=f"bytes={len(got) or 1}-") as response:
            busy.rollback()
            assert (response.status, response.read()) == (200, rig.big)
    finally:
        busy.close()


def test_who_waited_to_resume_gets_a_new_generation_from_its_beginning(rig: Rig) -> None:
    rig.hub.set_faults(Fault("flip", offset=1_000_000, times=1))
    # In the last block, which nobody is given before all was hashed: this client waits while the doubt comes up.
    start = len(rig.big) - 10
    assert insist(rig.big_url, Range=f"bytes={start}-") == (200, rig.big)


def test_a_source_that_lies_once_does_no_harm(rig: Rig) -> None:
    rig.hub.set_faults(Fault("flip", offset=len(rig.big) - 5, times=1))
    assert insist(rig.big_url) == (200, rig.big)
    assert b"headrace_mismatches_total" in ask(rig.node.endpoint + "/metrics").body


def test_a_small_file_that_lies_is_an_error_and_never_a_body(rig: Rig) -> None:
    rig.hub.set_faults(Fault("flip", host="hub", match="small.json"))
    reply = ask(rig.small_url)
    assert reply.status == 502
    assert "digest" in reply.json()["error"]
    rig.hub.clear_faults()
    assert ask(rig.small_url).body == rig.small


def test_many_clients_cost_one_fetch(rig: Rig) -> None:
    bodies: list[bytes] = []
    together = threading.Barrier(4)

    def download() -> None:
        together.wait()
        bodies.append(ask(rig.big_url).body)

    threads = [threading.Thread(target=download) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [rig.big] * 4
    assert rig.fetched == len(rig.big)
    log = rig.hub.log()
    assert log.count(path_glob=f"/api/models/{rig.repo}/*") == 1


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-99", 0, 100), ("bytes=3000000-3000099", 3_000_000, 3_000_100), ("bytes=-100", -100, None)],
)
def test_ranges_of_a_cold_file(rig: Rig, asked: str, start: int, stop: int | None) -> None:
    reply = ask(rig.big_url, Range=asked)
    assert (reply.status, reply.body) == (206, rig.big[start:stop])
    first = start % len(rig.big)
    assert reply.headers["content-range"] == f"bytes {first}-{first + 99}/{len(rig.big)}"


def test_head_of_a_cold_file_starts_no_fill(rig: Rig) -> None:
    assert ask(rig.big_url, "HEAD").headers["content-length"] == str(len(rig.big))
    assert rig.fetched == 0


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_a_source_that_breaks_is_not_felt(rig: Rig, kind: str) -> None:
    rig.hub.set_faults(Fault(kind, after_bytes=700_000, times=3))
    assert ask(rig.big_url).body == rig.big


def test_a_file_the_source_does_not_give_is_a_clear_error(rig: Rig) -> None:
    rig.hub.set_faults(Fault("page"))
    reply = ask(rig.big_url)
    assert reply.status == 503  # its worker still hopes: this may be a captive portal
    assert "big.safetensors" in reply.json()["error"]


def test_same_content_in_another_repo_costs_nothing(rig: Rig, rough: tuple[Path, object, object]) -> None:
    assert ask(rig.big_url).body == rig.big
    write_repo(rough[0], f"{rig.repo}-twin", {"other.safetensors": rig.big})
    assert ask(f"{rig.node.endpoint}/{rig.repo}-twin/resolve/main/other.safetensors").body == rig.big
    assert rig.fetched == len(rig.big)


def test_a_killed_worker_is_replaced_and_the_stream_goes_on(rig: Rig) -> None:
    rig.hub.set_faults(Fault("rate", rate=700_000))
    with open_stream(rig.big_url) as response:
        first = response.read(1_000_000)
        os.kill(rig.node.worker, signal.SIGKILL)
        rig.hub.clear_faults()
        assert first + response.read() == rig.big
    assert rig.fetched <= len(rig.big) + 2 * BLOCK_BYTES
    assert ask(rig.node.endpoint + "/readyz").status == 200
    assert ask(rig.big_url, Range="bytes=5-9").status == 206  # nothing was in doubt


def test_a_small_file_does_not_wait_for_a_large_one(rig: Rig) -> None:
    rig.hub.set_faults(Fault("rate", rate=100_000))
    with open_stream(rig.big_url) as response:
        response.read(1000)
        assert ask(rig.small_url).body == rig.small
    assert rig.hub.log().bytes_of(hashlib.sha256(rig.big).hexdigest()) < len(rig.big) // 2


def test_a_client_that_leaves_does_not_end_the_fill(rig: Rig) -> None:
    rig.hub.set_faults(Fault("rate", rate=1_000_000))
    with open_stream(rig.big_url) as response:
        response.read(1000)
    rig.hub.clear_faults()
    assert ask(rig.big_url).body == rig.big
    assert rig.fetched <= len(rig.big) * 1.02


def resume_until_complete(url: str, size: int) -> bytes:
    """Download as hub clients do: go on from what there is, and begin again where the answer is the whole."""
    got = bytearray()
    while len(got) < size:
        with contextlib.suppress(*CUT), open_stream(url, Range=f"bytes={len(got)}-") as response:
            assert response.status in (200, 206)
            if response.status == 200:
                got.clear()
            while chunk := response.read1(65536):
                got += chunk
    return bytes(got)


def test_clients_that_resume_end_with_the_right_file_whatever_happens(rig: Rig) -> None:
    rig.hub.set_faults(
        Fault("rate", rate=5_000_000),
        Fault("flip", offset=2_000_000, times=2),
        Fault("reset", after_bytes=800_000, times=2),
    )
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(resume_until_complete(rig.big_url, len(rig.big))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [rig.big] * 3


def test_more_files_at_once_than_lanes_wait_for_their_turn(
    tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    files = {f"{number}.safetensors": content(250_000, number) for number in range(40)}
    write_repo(tmp_path / "hub", "org/many", files)
    with ChaosHub(tmp_path / "hub") as hub, ThreadPoolExecutor(len(files)) as pool:
        node = start_node(hub, patience=1.5)
        place = f"{node.endpoint}/org/many/resolve/main"
        assert ask(f"{place}/0.safetensors", "HEAD").status == 200
        hub.set_faults(Fault("rate", rate=200_000))
        replies = list(pool.map(lambda name: ask(f"{place}/{name}"), files))
    assert [reply.status for reply in replies] == [200] * len(files)
    assert [reply.body for reply in replies] == list(files.values())


def test_a_source_that_is_silent_is_told_in_time(rig: Rig, start_node: Callable[..., NodeProcess]) -> None:
    node = start_node(rig.hub, patience=1)
    url = rig.big_url.replace(rig.node.endpoint, node.endpoint)
    assert ask(url, "HEAD").status == 200
    rig.hub.set_faults(Fault("latency", delay_s=8))
    began = time.monotonic()
    assert ask(url).status == 503
    assert time.monotonic() - began < 4

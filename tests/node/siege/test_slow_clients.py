"""Clients that take their time, or everybody else's, do not keep a node from serving."""

from __future__ import annotations

import functools
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault
from tests.node.asking import BIG, BIG_FILE, TINY, ask, open_stream
from tests.node.siege.besiegers import (
    answer,
    besieging,
    dial,
    drip,
    files_open,
    is_open,
    read_all,
    resident,
    send_on,
    wait_until,
)

StartNode = Callable[..., NodeProcess]
SMALL = "/org/tiny/resolve/main/config.json"
API = "/api/models/org/tiny/tree/main?recursive=true"
LINE = b"GET /api/models/org/tiny HTTP/1.1\r\nHost: node\r\n"
POST = (
    b"POST /api/models/org/tiny/paths-info/main HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
)
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """As many connections as this system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def node(calm_hub: ChaosHub, start_node: StartNode) -> NodeProcess:
    """A node with short limits, which has what these tests ask for."""
    node = start_node(calm_hub, head_s=2, body_s=2, idle_s=3, stalled_s=2, pressed_s=2)
    assert ask(node.endpoint + BIG_FILE).body == BIG
    assert ask(node.endpoint + API).status == HTTPStatus.OK
    assert ask(node.endpoint + SMALL).status == HTTPStatus.OK
    return node


def ended(node: NodeProcess) -> dict[str, float]:
    """Connections that were ended, by why."""
    text = ask(node.endpoint + "/metrics").body.decode()
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    return {
        sample.labels["why"]: sample.value
        for sample in samples
        if sample.name == "headrace_ended_connections_total"
    }


def longest_turn(node: NodeProcess) -> float:
    text = ask(node.endpoint + "/metrics").body.decode()
    (line,) = [one for one in text.splitlines() if one.startswith("headrace_loop_longest_turn_seconds ")]
    return float(line.split()[1])


def is_served(node: NodeProcess) -> None:
    """A large file, a small one and a list, each right."""
    assert ask(node.endpoint + BIG_FILE).body == BIG
    assert ask(node.endpoint + SMALL).body == TINY["config.json"]
    assert {row["path"] for row in ask(node.endpoint + API).json()} > set(TINY)


def test_a_thousand_slow_connections_and_twenty_that_never_read_stop_nobody(
    calm_hub: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(calm_hub)
    is_served(node)

    with ExitStack() as stack:
        for begins in (b"", LINE, POST + b"Content-Length: 400\r\n\r\n[", b"G"):
            stack.enter_context(besieging(20, functools.partial(_begun, node, begins)))
        heads = stack.enter_context(besieging(920, functools.partial(_begun, node, LINE)))
        readers = stack.enter_context(besieging(20, functools.partial(_never_reads, node)))
        for _ in range(5):
            assert drip(heads, b"x") == len(heads)
            is_served(node)
        held = resident(node)
        assert held <= 300 * MIB
        assert longest_turn(node) < 1  # others have the processors too; bench/siege.py tells how long it is
        assert all(map(is_open, heads))
        assert all(map(is_open, readers))


def test_who_takes_nothing_goes_first_where_there_is_no_room(
    calm_hub: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(calm_hub, connections=8, pressed_s=1)
    is_served(node)
    with besieging(8, functools.partial(_never_reads, node)) as readers:
        for reader in readers:
            assert reader.recv(12) == b"HTTP/1.1 200"
        assert ask(node.endpoint + SMALL).status == HTTPStatus.SERVICE_UNAVAILABLE
        wait_until(lambda: ask(node.endpoint + SMALL).status == HTTPStatus.OK)
        is_served(node)
        assert sum(map(is_open, readers)) >= 4


def _never_reads(node: NodeProcess) -> socket.socket:
    sock = dial(node.endpoint, buffer=4096)
    sock.sendall(b"GET " + BIG_FILE.encode() + b" HTTP/1.1\r\nHost: node\r\n\r\n")
    return sock


def _begun(node: NodeProcess, data: bytes) -> socket.socket:
    sock = dial(node.endpoint)
    sock.sendall(data)
    return sock


def test_an_idle_node_holds_little(calm: NodeProcess) -> None:
    held = resident(calm)
    assert held <= 150 * MIB


def test_heads_that_do_not_come_to_an_end_are_answered_and_closed(node: NodeProcess) -> None:
    begins = iter([LINE, LINE + b"X-Slow: "])
    with besieging(2, lambda: _begun(node, next(begins))) as socks, _begun(node, b"") as silent:
        for _ in range(12):
            assert drip(socks, b"x") == len(socks)
            time.sleep(0.1)
        for sock in socks:
            is_told_to_be_late(answer(sock))
        assert answer(silent) == b""
    assert ended(node)["slow head"] == len(socks) + 1


def test_a_body_that_does_not_come_to_an_end_is_answered_and_closed(node: NodeProcess) -> None:
    with (
        _begun(node, POST + b"Content-Length: 400\r\n\r\n[") as told,
        _begun(node, POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n") as chunked,
    ):
        for _ in range(12):
            assert drip([told], b"1") + drip([chunked], b"1\r\n1\r\n") == 2
            time.sleep(0.1)
        for sock in (told, chunked):
            is_told_to_be_late(answer(sock))
    assert ended(node)["slow body"] == 2


def is_told_to_be_late(said: bytes) -> None:
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert "too long" in json.loads(body)["error"]


def test_who_asks_for_nothing_more_is_let_go(node: NodeProcess) -> None:
    with _begun(node, LINE + b"\r\n") as sock:
        began = time.monotonic()
        assert answer(sock).startswith(b"HTTP/1.1 200 ")
        assert 2.5 <= time.monotonic() - began < 10


def test_who_takes_nothing_is_reset_and_its_file_closed(node: NodeProcess) -> None:
    with _never_reads(node) as sock:
        wait_until(lambda: files_open(node, "/blobs/") == 1)
        wait_until(lambda: files_open(node, "/blobs/") == 0)
        with pytest.raises(ConnectionResetError):
            read_all(sock)
    assert ended(node)["stalled"] == 1


def test_answers_that_nobody_takes_are_not_kept_for_ever(node: NodeProcess) -> None:
    request = b"GET " + API.encode() + b" HTTP/1.1\r\nHost: node\r\n\r\n"
    with dial(node.endpoint, buffer=4096, timeout=0.3) as sock:
        send_on(sock, request * 100)
        wait_until(lambda: "stalled" in ended(node))
    assert ended(node)["stalled"] == 1


def test_who_reads_slowly_gets_everything(node: NodeProcess) -> None:
    path = "/org/tiny/resolve/main/weights/model-00002-of-00002.safetensors"
    expected = TINY["weights/model-00002-of-00002.safetensors"]
    with dial(node.endpoint, buffer=4096) as sock:
        sock.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        said, began = b"", time.monotonic()
        while time.monotonic() - began < 5:  # more than twice as long as nothing may be taken
            said += sock.recv(1024)
            time.sleep(0.1)
        assert len(said) < len(expected)
        said += answer(sock)
    assert said.partition(b"\r\n\r\n")[2] == expected


def test_who_waits_for_a_source_is_not_taken_for_a_reader_that_does_not_read(
    hub: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(hub, stalled_s=1, pressed_s=1, idle_s=1, head_s=1, body_s=1)
    hub.set_faults(Fault("rate", rate=1_500_000))
    with open_stream(node.endpoint + BIG_FILE) as response:
        assert response.read() == BIG


def test_when_it_is_full_who_never_asked_goes_first_and_then_who_rests(
    calm_hub: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(calm_hub, connections=8)
    with ExitStack() as stack:
        resting = stack.enter_context(_begun(node, LINE + b"\r\n"))
        wait_until(lambda: resting.recv(1, socket.MSG_PEEK) == b"H")
        slow = stack.enter_context(besieging(20, functools.partial(_begun, node, LINE)))
        is_served(node)
        wait_until(lambda: sum(map(is_open, slow)) <= 8)
        assert is_open(resting)
        assert not is_open(slow[0])


def test_when_all_are_being_answered_others_are_told_to_come_back(
    calm_hub: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(calm_hub, connections=8)
    is_served(node)

    with besieging(8, functools.partial(_never_reads, node)) as readers:
        for reader in readers:
            assert reader.recv(12) == b"HTTP/1.1 200"
        for _ in range(3):
            reply = ask(node.endpoint + SMALL)
            assert reply.status == HTTPStatus.SERVICE_UNAVAILABLE
            assert int(reply.headers["retry-after"]) > 0
            assert reply.json()["error"] == reply.headers["x-error-message"]
    wait_until(lambda: ask(node.endpoint + SMALL).status == HTTPStatus.OK)


def test_one_address_has_its_share_and_a_proxy_has_more(calm_hub: ChaosHub, start_node: StartNode) -> None:
    strict = start_node(calm_hub, connections_each=4, trusted_proxies="10.0.0.0/8")
    with besieging(12, functools.partial(_begun, strict, LINE)) as socks:
        wait_until(lambda: sum(map(is_open, socks)) <= 4)
        is_served(strict)
    behind_proxy = start_node(calm_hub, connections_each=4)
    with besieging(12, functools.partial(_begun, behind_proxy, LINE)) as socks:
        is_served(behind_proxy)
        assert all(map(is_open, socks))


def test_what_is_sent_ahead_is_left_in_the_socket(calm_hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(calm_hub)
    is_served(node)
    before = resident(node)
    request = b"GET " + BIG_FILE.encode() + b" HTTP/1.1\r\nHost: node\r\n"
    ahead = (request + b"X: " + b"x" * 8000 + b"\r\n" * 2) * 400

    def floods() -> socket.socket:
        sock = dial(node.endpoint, buffer=4096, timeout=0.05)
        sock.sendall(request + b"\r\n")
        send_on(sock, ahead)
        return sock

    with besieging(30, floods):
        grown = resident(node) - before
        assert grown <= 60 * MIB
        is_served(node)


def test_half_heads_are_bounded(calm_hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(calm_hub)
    is_served(node)
    line = b"X-%d: " + b"x" * 8000 + b"\r\n"
    with _begun(node, LINE + b"".join(line % number for number in range(40))) as sock:
        assert answer(sock).startswith(b"HTTP/1.1 431 ")
    half = LINE + line * 3
    with besieging(600, functools.partial(_begun, node, half)) as socks:
        is_served(node)
        assert all(map(is_open, socks))
        assert resident(node) <= 300 * MIB


def test_requests_in_one_go_are_answered_in_their_order(node: NodeProcess) -> None:
    count = 100
    paths = [f"/org/tiny/resolve/main/absent-{number}.txt" for number in range(count)]
    ask(node.endpoint + paths[0])
    with dial(node.endpoint) as sock:
        lines = [f"GET {path} HTTP/1.1\r\nHost: node\r\n\r\n" for path in paths]
        lines[-1] = lines[-1].replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
        sending = threading.Thread(target=sock.sendall, args=("".join(lines).encode(),))
        sending.start()
        said = answer(sock).decode()
        sending.join()
    assert said.count("HTTP/1.1 404 ") == count
    places = [said.index(f"absent-{number}.txt") for number in range(count)]
    assert places == sorted(places)

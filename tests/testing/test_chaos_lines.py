"""Faults of the line and of who may use it: slow, crowded, rationed, cut."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from headrace.testing import ChaosHub, Fault, content
from headrace.testing.bending import TURNS
from headrace.testing.faults import HOWS
from tests.testing.stream import Stream

Ask = Callable[..., Any]
Open = Callable[..., Stream]
DATA = content(3_000_000, seed=1)
INFO = "/api/models/org/tiny"


def seconds(action: Callable[[], object]) -> float:
    start_s = time.monotonic()
    action()
    return time.monotonic() - start_s


def test_a_body_may_trickle_and_so_may_the_api(hub: ChaosHub, shard: str, ask: Ask, stream: Open) -> None:
    hub.set_faults(Fault("trickle", host="any", rate=40))
    assert seconds(lambda: ask(shard, Range="bytes=0-19")) >= 0.4  # a lower bound holds on any machine
    one = stream(hub.endpoint + INFO)
    assert one.length > 400
    assert one.reader.read(1) == b"{"
    one.socket.settimeout(5)
    assert one.reader.read(3) == b'"_i'


def test_a_head_may_drip_and_never_end(hub: ChaosHub, shard: str) -> None:
    hub.set_faults(Fault("slowhead", delay_s=0.001))
    one = Stream(shard)
    got = one.reader.read(1000)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in got
    assert hub.log().requests[-1].ended_s is None
    one.close()
    assert hub.settled_log().blob_bytes == 0


@pytest.mark.parametrize(("how", "head"), [("before", b""), ("head", b"HTTP/1.1 200 OK\r\n")])
@pytest.mark.parametrize("target", ["shard", "api"])
def test_a_connection_may_end_around_its_head(
    hub: ChaosHub, shard: str, how: str, head: bytes, target: str
) -> None:
    hub.set_faults(Fault("hangup", host="any", how=how, times=1))
    one = Stream(shard if target == "shard" else hub.endpoint + INFO)
    got, error = one.read_until_it_breaks()
    one.close()
    assert (got[: len(head)], error) == (head, None)
    assert got == head == b"" or got.endswith(b"\r\n\r\n")
    assert hub.settled_log().body_bytes == 0


@pytest.fixture
def crowded(hub: ChaosHub, shard: str) -> Iterator[Callable[[str], str]]:
    """`crowded(how)`: a CDN that bears three connections, which are taken; the address to ask is the answer."""
    with ExitStack() as stack:

        def crowd(how: str) -> str:
            hub.set_faults(Fault("crowd", most=3, how=how))
            held = [stack.enter_context(dial(shard)) for _ in range(3)]
            for connection in held:
                connection.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(12) == b"HTTP/1.1 403"
            return shard

        yield crowd


def dial(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)


def test_one_connection_too_many_may_be_reset(crowded: Callable[[str], str], ask: Ask) -> None:
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        ask(crowded("reset"))


def test_one_connection_too_many_may_be_told_so(crowded: Callable[[str], str], ask: Ask) -> None:
    assert ask(crowded("busy")).status == 503


def test_one_connection_too_many_may_be_left_in_silence(crowded: Callable[[str], str]) -> None:
    one = Stream(crowded("silent"))
    one.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        one.socket.recv(1)
    one.close()


def test_whoever_leaves_makes_room(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("crowd", most=1))
    dial(shard).close()
    give_up_s = time.monotonic() + 20
    while True:
        try:
            assert ask(shard).body == DATA
            break
        except OSError:  # the hub may not have noticed yet that the other one left
            assert time.monotonic() < give_up_s
            time.sleep(0.05)


def fetch_together(url: str, count: int, size: int) -> None:
    parts = urlsplit(url)

    def one(number: int) -> None:
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        start = number * size
        connection.request(
            "GET", f"{parts.path}?{parts.query}", headers={"Range": f"bytes={start}-{start + size - 1}"}
        )
        assert connection.getresponse().read() == DATA[start : start + size]
        connection.close()

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(one, range(count)))


def test_all_connections_of_a_client_may_share_one_rate(hub: ChaosHub, shard: str) -> None:
    hub.set_faults(Fault("total", rate=1_000_000))
    assert seconds(lambda: fetch_together(shard, 8, 60_000)) >= 0.4
    hub.set_faults(Fault("rate", rate=1_000_000))
    assert seconds(lambda: fetch_together(shard, 1, 60_000)) >= 0.03


def test_a_line_may_collapse_under_too_many_connections(hub: ChaosHub, shard: str) -> None:
    hub.set_faults(Fault("collapse", most=2, rate=1_000_000))
    # Four share a quarter of what two would have had: 480 KB at 500 KB/s.
    assert seconds(lambda: fetch_together(shard, 4, 120_000)) >= 0.6


def test_a_line_that_is_not_crowded_does_not_collapse(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("collapse", most=2))
    assert ask(shard).body == DATA
    assert hub.log().requests[-1].faults == ("collapse",)


def test_a_quota_is_told_and_kept(hub: ChaosHub, ask: Ask) -> None:
    hub.set_faults(
        Fault("quota", host="hub", most=2, delay_s=300),
        Fault("quota", host="hub", most=9, delay_s=300, how="api"),
    )
    url = f"{hub.endpoint}/org/tiny/resolve/main/config.json"
    replies = [ask(url) for _ in range(4)]
    assert [reply.status for reply in replies] == [307, 307, 429, 429]
    assert [reply.headers["ratelimit"].partition(";t=")[0] for reply in replies] == [
        f'"resolvers";r={left}' for left in (1, 0, 0, 0)
    ]
    assert replies[0].headers["ratelimit-policy"] == '"fixed window";"resolvers";q=2;w=300'
    assert 290 <= int(replies[2].headers["retry-after"]) <= 300
    api = ask(hub.endpoint + INFO)
    assert (api.status, api.headers["ratelimit"].partition(";t=")[0]) == (200, '"api";r=8')


def test_a_quota_begins_anew_with_its_window(hub: ChaosHub, ask: Ask) -> None:
    hub.set_faults(Fault("quota", host="hub", most=1, delay_s=1, how="api"))
    assert ask(hub.endpoint + INFO).status == 200
    refused = ask(hub.endpoint + INFO)
    assert refused.status == 429
    time.sleep(int(refused.headers["retry-after"]))
    assert ask(hub.endpoint + INFO).status == 200


def test_answers_may_be_spared_first(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("status", skip=2, times=1))
    assert [ask(shard).status for _ in range(4)] == [200, 200, 503, 200]


def test_thirty_two_limited_connections_get_what_they_were_promised(hub: ChaosHub, shard: str) -> None:
    rate = 1_000_000
    hub.set_faults(Fault("rate", rate=rate))
    took_s = seconds(lambda: fetch_together(shard, 32, 93_750))
    assert took_s >= 0.9 * 93_750 / rate
    assert hub.settled_log().blob_bytes == len(DATA)


def test_every_kind_is_known_where_it_acts() -> None:
    assert set(HOWS) - set(TURNS) == {"moved", "crowd"}
    assert set(TURNS) <= set(HOWS)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"kind": "trickle"}, "positive rate"),
        ({"kind": "crowd"}, "positive most"),
        ({"kind": "moved"}, "lead to"),
        ({"kind": "json", "how": "sideways"}, "no way 'sideways'"),
        ({"kind": "flip", "how": "any"}, "it has none"),
        ({"kind": "reset", "skip": -1}, "negative"),
    ],
)
def test_a_fault_that_lacks_something_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Fault(**wrong)

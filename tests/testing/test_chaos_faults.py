"""Each fault does exactly what it says, and the log counts exactly what left."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from headrace.testing import ChaosHub, Fault, content, write_repo
from headrace.testing.answer import Answer, Request, Slice
from headrace.testing.book import FaultBook
from headrace.testing.plan import Ending
from tests.testing.stream import Stream

Ask = Callable[..., Any]
SHARD = "weights/model-00001-of-00002.safetensors"
DATA = content(3_000_000, seed=1)


def test_reset_breaks_after_exactly_so_many_bytes(
    hub: ChaosHub, shard: str, ask: Ask, stream: Callable[..., Stream]
) -> None:
    hub.set_faults(Fault("reset", after_bytes=1_000_000, times=1))
    got, error = stream(shard).read_until_it_breaks()
    assert (got, error) == (DATA[:1_000_000], ConnectionResetError)
    assert hub.log().blob_bytes == 1_000_000
    assert hub.log().requests[-1].faults == ("reset",)
    assert ask(shard).body == DATA


def test_truncate_ends_cleanly_but_too_early(
    hub: ChaosHub, shard: str, stream: Callable[..., Stream]
) -> None:
    hub.set_faults(Fault("truncate", after_bytes=1_000))
    one = stream(shard, Range="bytes=500-")
    got, error = one.read_until_it_breaks()
    assert (got, error, one.length) == (DATA[500:1500], None, len(DATA) - 500)
    assert hub.log().blob_bytes == 1_000


def test_stall_keeps_the_line_open_until_the_client_leaves(
    hub: ChaosHub, shard: str, stream: Callable[..., Stream]
) -> None:
    hub.set_faults(Fault("stall", after_bytes=1_000))
    one = stream(shard)
    assert one.reader.read(1_000) == DATA[:1_000]
    one.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        one.socket.recv(1)
    assert hub.log().requests[-1].ended_s is None
    one.close()
    assert hub.settled_log().blob_bytes == 1_000


def test_a_stalled_client_does_not_keep_the_hub_from_stopping(
    hub: ChaosHub, shard: str, stream: Callable[..., Stream]
) -> None:
    hub.set_faults(Fault("stall"))
    stream(shard)
    start_s = time.monotonic()
    hub.stop()
    assert time.monotonic() - start_s < 3


def test_flip_spoils_one_byte_of_the_file_wherever_it_is_asked_for(
    hub: ChaosHub, shard: str, ask: Ask
) -> None:
    hub.set_faults(Fault("flip", offset=1_234_567, times=2))
    assert ask(shard, Range="bytes=0-1000").body == DATA[:1001]
    for header, start in (("bytes=1234567-", 1_234_567), ("bytes=1000000-2000000", 1_000_000)):
        part = ask(shard, Range=header).body
        wrong = [start + at for at, byte in enumerate(part) if byte != DATA[start + at]]
        assert wrong == [1_234_567]
    assert ask(shard).body == DATA


def test_an_error_takes_the_place_of_any_answer(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("status", status=429, delay_s=1.5, host="any", times=2))
    api, file = ask(f"{hub.endpoint}/api/models/org/tiny"), ask(shard)
    assert (
        (api.status, api.headers["retry-after"]) == (file.status, file.headers["retry-after"]) == (429, "2")
    )
    assert ask(shard).body == DATA
    assert hub.log().blob_bytes == len(DATA)


def test_a_range_may_be_ignored(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("whole"))
    reply = ask(shard, Range="bytes=5-9")
    assert (reply.status, reply.body) == (200, DATA)
    assert "content-range" not in reply.headers


def test_a_portal_may_answer_for_the_hub(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("page", times=1))
    reply = ask(shard, Range="bytes=5-9")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html")
    assert hub.log().blob_bytes == 0


def test_a_broken_settings_file_is_told_to_its_author(tmp_path: Path, ask: Ask) -> None:
    folder = write_repo(tmp_path, "org/broken", {"a.txt": b""})
    (folder / ".hub.json").write_text("{")
    with ChaosHub(tmp_path) as hub:
        assert ask(f"{hub.endpoint}/api/models/org/broken").status == 500


def test_latency_also_delays_the_api(hub: ChaosHub, ask: Ask) -> None:
    hub.set_faults(Fault("latency", host="hub", delay_s=0.3, times=1))
    start_s = time.monotonic()
    ask(f"{hub.endpoint}/api/models/org/tiny")
    assert time.monotonic() - start_s >= 0.3
    assert hub.log().requests[-1].faults == ("latency",)


def test_a_rate_slows_the_bytes_and_nothing_else(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("rate", rate=1_000_000))
    start_s = time.monotonic()
    assert ask(shard, Range="bytes=0-299999").body == DATA[:300_000]
    assert time.monotonic() - start_s >= 0.25  # a lower bound holds on any machine


def test_a_fault_keeps_to_its_files_and_its_host(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("truncate", match="*.bin"), Fault("truncate", host="hub"))
    assert ask(shard).body == DATA
    sha = ask(f"{hub.endpoint}/api/models/org/tiny").json()["sha"]
    with pytest.raises(http.client.IncompleteRead):
        ask(f"{hub.endpoint}/api/resolve-cache/models/org/tiny/{sha}/config.json")


def test_an_answer_too_short_for_the_fault_uses_nothing_up(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("reset", after_bytes=1000, times=1))
    assert len(ask(shard, Range="bytes=0-999").body) == 1000
    assert ask(shard, "HEAD").status == 200
    with pytest.raises(ConnectionResetError):
        ask(shard)
    hub.set_faults(Fault("stall"))
    hub.clear_faults()
    assert ask(shard).body == DATA


def test_a_client_that_leaves_is_charged_what_it_got(
    hub: ChaosHub, shard: str, stream: Callable[..., Stream]
) -> None:
    hub.set_faults(Fault("rate", rate=20_000_000))
    one = stream(shard)
    one.reader.read(100_000)
    one.close()
    charged = hub.settled_log().blob_bytes
    assert 100_000 <= charged < len(DATA)


def test_the_log_tells_who_asked_for_what(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_tokens({"hf_secret": []})
    ask(f"{hub.endpoint}/api/models/org/tiny", Authorization="Bearer hf_secret")
    ask(shard, Range="bytes=0-9")
    ask(shard, Range="bytes=10-29")
    log = hub.log()
    digest = shard.partition("?")[0].rpartition("/")[2]
    api, first, second = log.requests
    assert api.authorization_present
    assert not first.authorization_present
    assert "hf_secret" not in repr(log)
    assert "Signature" not in repr(log)
    assert (api.host, first.host, first.range, first.status) == ("hub", "cdn", "bytes=0-9", 206)
    assert (first.file, first.blob) == (SHARD, digest)
    assert first.connection != second.connection
    assert log.bytes_of(digest) == log.blob_bytes == 30
    assert log.body_bytes == 30 + api.body_bytes
    assert log.count("GET") == 3
    assert log.count(path_glob="/api/*") == log.count(host="hub") == 1


def test_one_connection_carries_many_requests(hub: ChaosHub, shard: str) -> None:
    parts = urlsplit(shard)
    connection = http.client.HTTPConnection(parts.netloc)
    for _ in range(3):
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Range": "bytes=0-9"})
        assert connection.getresponse().read() == DATA[:10]
    connection.close()
    assert len({request.connection for request in hub.log().requests}) == 1
    assert hub.log().count() == 3


def test_a_hub_comes_back_at_the_same_address(shelf: Path, ask: Ask) -> None:
    with ChaosHub(shelf) as first:
        ports = (urlsplit(first.endpoint).port or 0, urlsplit(first.cdn).port or 0)
    with pytest.raises(ConnectionRefusedError):
        ask(f"{first.endpoint}/api/models/org/tiny")
    with ChaosHub(shelf, ports=ports) as second:
        assert (second.endpoint, second.cdn) == (first.endpoint, first.cdn)
        assert ask(f"{second.endpoint}/api/models/org/tiny").status == 200


def test_files_may_change_while_the_hub_runs(tmp_path: Path, ask: Ask) -> None:
    with ChaosHub(tmp_path) as hub:
        assert ask(f"{hub.endpoint}/api/models/org/new").status == 401
        write_repo(tmp_path, "org/new", {"a.txt": b"1"})
        first = ask(f"{hub.endpoint}/api/models/org/new").json()["sha"]
        write_repo(tmp_path, "org/new", {"a.txt": b"22"})
        assert ask(f"{hub.endpoint}/api/models/org/new").json()["sha"] != first


def test_a_hub_that_cannot_start_says_so(shelf: Path) -> None:
    with pytest.raises(RuntimeError, match="ended"):
        ChaosHub(shelf, cdn_host="no-such-host.invalid").start()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "explode"},
        {"kind": "rate"},
        {"kind": "reset", "host": "moon"},
        {"kind": "reset", "after_bytes": -1},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unknown fault|positive|host|negative"):
        Fault(**wrong)


def test_faults_add_up() -> None:
    answer = Answer(200, body=Slice(Path("x"), 0, 1000), file="a.bin")
    book = FaultBook([Fault("rate", rate=10.0, host="any")])
    book.replace(
        [
            Fault("rate", rate=20.0),
            Fault("reset", after_bytes=500),
            Fault("truncate", after_bytes=800),
            Fault("flip", offset=600),
            Fault("flip", offset=400),
            Fault("latency", delay_s=1),
            Fault("latency", delay_s=2),
        ]
    )
    request = Request("GET", "/x", ("x",), "", {})
    plan = book.plan("cdn", request, answer)
    assert (plan.rate, plan.delay_s, plan.flips) == (10.0, 3.0, {400})
    assert plan.cut == (500, Ending.RESET)
    assert book.plan("hub", request, answer).faults == ["rate"]

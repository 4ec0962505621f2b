"""Faults of what is said: wrong heads, wrong bodies, wrong directions."""

from __future__ import annotations

import gzip
import http.client
import json
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.testing.stream import Stream

Ask = Callable[..., Any]
Open = Callable[..., Stream]
DATA = content(3_000_000, seed=1)
INFO = "/api/models/org/tiny"


def test_a_pause_may_be_asked_for_as_a_date_by_the_hubs_own_clock(shelf: Path, ask: Ask) -> None:
    with ChaosHub(shelf, clock_off_s=-7200) as hub:
        hub.set_faults(Fault("status", host="hub", status=429, delay_s=90, how="date"))
        reply = ask(hub.endpoint + INFO)
    now, after = (parsedate_to_datetime(reply.headers[name]) for name in ("date", "retry-after"))
    assert reply.status == 429
    assert 89 <= (after - now).total_seconds() <= 91
    assert -7210 < now.timestamp() - time.time() < -7190


@pytest.mark.parametrize("style", ["cloudfront", "amz"])
@pytest.mark.parametrize("off_s", [-7200, 7200])
def test_addresses_hold_by_the_hubs_clock_and_by_no_other(
    shelf: Path, ask: Ask, style: str, off_s: float
) -> None:
    with ChaosHub(shelf, clock_off_s=off_s, url_style=style, url_lifetime_s=2) as hub:
        url = ask(f"{hub.endpoint}/datasets/org/data/resolve/main/train.parquet").headers["location"]
        assert ask(url).status == 200
        give_up_s = time.monotonic() + 20
        while (reply := ask(url)).status == 200:
            assert time.monotonic() < give_up_s
            time.sleep(0.1)
    assert (reply.status, b"expired" in reply.body) == (403, True)
    assert ("X-Amz-Expires=2" in url) == (style == "amz")


def test_an_address_may_expire_in_the_middle_of_its_body(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("expire", after_bytes=1_000_000, times=1))
    with pytest.raises(ConnectionResetError):
        ask(shard)
    assert ask(shard, Range="bytes=5-9").status == 403
    hub.clear_faults()
    assert ask(shard).status == 403
    again = ask(f"{hub.endpoint}/org/tiny/resolve/main/weights/model-00001-of-00002.safetensors")
    assert ask(again.headers["location"]).body == DATA


def test_a_redirect_may_lead_to_itself(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("loop", host="any"))
    for url in (shard, hub.endpoint + INFO + "?blobs=true"):
        reply = ask(url)
        assert (reply.status, reply.headers["location"]) == (302, url)


def test_a_redirect_may_lead_elsewhere(hub: ChaosHub, shard: str, ask: Ask) -> None:
    parts = urlsplit(shard)
    other = f"http://127.0.0.1:{parts.port}"
    hub.set_faults(Fault("elsewhere", to=other))
    first = ask(shard, Range="bytes=5-9")
    assert (first.status, first.headers["location"]) == (302, other + shard.removeprefix(hub.cdn))
    there = ask(first.headers["location"], Range="bytes=5-9")
    assert (there.status, there.body) == (206, DATA[5:10])
    for to in ("http://10.0.0.1", "https://127.0.0.1:1"):
        hub.set_faults(Fault("elsewhere", host="hub", to=to))
        resolved = ask(f"{hub.endpoint}/org/tiny/resolve/main/weights/model-00001-of-00002.safetensors")
        assert resolved.headers["location"].startswith(f"{to}/repos/models/org/tiny/")
        assert resolved.headers["x-linked-size"] == "3000000"


def test_a_portal_may_answer_for_the_api(hub: ChaosHub, ask: Ask) -> None:
    hub.set_faults(Fault("page", host="hub"))
    reply = ask(hub.endpoint + INFO)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html")


def test_json_may_be_cut_off(hub: ChaosHub, ask: Ask) -> None:
    good = ask(hub.endpoint + INFO)
    hub.set_faults(Fault("json", host="hub"))
    assert ask(hub.endpoint + INFO).body == good.body[: len(good.body) // 2]
    hub.set_faults(Fault("json", host="hub", how="empty"))
    assert ask(hub.endpoint + INFO).body == b""


def test_json_may_hold_other_types_or_too_many_levels(hub: ChaosHub, ask: Ask) -> None:
    hub.set_faults(Fault("json", host="hub", how="types"))
    spoilt = ask(hub.endpoint + INFO).json()
    assert (spoilt["sha"], spoilt["private"]) == (40, "False")
    hub.set_faults(Fault("json", host="hub", how="deep"))
    with pytest.raises(RecursionError):
        json.loads(ask(hub.endpoint + INFO).body)


def test_what_is_no_json_is_left_alone(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("json", host="any"))
    assert ask(shard).body == DATA
    assert ask(f"{hub.endpoint}/org/tiny/resolve/main/config.json").status == 307


def test_an_answer_may_be_compressed_though_nobody_asked(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("gzip", host="any"))
    part = ask(shard, Range="bytes=5-1004")
    assert (part.status, part.headers["content-encoding"]) == (206, "gzip")
    assert gzip.decompress(part.body) == DATA[5:1005]
    assert json.loads(gzip.decompress(ask(hub.endpoint + INFO).body))["id"] == "org/tiny"
    hub.set_faults(Fault("gzip", how="label"))
    labelled = ask(shard)
    assert (labelled.body, labelled.headers["content-encoding"]) == (DATA, "gzip")


@pytest.mark.parametrize(
    ("how", "told"),
    [("start", "bytes 6-9/3000000"), ("end", "bytes 5-10/3000000"), ("total", "bytes 5-9/3000001")],
)
def test_a_range_may_be_called_another(hub: ChaosHub, shard: str, ask: Ask, how: str, told: str) -> None:
    hub.set_faults(Fault("misrange", how=how))
    part = ask(shard, Range="bytes=5-9")
    assert (part.status, part.headers["content-range"], part.body) == (206, told, DATA[5:10])
    assert ask(shard).body == DATA


def test_a_body_may_come_in_chunks_without_a_length(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("lengthless", host="any"), Fault("flip", offset=70_000))
    part = ask(shard, Range="bytes=5-1999999")
    assert part.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in part.headers
    assert part.body == DATA[5:70_000] + bytes([DATA[70_000] ^ 0xFF]) + DATA[70_001:2_000_000]
    assert ask(hub.endpoint + INFO).json()["id"] == "org/tiny"
    assert hub.settled_log().blob_bytes == 1_999_995


def test_chunks_may_end_without_the_last(hub: ChaosHub, shard: str, ask: Ask) -> None:
    hub.set_faults(Fault("lengthless"), Fault("truncate", after_bytes=100_000))
    with pytest.raises(http.client.IncompleteRead) as short:
        ask(shard)
    assert short.value.partial == DATA[:100_000]


def test_a_body_may_end_where_its_connection_does(hub: ChaosHub, shard: str, stream: Open) -> None:
    hub.set_faults(Fault("lengthless", how="close"))
    one = stream(shard)
    assert (one.header("Content-Length"), one.header("Connection")) == ("", "close")
    assert one.read_until_it_breaks() == (DATA, None)


@pytest.mark.parametrize("by", [-1000, 1000])
def test_a_length_may_be_wrong(hub: ChaosHub, shard: str, stream: Open, by: int) -> None:
    hub.set_faults(Fault("length", by=by))
    one = stream(shard, Range="bytes=0-9999")
    assert one.length == 10_000 + by
    assert one.read_until_it_breaks() == (DATA[:10_000], None)


def test_an_answer_may_come_twice(hub: ChaosHub, shard: str, stream: Open) -> None:
    hub.set_faults(Fault("double", times=1))
    one = stream(shard, Range="bytes=0-9")
    assert one.reader.read(10) == DATA[:10]
    assert one.read_head().reader.read(10) == DATA[:10]
    assert hub.settled_log().blob_bytes == 20


def test_a_repo_may_have_another_name_by_now(tmp_path: Path, ask: Ask) -> None:
    write_repo(tmp_path, "org/new-name", {"a.txt": b"a"})
    write_repo(tmp_path, "old", {}, renamed_to="org/new-name")
    with ChaosHub(tmp_path) as hub:
        for path, target in (
            ("/api/models/old", "/api/models/org/new-name"),
            ("/api/models/old/tree/main?recursive=true", "/api/models/org/new-name/tree/main?recursive=true"),
            ("/old/resolve/main/a.txt", "/org/new-name/resolve/main/a.txt"),
        ):
            reply = ask(hub.endpoint + path)
            assert (reply.status, reply.headers["location"]) == (307, target)
            assert ask(hub.endpoint + target).status in {200, 307}


def test_a_disabled_repo_is_refused_as_the_hub_does(calm: ChaosHub, ask: Ask) -> None:
    for path in ("/api/models/org/off/revision/main", "/org/off/resolve/main/a.txt"):
        reply = ask(calm.endpoint + path)
        assert (reply.status, reply.headers["x-error-message"]) == (
            403,
            "Access to this resource is disabled.",
        )


def test_the_main_branch_may_move_between_two_requests(hub: ChaosHub, ask: Ask) -> None:
    hub.set_faults(Fault("moved", to="feature/slash", skip=2, times=3))
    url = f"{hub.endpoint}/api/models/org/tiny"
    moved = ask(f"{url}/revision/feature%2Fslash").json()["sha"]
    shas = [ask(f"{url}/revision/main").json()["sha"] for _ in range(3)]
    assert (shas[0] == shas[1], shas[2]) == (True, moved)
    assert shas[0] != moved
    assert len(ask(f"{url}/tree/main").json()) == 1
    assert ask(f"{hub.endpoint}/org/tiny/resolve/main/config.json").headers["x-repo-commit"] == moved
    assert ask(f"{url}/revision/main").json()["sha"] == shas[0]
    assert ask(f"{url}/revision/{shas[0]}").json()["sha"] == shas[0]


@pytest.mark.parametrize("blobs", [True, False])
def test_one_call_tells_commit_and_files(calm: ChaosHub, ask: Ask, *, blobs: bool) -> None:
    url = f"{calm.endpoint}/api/models/org/tiny/"
    info = ask(f"{url}revision/main{'?blobs=true' if blobs else ''}").json()
    tree = ask(f"{url}tree/{info['sha']}?recursive=true").json()
    files = [row for row in tree if row["type"] == "file"]
    expected = []
    for row in files:
        sibling = {"rfilename": row["path"]}
        if blobs:
            sibling |= {"size": row["size"], "blobId": row["oid"]}
        if blobs and "lfs" in row:
            lfs = row["lfs"]
            sibling["lfs"] = {
                "sha256": lfs["oid"],
                "size": lfs["size"],
                "pointerSize": lfs["pointerSize"],
            }
        expected.append(sibling)
    assert info["siblings"] == expected
    assert any("lfs" in row for row in files)


def test_hostile_lists_are_told_there_too(tmp_path: Path, ask: Ask) -> None:
    evil = {"type": "file", "path": "../x", "size": 1, "oid": "0" * 40}
    write_repo(tmp_path, "org/evil", {"a.txt": b"a"}, tree_extra=[evil, 7, {"type": "directory"}])
    write_repo(tmp_path, "org/liar", {"a.txt": b"a"}, tree_replace=[evil])
    with ChaosHub(tmp_path) as hub:
        extra = ask(f"{hub.endpoint}/api/models/org/evil/revision/main?blobs=1").json()["siblings"]
        replaced = ask(f"{hub.endpoint}/api/models/org/liar/revision/main").json()["siblings"]
    assert extra[1:] == [{"rfilename": "../x", "size": 1, "blobId": "0" * 40}, 7]
    assert replaced == [{"rfilename": "../x"}]

"""What is odd about a request changes nothing, or gets it refused; and no browser runs what is in a repo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import pytest

from headrace.node.api.browsers import Browsers
from headrace.node.api.crowd import Crowd
from headrace.node.bounds import Bounds
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, write_repo
from tests.node.asking import BIG, BIG_FILE, Reply, ask
from tests.node.siege.besiegers import answer, dial
from tests.node.siege.exchange import Response, responses

StartNode = Callable[..., NodeProcess]
HOST = b"Host: node\r\nConnection: close\r\n"
SMALL = b"/org/tiny/resolve/main/config.json"
POST = b"POST /api/models/org/tiny/paths-info/main HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
QUESTION = b'{"paths": ["config.json"]}'
EVIL = "<script>alert(1)</script>"


def told(node: NodeProcess, sent: bytes) -> list[Response]:
    with dial(node.endpoint) as sock:
        sock.sendall(sent)
        return responses(answer(sock), sent.partition(b" ")[0].decode(errors="replace"))


def get(target: bytes, more: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"GET " + target + b" HTTP/" + version + b"\r\n" + HOST + more + b"\r\n"


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (get(SMALL), [200]),
        (get(SMALL, b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), [400]),
        (get(SMALL, b"Content-Length: 0\r\nContent-Length: 5\r\n"), [400]),
        (get(SMALL, b"Content-Length: -1\r\n"), [400]),
        (get(SMALL, b"Transfer-Encoding: xchunked\r\n"), [400]),
        (get(SMALL, b"X-Nul: a\x00b\r\n"), [400]),
        (get(SMALL, b"X-Folded: a\r\n b\r\n"), [400]),
        (get(SMALL, b"Sp ace: a\r\n"), [400]),
        (get(SMALL, b"X-Long: " + b"x" * 9000 + b"\r\n"), [431]),
        (get(SMALL, b"".join(b"X-%d: x\r\n" % n for n in range(200))), [400]),
        (get(SMALL, b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: x\r\n"), [200]),
        (get(SMALL, b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n"), [200]),
        (get(SMALL, b"", b"2.0"), [505]),
        (get(SMALL, b"", b"0.9"), [505]),
        (get(SMALL, b"", b"1.0"), [200]),
        (b"GET " + SMALL + b"\r\n\r\n", [505]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), [400]),
        (b"\x00\xff" * 100 + b"\r\n\r\n", [400]),
        (get(b"/" + b"a" * 65536), [431]),
        (get(b"http://node" + SMALL), [200]),
        (get(b"node:443"), [400]),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", [405]),
        (POST + b"Expect: 100-continue\r\nContent-Length: 26\r\n\r\n" + QUESTION, [200]),
        (POST + b"Expect: 200-maybe\r\nContent-Length: 26\r\n\r\n" + QUESTION, [417]),
        (get(SMALL, b"Expect: \xa2\xa4\r\n"), [417]),
        (get(b"/healthz", b"Expect: \xa2\xa4\r\n"), [417]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1a\r\n" + QUESTION + b"\r\n0\r\n\r\n", [200]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", [400]),
        (POST + b"Content-Length: 9999999999\r\n\r\n" + QUESTION, [408]),
    ],
)
def test_what_is_odd_about_a_request_is_refused_or_changes_nothing(
    impatient: NodeProcess, sent: bytes, statuses: list[int]
) -> None:
    assert [response.status for response in told(impatient, sent)] == statuses


@pytest.fixture(scope="module")
def impatient(calm_hub: ChaosHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that tests only ask, with short limits, and a secret in its folder."""
    data = tmp_path_factory.mktemp("impatient")
    (data / "canary.txt").write_bytes(b"canary")
    with NodeProcess(data, {"hub": calm_hub.endpoint}, head_s=2, body_s=1, idle_s=2) as node:
        yield node


@pytest.mark.parametrize(
    "detour",
    [
        "../canary.txt",
        "..%2fcanary.txt",
        "%2e%2e/canary.txt",
        "%2e%2e%2fcanary.txt",
        "%252e%252e%252fcanary.txt",
        "..\\canary.txt",
        "%c0%ae%c0%ae/canary.txt",
        "./canary.txt",
        "/canary.txt",
        "canary.txt%00",
        "%0a..%0acanary.txt",
    ],
)
def test_no_path_leads_out_of_a_repo(impatient: NodeProcess, detour: str) -> None:
    for path in (
        f"/org/tiny/resolve/main/{detour}",
        f"/org/tiny/resolve/{detour}/config.json",
        f"/{detour}",
        f"/_headrace/{detour}",
        f"/_headrace/blocks/{detour}",
        f"/api/models/org/tiny/tree/main/{detour}",
        f"/datasets/{detour}/resolve/main/x",
    ):
        for response in told(impatient, get(path.encode())):
            assert 400 <= response.status < 500
            assert b'"canary"' not in response.body


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(700)), BIG),
        ("bytes=0-1,5-6", BIG),
        ("bytes=0-" + "9" * 4000, BIG),
        ("bytes=-" + "9" * 4000, BIG),
        ("bytes=9-1", BIG),
        ("bytes=--5", BIG),
        ("bytes=-0", None),
        ("bytes=" + "9" * 4000 + "-", BIG),
    ],
)
def test_ranges_that_make_no_sense_cost_nothing(
    calm: NodeProcess, wanted: str, expected: bytes | None
) -> None:
    reply = ask(calm.endpoint + BIG_FILE, Range=wanted)
    if expected is None:
        assert reply.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    else:
        assert reply.body == expected


@pytest.mark.parametrize("kind", ["model", "space"])
def test_no_browser_runs_what_is_in_a_repo(tmp_path: Path, start_node: StartNode, kind: str) -> None:
    names = ["README.html", "a.svg", "a.pdf", "a.xhtml", "a.js", 'x";filename=evil.html', "\u202egnp.lmth"]
    write_repo(tmp_path / "hub", "org/evil", {name: EVIL.encode() for name in names}, kind=kind)
    prefix = "" if kind == "model" else f"/{kind}s"
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub)
        for name in names:
            for verb in ("resolve", "raw"):
                reply = ask(f"{node.endpoint}{prefix}/org/evil/{verb}/main/{quote(name)}")
                assert reply.body == EVIL.encode()
                assert reply.headers["content-type"].partition(";")[0] in (
                    "text/plain",
                    "application/octet-stream",
                )
                assert_harmless(reply)
                named = reply.headers["content-disposition"]
                assert named.count('"') == 2
                assert named.isascii()
        for path in (f"/org/{EVIL}", "/api/models/org/none", f"/{quote(EVIL)}", f"/healthz?{quote(EVIL)}"):
            reply = ask(node.endpoint + quote(path, safe="/?%"))
            assert EVIL.encode() not in reply.body
            assert_harmless(reply)


def assert_harmless(reply: Reply) -> None:
    assert "html" not in reply.headers["content-type"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_pages_of_others_read_nothing_unless_the_operator_says_so(
    calm_hub: ChaosHub, start_node: StartNode
) -> None:
    page, other = "https://tool.example", "https://evil.example"
    path = "/api/models/org/tiny"
    shut = start_node(calm_hub)
    assert not any(
        name.startswith("access-control-") for name in ask(shut.endpoint + path, Origin=page).headers
    )
    shut.stop()
    node = start_node(calm_hub, browser_origins=f"{page},https://second.example")
    reply = ask(node.endpoint + path, Origin=page)
    assert reply.headers["access-control-allow-origin"] == page
    assert "X-Repo-Commit" in reply.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in reply.headers
    missing = ask(node.endpoint + "/api/models/org/none", Origin=page)
    assert missing.headers["access-control-allow-origin"] == page
    before = ask(node.endpoint + path, "OPTIONS", Origin=page, Access_Control_Request_Method="GET")
    assert before.status == HTTPStatus.NO_CONTENT
    assert before.headers["access-control-allow-origin"] == page
    assert "Range" in before.headers["access-control-allow-headers"]
    refused = ask(node.endpoint + path, "OPTIONS", Origin=other, Access_Control_Request_Method="GET")
    assert refused.status == HTTPStatus.METHOD_NOT_ALLOWED
    for reply in (refused, ask(node.endpoint + path, Origin=other)):
        assert "access-control-allow-origin" not in reply.headers
        assert reply.headers["vary"] == "Origin"


def test_a_star_lets_all_pages_read() -> None:
    headers = Browsers(["*"]).headers({"Origin": "https://any.example"})
    assert headers["Access-Control-Allow-Origin"] == "https://any.example"


def test_who_never_asked_goes_first_then_who_rests_then_who_takes_nothing() -> None:
    crowd: Crowd[str] = Crowd(3, 3)
    for name in ("unproven", "rests", "stalls"):
        assert crowd.admit(name, "here") == (True, None)
    for name in ("rests", "stalls"):
        crowd.busy(name)
    crowd.rests("rests")
    crowd.stalls("stalls")
    left = []
    for number in range(3):
        is_welcome, leaves = crowd.admit(f"new {number}", "here")
        assert is_welcome
        crowd.busy(f"new {number}")
        left.append(leaves)
    assert left == ["unproven", "rests", "stalls"]
    assert crowd.admit("late", "here") == (False, None)
    assert crowd.admit("later", None) == (True, "late")
    for name in tuple(crowd):
        crowd.leave(name)
    assert len(crowd) == 0


def test_who_has_its_share_takes_from_itself() -> None:
    crowd: Crowd[str] = Crowd(100, 2)
    crowd.admit("other", "there")
    crowd.admit("first", "here")
    crowd.admit("second", "here")
    assert crowd.admit("third", "here") == (True, "first")
    crowd.busy("second")
    crowd.busy("third")
    assert crowd.admit("fourth", "here") == (False, None)
    assert "other" in tuple(crowd)


@pytest.mark.parametrize(("files", "most"), [(256, 42), (1024, 298), (20_000, 4096), (10, 8)])
def test_there_are_as_many_connections_as_files_allow(files: int, most: int) -> None:
    assert Bounds().connections_among(files) == most
    assert Bounds(connections=5).connections_among(files) == 5

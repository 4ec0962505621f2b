"""Blobs that nginx sends for a node: the same answers, by a shorter way."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace.errors import UsageError
from headrace.node.facing import Facing
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub
from tests.node.asking import BIG, BIG_FILE, Reply, ask
from tests.node.fronting import DEPLOYED, fronted

StartNode = Callable[..., NodeProcess]
GUIDE = Path(__file__).parents[2] / "docs/guides/node-behind-nginx.md"
ANNOUNCED = {"X_Sendfile_Type": "X-Accel-Redirect"}
OWN = {"date", "server", "connection", "x-request-id", "age", "x-headrace-blocks", "cache-status"}
"""Headers that differ from answer to answer."""


@dataclass(frozen=True)
class Pair:
    """A node that has the large file, and an nginx in front of it."""

    node: NodeProcess
    data: Path
    front: str

    @property
    def blob(self) -> Path:
        (found,) = (path for path in self.data.glob("blobs/sha256/*/*") if path.stat().st_size == len(BIG))
        return found

    @property
    def handed_over(self) -> int:
        """Answers that the node left to nginx."""
        text = ask(self.node.endpoint + "/metrics").body.decode()
        found = re.search(r"^headrace_handed_over_total (\S+)$", text, re.MULTILINE)
        assert found is not None
        return int(float(found.group(1)))


@pytest.fixture(scope="module")
def pair(calm_hub: ChaosHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    data = folder / "node"
    with (
        NodeProcess(data, {"hub": calm_hub.endpoint}, x_accel="/_blobs/") as node,
        fronted(node, data, folder / "nginx") as front,
    ):
        assert ask(front + BIG_FILE).body == BIG  # cold: by the node, as it comes
        yield Pair(node, data, front)


def steady(reply: Reply) -> dict[str, str]:
    return {name: text for name, text in reply.headers.items() if name not in OWN}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Range": "bytes=0-0"},
        {"Range": "bytes=4000000-"},
        {"Range": "bytes=-70000"},
        {"Range": "bytes=10-99999999"},
        {"Range": "bytes=9-", "If_Range": "ETAG"},
        {"If_None_Match": '"other"'},
    ],
)
def test_what_is_here_is_sent_by_nginx_as_the_node_would(pair: Pair, headers: dict[str, str]) -> None:
    etag = ask(pair.node.endpoint + BIG_FILE, "HEAD").headers["etag"]
    headers = {name: text.replace("ETAG", etag) for name, text in headers.items()}
    before = pair.handed_over
    direct, through = (
        ask(pair.node.endpoint + BIG_FILE, "GET", None, **headers),
        ask(pair.front + BIG_FILE, "GET", None, **headers),
    )
    assert pair.handed_over == before + 1
    assert (through.status, through.body) == (direct.status, direct.body)
    assert steady(through) == steady(direct)
    assert through.headers.keys() - {"connection"} == direct.headers.keys() - {"connection"}
    assert "headrace; hit" in through.headers["cache-status"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("HEAD", {}, 200),
        ("GET", {"If_None_Match": "ETAG"}, 304),
        ("GET", {"Range": "bytes=99999999-"}, 416),
        ("GET", {"Range": "bytes=9-", "If_Range": '"other"'}, 200),
        ("GET", {"Range": "bytes=0-1,5-9"}, 200),
        ("GET", {"If_Modified_Since": "Thu, 01 Jan 2037 00:00:00 GMT"}, 200),
        ("GET", {"If_Unmodified_Since": "Thu, 01 Jan 2015 00:00:00 GMT"}, 200),
    ],
)
def test_the_rest_is_answered_by_the_node(
    pair: Pair, method: str, headers: dict[str, str], status: int
) -> None:
    etag = ask(pair.node.endpoint + BIG_FILE, "HEAD").headers["etag"]
    headers = {name: text.replace("ETAG", etag) for name, text in headers.items()}
    before = pair.handed_over
    direct = ask(pair.node.endpoint + BIG_FILE, method, None, **headers)
    through = ask(pair.front + BIG_FILE, method, None, **headers)
    assert pair.handed_over == before
    assert (through.status, through.body) == (direct.status, direct.body)
    assert through.status == status
    assert steady(through) == steady(direct)


def test_nobody_outside_gets_where_the_blobs_are(pair: Pair) -> None:
    path = pair.blob.relative_to(pair.data / "blobs")
    for name in (f"/_blobs/{path}", f"/_blobs/../_blobs/{path}", f"//_blobs/{path}", f"/%5fblobs/{path}"):
        connection = http.client.HTTPConnection(urlsplit(pair.front).netloc, timeout=20)
        connection.request("GET", name)
        reply = connection.getresponse()
        assert reply.status in (400, 401, 404)
        assert len(reply.read()) < 1000
        connection.close()
    assert ask(f"{pair.front}/_blobs/", X_Accel_Redirect=f"/_blobs/{path}").status in (401, 404)


def test_what_nginx_does_not_find_any_more_is_sent_by_the_node(pair: Pair, tmp_path: Path) -> None:
    # As if it had made room between the node's look and nginx's.
    (tmp_path / "other").mkdir()
    with fronted(pair.node, tmp_path / "other", tmp_path / "nginx") as front:
        before = pair.handed_over
        direct = ask(pair.node.endpoint + BIG_FILE, Range="bytes=5-")
        through = ask(front + BIG_FILE, Range="bytes=5-")
        assert pair.handed_over == before + 1
        assert (through.status, through.body) == (206, BIG[5:])
        assert steady(through) == steady(direct)


def test_small_files_leave_by_the_node(pair: Pair) -> None:
    before = pair.handed_over
    for _ in range(2):
        assert ask(pair.front + "/org/tiny/resolve/main/config.json").body == b'{"hidden": 1}'
    assert pair.handed_over == before


def test_strangers_cannot_ask_for_it(calm_hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(calm_hub, x_accel="/_blobs/", trusted_proxies="10.0.0.0/8")
    for _ in range(2):
        reply = ask(node.endpoint + BIG_FILE, "GET", None, **ANNOUNCED)
        assert reply.body == BIG
        assert "x-accel-redirect" not in reply.headers


def test_a_node_that_is_not_told_where_they_are_sends_them(calm: NodeProcess) -> None:
    for _ in range(2):
        assert ask(calm.endpoint + BIG_FILE, "GET", None, **ANNOUNCED).body == BIG


def test_a_client_of_nginx_cannot_speak_for_it(pair: Pair) -> None:
    assert ask(pair.front + BIG_FILE, X_Sendfile_Type="nothing").body == BIG


@pytest.mark.parametrize("prefix", ["_blobs/", "/_blobs", "/a b/", "//x/", "/x\r\n/"])
def test_what_is_no_path_of_a_web_server(prefix: str) -> None:
    with pytest.raises(UsageError):
        Facing(x_accel=prefix).check()


def test_the_guide_shows_what_is_deployed() -> None:
    shown = re.findall(r"```nginx\n(.*?)```", GUIDE.read_text(), re.DOTALL)[-1]
    have = {line.strip() for line in DEPLOYED.read_text().splitlines()}
    assert [line for line in shown.splitlines() if line.strip() not in have] == []

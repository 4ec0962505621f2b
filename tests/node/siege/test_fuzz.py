"""Thousands of requests that make no sense: each is answered or refused, and none of them gets anywhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node.asking import ask
from tests.node.siege.besiegers import resident
from tests.node.siege.exchange import Exchange, Response, exchanged, responses
from tests.node.siege.grammar import TOKEN, Grammar
from tests.quiet import QuietHandler, serving

CANARY = b"canary-that-nobody-may-see"
BIG = content(300_000, seed=11)
HTML = b"<html><script>alert(1)</script></html>"
MIB = 1024 * 1024
LINE = re.compile(r"(?:INFO|WARNING|ERROR) headrace\.node[a-z.]*: |(?:INFO|WARNING|ERROR) aiohttp\.server: ")


@dataclass
class Siege:
    """A node among things that nobody may get from it; `asked` are the requests that the canary server got."""

    node: NodeProcess
    grammar: Grammar
    asked: list[str]


@pytest.fixture
def siege(tmp_path: Path) -> Iterator[Siege]:
    root, data = tmp_path / "hub", tmp_path / "data"
    write_repo(
        root,
        "org/open",
        {
            "config.json": b"{}",
            "big.safetensors": BIG,
            "README.md": b"# hi",
            "sub/page.html": HTML,
            "evil.svg": b"<svg onload='alert(1)'/>",
            "\u20ac.txt": b"money",
        },
    )
    write_repo(root, "org/open", {"config.json": b"[]"}, revision="refs/pr/1")
    write_repo(root, "org/page", {"README.md": HTML, "sub/page.html": HTML}, kind="space")
    write_repo(root, "org/data", {"big.safetensors": BIG[:9000]}, kind="dataset")
    write_repo(root, "legacy", {"config.json": b"old"})
    closed = {"secret.bin": CANARY * 9000, "config.json": CANARY, "README.md": CANARY}
    write_repo(root, "org/closed", closed, private=True)
    write_repo(root, "org/asking", closed, gated="manual")
    data.mkdir()
    for folder in (tmp_path, data):
        (folder / "canary.txt").write_bytes(CANARY)
    digests = [hashlib.sha256(one).hexdigest() for one in (BIG, CANARY * 9000, b"nothing")]
    asked: list[str] = []

    class Canary(QuietHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_HEAD = do_GET

    with ExitStack() as stack:
        hub = stack.enter_context(ChaosHub(root))
        canary = stack.enter_context(serving(Canary))
        node = stack.enter_context(
            NodeProcess(
                data,
                {"hub": hub.endpoint},
                log_level="info",
                trusted_proxies="10.0.0.0/8",
                patience=30,
                head_s=1,
                body_s=1,
                idle_s=1,
                connections_each=4096,
            )
        )
        found = tuple(f"sha256:{one}" for one in digests)
        yield Siege(node, Grammar(found, canary, str(data / "canary.txt")), asked)


def is_no_fault(response: Response) -> bool:
    """Another version of HTTP; or a repo with a name that the hub's API takes for a verb, and answers as such."""
    if response.status == HTTPStatus.BAD_GATEWAY:
        return "(bad answer)" in response.headers["x-error-message"]
    return response.status == HTTPStatus.HTTP_VERSION_NOT_SUPPORTED


def wrong(one: Exchange) -> str:
    """What is wrong with an answer; empty for nothing."""
    said = bytes(one.said)
    if one.error:
        return one.error
    if CANARY in said:
        return "it gave away what nobody may see"
    if not one.case.method:
        failed = re.search(rb"(?:^|\r\n\r\n|[}\n])HTTP/1\.1 50[034]", said)
        return f"an error of the node: {said[:200]!r}" if failed else ""
    try:
        found = responses(said, one.case.method)
    except (ValueError, KeyError) as error:
        return f"what it said is no HTTP: {error!r}"
    return next(filter(None, map(fault_of, found)), "")


def fault_of(response: Response) -> str:
    kind = response.headers.get("content-type", "")
    if response.status >= 500 and not is_no_fault(response):
        return f"status {response.status}: {response.body[:200]!r}"
    if "html" in kind or "svg" in kind or response.headers.get("x-content-type-options") != "nosniff":
        return f"a browser may run it: {kind}"
    if response.status >= 400 and response.body and kind.startswith("application/json"):
        told = json.loads(response.body)["error"]
        if len(told) > 10_000 or not told.isprintable():
            return f"an odd message: {told[:200]!r}"
    return ""


def besiege(siege: Siege, seed: int, count: int) -> None:
    cases = ((f"{seed}:{number}", siege.grammar.case(f"{seed}:{number}")) for number in range(count))
    statuses: Counter[bytes] = Counter()
    bad: list[str] = []
    for one in exchanged(siege.node.endpoint, cases):
        statuses[bytes(one.said[9:12])] += 1
        if fault := wrong(one):
            bad.append(f"seed {one.seed!r}: {fault}\n  sent: {one.case.sent[:600]!r}")
    assert not bad, f"{len(bad)} cases; the first:\n" + "\n".join(bad[:20])
    assert len(statuses) > 5, statuses
    assert statuses[b"200"] > count / 20, statuses
    assert siege.asked == []
    reply = ask(siege.node.endpoint + "/org/open/resolve/main/big.safetensors")
    assert reply.body == BIG
    assert Path(f"/proc/{siege.node.worker}").exists()
    assert resident(siege.node) <= 300 * MIB


def check_log(log: str) -> None:
    assert TOKEN not in log
    assert CANARY.decode() not in log
    lines = log.splitlines()
    odd = [line for line in lines if not LINE.match(line)]
    assert odd == []
    assert len(lines) == log.count("\n")


def test_nothing_that_is_sent_gets_anywhere(siege: Siege, capfd: pytest.CaptureFixture[str]) -> None:
    besiege(siege, 1, 3000)
    siege.node.stop()
    check_log(capfd.readouterr().err)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 110))
def test_nothing_of_very_much_gets_anywhere(
    siege: Siege, seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    besiege(siege, seed, 12_000)
    siege.node.stop()
    check_log(capfd.readouterr().err)

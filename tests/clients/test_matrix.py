"""Clients as they are, through a node: cold and warm, the same bytes, and nobody but the node asks the hub.

The hub offers Xet for all large files: who sees the offer leaves the node. Where the right is had to make network
namespaces, clients run in one from which only the node can be reached.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
from headrace.source.http import USER_AGENT
from headrace.testing import ChaosHub, RequestLog
from tests.clients.namespace import Place, entered, place
from tests.clients.programs import environment, program, run
from tests.clients.roster import ANY, CLIENTS, Client, Visit
from tests.clients.shelf import Shelf, write_shelf
from tests.clients.table import note

HEADS = ("client", "version", "what it did", "cold", "warm", "only the node in reach")
PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "clients.md"
STATES = ("cold", "warm")
PARAMS = [pytest.param(one, id=one.owner, marks=[pytest.mark.soak] if one.soak else []) for one in CLIENTS]


@dataclass(frozen=True)
class Mirror:
    """A hub with the shelf of one client, and a node that mirrors it."""

    root: Path
    shelf: Shelf
    hub: ChaosHub
    node: NodeProcess
    place: Place

    def visit(self, owner: str, state: str) -> Visit:
        return Visit(self.node.endpoint, self.place.at_client, self.shelf, owner, self.root / state)

    def take_log(self) -> RequestLog:
        """What the hub was asked since the last time."""
        with entered(self.place):
            log = self.hub.settled_log()
            self.hub.clear_log()
        return log


@contextmanager
def mirror(root: Path, shelf: Shelf) -> Iterator[Mirror]:
    with ExitStack() as stack:
        where = stack.enter_context(place())
        with entered(where):
            hub = stack.enter_context(ChaosHub(shelf.root, page_size=3))
            options = {"listen": f"{where.host}:0", "page_entries": 3, "log_level": "error"}
            node = stack.enter_context(NodeProcess(root / "node", {"hub": hub.endpoint}, **options))
        yield Mirror(root, shelf, hub, node, where)
    shutil.rmtree(root)


@pytest.mark.timeout(240)  # libraries take long to import, on a busy machine a minute
@pytest.mark.parametrize("client", PARAMS)
def test_gets_the_same_bytes_cold_and_warm_and_never_asks_the_hub(
    client: Client,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    client.program.needed()
    told = dict.fromkeys(STATES, "failed")
    shelf = write_shelf(tmp_path / "hub", client.owner)
    with mirror(tmp_path, shelf) as there:
        apart = "yes" if there.place.is_apart else "not tried"
        try:
            for state in STATES:
                version = client.judge(there.visit(client.owner, state), client.program)
                assert version == client.version
                judge_log(there.take_log(), shelf, state)
                told[state] = "ok"
        finally:
            row = (client.name, client.version, client.does, *told.values(), apart)
            note(record_property, HEADS, CLIENTS.index(client), row)


def judge_log(log: RequestLog, shelf: Shelf, state: str) -> None:
    """Only the node may have asked; for all of the large files when it was cold, and for no content any more later."""
    assert {request.agent for request in log.requests} <= {USER_AGENT}
    assert [request.path for request in log.requests if "xet" in request.path] == []
    if state == "warm":
        assert log.blob_bytes == 0
        return
    for path, size in shelf.large().items():
        digest = hashlib.sha256((shelf.root / path).read_bytes()).hexdigest()
        assert size <= log.bytes_of(digest), f"{path} was not cold, or did not come from the hub"


def test_clients_cannot_reach_the_hub(tmp_path: Path) -> None:
    with mirror(tmp_path, write_shelf(tmp_path / "hub", "nobody")) as there:
        if not there.place.is_apart:
            pytest.skip(there.place.reason)
        curl = [*there.place.at_client, *program("curl").needed().command, "-sS", "--max-time", "5"]
        near = run([*curl, f"{there.node.endpoint}/healthz"], environment(tmp_path, ""))
        away = run([*curl, there.hub.endpoint], environment(tmp_path, ""))
    assert (near.stdout, away.returncode) == ("alive\n", 7)


def test_the_page_of_clients_lists_those_that_are_tried() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\S+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [tuple(row) for row in rows] == [(one.name, one.version, one.does) for one in CLIENTS]
    assert {one.version for one in CLIENTS if one.version != ANY}

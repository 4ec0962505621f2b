"""Clients as they are, through a node: cold and warm, the same bytes, and nobody but the node asks the hub.

The hub offers Xet for all large files: who sees the offer leaves the node. Where the right is had to make network
namespaces, clients run in one from which only the node can be reached.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
from headrace.source.http import USER_AGENT
from headrace.testing import ChaosHub, RequestLog
from tests.clients.namespace import Place, entered, place
from tests.clients.programs import environment, program, python, run
from tests.clients.roster import ANY, CLIENTS, Client, Visit
from tests.clients.shelf import Shelf, write_shelf
from tests.clients.table import add

HEADS = ("client", "version", "what it did", "cold", "warm", "only the node in reach")
PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "clients.md"
STATES = ("cold", "warm")
AT_ONCE = 2
PARAMS = [pytest.param(one, id=one.owner, marks=[pytest.mark.soak] if one.soak else []) for one in CLIENTS]


@dataclass(frozen=True)
class Mirror:
    """A hub with the shelf of all clients, and a node that mirrors it."""

    root: Path
    shelf: Shelf
    hub: ChaosHub
    node: NodeProcess
    place: Place

    def visit(self, client: Client, state: str) -> Visit:
        home = self.root / "homes" / f"{client.owner}-{state}"
        return Visit(self.node.endpoint, self.place.at_client, self.shelf, client.owner, home)

    def take_log(self) -> RequestLog:
        """What the hub was asked since the last time."""
        with entered(self.place):
            log = self.hub.settled_log()
            self.hub.clear_log()
        return log


@dataclass(frozen=True)
class Outcomes:
    """What became of each client and state (the version it says it is, or what went wrong), and of the hub."""

    versions: dict[tuple[str, str], str]
    errors: dict[tuple[str, str], str]
    logs: dict[str, RequestLog]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    root, maker = tmp_path_factory.mktemp("clients"), python("clients")
    shelf = write_shelf(root / "hub", [one.owner for one in CLIENTS], None if maker.missing else maker)
    with ExitStack() as stack:
        where = stack.enter_context(place())
        with entered(where):
            hub = stack.enter_context(ChaosHub(root / "hub", page_size=3))
            options = {"listen": f"{where.host}:0", "page_entries": 3, "log_level": "error"}
            node = stack.enter_context(NodeProcess(root / "node", {"hub": hub.endpoint}, **options))
        yield Mirror(root, shelf, hub, node, where)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def outcomes(mirror: Mirror, request: pytest.FixtureRequest) -> Outcomes:
    """All chosen clients at the cold node, two at a time, then all at the warm one."""
    specs = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [spec.params.get("client") for spec in specs if spec is not None]
    clients = [one for one in CLIENTS if one in chosen and not one.program.missing]
    found = Outcomes({}, {}, {})

    def go(client: Client, state: str) -> None:
        try:
            found.versions[client.owner, state] = client.judge(mirror.visit(client, state), client.program)
        except Exception as error:  # noqa: BLE001 - told by the test of this client
            found.errors[client.owner, state] = f"{type(error).__name__}: {error}"

    mirror.take_log()
    for state in STATES:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda one, state=state: go(one, state), clients))
        found.logs[state] = mirror.take_log()
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize("client", PARAMS)
def test_gets_the_same_bytes_cold_and_warm(
    client: Client, mirror: Mirror, outcomes: Outcomes, request: pytest.FixtureRequest
) -> None:
    client.program.needed()
    told = ["failed" if (client.owner, state) in outcomes.errors else "ok" for state in STATES]
    apart = ("yes" if "failed" not in told else "no") if mirror.place.is_apart else "not tried"
    add(request.config, HEADS, (client.name, client.version, client.does, *told, apart))
    assert [
        outcomes.errors[client.owner, state] for state in STATES if (client.owner, state) in outcomes.errors
    ] == []
    assert {outcomes.versions[client.owner, state] for state in STATES} == {client.version}
    for path, size in mirror.shelf.large(client.owner).items():
        digest = hashlib.sha256((mirror.shelf.root / path).read_bytes()).hexdigest()
        assert size <= outcomes.logs["cold"].bytes_of(digest), (
            f"{path} was not cold, or did not come from the hub"
        )


@pytest.mark.timeout(240)
def test_nobody_but_the_node_asks_the_hub(outcomes: Outcomes) -> None:
    asked = [request for log in outcomes.logs.values() for request in log.requests]
    assert {request.agent for request in asked} == {USER_AGENT}
    assert [request.path for request in asked if "xet" in request.path] == []
    assert outcomes.logs["cold"].blob_bytes > 0
    assert outcomes.logs["warm"].blob_bytes == 0


def test_clients_cannot_reach_the_hub(mirror: Mirror, tmp_path: Path) -> None:
    if not mirror.place.is_apart:
        pytest.skip(mirror.place.reason)
    curl = [*mirror.place.at_client, *program("curl").needed().command, "-sS", "--max-time", "5"]
    there = run([*curl, f"{mirror.node.endpoint}/healthz"], environment(tmp_path, ""))
    away = run([*curl, mirror.hub.endpoint], environment(tmp_path, ""))
    assert (there.stdout, away.returncode) == ("alive\n", 7)


def test_the_page_of_clients_lists_those_that_are_tried() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\S+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [tuple(row) for row in rows] == [(one.name, one.version, one.does) for one in CLIENTS]
    assert {one.version for one in CLIENTS if one.version != ANY}

"""Calls for who rules a node, its state, and the document that describes what it answers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from headrace.metrics import Metrics
from headrace.node.access.tokens import AdminToken
from headrace.node.api.app import create_app
from headrace.node.api.operations import ADMIN, OPERATIONS, Admission
from headrace.node.api.status import StatusApi
from headrace.node.config import NodeConfig, Upstream
from headrace.node.ground import Ground
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub
from tests.node.asking import BIG_FILE, Reply, ask

FILE = "/org/tiny/resolve/main/config.json"
StartNode = Callable[..., NodeProcess]


class Ruler:
    """Asks a node with its admin token."""

    def __init__(self, node: NodeProcess, data: Path) -> None:
        self.node = node
        self.token = (data / "admin.token").read_text().strip()

    def __call__(self, target: str, method: str = "GET", posted: Any = None) -> Reply:
        body = None if posted is None else json.dumps(posted).encode()
        return ask(
            self.node.endpoint + target, method, body, Authorization=f"Bearer {self.token}", Content_Type="x"
        )


def test_tokens_are_made_listed_and_revoked(
    calm_hub: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node(calm_hub)
    ruler = Ruler(node, tmp_path / "node")
    assert (tmp_path / "node/admin.token").stat().st_mode & 0o777 == 0o600
    assert ruler("/_headrace/admin/tokens").json() == {"tokens": []}
    made = ruler("/_headrace/admin/tokens", "POST", {"name": "ci", "repos": ["org/*"], "life_s": 3600})
    assert made.status == 201
    told = made.json()
    text = told.pop("token")
    assert told["expires"] - told["created"] == 3600
    assert ask(node.endpoint + FILE, Authorization=f"Bearer {text}").status == 200
    (listed,) = ruler("/_headrace/admin/tokens").json()["tokens"]
    assert {**listed, "used": None} == told
    assert text not in str(listed)
    assert ruler("/_headrace/admin/tokens", "POST", {"name": "ci"}).status == 400
    assert ruler("/_headrace/admin/tokens/nobody", "DELETE").status == 404
    revoked = ruler(f"/_headrace/admin/tokens/{told['id']}", "DELETE").json()
    assert revoked["state"] == "revoked"
    assert ruler("/_headrace/admin/tokens/ci", "DELETE").json() == revoked
    # The admin token rules, and does not read.
    reply = ruler(FILE)
    assert reply.status == 401
    assert text not in str(calm_hub.log())


@pytest.mark.parametrize(
    "posted",
    [
        None,
        [],
        {"name": 5},
        {"name": ""},
        {"name": "1"},
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"name": "x", "repos": "org/*"},
        {"name": "x", "repos": [1]},
        {"name": "x", "repos": ["a/b/c"]},
        {"name": "x", "life_s": "1d"},
        {"name": "x", "life_s": True},
        {"name": "x", "life_s": 0},
        {"name": "x", "life_s": float("nan")},
        {"name": "x", "life_s": 10**400},
        {"name": "x", "other": 1},
    ],
)
def test_what_makes_no_sense_makes_no_token(calm: NodeProcess, calm_data: Path, posted: Any) -> None:
    ruler = Ruler(calm, calm_data)
    assert ruler("/_headrace/admin/tokens", "POST", posted).status == 400
    assert ruler("/_headrace/admin/tokens").json() == {"tokens": []}


def test_nobody_else_rules(calm_hub: ChaosHub, start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(calm_hub)
    guessers: tuple[tuple[str, dict[str, Any]], ...] = (
        ("203.0.113.1", {}),
        ("203.0.113.2", {"Authorization": "Bearer hra_guess"}),
        ("203.0.113.3", {"X_Headrace_Token": "hra_guess"}),
    )
    for client, headers in guessers:
        for one in (*(one for one in OPERATIONS if one.admission is Admission.ADMIN),):
            reply = ask(node.endpoint + one.path, one.method, **headers, X_Forwarded_For=client)
            assert reply.status == 401
            assert "realm=" in reply.headers["www-authenticate"]
        for target in (ADMIN, ADMIN + "nothing", ADMIN + "%74okens", ADMIN + "tokens/"):
            assert ask(node.endpoint + target, **headers, X_Forwarded_For=client).status == 401
    for _ in range(20):
        reply = ask(node.endpoint + ADMIN, Authorization="Bearer hra_guess", X_Forwarded_For="203.0.113.2")
    assert reply.status == 429
    assert int(reply.headers["retry-after"]) > 0
    ruler = Ruler(node, tmp_path / "node")
    assert ruler(ADMIN + "nothing").status == 404
    assert ruler(ADMIN + "tokens", "PUT").status == 404


def test_the_state_names_no_repo(calm_hub: ChaosHub, start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(calm_hub)
    ask(node.endpoint + BIG_FILE)
    told = ask(node.endpoint + "/_headrace/status.json").json()
    assert told["blobs"] == {"count": 1, "bytes": 9_000_000}
    assert told["fills"] == 0
    assert told["open"] is True
    assert told["sources"] == [{"name": "hub", "up": True}]
    assert told["uptime_s"] > 0
    assert re.fullmatch(r"[0-9.]+", told["version"])
    assert "org" not in json.dumps(told)
    ruler = Ruler(node, tmp_path / "node")
    ruler("/_headrace/admin/tokens", "POST", {"name": "ci"})
    ask(node.endpoint + FILE)
    elsewhere: dict[str, Any] = {"X_Forwarded_For": "203.0.113.9"}
    assert ask(node.endpoint + "/_headrace/status.json").json()["open"] is False
    for target in ("/_headrace/status.json", "/_headrace/openapi.json", "/metrics"):
        assert ask(node.endpoint + target, **elsewhere).status == 401
        admin = f"Bearer {ruler.token}"
        assert ask(node.endpoint + target, **elsewhere, Authorization=admin).status == 200


def test_the_document_is_valid_and_the_same_for_all(calm: NodeProcess) -> None:
    told = ask(calm.endpoint + "/_headrace/openapi.json").json()
    validate(told)
    assert told["openapi"].startswith("3.1")
    written = json.loads((Path(__file__).parents[2] / "docs/reference/openapi.json").read_text())
    assert told["paths"] == written["paths"]


def test_all_that_is_answered_is_described_and_the_other_way_round(tmp_path: Path) -> None:
    async def routes() -> set[tuple[str, str]]:
        ground = Ground(NodeConfig((Upstream("hub", "http://127.0.0.1:9"),), tmp_path), Metrics())
        ask: Any = None  # for what is not asked here
        try:
            status = StatusApi("1", ground.database, ground.threads, {}).calls
            app = create_app(ground.services(ask, status, ask, ask))
            return {
                (route.method, route.resource.canonical)
                for route in app.router.routes()
                if route.resource is not None
            }
        finally:
            await ground.close()

    answered = {(method, path) for method, path in asyncio.run(routes()) if method not in ("HEAD", "*")}
    assert answered == {(one.method, one.path) for one in OPERATIONS}
    assert all(one.path.startswith(ADMIN) == (one.admission is Admission.ADMIN) for one in OPERATIONS)


def test_an_admin_token_is_made_once(tmp_path: Path) -> None:
    first = AdminToken.in_folder(tmp_path)
    text = (tmp_path / "admin.token").read_text().strip()
    assert first.is_it(text)
    assert AdminToken.in_folder(tmp_path).is_it(text)
    assert not first.is_it(text + "x")
    assert not first.is_it("")

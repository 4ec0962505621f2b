"""Who may come in, for which repos, and how often: by every door, with real clients."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.node.access.tokens import TokenBook
from headrace.node.memory.database import Database
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, write_repo
from tests.node.asking import BIG_FILE, Reply, ask, open_stream
from tests.node.test_access import DOORS

FILE, BODY = "/org/tiny/resolve/main/config.json", b'{"hidden": 1}'
SOON_S = 10.0  # two seconds, on a machine that has much else to do
StockClient = Callable[..., "subprocess.CompletedProcess[str]"]


@contextmanager
def book(data: Path) -> Iterator[TokenBook]:
    """The tokens of a data folder, as the command line reaches them."""
    database = Database.in_folder(data)
    try:
        yield TokenBook(database)
    finally:
        database.close()


def create(data: Path, name: str, *repos: str, life_s: float | None = None) -> str:
    with book(data) as tokens:
        return tokens.create(name, repos, life_s, time.time())[1]


def until(seen: Callable[[], bool]) -> None:
    """Wait for what must be so soon."""
    patience = time.monotonic() + SOON_S
    while not seen():
        assert time.monotonic() < patience
        time.sleep(0.05)


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.fixture(scope="module")
def closed(
    calm_hub: ChaosHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[NodeProcess, Path, str]]:
    """A node with one token that is for everything; its data folder, and the token."""
    data = tmp_path_factory.mktemp("closed")
    with NodeProcess(data, {"hub": calm_hub.endpoint}) as node:
        yield node, data, create(data, "all")


def wants_token(reply: Reply) -> bool:
    return reply.status == 401 and 'Basic realm="headrace"' in reply.headers["www-authenticate"]


def test_a_node_is_open_until_it_has_a_token_and_again_when_it_has_none(
    calm_hub: ChaosHub, start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node, data = start_node(calm_hub), tmp_path / "node"
    assert ask(node.endpoint + FILE).status == 200
    text = create(data, "one")
    until(lambda: wants_token(ask(node.endpoint + FILE)))
    assert ask(node.endpoint + FILE, Authorization=f"Bearer {text}").body == BODY
    with book(data) as tokens:
        tokens.revoke("one", time.time())
    until(lambda: wants_token(ask(node.endpoint + FILE, Authorization=f"Bearer {text}")))
    assert wants_token(ask(node.endpoint + FILE))
    with book(data) as tokens:
        tokens.remove("one")
    until(lambda: ask(node.endpoint + FILE).status == 200)


def test_a_token_ends_when_it_was_said(
    calm_hub: ChaosHub, start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node = start_node(calm_hub)
    create(tmp_path / "node", "steady")
    until(lambda: wants_token(ask(node.endpoint + FILE)))
    text = create(tmp_path / "node", "brief", life_s=5)
    ends = time.time() + 5
    until(lambda: ask(node.endpoint + FILE, Authorization=f"Bearer {text}").status == 200)
    time.sleep(max(0.0, ends - time.time()))
    assert wants_token(ask(node.endpoint + FILE, Authorization=f"Bearer {text}"))


def test_without_a_token_only_probes_are_answered(closed: tuple[NodeProcess, Path, str]) -> None:
    node, _, _ = closed
    until(lambda: wants_token(ask(node.endpoint + FILE)))
    commit = "0" * 40
    for method, target, headers in DOORS:
        reply = ask(node.endpoint + target.format(commit=commit), method, **headers)
        assert wants_token(reply), target
        assert "X-Error-Code" not in reply.headers
    for target in (
        "/",
        "//",
        FILE.replace("/resolve", "//resolve"),
        "/api/models?search=x",
        "/_headrace/blocks/x",
    ):
        assert wants_token(ask(node.endpoint + target)), target
    told = ask(node.endpoint + FILE)
    assert "HF_TOKEN" in told.headers["x-error-message"]
    assert told.json() == {"error": told.headers["x-error-message"]}
    assert [ask(node.endpoint + target).status for target in ("/healthz", "/readyz", "/metrics")] == [200] * 3
    # From other machines, what a node does is for who may use it.
    assert wants_token(ask(f"{node.endpoint}/metrics", X_Forwarded_For="203.0.113.7"))


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {}"},
        {"Authorization": "bearer {}"},
        {"Authorization": "Bearer {}:hf_unknown"},
        {"Authorization": "basic"},
        {"X_Headrace_Token": "{}"},
        {"X_Headrace_Token": "{}", "Authorization": "Bearer hf_unknown"},
    ],
)
def test_ways_to_show_a_token(closed: tuple[NodeProcess, Path, str], headers: dict[str, Any]) -> None:
    node, _, token = closed
    shown: dict[str, Any] = {
        name: basic("x", token) if text == "basic" else text.format(token) for name, text in headers.items()
    }
    reply = ask(node.endpoint + FILE, **shown)
    assert (reply.status, reply.body) == (200, BODY)
    wrong: dict[str, Any] = {name: text.replace("hrn_", "hrn_0") for name, text in shown.items()}
    if "basic" not in headers.values():
        reply = ask(node.endpoint + FILE, **wrong)
        assert wants_token(reply)
        assert "wrong, expired or revoked" in reply.headers["x-error-message"]


def test_download_programs_show_it(closed: tuple[NodeProcess, Path, str], tmp_path: Path) -> None:
    node, _, token = closed
    url = f"{node.endpoint}{FILE}".replace("//", f"//x:{token}@", 1)
    ways = {
        "curl": ["curl", "-sSf", "-o", "curl.json", url],
        "wget": ["wget", "-q", "-O", "wget.json", url],
        "aria2c": ["aria2c", "-q", "--allow-overwrite=true", "-o", "aria2c.json", url],
    }
    found = [name for name in ways if shutil.which(name)]
    for name in found:
        subprocess.run(ways[name], cwd=tmp_path, check=True, timeout=30)
        assert (tmp_path / f"{name}.json").read_bytes() == BODY
    assert found


def test_the_stock_client_shows_it(closed: tuple[NodeProcess, Path, str], stock_client: StockClient) -> None:
    node, _, token = closed
    script = "from huggingface_hub import snapshot_download; print(snapshot_download('org/tiny', allow_patterns='*.json'))"
    told = stock_client(node.endpoint, "-c", script, HF_TOKEN="hrn_wrong")
    assert told.returncode == 1
    assert "wrong, expired or revoked" in told.stderr
    told = stock_client(node.endpoint, "-c", script, HF_TOKEN=token)
    assert told.returncode == 0, told.stderr
    assert (Path(told.stdout.strip()) / "config.json").read_bytes() == BODY


def test_what_a_token_is_not_for_is_refused_by_every_door(closed: tuple[NodeProcess, Path, str]) -> None:
    node, data, _ = closed
    narrow = create(data, "narrow", "team/*", "datasets/org/data")
    until(lambda: ask(node.endpoint + FILE, Authorization=f"Bearer {narrow}").status == 403)
    for method, target, headers in DOORS:
        target = target.replace("org/x", "org/tiny").format(commit="0" * 40)  # noqa: PLW2901
        reply = ask(node.endpoint + target, method, Authorization=f"Bearer {narrow}", **headers)
        assert reply.status == 403, target
        assert "'narrow' is not for org/tiny" in reply.headers["x-error-message"]
        assert reply.headers["server"] == "headrace"
    for target in ("/ORG/Tiny/resolve/main/config.json", "/datasets/org/tiny/resolve/main/x"):
        assert ask(node.endpoint + target, Authorization=f"Bearer {narrow}").status == 403
    for target in ("/datasets/org/data/resolve/main/README.md", "/api/datasets/org/data"):
        assert ask(node.endpoint + target, Authorization=f"Bearer {narrow}").status == 200


def test_tokens_go_nowhere(
    calm_hub: ChaosHub,
    start_node: Callable[..., NodeProcess],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "node"
    data.mkdir()
    token, other = create(data, "one"), create(data, "two", "none/*")
    calm_hub.clear_log()
    node = start_node(calm_hub, log_level="debug", ref_ttl=0, visibility_ttl=0)
    shown: list[dict[str, Any]] = [
        {"Authorization": f"Bearer {token}"},
        {"Authorization": basic("x", token)},
        {"Authorization": basic(token, "")},
        {"X_Headrace_Token": token},
        {"Authorization": f"Bearer {other}"},
        {"Authorization": f"Odd {token}x"},
        {"Authorization": f"Bearer {token}", "X_Headrace_Token": f"{token}wrong"},
    ]
    for headers in shown:
        for target in (
            FILE,
            "/api/models/org/tiny",
            "/api/models?search=tiny",
            "/org/private/resolve/main/x",
        ):
            reply = ask(node.endpoint + target, **headers)
            assert token not in str(reply)
    assert ask(node.endpoint + BIG_FILE, Authorization=f"Bearer {token}").status == 200
    told = ask(f"{node.endpoint}/org/tiny/resolve/main/config.json?token={token}")
    assert told.status == 401
    node.stop()
    log = capfd.readouterr().err
    assert "route=resolve" in log
    assert token not in log
    assert other not in log
    for path in data.rglob("*"):
        if path.is_file() and path.name != "admin.token":
            held = path.read_bytes()
            assert token.encode() not in held
            assert other.encode() not in held
    requests = calm_hub.settled_log().requests
    assert requests
    assert not any(request.authorization_present for request in requests)
    with sqlite3.connect(data / "catalog.sqlite") as catalog:
        days = dict(catalog.execute("SELECT name, used FROM tokens").fetchall())
    assert days["one"] % 86400 == 0
    assert 0 <= time.time() - days["one"] < 2 * 86400


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, ChaosHub]]:
    """A node with rules, and its hub, on which repos were renamed."""
    root = tmp_path_factory.mktemp("ruled")
    for repo in ("org/x", "org/open", "closed/x", "secret/x", "free/x"):
        write_repo(root / "hub", repo, {"notes.txt": b"notes"})
    write_repo(root / "hub", "org/x", {"notes.txt": b"notes"}, kind="dataset")
    write_repo(root / "hub", "free/old", {}, renamed_to="org/x")
    rules = {"allow": "org/*,free/*,closed/x", "deny": "models/org/x,CLOSED/*"}
    with ChaosHub(root / "hub") as hub, NodeProcess(root / "node", {"hub": hub.endpoint}, **rules) as node:
        yield node, hub


@pytest.mark.parametrize(
    ("repo", "rule"),
    [
        ("org/x", "deny models/org/x"),
        ("Org/X", "deny models/org/x"),
        ("closed/x", "deny CLOSED/*"),
        ("secret/x", "allow org/*, free/*, closed/x"),
    ],
)
def test_what_is_not_given_out_is_refused_before_the_source_is_asked(
    ruled: tuple[NodeProcess, ChaosHub], repo: str, rule: str
) -> None:
    node, hub = ruled
    hub.clear_log()
    for method, target, headers in DOORS:
        target = target.replace("org/x", repo).format(commit="0" * 40)  # noqa: PLW2901
        reply = ask(node.endpoint + target, method, **headers)
        assert reply.status == 403, target
        assert f"its policy is `{rule}`" in reply.headers["x-error-message"]
    assert ask(f"{node.endpoint}/{repo}/raw/main/notes.txt").status == 403
    assert ask(f"{node.endpoint}/api/models/{repo}/discussions").status == 403
    assert hub.log().requests == ()


def test_what_is_given_out_is_and_another_name_is_no_way_around(ruled: tuple[NodeProcess, ChaosHub]) -> None:
    node, _ = ruled
    for target in ("org/open", "free/x", "datasets/org/x"):
        assert ask(f"{node.endpoint}/{target}/resolve/main/notes.txt").body == b"notes"
    for _ in range(2):  # asked, and known
        for method, target, headers in DOORS:
            target = target.replace("org/x", "free/old").format(commit="0" * 40)  # noqa: PLW2901
            reply = ask(node.endpoint + target, method, **headers)
            assert reply.status in (403, 404), target
            assert b"notes" not in reply.body
    reply = ask(f"{node.endpoint}/free/old/resolve/main/notes.txt")
    assert reply.status == 403
    assert "models/org/x" in reply.headers["x-error-message"]


@pytest.fixture(scope="module")
def limited(
    calm_hub: ChaosHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[NodeProcess, str]]:
    """A node with limits and a token."""
    data = tmp_path_factory.mktemp("limited")
    token = create(data, "all")
    options: dict[str, Any] = {"requests_per_minute": 200}
    with NodeProcess(data, {"hub": calm_hub.endpoint}, **options) as node:
        yield node, token


def test_who_asks_too_often_is_told_when_to_come_back(limited: tuple[NodeProcess, str]) -> None:
    node, _ = limited
    for client in ("203.0.113.7", "2001:db8:1:2::1"):
        first = ask(f"{node.endpoint}/api/models/org/tiny", X_Forwarded_For=client)
        assert first.status == 401
        reply = first
        for _ in range(2000):
            if reply.status == 429:
                break
            reply = ask(f"{node.endpoint}/api/models/org/tiny", X_Forwarded_For=client)
        assert reply.status == 429
        assert 1 <= int(reply.headers["retry-after"]) <= 5
        assert reply.headers["ratelimit"] == f'"api";r=0;t={reply.headers["retry-after"]}'
        assert "q=200;w=60" in reply.headers["ratelimit-policy"]
        # Neighbours in one network are one client, others are not; probes are for all.
        if ":" in client:
            neighbour = ask(f"{node.endpoint}/api/models/org/tiny", X_Forwarded_For="2001:db8:1:2::ffff")
            assert neighbour.status == 429
    assert ask(f"{node.endpoint}/api/models/org/tiny", X_Forwarded_For="2001:db8:1:3::1").status == 401
    assert ask(f"{node.endpoint}/healthz", X_Forwarded_For="203.0.113.7").status == 200


# It uses up what there is itself, when it is ready: on a busy machine it would come too late to find little. The first
# question of a download is one that hub clients do not ask twice.
IMPATIENT = """
import os, re, urllib.request
from huggingface_hub import snapshot_download
asked = urllib.request.Request(
    os.environ["HF_ENDPOINT"] + "/api/models/org/tiny",
    method="HEAD",
    headers={"Authorization": "Bearer " + os.environ["HF_TOKEN"]},
)
left = 1000
while left > 2:
    with urllib.request.urlopen(asked) as reply:
        left = int(re.search("r=([0-9]+)", reply.headers["RateLimit"]).group(1))
print(snapshot_download("org/tiny", ignore_patterns="weights/*"))
"""


def test_clients_wait_and_finish(limited: tuple[NodeProcess, str], stock_client: StockClient) -> None:
    node, token = limited
    told = stock_client(node.endpoint, "-c", IMPATIENT, HF_TOKEN=token)
    assert told.returncode == 0, told.stderr
    assert "429" in told.stderr
    assert (Path(told.stdout.strip()) / "config.json").read_bytes() == BODY


def test_files_at_once_are_counted_for_each_client(
    calm_hub: ChaosHub, start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    (tmp_path / "node").mkdir()
    one, two = create(tmp_path / "node", "one"), create(tmp_path / "node", "two")
    node = start_node(calm_hub, streams_per_client=2)
    url, mine = node.endpoint + BIG_FILE, f"Bearer {one}"
    with open_stream(url, Authorization=mine) as first, open_stream(url, Authorization=mine) as second:
        assert (first.status, second.status) == (200, 200)
        assert (len(first.read(10)), len(second.read(10))) == (10, 10)
        reply = ask(url, Authorization=mine)
        assert (reply.status, reply.headers["retry-after"]) == (429, "10")
        assert ask(url, "HEAD", Authorization=mine).status == 200
        assert ask(f"{node.endpoint}/api/models/org/tiny", Authorization=mine).status == 200
        assert ask(node.endpoint + FILE, Authorization=f"Bearer {two}").status == 200
    until(lambda: ask(node.endpoint + FILE, Authorization=mine).status == 200)

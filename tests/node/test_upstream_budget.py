"""Whatever clients ask, a node asks its hub for no more than that allows: counted in the hub's own log."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import BrokenStream
from headrace.node.memory.rations import Rations, Spent
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault, write_repo
from tests.node.asking import Reply, ask

StartNode = Callable[..., NodeProcess]
HUB = "http://hub:80"
API, FILES = (("http", "hub", 80), True), (("http", "hub", 80), False)


def answer(left: int, reset: int, policy: str = "") -> dict[str, str]:
    told = {"RateLimit": f'"api";r={left};t={reset}'}
    return told | ({"RateLimit-Policy": f'"fixed window";"api";{policy}'} if policy else {})


def make(rations: Rations, key: object = API) -> bool:
    """Whether a request may be made now."""
    try:
        with rations.request(key):
            return True
    except Spent:
        return False


def write_many(root: Path, count: int) -> list[str]:
    """Write repos with several revisions and files each; where those are asked for."""
    targets = []
    for number, revision in itertools.product(range(count), ("main", "refs/pr/1", "dev")):
        files = {"config.json": b"%d" % number, "tokenizer.json": revision.encode()}
        write_repo(root, f"org/r{number}", files, revision=revision)
        targets += [f"/org/r{number}/resolve/{revision.replace('/', '%2F')}/{name}" for name in files]
    return targets


def test_a_thousand_requests_of_many_clients_earn_no_429(tmp_path: Path, start_node: StartNode) -> None:
    targets = write_many(tmp_path / "hub", 40)
    with ChaosHub(tmp_path / "hub") as hub:
        quotas = [Fault("quota", host="hub", how=how, most=60, delay_s=300) for how in ("api", "resolvers")]
        hub.set_faults(*quotas)
        node = start_node(hub, ref_ttl=0, visibility_ttl=0, patience=3)
        known = [f"/org/r{number}/resolve/main/config.json" for number in range(5)]
        for target in known:
            assert ask(node.endpoint + target).status == 200

        def get(index: int) -> tuple[str, Reply]:
            target = known[index // 2 % 5] if index % 2 else targets[index // 2 % len(targets)]
            return target, ask(
                node.endpoint + target, "GET" if index % 2 else ("HEAD", "GET")[index % 4 // 2]
            )

        with ThreadPoolExecutor(32) as pool:
            replies = list(pool.map(get, range(1000)))
        statuses = Counter(request.status for request in hub.settled_log().requests)
    assert statuses[429] == 0
    assert {reply.status for target, reply in replies if target in known} == {200}
    assert {reply.status for _, reply in replies} == {200, 503}
    assert all("retry-after" in reply.headers for _, reply in replies if reply.status == 503)
    assert any("x-hf-warning" in reply.headers for _, reply in replies if reply.status == 200)
    assert 30 <= sum(statuses.values()) <= 130  # of both quotas at least half of one was used


def test_an_operators_own_bound_counts_all_calls_of_both_processes(
    tmp_path: Path, start_node: StartNode
) -> None:
    for number in range(30):
        write_repo(tmp_path / "hub", f"org/r{number}", {"config.json": b"%d" % number})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, calls_most=40, patience=2)
        with ThreadPoolExecutor(8) as pool:
            urls = [f"{node.endpoint}/org/r{number}/resolve/main/config.json" for number in range(30)]
            statuses = {reply.status for reply in pool.map(ask, urls)}
        assert statuses == {200, 503}
        # Half of them at once; the rest would come one by one over five minutes.
        assert 10 <= len(hub.settled_log().requests) <= 25


def test_whoever_thinks_of_tokens_leaves_a_part_to_questions_about_what_is_known(
    tmp_path: Path, start_node: StartNode
) -> None:
    write_repo(tmp_path / "hub", "org/closed", {"config.json": b"1"}, private=True)
    write_repo(tmp_path / "hub", "org/open", {"config.json": b"2"})
    with ChaosHub(tmp_path / "hub", tokens={"hf_may": ["org/*"]}) as hub:
        node = start_node(hub, calls_most=40, ref_ttl=0, visibility_ttl=0, patience=2)

        def get(repo: str, token: str = "") -> Reply:
            shown: dict[str, Any] = {"Authorization": f"Bearer {token}"} if token else {}
            return ask(f"{node.endpoint}/{repo}/resolve/main/config.json", **shown)

        assert get("org/closed", "hf_may").body == b"1"
        assert get("org/open").body == b"2"
        with ThreadPoolExecutor(8) as pool:
            statuses = set(pool.map(lambda number: get("org/closed", f"hf_{number}").status, range(40)))
        assert 200 not in statuses
        for told in (get("org/open"), get("org/closed", "hf_may")):
            assert (told.status, told.headers.get("x-hf-warning")) == (200, None)


def test_processes_share_what_is_left(tmp_path: Path) -> None:
    one, other = (Rations("hub", HUB, tmp_path) for _ in range(2))
    assert make(one)
    one.learn(API, 200, answer(10, 100))
    assert [make(rations) for rations in (one, other) * 6] == [True] * 10 + [False] * 2
    assert make(other, FILES)
    with pytest.raises(Spent) as caught, Rations("hub", HUB, tmp_path).request(API):
        pass  # a node that was started again knows it, too
    assert caught.value.retry_after_s == pytest.approx(100, abs=5)
    assert make(Rations("other", "http://other:80", tmp_path))


def test_half_goes_at_once_and_the_rest_is_spread(tmp_path: Path) -> None:
    rations = Rations("hub", HUB, tmp_path)
    assert make(rations)
    rations.learn(API, 200, answer(99, 200, "q=100;w=200"))
    made = 0
    while make(rations):
        made += 1
    assert 45 <= made <= 50
    with pytest.raises(Spent) as caught, rations.request(API):
        pass
    assert 0 < (caught.value.retry_after_s or 0) <= 8  # one in four seconds


def test_a_part_is_left_to_questions_about_what_is_known(tmp_path: Path) -> None:
    rations = Rations("hub", HUB, tmp_path)
    assert make(rations)
    rations.learn(API, 200, answer(30, 2, "q=100;w=200"))
    with rations.modestly():
        made = sum(make(rations, API) for _ in range(10))
    assert made == 5
    assert make(rations)


def test_a_wait_of_a_moment_is_waited(tmp_path: Path) -> None:
    rations = Rations("hub", HUB, tmp_path)
    assert make(rations)
    rations.learn(API, 200, answer(0, 1))
    assert make(rations)


def test_who_waits_can_be_called_off(tmp_path: Path) -> None:
    rations = Rations("hub", HUB, tmp_path)
    assert make(rations)
    rations.learn(API, 200, answer(0, 1))

    def given_up() -> None:
        raise BrokenStream("the request was given up")

    with pytest.raises(BrokenStream), rations.request(API, given_up):
        pass


def test_the_first_one_finds_out_for_the_others(tmp_path: Path) -> None:
    rations, made, asking = Rations("hub", HUB, tmp_path), [], threading.Event()

    def later() -> None:
        asking.wait(10)
        made.append(make(rations))

    threads = [threading.Thread(target=later) for _ in range(8)]
    for thread in threads:
        thread.start()
    with rations.request(API):
        asking.set()
        rations.learn(API, 200, answer(3, 100))
    for thread in threads:
        thread.join(10)
    assert sorted(made) == [False] * 5 + [True] * 3


@pytest.mark.parametrize(
    ("headers", "most_s"),
    [
        ({"Retry-After": "20"}, 20),
        ({"Retry-After": "864000"}, 300),
        (answer(0, 33), 33),
        (answer(0, 864000), 300),
    ],
)
def test_a_429_is_obeyed_but_not_for_days(headers: dict[str, str], most_s: float, tmp_path: Path) -> None:
    rations = Rations("hub", HUB, tmp_path)
    assert make(rations)
    rations.learn(API, 429, headers)
    with pytest.raises(Spent) as caught, rations.request(API):
        pass
    assert caught.value.retry_after_s == pytest.approx(most_s, abs=2)
    assert make(rations, FILES)


def test_answers_that_overtake_each_other_and_windows_that_end(tmp_path: Path) -> None:
    rations = Rations("hub", HUB, tmp_path)
    with rations.request(API):
        rations.learn(API, 200, answer(5, 100))
    with rations.request(API), rations.request(API):
        rations.learn(API, 200, answer(4, 100))  # the other one is not in it yet
    assert [make(rations) for _ in range(4)] == [True] * 3 + [False]
    rations.learn(API, 200, answer(2, 200))  # the next window
    assert [make(rations) for _ in range(4)].count(True) in (2, 3)


def test_a_file_that_is_none_counts_as_empty(tmp_path: Path) -> None:
    rations = Rations("hub", HUB, tmp_path)
    assert make(rations)
    rations.learn(API, 200, answer(0, 100))
    (path,) = tmp_path.iterdir()
    assert not make(rations)
    for text in ("{", '{"a": 1}', "[]", '{"a": {"left": 0}}'):
        path.write_text(text)
        assert make(rations), text
    rations.learn(API, 200, answer(0, 100))
    assert not make(rations)
    windows = json.loads(path.read_text())
    for window in windows.values():
        window["until"] += 1_000_000
    path.write_text(json.dumps(windows))
    assert make(rations)  # of a machine that was started anew since

"""What a node asks its hub, and how often: counted in the hub's own log."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.errors import Busy
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import Repo
from headrace.node.access.caller import ANYBODY
from headrace.node.access.grants import Grants
from headrace.node.config import Upstream
from headrace.node.disk.pins import Pins
from headrace.node.memory.catalog import (
    Catalog,
    Kept,
    Ref,
    Seen,
    SqlCatalog,
    Told,
    Visibility,
    info_key,
)
from headrace.node.memory.database import Bound, Database
from headrace.node.memory.freshness import CACHE_STATUS, Freshness, Grade, is_believed, worst
from headrace.node.memory.huborigin import HubOrigin
from headrace.node.memory.metadata import Metadata
from headrace.node.memory.origins import Origins
from headrace.node.memory.recent import ABSENT, Recent, RecentCatalog
from headrace.node.memory.standing import Closed, Trust
from headrace.node.process import NodeProcess
from headrace.node.threads import Threads
from headrace.source.http import Dialer, HttpSession
from headrace.source.hub import HubAnswer, HubSource
from headrace.testing import ChaosHub, Fault, content, write_repo
from headrace.wire import ERROR_CODE
from tests.node.asking import BIG_FILE, TINY, ask

StartNode = Callable[..., NodeProcess]
REPO, COMMIT = Repo("org/x"), "c" * 40
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def calls(hub: ChaosHub) -> list[str]:
    """The questions that reached the hub since its log was cleared, contents aside."""
    return [request.path for request in hub.settled_log().requests if request.path.startswith("/api/")]


def test_one_question_tells_who_may_read_what_a_branch_means_and_what_is_in_it(
    hub: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(hub)
    first = ask(node.endpoint + "/org/tiny/resolve/main/config.json", "HEAD")
    assert first.headers["cache-status"] == "headrace; fwd=miss; stored"
    commit = first.headers["x-repo-commit"]
    targets = [
        target.format(rev=rev)
        for rev in ("main", commit)
        for target in (
            "/api/models/org/tiny/revision/{rev}",
            "/api/models/org/tiny/revision/{rev}?blobs=true",
            "/api/models/org/tiny/tree/{rev}?recursive=true",
            "/api/models/org/tiny/tree/{rev}/weights",
            "/org/tiny/resolve/{rev}/config.json",
            "/org/tiny/resolve/{rev}/absent.json",
        )
    ]
    replies = [ask(node.endpoint + target, "HEAD" if "/resolve/" in target else "GET") for target in targets]
    assert [reply.status for reply in replies] == [200, 200, 200, 200, 200, 404] * 2
    assert all(reply.headers["cache-status"].startswith("headrace; hit") for reply in replies)
    assert all(reply.headers["age"].isdecimal() for reply in replies)
    posted = ask(
        node.endpoint + f"/api/models/org/tiny/paths-info/{commit}", "POST", b"paths=config.json", **FORM
    )
    assert [row["path"] for row in posted.json()] == ["config.json"]
    listed = ask(node.endpoint + "/api/models/org/tiny").json()["siblings"]
    assert listed == [{"rfilename": path} for path in sorted(TINY)]
    assert calls(hub) == ["/api/models/org/tiny/revision/main"]
    hub.clear_log()
    node.stop()
    again = start_node(hub)
    for target in targets:
        ask(again.endpoint + target, "HEAD" if "/resolve/" in target else "GET")
    assert calls(hub) == []


def test_what_a_commit_fixes_is_asked_once_and_its_branch_each_time(
    hub: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(hub, ref_ttl=0)
    by_commit = ask(node.endpoint + "/api/models/org/tiny").headers["x-repo-commit"]
    hub.clear_log()
    for _ in range(3):
        for target in (
            f"/api/models/org/tiny/tree/{by_commit}?recursive=true&expand=true",
            f"/api/models/org/tiny/commits/{by_commit}",
            f"/api/models/org/tiny/revision/{by_commit}",
            f"/org/tiny/resolve/{by_commit}/config.json",
        ):
            assert ask(node.endpoint + target).status == 200
    fixed = [path for path in calls(hub) if "resolve-cache" not in path]
    assert fixed == [f"/api/models/org/tiny/{verb}/{by_commit}" for verb in ("tree", "commits")]
    hub.clear_log()
    for _ in range(3):
        assert (
            ask(node.endpoint + "/api/models/org/tiny").headers["cache-status"]
            == "headrace; fwd=stale; stored"
        )
    assert calls(hub) == ["/api/models/org/tiny/revision/main"] * 3


def test_a_commit_by_its_name_alone_is_one_question(hub: ChaosHub, start_node: StartNode) -> None:
    commit = ask(f"{hub.endpoint}/api/models/org/tiny").json()["sha"]
    hub.clear_log()
    node = start_node(hub)
    for target in (f"/api/models/org/tiny/tree/{commit}", f"/api/models/org/tiny/revision/{commit}"):
        assert ask(node.endpoint + target).status == 200
    assert ask(node.endpoint + f"/org/tiny/resolve/{commit}/config.json", "HEAD").status == 200
    assert calls(hub) == [f"/api/models/org/tiny/revision/{commit}"]


def test_a_commit_that_the_hub_has_forgotten_is_still_here(tmp_path: Path, start_node: StartNode) -> None:
    write_repo(tmp_path / "hub", "org/x", {"a.txt": b"old"})
    with ChaosHub(tmp_path / "hub") as hub:
        commit = ask(f"{hub.endpoint}/api/models/org/x").json()["sha"]
        node = start_node(hub, ref_ttl=0, visibility_ttl=0)
        target = f"{node.endpoint}/org/x/resolve/{commit}/a.txt"
        assert ask(target).body == b"old"
        write_repo(tmp_path / "hub", "org/x", {"a.txt": b"new"})
        assert [ask(target).body for _ in range(2)] == [b"old"] * 2


def test_files_alone_are_enough_to_answer_while_the_hub_is_away(
    hub: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node(hub)
    assert ask(node.endpoint + "/api/models/org/tiny").status == 200
    node.stop()
    with sqlite3.connect(tmp_path / "node/catalog.sqlite") as database:
        database.execute("DELETE FROM answers")  # as those do that make room
    database.close()
    hub.stop()
    again = start_node(hub)
    told = ask(again.endpoint + "/api/models/org/tiny?blobs=true").json()
    assert [one["rfilename"] for one in told["siblings"]] == sorted(TINY)


def test_who_asks_at_the_same_moment_asks_once(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub, ref_ttl=0, visibility_ttl=0)
    hub.set_faults(Fault("latency", host="hub", delay_s=2.0))
    targets = [node.endpoint + "/org/tiny/resolve/main/config.json", node.endpoint + "/api/models/org/tiny"]
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda url: ask(url, "HEAD" if "resolve" in url else "GET"), targets * 10))
    assert {reply.status for reply in replies} == {200}
    assert calls(hub) == ["/api/models/org/tiny/revision/main"]


def test_a_new_commit_with_the_same_weights_costs_no_byte(tmp_path: Path, start_node: StartNode) -> None:
    weights = content(300_000)
    write_repo(tmp_path / "hub", "org/x", {"model.safetensors": weights, "README.md": b"one"})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, ref_ttl=0)
        first = ask(node.endpoint + "/org/x/resolve/main/model.safetensors")
        write_repo(tmp_path / "hub", "org/x", {"weights/a.safetensors": weights, "README.md": b"two"})
        hub.clear_log()
        second = ask(node.endpoint + "/org/x/resolve/main/weights/a.safetensors")
        assert first.body == second.body == weights
        assert first.headers["x-repo-commit"] != second.headers["x-repo-commit"]
        assert calls(hub) == ["/api/models/org/x/revision/main"]
        assert hub.settled_log().blob_bytes == 0


def test_a_storm_for_what_is_not_there_costs_one_question_each(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub)
    assert ask(node.endpoint + "/api/models/org/tiny").status == 200
    hub.clear_log()
    expected = {
        "/org/absent/resolve/main/config.json": 401,
        "/org/private/resolve/main/notes.txt": 401,
        "/org/gated/resolve/main/README.md": 401,
        "/org/tiny/resolve/no-such-branch/config.json": 404,
        f"/org/tiny/resolve/{'0' * 40}/config.json": 404,
        "/org/tiny/resolve/main/no-such-file.json": 404,
    }
    with ThreadPoolExecutor(8) as pool:
        urls = [node.endpoint + target for target in expected] * 10
        statuses = list(pool.map(lambda url: ask(url, "HEAD").status, urls))
    assert statuses == list(expected.values()) * 10
    assert sorted(calls(hub)) == [
        "/api/models/org/absent/revision/main",
        "/api/models/org/gated/revision/main",
        "/api/models/org/private/revision/main",
        f"/api/models/org/tiny/revision/{'0' * 40}",
        "/api/models/org/tiny/revision/no-such-branch",
    ]


def test_a_repo_and_a_branch_that_were_just_published_are_seen(tmp_path: Path, start_node: StartNode) -> None:
    write_repo(tmp_path / "hub", "org/there", {"a.txt": b"a"})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, ref_ttl=0.3, visibility_ttl=0.3)
        targets = ("/org/new/resolve/main/a.txt", "/org/there/resolve/next/a.txt")
        assert [ask(node.endpoint + target).status for target in targets] == [401, 404]
        write_repo(tmp_path / "hub", "org/new", {"a.txt": b"a"})
        write_repo(tmp_path / "hub", "org/there", {"a.txt": b"a"}, revision="next")
        deadline = time.monotonic() + 10
        while [ask(node.endpoint + target).status for target in targets] != [200, 200]:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_repo_that_was_closed_is_noticed_within_its_time(tmp_path: Path, start_node: StartNode) -> None:
    folder = write_repo(tmp_path / "hub", "org/x", {"a.txt": b"a"})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, visibility_ttl=0.5)
        commit = ask(node.endpoint + "/org/x/resolve/main/a.txt").headers["x-repo-commit"]
        (folder / ".hub.json").write_text(json.dumps({"private": True}))
        deadline = time.monotonic() + 10
        while ask(node.endpoint + f"/org/x/resolve/{commit}/a.txt").status != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert ask(node.endpoint + "/org/x/resolve/main/a.txt").status == 401


def test_a_clock_that_was_set_back_makes_nothing_fresh(
    hub: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node(hub)
    targets = ("/api/models/org/tiny/refs", "/org/tiny/resolve/main/config.json")
    for target in targets:
        assert ask(node.endpoint + target).status == 200
    node.stop()
    with sqlite3.connect(tmp_path / "node/catalog.sqlite") as database:
        for table in ("repos", "refs", "answers"):
            database.execute(f"UPDATE {table} SET at = at + 1000000")
    database.close()
    hub.clear_log()
    again = start_node(hub)
    for target in targets:
        assert ask(again.endpoint + target, "HEAD" if "resolve" in target else "GET").status == 200
    assert calls(hub) == ["/api/models/org/tiny/revision/main", "/api/models/org/tiny/refs"]


def test_what_everybody_searches_is_asked_once(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub)
    hub.clear_log()
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: ask(node.endpoint + "/api/models?search=tiny&limit=5"), range(16)))
    assert len({(reply.status, reply.body) for reply in replies}) == 1
    assert calls(hub) == ["/api/models"]


# The catalog and what stands before it


def test_the_oldest_answers_make_room(tmp_path: Path) -> None:
    bounds = {"repos": Bound(3), "refs": Bound(3), "answers": Bound(10, 1000)}
    database = Database(f"sqlite:///{tmp_path / 'catalog.sqlite'}", bounds)
    catalog = SqlCatalog(database)
    for number in range(12):
        catalog.keep(f"/{number}", Kept("x" * 10, None, float(number)))
        catalog.see(Repo(f"org/r{number}"), Seen(Visibility.PUBLIC, float(number)))
        catalog.point(REPO, f"r{number}", Ref(COMMIT, float(number)))
    assert [number for number in range(12) if catalog.kept(f"/{number}")] == list(range(2, 12))
    assert [number for number in range(12) if catalog.seen(Repo(f"org/r{number}"))] == [9, 10, 11]
    assert [number for number in range(12) if catalog.ref(REPO, f"r{number}")] == [9, 10, 11]
    catalog.keep("/2", Kept("x" * 950, None, 50.0))
    left = [number for number in range(12) if catalog.kept(f"/{number}")]
    assert 2 in left
    catalog.keep("/2", Kept("x", None, 51.0))
    catalog.keep("/last", Kept("x" * 10, None, 52.0))
    assert [number for number in range(12) if catalog.kept(f"/{number}")] == left
    database.close()


def test_what_commits_hold_is_bounded_by_who_asks_for_them_and_by_pins(tmp_path: Path) -> None:
    bounds = {"commits": Bound(5, 30), "repos": Bound(9), "refs": Bound(9), "answers": Bound(9)}
    database = Database(f"sqlite:///{tmp_path / 'catalog.sqlite'}", bounds)
    kept = SqlCatalog(database)
    catalog = RecentCatalog(kept)
    commits = [f"{number:040x}" for number in range(10)]
    digest = Digest(Digest.SHA256, "a" * 64)
    for commit in commits:
        entries = tuple(Entry(f"sub/{number}", 1, digest) for number in range(5))  # and their folder
        catalog.keep_manifest(Manifest(REPO, "main", commit, entries, "hub"))
    catalog.flush()
    assert all(kept.has_manifest(REPO, commit) for commit in commits)  # somebody may be about them
    hour_ago = time.time() - 3600
    kept.asked({(REPO, commit): hour_ago + number for number, commit in enumerate(commits)})
    Pins(database).pin(REPO, commits[0])
    assert catalog.entry(REPO, commits[1], "sub/3") is not None
    catalog.flush()
    left = [number for number, commit in enumerate(commits) if kept.has_manifest(REPO, commit)]
    assert left == [0, 1]
    assert [row.path for row in kept.page(REPO, commits[1], "sub", deep=False, after="", most=9)][
        3
    ] == "sub/3"
    with pytest.raises(Busy):  # and is asked for again
        catalog.entry(REPO, commits[5], "sub/9")
    assert not catalog.has_manifest(REPO, commits[5])
    database.close()


def test_a_catalog_of_version_1_becomes_one_of_today(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "catalog.sqlite") as old:
        old.executescript(
            """
            CREATE TABLE schema (version INTEGER PRIMARY KEY);
            INSERT INTO schema VALUES (1);
            CREATE TABLE repos (repo TEXT PRIMARY KEY, visibility TEXT NOT NULL, at FLOAT NOT NULL);
            INSERT INTO repos VALUES ('models/org/x', 'public', 1.0);
            CREATE TABLE refs (repo TEXT NOT NULL, revision TEXT NOT NULL, "commit" TEXT NOT NULL,
                               at FLOAT NOT NULL, PRIMARY KEY (repo, revision));
            CREATE TABLE commits (id INTEGER PRIMARY KEY, repo TEXT NOT NULL, "commit" TEXT NOT NULL,
                                  source TEXT NOT NULL, UNIQUE (repo, "commit"));
            INSERT INTO commits VALUES (7, 'models/org/x', 'e0', 'hub');
            CREATE TABLE blobs (digest TEXT PRIMARY KEY, size BIGINT NOT NULL, inode BIGINT NOT NULL,
                                modified_ns BIGINT NOT NULL);
            CREATE TABLE answers ("key" TEXT PRIMARY KEY, body TEXT NOT NULL, link TEXT, at FLOAT NOT NULL);
            """
        )
        old.execute("INSERT INTO refs VALUES ('models/org/x', 'main', ?, 2.0)", (COMMIT,))
        for revision, at in (("main", 2.0), ("refs%2Fpr%2F1", 1.0)):
            body = json.dumps({"sha": COMMIT, "told": revision})
            key = f"/api/models/org/x/revision/{revision}"
            old.execute("INSERT INTO answers VALUES (?, ?, NULL, ?)", (key, body, at))
        old.execute("INSERT INTO answers VALUES ('/api/models/org/x/refs', '{}', NULL, 3.0)")
    old.close()
    for _ in range(2):
        database = Database.in_folder(tmp_path)
        catalog = SqlCatalog(database)
        assert catalog.seen(REPO) == Seen(Visibility.PUBLIC, 1.0)
        assert catalog.ref(REPO, "main") == Ref(COMMIT, 2.0)
        kept = catalog.kept(info_key(REPO, COMMIT))
        assert kept is not None
        assert kept.value["told"] == "main"
        assert catalog.kept("/api/models/org/x/revision/main") is None
        assert catalog.kept("/api/models/org/x/refs") == Kept("{}", None, 3.0)
        database.close()


def test_what_was_read_is_at_hand_and_what_others_write_is_seen(tmp_path: Path) -> None:
    one, other = (RecentCatalog(SqlCatalog(Database.in_folder(tmp_path))) for _ in range(2))
    manifest = Manifest(REPO, "main", COMMIT, (Entry("a", 1, Digest(Digest.SHA256, "a" * 64)),), "hub")
    assert one.at_hand("seen", REPO) is ABSENT
    assert one.seen(REPO) is None
    with pytest.raises(Busy):
        one.entry(REPO, COMMIT, "b")
    assert one.at_hand("seen", REPO) is None
    assert one.at_hand("entry", REPO, COMMIT, "b") is ABSENT  # nobody knows the commit yet
    seen, ref = Seen(Visibility.PUBLIC, 1.0), Ref(COMMIT, 1.0)
    other.learn(REPO, "main", Told(seen, ref, Kept("{}", None, 1.0), manifest))
    assert other.at_hand("seen", REPO) == seen
    assert other.at_hand("ref", REPO, "main") == ref
    assert other.at_hand("kept", info_key(REPO, COMMIT)) == Kept("{}", None, 1.0)
    assert other.at_hand("has_manifest", REPO, COMMIT) is True
    deadline = time.monotonic() + 10
    while one.seen(REPO) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert one.ref(REPO, "main") == ref
    assert one.entry(REPO, COMMIT, "b") is None
    assert one.at_hand("entry", REPO, COMMIT, "b") is None


def test_who_answers_late_does_not_overrule_who_was_asked_later(tmp_path: Path) -> None:
    catalogs: list[Catalog] = [
        SqlCatalog(Database(f"sqlite:///{tmp_path / 'one'}")),
        RecentCatalog(SqlCatalog(Database(f"sqlite:///{tmp_path / 'two'}"))),
    ]
    for catalog in catalogs:
        early, late = Seen(Visibility.PUBLIC, 1.0), Seen(Visibility.PRIVATE, 2.0)
        assert catalog.see(REPO, late) == late
        assert catalog.see(REPO, early) == late
        assert catalog.learn(REPO, "main", Told(early, Ref(COMMIT, 1.0))) == late
        assert catalog.seen(REPO) == late
        ahead = time.time() + 1000
        other = Repo("org/y")
        catalog.see(other, Seen(Visibility.PRIVATE, ahead))
        assert catalog.see(other, late) == late  # the clock was set back


class Asked(HubSource):
    """A hub where the question about one branch is answered late, as it was asked; a refusal by then is all else."""

    def __init__(self, folder: Path) -> None:
        self.rations = Upstream("hub", "http://127.0.0.1:9").rations(folder)
        super().__init__("hub", "http://127.0.0.1:9", Dialer(), budget=self.rations)
        self.is_asked, self.answers = threading.Event(), threading.Event()
        self.asked_at = 0.0

    def ask(self, target: str, session: HttpSession, posted: bytes = b"") -> HubAnswer:
        if "/revision/late" not in target:
            return HubAnswer(401, {ERROR_CODE: "RepoNotFound"}, b"{}")
        self.asked_at = time.time()
        self.is_asked.set()
        assert self.answers.wait(10)
        return HubAnswer(200, {}, json.dumps({"id": REPO.name, "sha": COMMIT, "siblings": []}).encode())


def metadata_of(source: Asked, catalog: RecentCatalog, folder: Path) -> Metadata:
    origin = HubOrigin(source, Dialer(), source.rations, catalog)
    threads, trust = Threads(), Trust(60.0, 60.0, 10.0)
    origins = Origins(origin, (), threads, trust.patience_s, trust.ref_ttl_s)
    return Metadata(catalog, origins, Grants(Database.in_folder(folder)), threads, trust)


@pytest.mark.parametrize("was_known", [True, False])
def test_a_repo_is_closed_as_soon_as_anybody_was_told_so(tmp_path: Path, *, was_known: bool) -> None:
    catalog, source = RecentCatalog(SqlCatalog(Database.in_folder(tmp_path))), Asked(tmp_path)
    if was_known:
        catalog.see(REPO, Seen(Visibility.PUBLIC, 1.0))

    async def act() -> None:
        metadata = metadata_of(source, catalog, tmp_path)
        late = asyncio.ensure_future(metadata.resolved(REPO, "late", ANYBODY))
        assert await asyncio.to_thread(source.is_asked.wait, 10)
        with pytest.raises(Closed):
            await metadata.resolved(REPO, "main", ANYBODY)
        source.answers.set()
        with pytest.raises(Closed):
            await late
        with pytest.raises(Closed):
            await metadata.resolved(REPO, "late", ANYBODY)

    asyncio.run(act())
    seen = catalog.seen(REPO)
    assert seen is None or seen.visibility is Visibility.PRIVATE


def test_visibility_is_as_old_as_the_question(tmp_path: Path) -> None:
    catalog, source = RecentCatalog(SqlCatalog(Database.in_folder(tmp_path))), Asked(tmp_path)
    source.answers.set()
    at = asyncio.run(metadata_of(source, catalog, tmp_path).resolved(REPO, "late", ANYBODY))
    assert at.readable_until <= source.asked_at + 60.0


def test_room_is_bounded_by_weight_and_time() -> None:
    recent = Recent(10)
    for number in range(4):
        recent.put(number, number, 60, 4)
    assert [recent.get(number) for number in range(4)] == [ABSENT, ABSENT, 2, 3]
    recent.get(2)
    recent.put("new", None, 60, 4)
    assert (recent.get(2), recent.get(3), recent.get("new")) == (2, ABSENT, None)
    recent.put("late", 1, 0)
    recent.put("huge", 1, 60, 11)
    assert (recent.get("late"), recent.get("huge"), len(recent)) == (ABSENT, ABSENT, 2)
    recent.drop(2)
    assert recent.get(2) is ABSENT


def test_many_write_and_read_at_once(tmp_path: Path) -> None:
    catalog = RecentCatalog(SqlCatalog(Database.in_folder(tmp_path)))
    gate = threading.Barrier(24)

    def work(number: int) -> None:
        gate.wait()
        for step in range(20):
            catalog.keep(f"/{number}/{step}", Kept("{}", None, float(step)))
            assert catalog.kept(f"/{number}/{step}") is not None

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(work, range(24)))


def test_how_fresh_an_answer_is_made_of_its_parts() -> None:
    hit, stale = Freshness.known(100.0, 60.0, 110.0), Freshness.known(100.0, 60.0, 400.0)
    assert (hit.grade, stale.grade) == (Grade.HIT, Grade.STALE)
    assert hit.headers == {CACHE_STATUS: "headrace; hit; ttl=50", "Age": "10"}
    assert stale.headers[CACHE_STATUS] == "headrace; hit; ttl=-240; detail=stale-if-error"
    assert "300 s ago" in stale.headers["X-HF-Warning"]
    assert worst(hit, stale) == worst(stale, Freshness(Grade.MISS), hit) == stale
    assert [is_believed(at, 60.0, 100.0) for at in (100.0, 40.1, 40.0, 100.1)] == [True, True, False, False]


def test_bytes_on_their_way_are_a_miss(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub)
    assert ask(node.endpoint + BIG_FILE, "HEAD").status == 200
    status = [ask(node.endpoint + BIG_FILE).headers["cache-status"].split(";")[1].strip() for _ in range(2)]
    assert status == ["fwd=miss", "hit"]

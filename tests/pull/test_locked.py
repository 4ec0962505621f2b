"""Lock files in pulls, and whom a pull believes: a source that is first and fastest, and lies, gets nowhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace.errors import (
    BadManifest,
    DigestMismatch,
    EntryNotFound,
    HeadraceError,
    RepoNotFound,
    RevisionNotFound,
    SourceError,
    UsageError,
)
from headrace.events import PullStarted, Warned
from headrace.facade.lock import moved
from headrace.testing import ChaosHub, Fault, content, write_repo

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

GOOD = {
    "config.json": b'{"good": 1}',
    "model.safetensors": content(3_000_000),
    "same.bin": content(200_000, seed=5),
}
EVIL = {
    "config.json": b'{"evil": 1}',
    "model.safetensors": content(3_000_000, seed=6),
    "same.bin": content(200_000, seed=5),
    "more.bin": b"more",
}
TOKEN = "hf_good"


@pytest.fixture
def model(root: Path, hub: ChaosHub) -> ChaosHub:
    write_repo(root, "org/model", GOOD)
    return hub


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[ChaosHub]:
    """A hub with a repo of the same name: another commit, other digests, one file more, and one that is right."""
    write_repo(tmp_path / "evil", "org/model", EVIL)
    with ChaosHub(tmp_path / "evil") as running:
        yield running


@pytest.fixture
def locked(model: ChaosHub, tmp_path: Path) -> Path:
    path = tmp_path / "headrace.lock"
    path.write_text(headrace.lock("org/model").render())
    return path


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forgets who is trusted."""
    return lambda: monkeypatch.delenv("HF_ENDPOINT")


def check_nothing_of(files: dict[str, bytes], cache: Path) -> None:
    wrong = [data for path, data in files.items() if GOOD.get(path) != data]
    found = [path for path in cache.rglob("*") if path.is_file() and path.read_bytes() in wrong]
    assert found == []


def check_good(snapshot: headrace.Snapshot) -> None:
    assert {path.name: path.read_bytes() for path in snapshot.path.iterdir() if path.is_file()} == GOOD


def check_lists_asked(hub: ChaosHub, at_most: int) -> None:
    lists = [one for one in hub.log().requests if "/revision/" in one.path or "/tree/" in one.path]
    assert len(lists) <= at_most


def test_an_untrusted_source_that_is_offered_first_is_not_believed(
    model: ChaosHub, evil: ChaosHub, pull: Puller
) -> None:
    model.set_faults(Fault("latency", host="any", delay_s=0.1))  # the liar is the fastest, too
    snapshot = pull("org/model", sources=[evil.endpoint, model.endpoint])
    check_good(snapshot)
    check_nothing_of(EVIL, pull.cache)
    (started,) = pull.heard(PullStarted)
    assert started.trusted == model.endpoint.removeprefix("http://")
    check_lists_asked(
        evil, at_most=1
    )  # it lacks the commit: where else it has the content is all that counts


def test_an_untrusted_source_alone_publishes_nothing_wrong(
    model: ChaosHub, evil: ChaosHub, pull: Puller
) -> None:
    with pytest.raises(HeadraceError):
        pull("org/model", sources=[evil.endpoint])
    check_nothing_of(EVIL, pull.cache)


def test_who_is_trusted_in_order(
    evil: ChaosHub,
    model: ChaosHub,
    tmp_path: Path,
    unset: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trusted(*named: str) -> str:
        return headrace.load_settings().trusted(named).at.url

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert trusted(evil.endpoint) == model.endpoint
    unset()
    assert trusted() == "https://huggingface.co"
    assert trusted(evil.endpoint) == evil.endpoint
    (tmp_path / "config" / "headrace").mkdir(parents=True)
    own = tmp_path / "config" / "headrace" / "headrace.toml"
    own.write_text(
        '[sources.ours]\nurl = "http://ours.test"\ntrusted = true\n[sources.other]\nurl = "http://o.test"\n'
    )
    assert trusted(evil.endpoint) == "http://ours.test"
    monkeypatch.setenv("HF_ENDPOINT", model.endpoint)
    assert trusted(evil.endpoint) == model.endpoint


def test_that_the_first_named_source_is_asked_because_it_is_trusted_is_told(
    model: ChaosHub, pull: Puller, unset: Callable[[], None]
) -> None:
    unset()
    pull.settings["give_up_s"] = 0.5
    with pytest.raises(SourceError) as caught:
        pull("org/model", sources=["http://127.0.0.1:9", model.endpoint])
    assert "http://127.0.0.1:9 is the first of `sources`" in (caught.value.hint or "")


def test_a_lock_needs_trust_in_nobody(
    evil: ChaosHub, model: ChaosHub, pull: Puller, locked: Path, unset: Callable[[], None]
) -> None:
    unset()
    model.clear_log()
    snapshot = pull("org/model", locked=locked, sources=[evil.endpoint, model.endpoint])
    check_good(snapshot)
    check_nothing_of(EVIL, pull.cache)
    (started,) = pull.heard(PullStarted)
    assert started.trusted == str(locked)
    check_lists_asked(model, at_most=0)
    check_lists_asked(evil, at_most=1)


def test_under_a_lock_wrong_bytes_are_never_published(
    evil: ChaosHub, pull: Puller, locked: Path, unset: Callable[[], None]
) -> None:
    unset()
    with pytest.raises(HeadraceError):
        pull("org/model", locked=locked, sources=[evil.endpoint])
    check_nothing_of(EVIL, pull.cache)


def test_right_bytes_of_a_source_that_nobody_trusts_are_taken(
    tmp_path: Path, pull: Puller, locked: Path, unset: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain mirror with the same commit; and the token of a hub is not for it, be it named first."""
    unset()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    write_repo(tmp_path / "mirror", "org/model", GOOD)
    with ChaosHub(tmp_path / "mirror") as mirror:
        check_good(pull("org/model", locked=locked, sources=mirror.endpoint))
        assert mirror.settled_log().blob_bytes == sum(map(len, GOOD.values()))
        assert not [one for one in mirror.log().requests if one.authorization_present]


def test_of_a_source_that_lies_in_part_the_right_part_is_taken(
    model: ChaosHub, tmp_path: Path, pull: Puller, locked: Path, unset: Callable[[], None]
) -> None:
    unset()
    write_repo(tmp_path / "mirror", "org/model", GOOD)
    with ChaosHub(tmp_path / "mirror") as mirror:
        mirror.set_faults(Fault("flip", match="model.safetensors", offset=1_000_000))
        with pytest.raises(DigestMismatch):
            pull("org/model", locked=locked, sources=mirror.endpoint)
    sizes = sorted(path.stat().st_size for path in pull.cache.glob("models--*/blobs/*"))
    assert sizes == sorted(len(data) for path, data in GOOD.items() if path != "model.safetensors")
    snapshot = pull("org/model", locked=locked, sources=model.endpoint)
    check_good(snapshot)
    assert snapshot.network_bytes == len(GOOD["model.safetensors"])


def test_the_hubs_branch_may_move_and_the_lock_says_what_was(
    root: Path, model: ChaosHub, pull: Puller, locked: Path
) -> None:
    assert moved(locked) == []
    old = pull("org/model", locked=locked)
    write_repo(root, "org/model", {**GOOD, "config.json": b"new"})
    new = pull("org/model")
    assert moved(locked) == [("org/model@main", old.commit, new.commit)]
    again = pull("org/model", locked=locked)
    assert (again.commit, again.network_bytes) == (old.commit, 0)
    check_good(again)
    # What main means is the hub's word; the lock's is for those who have it.
    assert (pull.cache / "models--org--model" / "refs" / "main").read_text() == new.commit
    assert [old.commit in one.message for one in pull.heard(Warned)] == [True]


def test_where_the_cache_knows_no_branch_the_lock_says_what_it_is(
    pull: Puller, locked: Path, model: ChaosHub
) -> None:
    snapshot = pull("org/model", locked=locked)
    assert (pull.cache / "models--org--model" / "refs" / "main").read_text() == snapshot.commit
    assert not list((pull.cache / ".locks" / "headrace").glob("manifests/*/*"))
    pull.settings["offline"] = True
    assert pull("org/model").path == snapshot.path


def test_globs_and_a_folder_go_with_a_lock(pull: Puller, locked: Path, tmp_path: Path) -> None:
    snapshot = pull("org/model@main", locked=locked, include="*.json", dest=tmp_path / "out")
    assert [path.name for path in snapshot.path.iterdir() if path.is_file()] == ["config.json"]
    with pytest.raises(EntryNotFound, match="matches"):
        pull("org/model", locked=locked, include="*.gguf")


def test_with_a_lock_and_a_folder_no_network_is_needed(
    model: ChaosHub, pull: Puller, locked: Path, tmp_path: Path
) -> None:
    model.stop()
    mine = tmp_path / "mine"
    mine.mkdir()
    for path, data in GOOD.items():
        (mine / path).write_bytes(data)
    pull.settings |= {"offline": True, "reuse": [mine]}
    check_good(pull("org/model", locked=locked))
    assert {one.path for one in headrace.preview("org/model", locked=locked).missing} == set(GOOD)


def test_what_is_not_locked_is_not_pulled(pull: Puller, locked: Path) -> None:
    with pytest.raises(RepoNotFound, match="does not lock model org/other"):
        pull("org/other", locked=locked)
    with pytest.raises(RevisionNotFound, match="not at 'v1'"):
        pull("org/model@v1", locked=locked)


def test_a_lock_that_is_damaged_or_dangerous_is_refused(pull: Puller, locked: Path, tmp_path: Path) -> None:
    text = locked.read_text()
    for wrong, kind in (
        (text[:90], UsageError),
        (text.replace("config.json", "../config.json"), BadManifest),
    ):
        locked.write_text(wrong)
        with pytest.raises(kind, match=r"headrace\.lock"):
            pull("org/model", locked=locked)
    for gone in (tmp_path / "gone.lock", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            pull("org/model", locked=gone)
    locked.write_bytes(os.urandom(100) + b"\xff")
    with pytest.raises(UsageError, match="not text"):
        pull("org/model", locked=locked)
    assert not pull.cache.exists()


def test_a_lock_is_of_several_kinds_and_asks_only_who_is_trusted(
    root: Path, model: ChaosHub, evil: ChaosHub, tmp_path: Path
) -> None:
    write_repo(root, "org/data", {"a.csv": b"1"}, kind="dataset")
    lock = headrace.lock(["datasets/org/data", "org/model", "org/model@main"], sources=evil.endpoint)
    assert [str(one.repo.address) for one in lock.manifests] == ["datasets/org/data", "org/model"]
    assert evil.log().requests == ()
    with pytest.raises(UsageError, match="offline"):
        headrace.lock("org/model", settings=headrace.load_settings(offline=True))
    with pytest.raises(UsageError, match="no repo"):
        headrace.lock([])

"""Sources that deliver something else than was promised: the right files or none, and it is told who it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.errors import DigestMismatch, SourceError
from headrace.events import BlobFailed, BlobMismatch, Explained, SourceLied, SourceStruck
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.pull.conftest import Puller
from tests.pull.mirrors import Way, another_commit, mirror, not_there, shorter, web_page

REPOS = {
    "org/one": {"model.safetensors": content(12_000_000)},
    "org/sharded": {
        f"model-{n:05}-of-00004.safetensors": content(3_000_000 + n, seed=n) for n in range(1, 5)
    },
}
both_repos = pytest.mark.parametrize("repo", REPOS)
FLIPS = [Fault("flip", offset=offset) for offset in range(0, 12_000_000, 20_000)]
"""Not one answer of more than that is right."""
SLOW = Fault("rate", rate=2_000_000)
"""So that whoever else is there gives bytes, too."""


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    for name, files in REPOS.items():
        write_repo(folder, name, files)
    return folder


@pytest.fixture
def hubs(repos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ChaosHub]]:
    """Three hubs of the same content; the first is the trusted one."""
    with ChaosHub(repos) as first, ChaosHub(repos) as second, ChaosHub(repos) as third:
        monkeypatch.setenv("HF_ENDPOINT", first.endpoint)
        yield [first, second, third]


def named(hub: ChaosHub) -> str:
    return hub.endpoint.removeprefix("http://")


def is_whole(snapshot: headrace.Snapshot, repo: str) -> bool:
    return all((snapshot.path / path).read_bytes() == data for path, data in REPOS[repo].items())


def from_all(hubs: list[ChaosHub]) -> dict[str, Any]:
    return {"sources": [hub.endpoint for hub in hubs]}


@both_repos
@pytest.mark.parametrize("liar", [0, 2], ids=["the trusted one", "the least trusted one"])
def test_a_source_that_flips_bits_is_named_and_the_files_are_right(
    repo: str, liar: int, hubs: list[ChaosHub], pull: Puller
) -> None:
    for hub in hubs:
        hub.set_faults(SLOW, *(FLIPS if hub is hubs[liar] else []))
    snapshot = pull(repo, **from_all(hubs))
    assert is_whole(snapshot, repo)
    (lied,) = pull.heard(SourceLied)
    assert lied.source == named(hubs[liar])
    assert lied.path in REPOS[repo]
    assert pull.heard(BlobMismatch)
    assert snapshot.account is not None
    assert [one.name for one in snapshot.account.sources if one.lied_about] == [named(hubs[liar])]
    assert snapshot.account.refetched_bytes > 0


@both_repos
def test_where_all_lie_nothing_is_published_and_nothing_of_it_kept(
    repo: str, hubs: list[ChaosHub], pull: Puller
) -> None:
    for hub in hubs:
        hub.set_faults(*FLIPS)
    with pytest.raises(DigestMismatch) as caught:
        pull(repo, **from_all(hubs))
    assert all(named(hub) in caught.value.message for hub in hubs)
    assert pull.heard(SourceLied) == []
    assert [*pull.cache.glob("models--*/blobs/*")] == []
    (failed,) = pull.heard(BlobFailed)
    assert failed.code == "digest_mismatch"
    left = {path.suffix for path in pull.cache.rglob(f"*{failed.digest.partition(':')[2]}*")}
    assert left <= {".retraction"}  # word for readers, and nothing of what came
    asked = sum(hub.settled_log().blob_bytes for hub in hubs)
    assert asked <= (2 * len(hubs) + 1) * sum(map(len, REPOS[repo].values()))


def test_what_a_liar_gave_before_a_kill_is_doubted_first(hubs: list[ChaosHub], pull: Puller) -> None:
    hubs[0].set_faults(*FLIPS, Fault("reset", after_bytes=2_000_000, times=4), Fault("status", skip=4))
    with pytest.raises(SourceError):
        pull("org/one", **from_all(hubs[:1]))
    hubs[0].set_faults(SLOW)
    snapshot = pull("org/one", **from_all(hubs[:2]))
    assert is_whole(snapshot, "org/one")
    (mismatch,) = pull.heard(BlobMismatch)
    assert 0 < mismatch.refetch < 12_000_000
    assert pull.heard(SourceLied) == []  # nobody knows any more who it was


WAYS: dict[str, tuple[Callable[[str], Way], str]] = {
    "another commit": (lambda _: another_commit, "has other content at .*, that of commit c0ffee"),
    "a web page": (lambda _: web_page, "answers with a web page where"),
    "a shorter file": (lambda repo: shorter(REPOS[repo]), "bytes, not"),
    "nothing": (lambda _: not_there, "has no"),
}


@both_repos
@pytest.mark.parametrize("serves", WAYS)
def test_a_source_that_serves_something_else_is_left_out_and_the_reason_told(
    serves: str, repo: str, hubs: list[ChaosHub], pull: Puller
) -> None:
    way, reason = WAYS[serves]
    hubs[0].set_faults(Fault("latency", delay_s=0.1))
    with mirror(way(repo)) as endpoint:
        snapshot = pull(repo, sources=[endpoint, hubs[0].endpoint])
    assert is_whole(snapshot, repo)
    name = endpoint.removeprefix("http://")
    struck = pull.heard(SourceStruck)
    assert {event.source for event in struck} == {name}
    assert len(struck) == len({event.code for event in struck})
    (told,) = pull.heard(Explained)
    assert told.sources[name]["bytes"] == 0
    assert told.sources[named(hubs[0])]["bytes"] == sum(map(len, REPOS[repo].values()))
    assert re.search(reason, "; ".join(told.sources[name]["reasons"]))

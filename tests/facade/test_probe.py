"""`probe` against hubs that are slow, behind, empty, crowded, strange or not there."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import headrace
from headrace.errors import UsageError
from headrace.names import Repo
from headrace.plan.verdict import Age, Grade, Probed
from headrace.source.addresses import Resolver
from headrace.source.dialer import Dialer
from headrace.source.hub import HubSource
from headrace.testing import ChaosHub, FakeTree, Fault, content, write_repo
from headrace.testing.tree import sums
from headrace.transfer.probing import Probe, Subject
from tests.facade.conftest import TOKEN
from tests.papers import issue
from tests.ports import free_port

Measure = Callable[..., Probed]


@pytest.fixture
def measure(trusted: ChaosHub, near: ChaosHub, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """What a short probe finds of `near`."""
    monkeypatch.setenv("HF_ENDPOINT", trusted.endpoint)

    def measure(*faults: Fault, repo: str = "org/model", seconds: float = 1.0) -> Probed:
        near.set_faults(*faults)
        (one,) = headrace.probe(repo, sources=near.endpoint, seconds=seconds)
        return one

    return measure


def test_what_a_good_one_delivers(measure: Measure, trusted: ChaosHub) -> None:
    trusted.clear_log()
    one = measure()
    facts = one.facts
    assert (one.grade, one.reason) == (Grade.GOOD, "has the trusted source's commit")
    assert (facts.has_repo, facts.has_file, facts.ranges, facts.freshness.age) == (True, True, True, Age.SAME)
    assert facts.connect_s is not None
    assert facts.first_byte_s is not None
    assert facts.best is not None
    assert facts.best.rate >= (facts.rate_one or 0) > 0
    assert (facts.address, facts.redirects_to) == (
        "127.0.0.1",
        None,
    )  # the largest file is a small one to this hub
    assert abs(facts.skew_s or 0) <= 2
    assert trusted.log().blob_bytes == 0  # only its word was asked for


def test_where_it_leads(measure: Measure) -> None:
    facts = measure(repo="org/large").facts
    assert (facts.host, facts.redirects_to) == ("localhost", "localhost")


def test_connections_are_added_while_they_pay(measure: Measure) -> None:
    facts = measure(Fault("rate", host="any", rate=400_000), seconds=2.0).facts
    assert facts.best is not None
    assert facts.best.connections >= 4
    assert facts.best.rate > 2 * (facts.rate_one or 1e9)


def test_a_crowd_that_is_refused_is_told(measure: Measure) -> None:
    one = measure(
        Fault("rate", host="any", rate=400_000), Fault("crowd", how="busy", host="any", most=5), seconds=2.0
    )
    facts = one.facts
    # Connections that have just been closed may still count.
    assert facts.rungs[-1].connections in (4, 8)
    assert facts.rungs[-1].refusal
    assert facts.borne == facts.rungs[-2].connections
    assert f"{facts.rungs[-1].connections} connections are too many" in one.reason
    assert one.grade in (Grade.GOOD, Grade.USABLE)


@pytest.mark.parametrize(
    ("fault", "grade", "word"),
    [
        (Fault("page", host="any"), Grade.UNUSABLE, "no JSON"),
        (Fault("status", host="any", status=429, match="*.txt"), Grade.UNUSABLE, "cannot give"),
        (Fault("status", host="any", status=404, match="*.txt"), Grade.UNUSABLE, "has no 'plain.txt'"),
        (Fault("stall", host="any", match="*.txt", after_bytes=0), Grade.UNUSABLE, ""),
        (Fault("whole", host="any"), Grade.USABLE, "only as a whole"),
        (Fault("skew", host="any", by=7200), Grade.USABLE, "2 hours ahead"),
        (Fault("moved", host="any", to="old"), Grade.USABLE, "behind by 1 commit"),
        (Fault("moved", host="any", to="older"), Grade.USABLE, "behind by 2 commits"),
    ],
)
def test_what_is_wrong_is_told(measure: Measure, fault: Fault, grade: Grade, word: str) -> None:
    one = measure(fault)
    assert (one.grade, word in one.reason) == (grade, True), one.reason


def test_one_that_lacks_the_commit_is_of_no_use(
    trusted: ChaosHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", trusted.endpoint)
    write_repo(tmp_path, "org/model", {"model.safetensors": bytes(5_000_000)})
    with ChaosHub(tmp_path) as stale:
        (one,) = headrace.probe("org/model", sources=stale.endpoint, seconds=1.0)
    assert (one.grade, one.facts.has_file, one.facts.freshness.age) == (Grade.UNUSABLE, False, Age.OTHER)
    assert one.facts.best is not None  # what it would deliver is known all the same
    assert "does not have the trusted source's commit" in one.reason


def test_without_the_trusted_sources_word_it_is_measured_all_the_same(
    near: ChaosHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", _nobody())
    (one,) = headrace.probe("org/model", sources=near.endpoint, seconds=1.0)
    assert (one.grade, one.facts.freshness.age, one.facts.has_file) == (Grade.GOOD, Age.UNKNOWN, None)


def test_several_at_once_the_best_first(measure: Measure, near: ChaosHub, trusted: ChaosHub) -> None:
    near.set_faults(Fault("rate", host="any", rate=300_000))
    named = [_nobody(), near.endpoint, trusted.endpoint, "modelscopist+https://nobody.example"]
    probed = headrace.probe("org/model", sources=named, seconds=2.0)
    assert [one.facts.url for one in probed][:2] == [trusted.endpoint, near.endpoint]
    assert [one.grade for one in probed][2:] == [Grade.UNUSABLE, Grade.UNUSABLE]
    reasons = " ".join(one.reason for one in probed)
    assert "refused" in reasons
    assert "modelscopist" in reasons


def test_a_silent_one_takes_no_time_from_the_others(
    measure: Measure, near: ChaosHub, trusted: ChaosHub
) -> None:
    near.set_faults(Fault("moved", host="any", to="older"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        probed = headrace.probe("org/model", sources=[place, near.endpoint], seconds=1.0)
    reasons = {one.facts.url: one.reason for one in probed}
    assert "behind by 2 commits" in reasons[near.endpoint]
    assert "did not give its list of files" in reasons[place]


@pytest.mark.parametrize("style", ["nginx", "none"])
def test_a_tree_without_digests_is_judged_by_what_it_delivers(
    style: str, measure: Measure, tmp_path: Path
) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    file = tmp_path / "org" / "model" / "plain.txt"
    with FakeTree(tmp_path, style) as tree:
        file.write_bytes(content(9_000_000))
        (one,) = headrace.probe("org/model", sources=f"tree+{tree.endpoint}", seconds=1.0)
        file.rename(file.with_name("other.txt"))
        (lacking,) = headrace.probe("org/model", sources=f"tree+{tree.endpoint}", seconds=1.0)
    assert (one.grade, one.reason) == (Grade.GOOD, "gives the file")
    assert (one.facts.has_repo, one.facts.has_file, one.facts.freshness.age) == (True, True, Age.UNKNOWN)
    assert one.facts.commit is None
    assert lacking.grade is Grade.UNUSABLE
    assert "plain.txt" in lacking.reason


def test_a_tree_that_has_the_trusted_sources_files_has_all_that_counts(
    measure: Measure, trusted: ChaosHub, tmp_path: Path
) -> None:
    folder = tmp_path / "org" / "model"
    headrace.pull("org/model", dest=folder)
    shutil.rmtree(folder / ".cache")
    sums(folder)
    with FakeTree(tmp_path, "none") as tree:
        (one,) = headrace.probe("org/model", sources=f"tree+{tree.endpoint}", seconds=1.0)
        largest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
        with largest.open("r+b") as other:
            other.truncate(largest.stat().st_size - 1)
        sums(folder)
        (differs,) = headrace.probe("org/model", sources=f"tree+{tree.endpoint}", seconds=1.0)
    assert (one.facts.freshness.age, one.reason) == (Age.ALIKE, "has the trusted source's files")
    assert differs.facts.freshness.age is not Age.ALIKE


def test_without_digests_and_the_trusted_sources_word_there_is_nothing_to_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", _nobody())
    (tmp_path / "model.bin").write_bytes(content(10_000))
    with FakeTree(tmp_path, "nginx") as tree:
        (one,) = headrace.probe("org/model", sources=f"folder+{tree.endpoint}", seconds=1.0)
    assert (one.grade, "without a digest" in one.reason) == (Grade.UNUSABLE, True)


@pytest.mark.parametrize(("repo", "word"), [("org/none", "has no"), ("org/empty", "no file to measure")])
def test_a_repo_that_cannot_be_measured(measure: Measure, repo: str, word: str) -> None:
    one = measure(repo=repo)
    assert (one.grade, word in one.reason) == (Grade.UNUSABLE, True), one.reason


def test_a_token_goes_to_the_trusted_source_alone(
    measure: Measure, trusted: ChaosHub, near: ChaosHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    trusted.clear_log()
    one = measure(repo="org/private")
    assert one.grade is Grade.UNUSABLE
    assert any(request.authorization_present for request in trusted.log().requests)
    assert not any(request.authorization_present for request in near.log().requests)


def test_each_address_is_measured_for_itself(shelf: Path, trusted: ChaosHub) -> None:
    """One of a host's addresses is slow, one is dead, and one is neither."""
    with ChaosHub(shelf, ports=(free_port("127.0.0.1", "127.0.0.2", "127.0.0.3"), 0)) as quick:
        port = int(quick.endpoint.rpartition(":")[2])
        with ChaosHub(shelf, host="127.0.0.2", ports=(port, 0)) as slow:
            slow.set_faults(Fault("rate", host="any", rate=200_000))
            places = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
            dialer = Dialer(Resolver(ask=lambda _: places))
            source = HubSource("many", f"http://many.example:{port}", dialer)
            judge = HubSource("trusted", trusted.endpoint, Dialer())
            subject = Subject("many", source.endpoint, source, source)
            probe = Probe(
                judge, [subject], [], (Repo("org/model"), "main"), dialer, seconds=2.0, connections=4
            )
            probe.run()
    found = {one.facts.address: one for one in probe.known}
    assert set(found) == set(places)
    assert [found[one].grade for one in places] == [Grade.GOOD, Grade.USABLE, Grade.UNUSABLE]
    assert "refused" in found["127.0.0.3"].reason


def test_trouble_with_certificates_is_told_in_words(
    shelf: Path, tmp_path: Path, trusted: ChaosHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", trusted.endpoint)
    papers = issue(tmp_path / "papers", "127.0.0.1", "::1", "localhost")
    believing = headrace.load_settings(ca_bundle=papers.authority)
    with ChaosHub(shelf, tls=(papers.chain, papers.key)) as hub:
        (refused,) = headrace.probe("org/model", sources=hub.endpoint, seconds=1.0)
        (accepted,) = headrace.probe("org/model", sources=hub.endpoint, seconds=1.0, settings=believing)
    assert refused.grade is Grade.UNUSABLE
    assert "certificate" in refused.reason
    assert accepted.grade is Grade.GOOD


def test_no_faster_than_the_user_allows(measure: Measure, near: ChaosHub) -> None:
    settings = headrace.load_settings(limit_rate="500K")
    (one,) = headrace.probe("org/model", sources=near.endpoint, seconds=1.0, settings=settings)
    assert one.grade is Grade.GOOD
    assert near.settled_log().blob_bytes < 8_000_000  # hundreds of millions without the limit


def test_offline_nothing_is_asked(measure: Measure, near: ChaosHub) -> None:
    with pytest.raises(UsageError, match="offline"):
        headrace.probe("org/model", sources=near.endpoint, settings=headrace.load_settings(offline=True))
    assert near.log().requests == ()


def _nobody() -> str:
    return f"http://127.0.0.1:{free_port()}"

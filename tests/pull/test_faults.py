"""Each way a hub can misbehave ends in the right file, or in one clear error; never in a wrong file or a hang.

The matrix: every fault, with one file and with a sharded repo. What lasts (`LASTING`) ends in its error, and the
pull after it works. What can be lived with (`BEARABLE`) ends in the right file although it lasts. What ends in
time (all that lasts and is no final word, `FINAL`) ends in the right file as well. Design's 60 s without a byte
are 2 to 4 s here, its 5 s of silence 0.3 s.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace.errors import (
    AccessDenied,
    AllSourcesFailed,
    BadManifest,
    DigestMismatch,
    EntryNotFound,
    NotFound,
    SourceError,
)
from headrace.events import BlobMismatch, BlobStarted, SegmentFailed, SourceSilent
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.ports import free_port
from tests.pull.watch import WatchedPull

REPOS = {
    "org/one": {"model.safetensors": content(5_000_000)},
    "org/sharded": {
        "config.json": b'{"a": 1}',
        **{f"model-{n:05}-of-00003.safetensors": content(1_300_000 + n, seed=n) for n in range(1, 4)},
    },
}
both_repos = pytest.mark.parametrize("repo", REPOS)

LASTING = {
    "reset": (Fault("reset"), AllSourcesFailed),
    "truncate": (Fault("truncate"), AllSourcesFailed),
    "stall": (Fault("stall"), AllSourcesFailed),
    "flip": (Fault("flip", offset=1_000_000), DigestMismatch),
    "500": (Fault("status", status=500), AllSourcesFailed),
    "404": (Fault("status", status=404), EntryNotFound),
    "503-everywhere": (Fault("status", host="any"), SourceError),
    "429-for-an-hour": (Fault("status", status=429, delay_s=3600), SourceError),
    "429-for-an-hour-on-the-api": (Fault("status", host="hub", status=429, delay_s=3600), SourceError),
    "slow-head": (Fault("slowhead", delay_s=0.05), AllSourcesFailed),
    "slow-head-on-the-api": (Fault("slowhead", host="hub", delay_s=0.05), SourceError),
    "trickle-on-the-api": (Fault("trickle", host="hub", rate=20), SourceError),
    "hangup-before": (Fault("hangup", host="any"), SourceError),
    "hangup-after-the-head": (Fault("hangup", how="head"), AllSourcesFailed),
    "hangup-after-the-head-of-the-api": (Fault("hangup", host="hub", how="head"), SourceError),
    "late-api": (Fault("latency", host="hub", delay_s=20), SourceError),
    "expired-at-once": (Fault("expire"), SourceError),
    "page": (Fault("page"), SourceError),
    "page-on-the-api": (Fault("page", host="hub"), SourceError),
    "loop": (Fault("loop"), SourceError),
    "loop-on-the-hub": (Fault("loop", host="hub"), SourceError),
    "to-nobody": (Fault("elsewhere", to="http://127.0.0.1:9"), SourceError),
    "gzip": (Fault("gzip"), SourceError),
    "gzip-by-label": (Fault("gzip", how="label"), SourceError),
    "gzip-on-the-api": (Fault("gzip", host="hub"), SourceError),
    "json-truncated": (Fault("json", host="hub"), SourceError),
    "json-empty": (Fault("json", host="hub", how="empty"), SourceError),
    "json-deep": (Fault("json", host="hub", how="deep"), SourceError),
    "json-types": (Fault("json", host="hub", how="types"), BadManifest),
    "wrong-start": (Fault("misrange", how="start"), SourceError),
    "wrong-end": (Fault("misrange", how="end"), SourceError),
    "wrong-total": (Fault("misrange", how="total"), SourceError),
    "length-too-small": (Fault("length", by=-1000), SourceError),
    "length-too-large": (Fault("length", by=1000), SourceError),
}
# Nobody asks again whether a file that is not there is there, or whether a list or a digest is right by now.
FINAL = {"404", "flip", "json-types", "429-for-an-hour", "429-for-an-hour-on-the-api"}
BEARABLE = {
    "latency": Fault("latency", host="any", delay_s=0.05),
    "rate": Fault("rate", rate=4 * 1024 * 1024),
    "reset-late": Fault("reset", after_bytes=900_000),
    "reset-five-times": Fault("reset", after_bytes=700_000, times=5),
    "truncate-five-times": Fault("truncate", after_bytes=700_000, times=5),
    "stall-three-times": Fault("stall", after_bytes=700_000, times=3),
    "flip-once": Fault("flip", offset=1_000_000, times=1),
    "503-three-times": Fault("status", host="any", times=3),
    "429-as-a-date": Fault("status", host="any", status=429, delay_s=1, how="date", times=1),
    "whole": Fault("whole"),
    "chunked": Fault("lengthless", host="any"),
    "closed": Fault("lengthless", host="any", how="close"),
    "twice": Fault("double", times=2),
    "twice-on-the-hub": Fault("double", host="hub", times=2),
    "expired-midway": Fault("expire", after_bytes=400_000),
    "crowd-reset": Fault("crowd", most=2),
    "crowd-busy": Fault("crowd", most=2, how="busy"),
    "crowd-silent": Fault("crowd", most=2, how="silent"),
    "one-rate-for-all": Fault("total", rate=6_000_000),
    "collapse": Fault("collapse", most=3, rate=4_000_000),
    "quota": Fault("quota", host="hub", most=50, delay_s=300),
    "quota-spent-for-a-second": Fault("quota", host="hub", most=1, delay_s=1),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    for name, files in REPOS.items():
        write_repo(folder, name, files)
    write_repo(folder, "org/one", {"model.safetensors": b"another"}, revision="next")
    write_repo(folder, "org/former", {}, renamed_to="org/one")
    write_repo(folder, "org/off", REPOS["org/one"], disabled=True)
    write_repo(folder, "org/many", {f"part-{n:03}.bin": b"%d" % n for n in range(300)})
    return folder


@pytest.fixture(scope="module")
def running(root: Path) -> Iterator[ChaosHub]:
    with ChaosHub(root) as hub:
        yield hub


@pytest.fixture
def hub(running: ChaosHub, monkeypatch: pytest.MonkeyPatch) -> ChaosHub:
    """A hub that has forgotten what the last test did to it, named by HF_ENDPOINT."""
    running.clear_faults()
    running.clear_log()
    monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
    return running


@pytest.fixture
def pull(tmp_path: Path) -> WatchedPull:
    """A pull that soon loses patience. Whatever a test does with it: it never is silent for too long."""
    return WatchedPull(tmp_path / "cache", {"idle_timeout_s": 0.3, "give_up_s": 4.0})


def is_whole(folder: Path, files: dict[str, bytes]) -> bool:
    return all((folder / path).read_bytes() == data for path, data in files.items())


@both_repos
@pytest.mark.parametrize("name", BEARABLE)
def test_what_can_be_lived_with_ends_in_the_right_files(
    name: str, repo: str, hub: ChaosHub, pull: WatchedPull
) -> None:
    hub.set_faults(BEARABLE[name])
    assert is_whole(pull(repo).path, REPOS[repo])


@both_repos
@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_ends_in_one_clear_error_and_the_next_pull_works(
    name: str, repo: str, hub: ChaosHub, pull: WatchedPull
) -> None:
    fault, error = LASTING[name]
    hub.set_faults(fault)
    pull.settings["give_up_s"] = 1.0
    with pytest.raises(error) as caught:
        pull(repo)
    assert "\n" not in str(caught.value)
    assert pull.took_s < 10
    large = [path for path, data in REPOS[repo].items() if len(data) > 1000]
    blobs = [path for path in pull.cache.glob("models--*/blobs/*") if path.stat().st_size > 1000]
    assert len(blobs) < len(large)
    hub.clear_faults()
    assert is_whole(pull(repo).path, REPOS[repo])


@both_repos
@pytest.mark.parametrize(
    "name",
    sorted(set(LASTING) - FINAL),
)
def test_what_ends_in_time_ends_in_the_right_files(
    name: str, repo: str, hub: ChaosHub, pull: WatchedPull
) -> None:
    hub.set_faults(LASTING[name][0])
    pull.settings["give_up_s"] = 12.0  # the pause between two tries may be 5 s here, too
    end = threading.Timer(0.6, hub.clear_faults)
    end.start()
    try:
        assert is_whole(pull(repo).path, REPOS[repo])
    finally:
        end.cancel()
        end.join()


def test_what_had_landed_before_a_fault_is_not_asked_for_again(hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(Fault("reset", after_bytes=600_000, times=1), Fault("reset", skip=1))
    pull.settings["give_up_s"] = 1.0
    with pytest.raises(AllSourcesFailed):
        pull("org/one")
    hub.clear_faults()
    assert is_whole(pull("org/one").path, REPOS["org/one"])
    assert sum(event.resumed for event in pull.heard(BlobStarted)) >= 600_000
    assert hub.settled_log().blob_bytes == sum(map(len, REPOS["org/one"].values()))


@pytest.mark.timeout(60)  # a file that trickled to its end would take an hour
@both_repos
def test_two_connections_that_trickle_hold_up_no_pull(
    repo: str, root: Path, pull: WatchedPull, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChaosHub(root) as hub:  # of its own: what may trickle on after the test ends with it
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.set_faults(Fault("trickle", rate=200, times=2))
        assert is_whole(pull(repo).path, REPOS[repo])


def test_a_flipped_byte_is_noticed_and_told(hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(Fault("flip", offset=2_000_000, times=1))
    pull("org/one")
    (mismatch,) = pull.heard(BlobMismatch)
    assert mismatch.path == "model.safetensors"
    assert mismatch.refetch == len(REPOS["org/one"]["model.safetensors"])


def test_silence_is_told_within_the_patience(hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(Fault("stall", after_bytes=100_000, times=1))
    pull("org/one")
    (failed,) = pull.heard(SegmentFailed)
    assert failed.code == "stalled"


def test_more_patience_than_usual_is_told_too(hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(Fault("stall"))
    pull.settings |= {"give_up_s": 2.0, "lanes": 1}
    with pytest.raises(SourceError):
        pull("org/one")
    assert {event.path for event in pull.heard(SourceSilent)} == {"model.safetensors"}


@both_repos
def test_without_faults_every_byte_and_every_file_is_asked_for_once(
    repo: str, hub: ChaosHub, pull: WatchedPull
) -> None:
    snapshot = pull(repo)
    size = sum(map(len, REPOS[repo].values()))
    log = hub.settled_log()
    assert snapshot.network_bytes == log.blob_bytes == size
    assert resolves(hub) <= len(REPOS[repo])
    assert log.count("GET") == log.count()
    assert log.count(path_glob="/api/models/*") == 1


def resolves(hub: ChaosHub) -> int:
    return hub.settled_log().count(path_glob="*/resolve/*", host="hub")


@pytest.mark.parametrize(
    ("repo", "files", "most"),
    [("org/many", 300, 900), pytest.param("org/thousand", 1000, 3000, marks=pytest.mark.soak)],
)
def test_a_repo_of_many_files_stays_within_the_hubs_quota(
    repo: str, files: int, most: int, root: Path, hub: ChaosHub, pull: WatchedPull
) -> None:
    write_repo(root, "org/thousand", {f"part-{n:04}.bin": b"%d" % n for n in range(1000)})
    pull.settings |= {"idle_timeout_s": 5.0, "give_up_s": 60.0}
    hub.set_faults(
        Fault("quota", host="hub", most=most, delay_s=300),
        Fault("quota", host="hub", most=most // 6, delay_s=300, how="api"),
    )
    assert pull(repo).files == files
    log = hub.settled_log()
    assert [request for request in log.requests if request.status == 429] == []
    assert resolves(hub) <= files
    assert log.count("HEAD") == 0


def test_a_quota_that_is_spent_is_waited_for_and_no_longer(hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(Fault("quota", host="hub", most=2, delay_s=2))
    assert is_whole(pull("org/sharded").path, REPOS["org/sharded"])
    assert {event.code for event in pull.heard(SegmentFailed)} == {"busy"}
    refused = [request for request in hub.settled_log().requests if request.status == 429]
    assert len(refused) <= 2  # who was told when to come back does not come before


def test_an_hour_is_not_waited_for_but_named(hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(Fault("status", status=429, delay_s=3600))
    with pytest.raises(SourceError, match="asks to come back in 3"):
        pull("org/one")


def test_a_branch_that_moves_meanwhile_mixes_nothing(hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(
        Fault("moved", host="hub", to="next", skip=1), Fault("reset", after_bytes=900_000, times=3)
    )
    assert is_whole(pull("org/one").path, REPOS["org/one"])
    assert (pull("org/one").path / "model.safetensors").read_bytes() == b"another"


@both_repos
def test_files_that_vanish_meanwhile_are_told(
    repo: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pull: WatchedPull
) -> None:
    own = tmp_path / "hub"
    write_repo(own, repo, REPOS[repo])
    with ChaosHub(own) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.set_faults(Fault("rate", rate=400_000), Fault("reset", after_bytes=300_000))
        gone = threading.Timer(0.5, lambda: write_repo(own, repo, {"README.md": b"rewritten"}))
        gone.start()
        try:
            with pytest.raises(NotFound) as caught:
                pull(repo)
        finally:
            gone.join()
        assert "\n" not in str(caught.value)
        assert pull(repo).files == 1


def test_a_repo_under_a_new_name_is_found(hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(Fault("reset", after_bytes=900_000, times=2))
    assert is_whole(pull("org/former").path, REPOS["org/one"])


def test_a_disabled_repo_is_refused_with_the_hubs_own_words(hub: ChaosHub, pull: WatchedPull) -> None:
    with pytest.raises(AccessDenied, match="Access to this resource is disabled"):
        pull("org/off")
    assert hub.log().count() == 1


@both_repos
def test_contents_may_come_from_another_host(repo: str, hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(Fault("elsewhere", to=f"http://127.0.0.1:{urlsplit(hub.cdn).port}"))
    assert is_whole(pull(repo).path, REPOS[repo])


@both_repos
@pytest.mark.parametrize("style", ["cloudfront", "amz"])
@pytest.mark.parametrize("off_s", [-7200, 7200])
def test_a_clock_that_is_hours_off_changes_nothing(
    repo: str, style: str, off_s: float, root: Path, pull: WatchedPull, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChaosHub(root, clock_off_s=off_s, url_style=style, url_lifetime_s=600) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert is_whole(pull(repo).path, REPOS[repo])
        assert resolves(hub) <= len(REPOS[repo])


@both_repos
def test_an_expired_address_is_asked_for_again(
    repo: str, root: Path, pull: WatchedPull, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChaosHub(root, url_lifetime_s=0.5, rate=700_000) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert is_whole(pull(repo).path, REPOS[repo])


def test_a_hub_that_is_not_there_is_told(pull: WatchedPull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    pull.settings["give_up_s"] = 1.0
    with pytest.raises(SourceError, match="cannot connect"):
        pull("org/one")


def test_a_hub_that_comes_back_in_time_is_waited_for(hub: ChaosHub, pull: WatchedPull) -> None:
    hub.set_faults(Fault("status", host="any", times=4))
    assert is_whole(pull("org/one").path, REPOS["org/one"])
    assert len(pull.heard(SegmentFailed)) == 4

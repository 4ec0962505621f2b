"""Each way a hub can misbehave ends in the right file, or in one clear error; never in a wrong file or a hang."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.errors import AllSourcesFailed, DigestMismatch, EntryNotFound, HeadraceError, SourceError
from headrace.events import BlobMismatch, SegmentFailed, SourceSilent
from headrace.testing import ChaosHub, Fault, content, write_repo

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

ONE = {"model.safetensors": content(12_000_000)}
SHARDED = {
    "config.json": b'{"a": 1}',
    **{f"model-{n:05}-of-00004.safetensors": content(3_000_000 + n, seed=n) for n in range(1, 5)},
}

PASSING = [
    Fault("latency", host="any", delay_s=0.05),
    Fault("rate", rate=8 * 1024 * 1024),
    Fault("reset", after_bytes=700_000, times=5),
    Fault("reset", after_bytes=0, times=3),
    Fault("reset", host="hub", after_bytes=0, times=2),
    Fault("reset", after_bytes=900_000),
    Fault("truncate", after_bytes=700_000, times=5),
    Fault("truncate", host="hub", after_bytes=1, times=2),
    Fault("stall", after_bytes=700_000, times=3),
    Fault("stall", host="hub", after_bytes=0, times=1),
    Fault("flip", offset=1_000_000, times=1),
    Fault("flip", host="any", offset=3, times=1),
    Fault("status", status=503, host="any", times=3),
    Fault("whole"),
]
LASTING = [
    (Fault("reset", after_bytes=0), AllSourcesFailed),
    (Fault("truncate", after_bytes=0), AllSourcesFailed),
    (Fault("stall", after_bytes=0), AllSourcesFailed),
    (Fault("flip", offset=1_000_000), DigestMismatch),
    (Fault("status", status=500), AllSourcesFailed),
    (Fault("status", status=404), EntryNotFound),
    (Fault("page"), SourceError),
    (Fault("status", host="any", status=503), SourceError),
]


def is_whole(folder: Path, files: dict[str, bytes]) -> bool:
    return all((folder / path).read_bytes() == data for path, data in files.items())


@pytest.mark.parametrize("files", [ONE, SHARDED], ids=["one-file", "sharded"])
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.kind}-{fault.host}-{fault.times}")
def test_a_fault_that_passes_or_can_be_outlived_ends_in_the_right_files(
    fault: Fault, files: dict[str, bytes], root: Path, hub: ChaosHub, pull: Puller
) -> None:
    write_repo(root, "org/model", files)
    hub.set_faults(fault)
    snapshot = pull("org/model")
    assert is_whole(snapshot.path, files)


@pytest.mark.parametrize("files", [ONE, SHARDED], ids=["one-file", "sharded"])
@pytest.mark.parametrize(("fault", "error"), LASTING, ids=lambda value: getattr(value, "kind", None))
def test_a_fault_that_lasts_ends_in_one_clear_error_and_the_next_pull_works(
    fault: Fault,
    error: type[HeadraceError],
    files: dict[str, bytes],
    root: Path,
    hub: ChaosHub,
    pull: Puller,
) -> None:
    write_repo(root, "org/model", files)
    hub.set_faults(fault)
    pull.settings = {"idle_timeout_s": 0.3, "give_up_s": 1.0}
    with pytest.raises(error) as caught:
        pull("org/model")
    assert "\n" not in caught.value.message
    large = {path for path, data in files.items() if len(data) > 1000}
    blobs = [path for path in pull.cache.glob("models--*/blobs/*") if path.stat().st_size > 1000]
    assert len(blobs) < len(large)
    hub.clear_faults()
    assert is_whole(pull("org/model").path, files)


def test_a_flipped_byte_is_noticed_and_told(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", ONE)
    hub.set_faults(Fault("flip", offset=5_000_000, times=1))
    pull("org/model")
    (mismatch,) = pull.heard(BlobMismatch)
    assert mismatch.path == "model.safetensors"
    assert mismatch.refetch == len(ONE["model.safetensors"])


def test_silence_is_told_within_the_patience(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", ONE)
    hub.set_faults(Fault("stall", after_bytes=100_000, times=1))
    pull("org/model")
    (failed,) = pull.heard(SegmentFailed)
    assert failed.code == "stalled"


def test_more_patience_than_usual_is_told_too(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", ONE)
    hub.set_faults(Fault("stall", after_bytes=0))
    pull.settings = {"idle_timeout_s": 0.3, "give_up_s": 2.0, "lanes": 1}
    with pytest.raises(SourceError):
        pull("org/model")
    assert {event.path for event in pull.heard(SourceSilent)} == {"model.safetensors"}


def test_without_faults_every_byte_is_asked_for_once(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", SHARDED)
    snapshot = pull("org/model")
    size = sum(map(len, SHARDED.values()))
    assert snapshot.network_bytes == size
    assert hub.settled_log().blob_bytes == size


def test_a_hub_that_is_not_there_is_told(root: Path, monkeypatch: pytest.MonkeyPatch, pull: Puller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(SourceError, match="cannot connect"):
        pull("org/model")


def test_a_hub_that_comes_back_in_time_is_waited_for(
    root: Path, hub: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repo(root, "org/model", ONE)
    hub.set_faults(Fault("status", status=503, host="any", times=4))
    assert is_whole(pull("org/model").path, ONE)
    assert len(pull.heard(SegmentFailed)) == 4


def test_an_expired_address_is_asked_for_again(
    root: Path, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repo(root, "org/model", ONE)
    with ChaosHub(root, url_lifetime_s=1.0, rate=3_000_000) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert is_whole(pull("org/model").path, ONE)

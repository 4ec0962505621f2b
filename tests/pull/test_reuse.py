"""Pulls that find content elsewhere on this disk: other repos of the cache, other clients' caches, folders named."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace.errors import EntryNotFound, NoSpace
from headrace.events import BlobAwaited, Done, FileReused, Warned
from headrace.layout import WorkshopLayout
from headrace.manifest import Digest
from headrace.store import space
from headrace.store.lease import LeaseWatch
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.conftest import Instead

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

WEIGHTS = content(3_000_000)
FILES = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "notes.md": b"notes"}
TOTAL = sum(map(len, FILES.values()))


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def facts(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_nlink) for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def model(root: Path, hub: ChaosHub) -> ChaosHub:
    write_repo(root, "org/model", FILES)
    return hub


def check_all_here(snapshot: headrace.Snapshot) -> None:
    assert {path: (snapshot.path / path).read_bytes() for path in FILES} == FILES


@pytest.mark.parametrize("kind", ["cache", "folder"])
def test_a_folder_that_is_named_is_a_source(kind: str, model: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    mine = lay(tmp_path / "mine", {"deep/weights (1).bin": WEIGHTS, "config.json": FILES["config.json"]})
    before, dest = facts(mine), tmp_path / "out" if kind == "folder" else None
    pull.settings["reuse"] = [mine]
    snapshot = pull("org/model", dest=dest)
    check_all_here(snapshot)
    assert model.settled_log().blob_bytes == snapshot.network_bytes == len(FILES["notes.md"])
    assert snapshot.reused_bytes == TOTAL - snapshot.network_bytes
    assert {one.path: one.place for one in pull.heard(FileReused)} == {
        "config.json": str(mine),
        "model.safetensors": str(mine),
    }
    assert [one.reused_bytes for one in pull.heard(Done)] == [snapshot.reused_bytes]
    assert facts(mine) == before
    # A copy of its own: to edit one must not edit the other.
    (mine / "deep" / "weights (1).bin").write_bytes(b"edited")
    check_all_here(snapshot)
    assert pull("org/model", dest=dest).network_bytes == 0


def test_another_repo_of_the_cache_is_a_source(root: Path, model: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/fork", {"model.safetensors": WEIGHTS, "notes.md": b"other"})
    pull("org/model")
    model.clear_log()
    fork = pull("org/fork")
    assert (fork.path / "model.safetensors").read_bytes() == WEIGHTS
    assert model.settled_log().blob_bytes == fork.network_bytes == len(b"other")
    assert [one.place for one in pull.heard(FileReused)] == [str(pull.cache)]
    blobs = [(fork.path / "model.safetensors").resolve(), *pull.cache.glob("models--org--model/blobs/*")]
    assert len({path.stat().st_ino for path in blobs}) == len(blobs)


@pytest.mark.parametrize("at", ["Org/model___v1___5", "models/Org/model___v1___5"])
def test_what_modelscopes_client_left_is_used(at: str, model: ChaosHub, pull: Puller, own_home: Path) -> None:
    hub = own_home / ".cache" / "modelscope" / "hub"
    lay(hub / at, {**FILES, ".msc": b"x", ".mdl": b"y"})
    (hub / at).parent.joinpath("model.v1.5").symlink_to("model___v1___5")
    assert pull("org/model").network_bytes == 0
    assert {one.place for one in pull.heard(FileReused)} == {str(hub)}


def test_where_modelscope_and_torch_say_they_keep_things(
    model: ChaosHub, pull: Puller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    lay(tmp_path / "ms" / "models" / "o" / "m", {"config.json": FILES["config.json"]})
    lay(tmp_path / "torch" / "hub" / "checkpoints", {"net-1234abcd.pth": WEIGHTS})
    assert pull("org/model").network_bytes == len(FILES["notes.md"])
    assert {one.place for one in pull.heard(FileReused)} == {
        str(tmp_path / "ms"),
        str(tmp_path / "torch" / "hub" / "checkpoints"),
    }


def test_wrong_content_under_the_right_name_is_fetched(model: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    wrong = {path: bytes(len(data)) for path, data in FILES.items()}
    pull.settings["reuse"] = [lay(tmp_path / "mine", wrong)]
    snapshot = pull("org/model")
    check_all_here(snapshot)
    assert snapshot.network_bytes == TOTAL


def test_a_file_that_was_edited_and_made_to_look_as_before_is_not_believed(
    model: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    mine = lay(tmp_path / "mine", {"w": WEIGHTS}) / "w"
    os.utime(mine, ns=(10**18, 10**18))
    pull.settings["reuse"] = [mine.parent]
    assert pull("org/model", dest=tmp_path / "one").network_bytes < len(WEIGHTS)
    with mine.open("r+b") as file:
        file.write(b"other")
    os.utime(mine, ns=(10**18, 10**18))
    snapshot = pull("org/model", dest=tmp_path / "two")
    assert [one.message for one in pull.heard(Warned) if str(mine) in one.message]
    check_all_here(snapshot)
    assert snapshot.network_bytes >= len(WEIGHTS)


def test_a_folder_that_is_not_there_is_told_of(model: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pull.settings["reuse"] = [tmp_path / "nowhere", tmp_path / "file"]
    check_all_here(pull("org/model"))
    told = [one.message for one in pull.heard(Warned) if one.topic == "reuse"]
    assert [str(tmp_path / name) in line for name, line in zip(("nowhere", "file"), told, strict=True)] == [
        True
    ] * 2


def test_whoever_forces_gets_all_fetched(model: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    pull.settings["reuse"] = [lay(tmp_path / "mine", FILES)]
    assert pull("org/model", force=True).network_bytes == TOTAL


def test_offline_what_lies_elsewhere_is_enough(model: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    pull("org/model", include="config.json")
    model.stop()
    pull.settings |= {"offline": True, "reuse": [lay(tmp_path / "mine", {"w": WEIGHTS})]}
    with pytest.raises(EntryNotFound, match=r"notes\.md"):
        pull("org/model", dest=tmp_path / "out")
    assert not (tmp_path / "out").exists()  # half a model is of no use
    lay(tmp_path / "mine", {"n": FILES["notes.md"]})
    check_all_here(pull("org/model", dest=tmp_path / "out"))


def test_room_for_copies_and_fetches_together_is_asked_for_first(
    model: ChaosHub, pull: Puller, tmp_path: Path, instead: Instead
) -> None:
    pull.settings["reuse"] = [lay(tmp_path / "mine", {"w": WEIGHTS})]
    rooms = space._rooms

    def short(workshop: Path) -> list[space._Room]:
        return [*rooms(workshop), space._Room("{} are left", space._SLACK_BYTES + len(WEIGHTS) - 1, None)]

    instead(space, _rooms=short)
    with pytest.raises(NoSpace, match="are left"):
        pull("org/model", dest=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".cache"]
    assert model.settled_log().blob_bytes == 0


def test_what_an_earlier_attempt_left_is_not_left_behind(
    model: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    model.set_faults(Fault("stall", match="model.safetensors"))
    with pytest.raises(headrace.HeadraceError):
        pull("org/model")
    assert list((pull.cache / ".locks" / "headrace").glob("*.partial"))
    model.clear_faults()
    pull.settings["reuse"] = [lay(tmp_path / "mine", {"w": WEIGHTS})]
    check_all_here(pull("org/model"))
    left = {path.name for path in (pull.cache / ".locks" / "headrace").iterdir()}
    assert left <= {"verified.jsonl", "manifests"}


@pytest.mark.parametrize("ends", ["early", "with the file"])
def test_what_another_process_is_at_is_waited_for_and_not_copied_twice(
    ends: str, model: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    pull.settings["reuse"] = [lay(tmp_path / "mine", {"w": WEIGHTS})]
    workshop = pull.cache / ".locks" / "headrace"
    workshop.mkdir(parents=True)
    digest = Digest(Digest.SHA256, hashlib.sha256(WEIGHTS).hexdigest())
    lease = LeaseWatch(WorkshopLayout(workshop, digest)).acquire()
    assert lease is not None
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(pull, "org/model")
        while not pull.heard(BlobAwaited):
            assert not pulling.done()
            time.sleep(0.01)
        blob = pull.cache / "models--org--model" / "blobs" / digest.hex
        assert not blob.exists()
        if ends == "with the file":
            blob.write_bytes(WEIGHTS)
        lease.release()
        snapshot = pulling.result()
    check_all_here(snapshot)
    place = str(tmp_path / "mine") if ends == "early" else ""
    assert [(one.path, one.place) for one in pull.heard(FileReused)] == [("model.safetensors", place)]


def test_a_file_that_fails_while_it_is_copied_is_fetched(
    model: ChaosHub, pull: Puller, tmp_path: Path, instead: Instead
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, os.strerror(5))

    pull.settings["reuse"] = [lay(tmp_path / "mine", {"w": WEIGHTS})]
    instead("headrace.store.copying", copy_run=fail, clone=lambda *_: False)
    check_all_here(pull("org/model"))
    assert [one.message for one in pull.heard(Warned) if str(tmp_path / "mine" / "w") in one.message]

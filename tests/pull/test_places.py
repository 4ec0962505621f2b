"""Where files go, which of them, and what is used without a network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace.errors import (
    AccessDenied,
    BadManifest,
    EntryNotFound,
    RepoNotFound,
    RevisionNotFound,
    UsageError,
)
from headrace.events import Checking, FileReused
from headrace.testing import ChaosHub, Fault, content, write_repo

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

FILES = {
    "config.json": b'{"a": 1}',
    "model.safetensors": content(9_000_000),
    "sub/copy.safetensors": content(9_000_000),
    "empty.txt": b"",
    "notes.md": b"notes",
}


def files_in(folder: Path) -> dict[str, bytes]:
    found = {}
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".cache"]
        for name in names:
            path = Path(at, name)
            assert not path.is_symlink()
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def test_dest_is_a_plain_folder_of_real_files(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    snapshot = pull("org/model", dest=tmp_path / "out")
    assert snapshot.path == tmp_path / "out"
    assert files_in(snapshot.path) == FILES
    twins = {(snapshot.path / name).stat().st_ino for name in ("model.safetensors", "sub/copy.safetensors")}
    assert len(twins) == 2  # editing one must not edit the other
    assert hub.settled_log().blob_bytes == sum(map(len, FILES.values())) - 9_000_000
    assert pull("org/model", dest=tmp_path / "out").network_bytes == 0


def test_dest_takes_what_the_cache_has(root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    write_repo(root, "org/model", FILES)
    write_repo(root, "org/fork", {**FILES, "notes.md": b"other notes"})
    pull("org/model")
    hub.clear_log()
    out = tmp_path / "out"
    snapshot = pull("org/fork", dest=out)
    told = [(event.path, event.done) for event in pull.heard(Checking) if event.done < event.size]
    assert len(told) == len(set(told))  # copied only: the cache's ledger vouches for it
    assert hub.settled_log().blob_bytes == snapshot.network_bytes == len(b"other notes")
    assert snapshot.reused_bytes == snapshot.bytes - snapshot.network_bytes
    assert files_in(out) == {**FILES, "notes.md": b"other notes"}
    (out / "model.safetensors").write_bytes(b"edited")
    assert (pull("org/model").path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    pull.settings["offline"] = True
    pull("org/model", dest=tmp_path / "offline")
    assert files_in(tmp_path / "offline") == FILES


def test_dest_takes_nothing_from_the_cache_that_is_not_what_its_name_says(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    pull("org/model")
    blob = (pull.cache / "models--org--model").glob("snapshots/*/model.safetensors")
    target = next(blob).resolve()
    target.write_bytes(content(9_000_000, seed=9))
    snapshot = pull("org/model", dest=tmp_path / "out")
    assert files_in(tmp_path / "out") == FILES
    assert snapshot.network_bytes == 9_000_000


def test_what_the_cache_has_is_not_put_among_our_own_files(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/evil", {".cache/headrace/verified.jsonl": b"[]"})
    pull("org/evil")
    with pytest.raises(BadManifest, match=r"\.cache/headrace"):
        pull("org/evil", dest=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dest_takes_what_the_stock_client_shares_among_repos(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    """Newer hub clients may keep a blob as a link into a store beside the repos."""
    write_repo(root, "org/model", FILES)
    pull("org/model")
    (found,) = (pull.cache / "models--org--model").glob("snapshots/*/model.safetensors")
    blob = found.resolve()
    shared = pull.cache / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    snapshot = pull("org/model", dest=tmp_path / "out")
    assert snapshot.network_bytes == 0
    assert files_in(tmp_path / "out") == FILES
    assert pull("org/model").network_bytes == 0


def test_dest_leaves_strangers_alone_and_replaces_what_differs(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    out = tmp_path / "out"
    pull("org/model", dest=out)
    (out / "mine.txt").write_text("mine")
    (out / "notes.md").write_bytes(b"NOTES")
    snapshot = pull("org/model", dest=out)
    assert files_in(out) == {**FILES, "mine.txt": b"mine"}
    assert snapshot.network_bytes == len(b"notes")


def test_force_fetches_what_is_here_already(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", FILES)
    pull("org/model")
    again = pull("org/model", force=True)
    assert again.network_bytes == sum(map(len, FILES.values())) - 9_000_000


def test_include_and_exclude_choose_files(root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    write_repo(root, "org/model", FILES)
    pull("org/model", include=["*.safetensors", "*.json"], exclude=["sub/"], dest=tmp_path / "out")
    assert set(files_in(tmp_path / "out")) == {"config.json", "model.safetensors"}
    with pytest.raises(EntryNotFound, match=r"\*\.gguf"):
        pull("org/model", include=["*.gguf"])


def test_what_is_all_there_is_not_written_to(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", FILES)
    pull("org/model")
    before = {str(path): path.lstat().st_mtime_ns for path in pull.cache.rglob("*")}
    pull("org/model")
    pull.settings["offline"] = True
    pull("org/model")
    assert {str(path): path.lstat().st_mtime_ns for path in pull.cache.rglob("*")} == before


def test_one_glob_may_be_given_as_it_is(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", FILES)
    assert pull("org/model", include="*.json", exclude="none", sources=hub.endpoint).files == 1


def test_offline_gives_back_what_is_here_and_says_what_is_not(
    root: Path, hub: ChaosHub, pull: Puller
) -> None:
    write_repo(root, "org/model", FILES)
    pull("org/model", include=["*.json"])
    hub.stop()
    pull.settings["offline"] = True
    snapshot = pull("org/model", include=["*.json"])
    assert (snapshot.path / "config.json").read_bytes() == FILES["config.json"]
    with pytest.raises(EntryNotFound, match="not found in"):
        pull("org/model")
    with pytest.raises(RevisionNotFound):
        pull("org/other")


def test_offline_uses_what_the_stock_client_left(
    root: Path, hub: ChaosHub, pull: Puller, hf: Callable[..., str]
) -> None:
    write_repo(root, "org/model", FILES)
    hf("download", "org/model", cache=pull.cache)
    hub.stop()
    pull.settings["offline"] = True
    pull("org/model")
    assert len(pull.heard(FileReused)) == len(FILES)


def test_preview_touches_nothing(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", FILES)
    settings = headrace.load_settings(cache=pull.cache)
    preview = headrace.preview("org/model", settings=settings)
    assert {entry.path for entry in preview.missing} == set(FILES)
    assert not pull.cache.exists()
    pull("org/model", include=["*.json"])
    preview = headrace.preview("org/model", settings=settings)
    assert {entry.path for entry in preview.here} == {"config.json"}


def test_a_private_repo_needs_the_token_and_only_the_hub_sees_it(
    root: Path, hub: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repo(root, "org/private", FILES, private=True)
    with pytest.raises(RepoNotFound) as caught:
        pull("org/private")
    assert "HF_TOKEN" in (caught.value.hint or "")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    pull("org/private")
    seen = {(request.host, request.authorization_present) for request in hub.log().requests if request.blob}
    assert ("cdn", True) not in seen
    assert any(request.authorization_present for request in hub.log().requests)


def test_a_gated_repo_is_refused_with_advice(
    root: Path, hub: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repo(root, "org/gated", FILES, gated="manual")
    with pytest.raises(AccessDenied) as caught:
        pull("org/gated")
    assert "refuses org/gated, which is gated: " in caught.value.message
    assert f"ask for access at {hub.endpoint}/org/gated," in (caught.value.hint or "")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(AccessDenied, match=r"[Ii]nvalid credentials"):
        pull("org/gated")


def test_a_token_is_not_sent_in_the_clear_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    source = headrace.load_settings().trusted()
    assert source.token is None
    assert "plain_http_token" in (source.token_hint or "")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    assert headrace.load_settings().trusted().token == "hf_secret"
    assert "hf_secret" not in repr(headrace.load_settings())


@pytest.mark.parametrize(
    "name", ["../x", "a/b/c", "", "org/", "org/a--b", "org/na me", "org/x@", "org/x@../y"]
)
def test_names_that_are_none_are_refused(name: str, pull: Puller) -> None:
    with pytest.raises(UsageError):
        pull(name)


def test_missing_repos_revisions_and_moved_branches(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(root, "org/model", {"config.json": b"1"})
    with pytest.raises(RepoNotFound):
        pull("org/nothing")
    with pytest.raises(RevisionNotFound):
        pull("org/model@nothing")
    first = pull("org/model")
    write_repo(root, "org/model", {"config.json": b"2"})
    second = pull("org/model")
    assert first.commit != second.commit
    assert (second.path / "config.json").read_bytes() == b"2"
    assert (first.path / "config.json").read_bytes() == b"1"


def test_one_carrier_another_trusted(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_repo(root, "org/model", FILES)
    other_root = tmp_path / "mirror"
    write_repo(other_root, "org/model", FILES)
    with ChaosHub(other_root) as mirror:
        pull("org/model", sources=[mirror.endpoint])
        assert hub.log().blob_bytes == 0
        assert mirror.settled_log().blob_bytes == sum(map(len, FILES.values())) - 9_000_000


def test_a_mirror_with_other_content_is_not_believed(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", {"model.safetensors": content(2_000_000, seed=1)})
    other_root = tmp_path / "mirror"
    write_repo(other_root, "org/model", {"model.safetensors": content(2_000_000, seed=2)})
    with ChaosHub(other_root) as mirror, pytest.raises(headrace.HeadraceError):
        pull("org/model", sources=[mirror.endpoint])
    assert not list(pull.cache.glob("models--*/blobs/*"))


def test_a_slow_start_of_one_file_does_not_hold_others(root: Path, hub: ChaosHub, pull: Puller) -> None:
    write_repo(
        root, "org/model", {"a.safetensors": content(3_000_000, 1), "b.safetensors": content(3_000_000, 2)}
    )
    hub.set_faults(Fault("stall", match="a.safetensors", after_bytes=0, times=1))
    pull("org/model")
    published = [event.path for event in pull.heard(headrace.events.BlobPublished)]
    assert published == ["b.safetensors", "a.safetensors"]

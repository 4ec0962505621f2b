"""After a pull the cache is what huggingface_hub itself would have written, and what it wrote is used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.events import BlobPublished, FileReused
from headrace.testing import ChaosHub, content, write_repo

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

NASTY = {
    "sub dir/ä ü.txt": b"umlauts",
    "日本語/モデル.txt": b"unicode",
    "a+b&c=d.txt": b"plus",
    "100%25 %41.txt": b"percent",
    "what?#now.txt": b"query",
    "quo'te\"s.txt": b"quotes",
    "..hidden": b"dots",
    "back\\slash.txt": b"backslash",
}
SHARDED = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors.index.json": b"{}",
    **{f"model-{n:05}-of-00003.safetensors": content(3_000_000 + n, seed=n) for n in (1, 2, 3)},
}
REPOS = {
    "org/sharded": SHARDED,
    "org/nasty": NASTY,
    "org/legacy": {"config.json": b"{}", "pytorch_model.bin": content(2_000_000), "empty.bin": b""},
    "legacy-name": {"config.json": b"{}", "README.md": b"# legacy", "empty.txt": b""},
    "org/twins": {"a.safetensors": content(1_500_000), "copy/b.safetensors": content(1_500_000)},
}


def tree(cache: Path) -> dict[str, str]:
    """What a cache holds: path → link target or content, without what is each client's own."""
    found = {}
    for folder, folders, names in os.walk(cache):
        folders[:] = [name for name in folders if name not in {".locks", "trees", ".no_exist"}]
        for name in names:
            path = Path(folder, name)
            key = str(path.relative_to(cache))
            found[key] = str(path.readlink()) if path.is_symlink() else path.read_bytes().hex()
    found.pop("CACHEDIR.TAG", None)
    return found


@pytest.mark.parametrize("repo", REPOS)
def test_refs_links_and_blobs_equal_the_stock_clients(
    repo: str, root: Path, hub: ChaosHub, pull: Puller, hf: Callable[..., str], tmp_path: Path
) -> None:
    write_repo(root, repo, REPOS[repo])
    pull(repo)
    hf("download", repo, cache=tmp_path / "stock")
    assert tree(tmp_path / "cache") == tree(tmp_path / "stock")


def test_dataset_and_other_revisions_equal_the_stock_clients(
    root: Path, hub: ChaosHub, pull: Puller, hf: Callable[..., str], tmp_path: Path
) -> None:
    write_repo(
        root, "org/data", {"data/train.parquet": content(2_000_000), "README.md": b"x"}, kind="dataset"
    )
    write_repo(root, "org/data", {"README.md": b"proposed"}, kind="dataset", revision="refs/pr/1")
    pull("datasets/org/data")
    pull("datasets/org/data@refs/pr/1")
    hf("download", "org/data", "--repo-type", "dataset", cache=tmp_path / "stock")
    hf("download", "org/data", "--repo-type", "dataset", "--revision", "refs/pr/1", cache=tmp_path / "stock")
    assert tree(tmp_path / "cache") == tree(tmp_path / "stock")


def test_the_stock_client_is_content_with_every_kind_of_repo(
    root: Path, hub: ChaosHub, pull: Puller, hf: Callable[..., str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    many = {f"part/{n:04}.json": b"%d" % n for n in range(1000)}
    for repo, files in {**REPOS, "org/many": many}.items():
        write_repo(root, repo, files)
        pull(repo)
        hf("cache", "verify", repo, cache=cache)
    write_repo(root, "org/data", {"data/train.parquet": content(2_000_000)}, kind="dataset")
    pull("datasets/org/data")
    hf("cache", "verify", "org/data", "--repo-type", "dataset", cache=cache)
    listed = hf("cache", "ls", cache=cache)
    assert [repo for repo in [*REPOS, "org/many", "org/data"] if repo not in listed] == []


def test_blobs_that_the_stock_client_shares_between_repos_are_used(
    root: Path, hub: ChaosHub, pull: Puller, hf: Callable[..., str], tmp_path: Path
) -> None:
    """Since 2.x a repo's blob may be a link into `blobs/xx/<xet hash>` of the cache."""
    write_repo(root, "org/sharded", SHARDED)
    hf("download", "org/sharded", cache=tmp_path / "cache")
    shared = tmp_path / "cache" / "blobs" / "ab" / ("ab" * 32)
    blobs = (tmp_path / "cache" / "models--org--sharded" / "blobs").iterdir()
    blob = max(blobs, key=lambda path: path.stat().st_size)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    assert pull("org/sharded").network_bytes == 0
    assert blob.is_symlink()


def test_the_stock_client_uses_it_offline(
    root: Path, hub: ChaosHub, pull: Puller, hf: Callable[..., str], tmp_path: Path
) -> None:
    write_repo(root, "org/sharded", SHARDED)
    pull("org/sharded")
    cache = tmp_path / "cache"
    hub.stop()
    path = hf("download", "org/sharded", cache=cache, HF_HUB_OFFLINE="1").split()[-1]
    assert (Path(path) / "config.json").read_bytes() == SHARDED["config.json"]


def test_a_name_with_a_newline_arrives(root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    write_repo(root, "org/nasty", {"new\nline.txt": b"two lines"})
    snapshot = pull("org/nasty")
    assert (Path(snapshot.path) / "new\nline.txt").read_bytes() == b"two lines"


def test_a_thousand_files(root: Path, hub: ChaosHub, pull: Puller) -> None:
    files = {f"part/{n:04}.json": b"%d" % n for n in range(1000)}
    write_repo(root, "org/many", files)
    snapshot = pull("org/many")
    for path, data in files.items():
        assert (Path(snapshot.path) / path).read_bytes() == data
    log = hub.log()
    assert log.count(path_glob="/api/models/*") == 1  # the repo's info tells all
    assert log.count(path_glob="/org/many/resolve/*") == 1000
    again = pull(f"org/many@{snapshot.commit}")
    assert (again.files, again.network_bytes) == (1000, 0)
    assert hub.log().count(path_glob="/api/models/*") == 1 + 4  # of a commit the tree: pages of 300


def test_what_the_stock_client_cached_is_verified_once_and_reused(
    root: Path, hub: ChaosHub, pull: Puller, hf: Callable[..., str], tmp_path: Path
) -> None:
    write_repo(root, "org/sharded", SHARDED)
    hf("download", "org/sharded", cache=tmp_path / "cache")
    hub.clear_log()
    first = pull("org/sharded")
    assert first.network_bytes == 0
    assert len(pull.heard(FileReused)) == len(SHARDED)
    assert hub.log().blob_bytes == 0


def test_a_rotten_file_of_another_client_is_found_and_replaced(
    root: Path, hub: ChaosHub, pull: Puller, hf: Callable[..., str], tmp_path: Path
) -> None:
    write_repo(root, "org/sharded", SHARDED)
    hf("download", "org/sharded", cache=tmp_path / "cache")
    victim = (tmp_path / "cache").glob("models--org--sharded/snapshots/*/model-00002-of-00003.safetensors")
    blob = next(victim).resolve()
    rotten = bytearray(blob.read_bytes())
    rotten[1_000_000] ^= 1
    blob.write_bytes(rotten)
    snapshot = pull("org/sharded")
    assert blob.read_bytes() == SHARDED["model-00002-of-00003.safetensors"]
    assert snapshot.network_bytes == blob.stat().st_size
    assert len(pull.heard(BlobPublished)) == 1


def test_files_follow_the_umask(root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    write_repo(root, "org/tiny", {"config.json": b"{}", "m.safetensors": content(5_000_000)})
    before = os.umask(0o027)
    try:
        snapshot = pull("org/tiny")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in Path(snapshot.path).iterdir()}
    assert modes == {0o640}


def test_transformers_loads_it_offline(root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    make = (
        "import sys, transformers as t; c = t.BertConfig(hidden_size=32, num_hidden_layers=2,"
        " num_attention_heads=2, intermediate_size=64, vocab_size=100);"
        " t.BertModel(c).save_pretrained(sys.argv[1])"
    )
    folder = root / "models" / "org" / "bert"
    subprocess.run([sys.executable, "-c", make, str(folder)], check=True, capture_output=True)
    pull("org/bert")
    hub.stop()
    load = "import transformers as t; print(t.AutoModel.from_pretrained('org/bert').config.hidden_size)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", load], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "32"

"""Whatever kind of source carries the bytes: found by content, believed by digest."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.errors import BadManifest, HeadraceError, NotFound, RepoNotFound, RevisionNotFound, UsageError
from headrace.manifest import state_of
from headrace.testing import ChaosHub, FakeModelScope, FakeTree, Fault, content, write_repo
from headrace.testing.tree import STYLES, sums

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

BIG = content(3_000_000)
FILES = {
    "config.json": b'{"a": 1}',
    "model.safetensors": BIG,
    "sub/part.safetensors": content(60_000, seed=4),
}
CARRIED = sum(map(len, FILES.values()))


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()
    }


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def running_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosHub]:
    with ChaosHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def root(running_hub: ChaosHub) -> Path:
    return Path(running_hub.root)


@pytest.fixture
def hub(running_hub: ChaosHub, monkeypatch: pytest.MonkeyPatch) -> ChaosHub:
    """One hub for all: it forgets what the last test did to it."""
    running_hub.clear_faults()
    running_hub.clear_log()
    monkeypatch.setenv("HF_ENDPOINT", running_hub.endpoint)
    return running_hub


# ModelScope


@pytest.fixture
def modelscope(tmp_path: Path) -> Iterator[FakeModelScope]:
    with FakeModelScope(tmp_path / "ms") as running:
        yield running


def test_modelscope_carries_what_has_the_same_content_there(
    root: Path, hub: ChaosHub, modelscope: FakeModelScope, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    there = {
        "config.json": FILES["config.json"],
        "renamed.bin": BIG,
        "x/y.safetensors": FILES["sub/part.safetensors"],
    }
    write_repo(tmp_path / "ms", "org/model", there)
    snapshot = pull("org/model", sources=f"modelscope+{modelscope.endpoint}")
    assert files_in(snapshot.path) == FILES
    assert hub.log().blob_bytes == 0
    (name,) = snapshot.sources
    assert snapshot.sources[name] == CARRIED
    assert modelscope.log().count(path_glob="*/repo/files") == 1


def test_what_modelscope_has_otherwise_comes_from_the_hub(
    root: Path, hub: ChaosHub, modelscope: FakeModelScope, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES | {"README.md": b"hub", "same.md": b"four"})
    write_repo(tmp_path / "ms", "org/model", FILES | {"README.md": b"longer there", "same.md": b"size"})
    snapshot = pull("org/model", sources=(f"modelscope+{modelscope.endpoint}", hub.endpoint))
    assert files_in(snapshot.path)["README.md"] == b"hub"
    assert files_in(snapshot.path)["same.md"] == b"four"


def test_a_repo_called_differently_there(
    root: Path, hub: ChaosHub, modelscope: FakeModelScope, pull: Puller, tmp_path: Path, own_home: Path
) -> None:
    write_repo(root, "org/model", FILES)
    write_repo(tmp_path / "ms", "other/twin", FILES)
    source = f"modelscope+{modelscope.endpoint}"
    with pytest.raises(RepoNotFound, match="does not exist"):
        pull("org/model", sources=source)
    lay(
        own_home / ".config" / "headrace",
        {
            "headrace.toml": f'[sources.ms]\nurl = "{source}"\n[sources.ms.names]\n"org/model" = "other/twin"\n'.encode()
        },
    )
    assert files_in(pull("org/model", sources="ms").path) == FILES
    assert hub.log().blob_bytes == 0


def trust(home: Path, url: str) -> None:
    lay(
        home / ".config" / "headrace",
        {"headrace.toml": f'[sources.a]\nurl = "{url}"\ntrusted = true\n'.encode()},
    )


@pytest.mark.parametrize("told", ["full", "short", "not"])
def test_modelscope_as_the_trusted_source(
    told: str, modelscope: FakeModelScope, pull: Puller, tmp_path: Path, own_home: Path
) -> None:
    write_repo(tmp_path / "ms", "org/model", FILES)
    modelscope.site.tells_commits = told
    trust(own_home, f"modelscope+{modelscope.endpoint}")
    snapshot = pull("org/model")
    assert files_in(snapshot.path) == FILES
    asked = modelscope.log()
    assert pull("org/model").network_bytes == 0
    assert len(modelscope.log().requests) == len(asked.requests) + 1
    with pytest.raises(RevisionNotFound, match="no files of org/model"):
        pull("org/model@no-such-branch")


def test_a_listing_without_digests_is_no_manifest(
    modelscope: FakeModelScope, pull: Puller, tmp_path: Path, own_home: Path
) -> None:
    write_repo(tmp_path / "ms", "org/model", FILES)
    modelscope.site.tells_digests = False
    trust(own_home, f"modelscope+{modelscope.endpoint}")
    with pytest.raises(BadManifest, match="without a digest"):
        pull("org/model")


def test_a_dataset_of_many_pages(
    modelscope: FakeModelScope, pull: Puller, tmp_path: Path, own_home: Path
) -> None:
    files = {f"part-{number:04}.csv": b"%d" % number for number in range(1100)}
    write_repo(tmp_path / "ms", "org/data", files, kind="dataset")
    trust(own_home, f"modelscope+{modelscope.endpoint}")
    snapshot = pull("datasets/org/data", include="part-109*.csv")
    assert len(files_in(snapshot.path)) == 10
    assert modelscope.log().count(path_glob="*/repo/tree") == 2


# Trees


@pytest.mark.parametrize("style", STYLES)
def test_a_tree_of_plain_files(style: str, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    write_repo(root, "org/model", FILES)
    lay(tmp_path / "www" / "models" / "org" / "model", FILES)
    with FakeTree(tmp_path / "www", style) as tree:
        snapshot = pull("org/model", sources=f"tree+{tree.endpoint}/models")
    assert files_in(snapshot.path) == FILES
    assert hub.log().blob_bytes == 0


def test_with_checksums_content_is_found_whatever_its_name(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    own = lay(
        tmp_path / "www",
        {"ä b.bin": BIG, "deep/er/c.json": FILES["config.json"], "p": FILES["sub/part.safetensors"]},
    )
    sums(own, "sha256sums.txt")
    # Of a small file only git's id is known: there the path must lead to it.
    lay(own, {"config.json": FILES["config.json"]})
    with FakeTree(tmp_path / "www") as tree:
        snapshot = pull("org/model", sources=f"folder+{tree.endpoint}")
    assert files_in(snapshot.path) == FILES
    assert hub.log().blob_bytes == 0


@pytest.mark.parametrize("style", ["nginx", "json"])
def test_an_index_with_sizes_finds_a_file_in_another_folder(
    style: str, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    lay(
        tmp_path / "www",
        {
            "a/b/model.safetensors": BIG,
            "c/part.safetensors": FILES["sub/part.safetensors"],
            "config.json": FILES["config.json"],
        },
    )
    with FakeTree(tmp_path / "www", style) as tree:
        assert files_in(pull("org/model", sources=f"folder+{tree.endpoint}").path) == FILES
    assert hub.log().blob_bytes == 0


def test_a_tree_with_checksums_as_the_trusted_source(pull: Puller, tmp_path: Path, own_home: Path) -> None:
    folder = lay(tmp_path / "www" / "org" / "model", FILES)
    sums(folder)
    with FakeTree(tmp_path / "www") as tree:
        trust(own_home, f"tree+{tree.endpoint}")
        snapshot = pull("org/model")
        assert files_in(snapshot.path) == FILES
        assert pull(f"org/model@{snapshot.commit}").network_bytes == 0
        with pytest.raises(RevisionNotFound, match="one state only"):
            pull("org/model@v1")
        (folder / "SHA256SUMS").unlink()
        with pytest.raises(BadManifest, match="with their digests"):
            pull("org/model")


def test_a_state_is_the_same_for_the_same_list(pull: Puller, tmp_path: Path, own_home: Path) -> None:
    sums(lay(tmp_path / "www", FILES))
    with FakeTree(tmp_path / "www") as tree:
        trust(own_home, f"folder+{tree.endpoint}")
        first = pull("any/name")
        assert pull("any/name").commit == first.commit
        sums(lay(tmp_path / "www", {"config.json": b"{}"}))
        assert pull("any/name").commit != first.commit
    assert state_of([]) == state_of([])


def test_a_carrier_whose_list_is_dangerous_is_left_out(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES)
    lay(tmp_path / "www", FILES | {"SHA256SUMS": b"0" * 64 + b"  ../../evil\n"})
    with FakeTree(tmp_path / "www") as tree:
        source = f"folder+{tree.endpoint}"
        assert files_in(pull("org/model", sources=(source, hub.endpoint)).path) == FILES
        pull.settings["give_up_s"] = 0.5
        with pytest.raises(HeadraceError, match="no path inside a repo"):
            pull("org/model", sources=source, force=True)


WRONG = {
    "other": (content(len(BIG), seed=9), "does not match|other content"),
    "shorter": (BIG[:-1], "2999999 bytes, not 3000000|other content"),
    "page": (b"<html><title>Welcome</title></html>", "bytes, not|other content"),
}


@pytest.mark.parametrize("kind", ["modelscope", "folder", "listed"])
@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_the_file_is_left_out_with_the_reason(
    kind: str, what: str, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    data, reason = WRONG[what]
    write_repo(root, "org/model", {"model.safetensors": BIG})
    write_repo(tmp_path / "ms", "org/model", {"model.safetensors": data})
    (tmp_path / "ms" / "models" / "org" / "model" / ".hub.json").unlink()
    if kind == "listed":
        sums(tmp_path / "ms" / "models" / "org" / "model")
    with FakeModelScope(tmp_path / "ms") as ms, FakeTree(tmp_path / "ms" / "models") as tree:
        source = f"modelscope+{ms.endpoint}" if kind == "modelscope" else f"tree+{tree.endpoint}"
        snapshot = pull("org/model", sources=(source, hub.endpoint))
        assert files_in(snapshot.path) == {"model.safetensors": BIG}
        pull.settings["give_up_s"] = 0.5
        with pytest.raises(HeadraceError, match=reason):
            pull("org/model", sources=source, force=True)


def print_nothing(*_: object) -> None:
    """In the place of a log on stderr."""


@contextmanager
def python_server(folder: Path) -> Iterator[str]:
    """What `python -m http.server` runs; it knows no ranges."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        log_message = staticmethod(print_nothing)  # type: ignore[assignment]

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def nginx_server(folder: Path, scratch: Path, *, json: bool) -> Iterator[str]:
    scratch.mkdir()
    port_file = scratch / "conf"
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as probe:
        port = probe.server_port
    form = "json" if json else "html"
    port_file.write_text(
        f"daemon off; pid {scratch}/pid; error_log {scratch}/errors;\nevents {{}}\nhttp {{ access_log off; "
        f"client_body_temp_path {scratch}/b; proxy_temp_path {scratch}/p; fastcgi_temp_path {scratch}/f; "
        f"uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; autoindex on; autoindex_format {form}; }} }}\n"
    )
    found = shutil.which("nginx") or "nginx"
    process = subprocess.Popen([found, "-c", str(port_file), "-e", f"{scratch}/errors"])
    try:
        until = time.monotonic() + 10
        while not (scratch / "pid").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


SERVERS = ["python", "nginx", "nginx-json"]


@pytest.mark.parametrize("name", SERVERS)
def test_real_servers(name: str, root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    if name != "python" and shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    write_repo(root, "org/model", FILES)
    folder = lay(tmp_path / "www", {f"deep/{path.rpartition('/')[2]}": data for path, data in FILES.items()})
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.stat().st_mode & 0o5 != 0o5 and parent.owner() == folder.owner():
            parent.chmod(0o755)
    lay(folder, FILES)
    (folder / "model.safetensors").unlink()  # it is below deep/, where only the index leads
    running = (
        python_server(folder)
        if name == "python"
        else nginx_server(folder, tmp_path / "nginx", json=name == "nginx-json")
    )
    with running as url:
        if name == "python":  # its index tells no sizes: what lies elsewhere is not found
            with pytest.raises(NotFound, match="nothing with the content"):
                pull("org/model", sources=f"folder+{url}")
            lay(folder, FILES)
        assert files_in(pull("org/model", sources=f"folder+{url}").path) == FILES
    assert hub.log().blob_bytes == 0


# Other hubs


def test_a_mirror_at_another_commit_gives_what_is_the_same(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", FILES | {"README.md": b"new"})
    write_repo(
        tmp_path / "mirror",
        "org/model",
        {
            "weights.safetensors": BIG,
            "sub/part.safetensors": FILES["sub/part.safetensors"],
            "config.json": FILES["config.json"],
            "README.md": b"old",
        },
    )
    with ChaosHub(tmp_path / "mirror") as mirror:
        snapshot = pull("org/model", sources=mirror.endpoint, exclude="README.md")
        log = mirror.log()
        assert pull("org/model", sources=(mirror.endpoint, hub.endpoint)).files == len(FILES) + 1
    assert files_in(snapshot.path) == FILES | {"README.md": b"new"}
    assert snapshot.network_bytes == CARRIED
    assert log.count(path_glob="/api/models/*") == 1


def test_where_a_revision_is_not_known_the_main_branch_is_looked_into(
    root: Path, hub: ChaosHub, modelscope: FakeModelScope, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", {"a.safetensors": BIG}, revision="v1")
    for place in ("mirror", "ms"):
        write_repo(tmp_path / place, "org/model", {"b.safetensors": BIG})
    with ChaosHub(tmp_path / "mirror") as mirror:
        for source in (mirror.endpoint, f"modelscope+{modelscope.endpoint}"):
            assert pull("org/model@v1", sources=source, force=True).network_bytes == len(BIG)
        assert mirror.log().count(path_glob="/api/models/*") <= 3
    assert hub.log().blob_bytes == 0


def test_a_mirror_without_the_content_says_so_and_is_asked_once(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", {f"part-{n}.bin": content(20_000, seed=n) for n in range(12)})
    write_repo(tmp_path / "mirror", "org/model", {"README.md": b"old"})
    with ChaosHub(tmp_path / "mirror") as mirror:
        with pytest.raises(NotFound, match="nothing with that content at 'main'"):
            pull("org/model", sources=mirror.endpoint)
        assert mirror.log().count(path_glob="/api/models/*") == 1
        assert pull("org/model", sources=(mirror.endpoint, hub.endpoint)).files == 12


def test_a_mirror_whose_list_cannot_be_had_for_a_moment_is_asked_again(
    root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path
) -> None:
    write_repo(root, "org/model", {"a.safetensors": BIG, "new.md": b"new"})
    write_repo(tmp_path / "mirror", "org/model", {"b.safetensors": BIG})
    with ChaosHub(tmp_path / "mirror") as mirror:
        mirror.set_faults(Fault("status", status=503, times=1, skip=1, match="*"))
        snapshot = pull("org/model", include="a.*", sources=mirror.endpoint)
    assert files_in(snapshot.path) == {"a.safetensors": BIG}


def test_all_kinds_carry_one_file_together(root: Path, hub: ChaosHub, pull: Puller, tmp_path: Path) -> None:
    big = content(24_000_000, seed=5)
    write_repo(root, "org/model", {"model.safetensors": big})
    write_repo(tmp_path / "ms", "org/model", {"renamed.safetensors": big})
    write_repo(tmp_path / "mirror", "org/model", {"old.safetensors": big})
    sums(lay(tmp_path / "www", {"blob": big}))
    slow = Fault("rate", host="any", rate=3_000_000)
    with (
        FakeModelScope(tmp_path / "ms") as ms,
        FakeTree(tmp_path / "www") as tree,
        ChaosHub(tmp_path / "mirror") as mirror,
    ):
        for one in (hub, ms, tree, mirror):
            one.set_faults(slow)
        sources = (hub.endpoint, mirror.endpoint, f"modelscope+{ms.endpoint}", f"folder+{tree.endpoint}")
        snapshot = pull("org/model", sources=sources)
    assert files_in(snapshot.path) == {"model.safetensors": big}
    assert len([name for name, count in snapshot.sources.items() if count]) == 4


def test_an_unknown_kind_is_told_with_those_that_are_known(hub: ChaosHub, root: Path, pull: Puller) -> None:
    write_repo(root, "org/model", FILES)
    with pytest.raises(UsageError, match="not known here") as caught:
        pull("org/model", sources="ftp+ftp://host/x")
    assert all(kind in (caught.value.hint or "") for kind in ("hub", "modelscope", "tree", "folder"))

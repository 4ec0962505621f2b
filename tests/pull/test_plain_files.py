"""One file by its URLs: all of them at once, verified by a digest that was given or promised."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import headrace
from headrace.errors import (
    AllSourcesFailed,
    DigestMismatch,
    EntryNotFound,
    HeadraceError,
    NotFound,
    UsageError,
)
from headrace.events import Event, PullStarted, Warned
from headrace.testing import ChaosHub, FakeTree, Fault, content, write_repo
from headrace.testing.tree import sums

DATA = content(9_000_000, seed=3)
HEX = hashlib.sha256(DATA).hexdigest()


class Puller:
    """Pulls into `folder`; `said` are the warnings of the last pull, `trusted` where its digest stood."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self._settings: dict[str, Any] = {"idle_timeout_s": 0.5, "give_up_s": 3.0, "cache": cache}
        self.events: list[Event] = []

    def __call__(self, *urls: str, offline: bool = False, **arguments: Any) -> headrace.PulledFile:
        self.events = []
        settings = headrace.load_settings(**self._settings, offline=offline or None)
        arguments.setdefault("dest", self.folder)
        return headrace.pull_file(urls, settings=settings, on_event=self.events.append, **arguments)

    @property
    def said(self) -> list[str]:
        return [one.message for one in self.events if isinstance(one, Warned)]

    @property
    def trusted(self) -> str:
        return next(one.trusted for one in self.events if isinstance(one, PullStarted))


@pytest.fixture
def pull(tmp_path: Path) -> Puller:
    return Puller(tmp_path / "out", tmp_path / "cache")


@pytest.fixture
def www(tmp_path: Path) -> Path:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "model.zip").write_bytes(DATA)
    return tmp_path / "www"


@pytest.fixture
def tree(www: Path) -> Iterator[FakeTree]:
    with FakeTree(www) as running:
        yield running


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[FakeTree]:
    (tmp_path / "www2" / "other").mkdir(parents=True)
    (tmp_path / "www2" / "other" / "name.bin").write_bytes(DATA)
    with FakeTree(tmp_path / "www2") as running:
        yield running


def test_all_urls_carry_one_file(pull: Puller, tree: FakeTree, twin: FakeTree) -> None:
    for one in (tree, twin):
        one.set_faults(Fault("rate", host="any", rate=3_000_000))
    pulled = pull(f"{tree.endpoint}/model.zip", f"{twin.endpoint}/other/name.bin", sha256=HEX.upper())
    assert pulled.path == pull.folder / "model.zip"
    assert pulled.path.read_bytes() == DATA
    assert (pulled.bytes, pulled.network_bytes, str(pulled.digest)) == (len(DATA), len(DATA), f"sha256:{HEX}")
    assert sorted(pulled.sources) == sorted(one.endpoint.partition("//")[2] for one in (tree, twin))
    assert all(pulled.sources.values())
    assert pull.trusted == "--sha256"
    again = pull(f"{tree.endpoint}/model.zip", sha256=HEX)
    assert (again.network_bytes, again.reused_bytes) == (0, len(DATA))
    assert pull(f"{tree.endpoint}/model.zip", sha256=HEX, offline=True).network_bytes == 0


def test_what_landed_before_an_interruption_is_kept(pull: Puller, tree: FakeTree) -> None:
    tree.set_faults(Fault("reset", host="any", after_bytes=4_500_000), Fault("status", host="any", skip=2))
    with pytest.raises(AllSourcesFailed):
        pull(f"{tree.endpoint}/model.zip", sha256=HEX)
    tree.set_faults()
    pulled = pull(f"{tree.endpoint}/model.zip", sha256=HEX)
    assert pulled.path.read_bytes() == DATA
    assert pulled.reused_bytes > 0
    assert pulled.network_bytes == len(DATA) - pulled.reused_bytes


def test_nothing_is_published_that_does_not_match(pull: Puller, tree: FakeTree) -> None:
    with pytest.raises(DigestMismatch):
        pull(f"{tree.endpoint}/model.zip", sha256="0" * 64)
    assert not (pull.folder / "model.zip").exists()


def test_urls_that_have_another_file_are_left_out(
    pull: Puller, tree: FakeTree, twin: FakeTree, www: Path
) -> None:
    (www / "short.zip").write_bytes(DATA[:-1])
    (www / "page").write_bytes(b"<html></html>")
    (www / "page.html").write_bytes(b"<html></html>")
    urls = [f"{twin.endpoint}/other/name.bin", f"{tree.endpoint}/model.zip"]
    urls += [f"{tree.endpoint}/{name}" for name in ("short.zip", "gone.zip")]
    pulled = pull(*urls, sha256=HEX)
    assert pulled.path == pull.folder / "name.bin"
    assert pulled.path.read_bytes() == DATA
    assert any("short.zip is left out: has 8999999 bytes, not 9000000" in one for one in pull.said)
    assert any("gone.zip is left out" in one for one in pull.said)


def test_without_a_digest_there_is_no_file(pull: Puller, tree: FakeTree) -> None:
    with pytest.raises(UsageError, match="promises no digest") as caught:
        pull(f"{tree.endpoint}/model.zip")
    assert "`sha256`" in (caught.value.hint or "")


def test_a_list_beside_the_first_comes_before_what_a_later_one_promises(
    pull: Puller, tree: FakeTree, www: Path, tmp_path: Path
) -> None:
    sums(www)
    write_repo(tmp_path / "liar", "org/model", {"model.zip": content(5_000_000, seed=9)})
    with ChaosHub(tmp_path / "liar") as liar:
        other = f"{liar.endpoint}/org/model/resolve/main/model.zip"
        pulled = pull(f"{tree.endpoint}/model.zip", other)
    assert pulled.path.read_bytes() == DATA
    assert pull.trusted == f"SHA256SUMS of {tree.endpoint.partition('://')[2]}"
    assert any("is left out: promises" in one for one in pull.said)


@pytest.mark.parametrize("where", ["SHA256SUMS", "sha256sums.txt", "model.zip.sha256", "bare"])
def test_a_digest_beside_the_file_is_used(where: str, pull: Puller, tree: FakeTree, www: Path) -> None:
    if where == "bare":
        where = "model.zip.sha256"
        (www / where).write_text(f"{HEX}\n")
    else:
        sums(www, where)
    assert pull(f"{tree.endpoint}/model.zip").path.read_bytes() == DATA
    assert pull.trusted.startswith(f"{where} of ")


def test_a_hub_promises_digests_of_its_files(pull: Puller, tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "org/model", {"a.safetensors": DATA, "config.json": b"{}"})
    with ChaosHub(tmp_path / "hub") as hub:
        for name, data in (("a.safetensors", DATA), ("config.json", b"{}")):
            pulled = pull(f"{hub.endpoint}/org/model/resolve/main/{name}?download=true")
            assert pulled.path == pull.folder / name
            assert pulled.path.read_bytes() == data
        assert pull.trusted.partition(" of ")[0] in ("X-Linked-Etag", "ETag")


# What servers say, byte by byte

Serve = Callable[..., str]
SMALL = b"small content"
SMALL_HEX = hashlib.sha256(SMALL).hexdigest()
SMALL_64 = base64.b64encode(hashlib.sha256(SMALL).digest()).decode()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(**headers)` answers everything but lists with SMALL and these headers; the URL of the server."""
    listeners = []

    def start(status: str = "200 OK", body: bytes = SMALL, **headers: str) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def work() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    raw = b""
                    while b"\r\n\r\n" not in raw:
                        raw += connection.recv(65536)
                    head = (
                        status
                        if b"SHA256SUMS" not in raw and b"sha256" not in raw.split(b"\r\n")[0]
                        else "404 No"
                    )
                    named = {"Content-Length": str(len(body)), **headers}
                    lines = [f"HTTP/1.1 {head}", *(f"{k.replace('_', '-')}: {v}" for k, v in named.items())]
                    connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)

        threading.Thread(target=work, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for one in listeners:
        one.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Repr_Digest": f"sha-512=:AAAA:, sha-256=:{SMALL_64}:"},
        {"Digest": f"SHA-256={SMALL_64}"},
        {"X_Linked_Etag": f'"{SMALL_HEX}"'},
    ],
    ids=lambda one: next(iter(one)),
)
def test_a_digest_in_the_answer_is_used(headers: dict[str, str], pull: Puller, serve: Serve) -> None:
    assert pull(f"{serve(**headers)}/a.bin").path.read_bytes() == SMALL
    assert pull.trusted.partition(" of ")[0].replace("-", "_") in headers


@pytest.mark.parametrize(
    ("path", "disposition", "name"),
    [
        ("/a.bin", 'attachment; filename="other.bin"', "a.bin"),
        ("/download/12", 'attachment; filename="model v1.safetensors"', "model v1.safetensors"),
        ("/download/12", "attachment; filename*=UTF-8''m%C3%B6del.bin", "mödel.bin"),
        ("/download/12", 'attachment; filename="../../evil"', "12"),
        ("/download/12", 'attachment; filename=".bashrc"', "12"),
        ("/download/12", "nonsense; filename", "12"),
        ("/a%20b.bin?token=s3cr3t", "", "a b.bin"),
    ],
)
def test_the_file_is_called_as_its_url_says(
    path: str, disposition: str, name: str, pull: Puller, serve: Serve
) -> None:
    url = serve(**({"Content_Disposition": disposition} if disposition else {})) + path
    assert pull(url, sha256=SMALL_HEX).path == pull.folder / name


@pytest.mark.parametrize("path", ["/x/%2e%2e%2fevil", "/..%2f..%2fetc", "/.hidden", "/a%00b", "/x/"])
def test_a_url_whose_name_is_dangerous_names_no_file(path: str, pull: Puller, serve: Serve) -> None:
    with pytest.raises(UsageError, match="no name"):
        pull(serve() + path, sha256=SMALL_HEX)


def test_a_page_is_no_file(pull: Puller, serve: Serve) -> None:
    with pytest.raises(AllSourcesFailed, match="web page and no file") as caught:
        pull(serve(Content_Type="text/html") + "/org/model", sha256=SMALL_HEX)
    assert "ORG/NAME" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("status", "error"), [("404 No", NotFound), ("403 No", HeadraceError), ("204 No", AllSourcesFailed)]
)
def test_what_is_not_there(status: str, error: type[HeadraceError], pull: Puller, serve: Serve) -> None:
    with pytest.raises(error):
        pull(serve(status) + "/a.bin", sha256=SMALL_HEX)


def test_promises_that_disagree_go_by_the_first(pull: Puller, serve: Serve) -> None:
    other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    first, second = serve(Digest=f"SHA-256={SMALL_64}"), serve(Digest=f"SHA-256={other}")
    assert pull(f"{first}/a", f"{second}/b").path.read_bytes() == SMALL
    assert any("promises sha256:" in one for one in pull.said)


def test_what_is_promised_otherwise_is_not_fetched(pull: Puller, serve: Serve) -> None:
    with pytest.raises(DigestMismatch, match=f"promises sha256:{SMALL_HEX}, not sha256:{'0' * 64}"):
        pull(f"{serve(Digest=f'SHA-256={SMALL_64}')}/a", sha256="0" * 64)
    assert not pull.folder.exists()


def test_the_first_url_gives_the_name_even_where_it_has_another_file(
    pull: Puller, tree: FakeTree, twin: FakeTree, www: Path
) -> None:
    (www / "named.zip").write_bytes(b"something else")
    urls = [f"{tree.endpoint}/named.zip", f"{twin.endpoint}/other/name.bin", f"{tree.endpoint}/model.zip"]
    assert pull(*urls, sha256=HEX).path == pull.folder / "named.zip"


def test_an_empty_file(pull: Puller, www: Path, tree: FakeTree) -> None:
    (www / "empty.bin").write_bytes(b"")
    pulled = pull(f"{tree.endpoint}/empty.bin", sha256=hashlib.sha256(b"").hexdigest())
    assert pulled.path.read_bytes() == b""


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/file",
        "https://user:s3cr3t@host.test/file",
        "http://host.test",
        "http:///file",
        "http://host.test:port/file?k=s3cr3t",
        "https://[::1/file",
    ],
)
def test_what_is_no_url_of_a_file(url: str, pull: Puller) -> None:
    with pytest.raises(UsageError) as caught:
        pull(url, sha256=HEX)
    assert "s3cr3t" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("sha256", ["", "abc", HEX[:-1], HEX + "0", "g" * 64])
def test_what_is_no_digest(sha256: str, pull: Puller) -> None:
    with pytest.raises(UsageError, match="is no sha256"):
        pull("http://host.test/file", sha256=sha256)


def test_a_query_is_never_shown(pull: Puller, tree: FakeTree) -> None:
    urls = [f"{tree.endpoint}/model.zip?Signature=s3cr3t{n}" for n in range(2)]
    pulled = pull(*urls, sha256=HEX)
    assert "s3cr3t" not in repr(pull.events) + repr(pulled)
    assert len(pulled.sources) >= 1
    with pytest.raises(NotFound) as caught:
        pull(f"{tree.endpoint}/gone?Signature=s3cr3t", sha256=HEX)
    assert "s3cr3t" not in caught.value.message


def test_offline_nothing_is_fetched(pull: Puller, tree: FakeTree) -> None:
    with pytest.raises(EntryNotFound, match="offline"):
        pull(f"{tree.endpoint}/model.zip", sha256=HEX, offline=True)
    assert tree.log().requests == ()


def test_a_url_that_comes_back_is_used(pull: Puller, tree: FakeTree, twin: FakeTree) -> None:
    tree.set_faults(Fault("status", host="any", times=1))
    pulled = pull(f"{tree.endpoint}/model.zip", f"{twin.endpoint}/other/name.bin", sha256=HEX)
    assert pulled.path.read_bytes() == DATA
    assert not [one for one in pull.said if "left out" in one]

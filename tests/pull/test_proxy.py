"""A pull through a real proxy (tinyproxy): with and without a password, tunnelled and not, or past it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.errors import ProxyRefused, Unreachable, UsageError
from headrace.testing import ChaosHub, content, write_repo
from tests.papers import Papers, issue
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

FILES = {"config.json": b"{}", "model.safetensors": content(9_000_000)}
PASSWORD = "s3cretword"  # tinyproxy takes few others
GIVE_UP_S = 60.0

needs_tinyproxy = pytest.mark.skipif(shutil.which("tinyproxy") is None, reason="needs the program tinyproxy")


@dataclass(frozen=True)
class Tinyproxy:
    """A running one; `log` is where it says what it does."""

    port: int
    log: Path

    def carried(self) -> int:
        """How many requests it was asked to carry."""
        return self.log.read_text().count("Request (file descriptor")

    def url(self, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}"


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[Callable[..., Tinyproxy]]:
    running = []

    def start(*lines: str) -> Tinyproxy:
        port = free_port()
        log, config = tmp_path / f"{port}.log", tmp_path / f"{port}.conf"
        log.touch()
        own = [f"Port {port}", "Listen 127.0.0.1", f'LogFile "{log}"', "LogLevel Connect", "Timeout 30"]
        config.write_text("\n".join([*own, *lines]) + "\n")
        running.append(subprocess.Popen(["tinyproxy", "-d", "-c", str(config)], stdout=subprocess.DEVNULL))
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    return Tinyproxy(port, log)
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)

    yield start
    for one in running:
        one.terminate()
        one.wait(10)


@pytest.fixture(params=["http", "https"])
def far(
    request: pytest.FixtureRequest, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ChaosHub]:
    """A hub, plain or behind TLS, named by HF_ENDPOINT."""
    write_repo(root, "org/model", FILES)
    papers: Papers = issue(tmp_path / "papers", "127.0.0.1", "localhost")
    tls = (papers.chain, papers.key) if request.param == "https" else None
    monkeypatch.setenv("SSL_CERT_FILE", str(papers.authority))
    with ChaosHub(root, tls=tls) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def arrived(pull: Puller) -> None:
    snapshot = pull("org/model")
    assert {path.name: path.read_bytes() for path in snapshot.path.iterdir()} == FILES


@needs_tinyproxy
@pytest.mark.parametrize("variable", ["all_proxy", "{}_proxy", "{}_PROXY"])
def test_all_of_a_pull_goes_through_the_proxy(
    variable: str,
    far: ChaosHub,
    pull: Puller,
    tinyproxy: Callable[..., Tinyproxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = tinyproxy()
    scheme = far.endpoint.partition(":")[0]
    monkeypatch.setenv(variable.format(scheme.upper() if variable.isupper() else scheme), proxy.url())
    arrived(pull)
    assert proxy.carried() >= 3


@needs_tinyproxy
def test_a_password_is_given_and_a_wrong_one_is_told_without_it(
    far: ChaosHub, pull: Puller, tinyproxy: Callable[..., Tinyproxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = tinyproxy(f"BasicAuth user {PASSWORD}")
    monkeypatch.setenv("ALL_PROXY", proxy.url(f"user:{PASSWORD}@"))
    arrived(pull)
    pull.settings["give_up_s"] = GIVE_UP_S
    # To a wrong password for plain http, tinyproxy answers 401 as if it were the hub.
    for user in ("", "user:wr0ng@") if far.endpoint.startswith("https") else ("",):
        monkeypatch.setenv("ALL_PROXY", proxy.url(user))
        began = time.monotonic()
        with pytest.raises(ProxyRefused) as caught:
            pull("org/model", force=True)
        assert time.monotonic() - began < GIVE_UP_S / 2
        assert caught.value.hint
        assert "ALL_PROXY" in caught.value.hint
        assert "wr0ng" not in caught.value.message + caught.value.hint
    assert all(PASSWORD not in repr(event) for event in pull.events)


@needs_tinyproxy
@pytest.mark.parametrize("no_proxy", ["127.0.0.1,localhost", "127.0.0.0/8 localhost", "*"])
def test_hosts_in_no_proxy_are_reached_without_it(
    no_proxy: str,
    far: ChaosHub,
    pull: Puller,
    tinyproxy: Callable[..., Tinyproxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = tinyproxy()
    monkeypatch.setenv("ALL_PROXY", proxy.url())
    monkeypatch.setenv("NO_PROXY", no_proxy)
    arrived(pull)
    assert proxy.carried() == 0


@needs_tinyproxy
def test_a_proxy_that_may_not_lead_there_is_told(
    far: ChaosHub, pull: Puller, tinyproxy: Callable[..., Tinyproxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", tinyproxy("ConnectPort 1").url())
    if far.endpoint.startswith("http:"):  # there a proxy needs no CONNECT, and leads wherever it likes
        arrived(pull)
        return
    with pytest.raises(ProxyRefused, match=r"refuses to lead to 127\.0\.0\.1 \(HTTP 403\)"):
        pull("org/model")


def test_a_proxy_that_is_not_there_is_told(
    far: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable, match=f"cannot connect to proxy 127.0.0.1:{port}") as caught:
        pull("org/model")
    assert "ALL_PROXY" in (caught.value.hint or "")


def test_socks_is_refused_in_clear_words(
    far: ChaosHub, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://user:s3cret@127.0.0.1:1080")
    with pytest.raises(UsageError, match="SOCKS is not supported"):
        pull("org/model")

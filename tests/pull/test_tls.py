"""A pull through TLS: the whole road with certificates that are believed, and at once an end with those that are not."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.errors import SourceError, UnknownHost, Untrusted, UsageError
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.papers import Papers, issue

if TYPE_CHECKING:
    from tests.pull.conftest import Puller

FILES = {"config.json": b"{}", "model.safetensors": content(9_000_000)}
NAMES = ("127.0.0.1", "::1", "localhost")
GIVE_UP_S = 60.0  # a failure that is retried would take so long

Secure = Callable[..., ChaosHub]


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return issue(tmp_path / "papers", *NAMES)


@pytest.fixture
def secure(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secure]:
    """`secure(papers, …)` starts a hub behind TLS, named by HF_ENDPOINT."""
    write_repo(root, "org/model", FILES)
    hubs = []

    def start(papers: Papers, **options: object) -> ChaosHub:
        hub = ChaosHub(root, tls=(papers.chain, papers.key), **options)  # type: ignore[arg-type]
        hub.start()
        hubs.append(hub)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        return hub

    yield start
    for hub in hubs:
        hub.stop()


def arrived(pull: Puller) -> None:
    snapshot = pull("org/model")
    assert {path.name: path.read_bytes() for path in snapshot.path.iterdir()} == FILES


@pytest.mark.parametrize(
    "variable", ["HEADRACE_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
)
def test_the_right_files_come_from_hub_and_cdn_behind_tls(
    variable: str, secure: Secure, papers: Papers, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(papers.authority))
    hub = secure(papers)
    arrived(pull)
    assert hub.endpoint.startswith("https://")
    assert hub.settled_log().blob_bytes >= 9_000_000


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", after_bytes=1_000_000, times=3),
        Fault("truncate", after_bytes=700_000, times=3),
        Fault("stall", after_bytes=700_000, times=1),
        Fault("reset", host="hub", after_bytes=0, times=2),
        Fault("flip", offset=1_000_000, times=1),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.host}",
)
def test_faults_behind_tls_that_pass_end_in_the_right_file(
    fault: Fault, secure: Secure, papers: Papers, pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(papers.authority))
    secure(papers).set_faults(fault)
    pull.settings["give_up_s"] = 30.0
    arrived(pull)


def test_ipv6(secure: Secure, papers: Papers, pull: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no ::1: {error}")
    monkeypatch.setenv("SSL_CERT_FILE", str(papers.authority))
    hub = secure(papers, host="::1", cdn_host="::1")
    assert hub.endpoint.startswith("https://[::1]:")
    arrived(pull)


def test_a_certificate_that_is_not_believed_ends_the_pull_at_once(
    secure: Secure, papers: Papers, pull: Puller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(timezone.utc)
    expired = issue(tmp_path / "expired", *NAMES, not_before=now - timedelta(9), not_after=now - timedelta(2))
    elsewhere = issue(tmp_path / "elsewhere", "other.test")
    pull.settings["give_up_s"] = GIVE_UP_S
    for made, believed, told in (
        (papers, None, "authority that is not known"),
        (expired, expired, "has expired; this machine's clock says"),
        (elsewhere, elsewhere, "for another host"),
    ):
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        if believed is not None:
            monkeypatch.setenv("SSL_CERT_FILE", str(believed.authority))
        secure(made)
        began = time.monotonic()
        with pytest.raises(Untrusted, match=told) as caught:
            pull("org/model")
        assert time.monotonic() - began < GIVE_UP_S / 2
        assert caught.value.hint


def test_a_bundle_that_is_none_is_a_mistake_in_that_variable(
    secure: Secure, papers: Papers, pull: Puller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure(papers)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    with pytest.raises(UsageError, match=r"REQUESTS_CA_BUNDLE names .*missing\.pem"):
        pull("org/model")


def test_a_cdn_that_cannot_be_believed_ends_the_pull_at_once(
    secure: Secure, pull: Puller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    papers = issue(tmp_path / "hub-only", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(papers.authority))
    secure(papers)
    pull.settings["give_up_s"] = GIVE_UP_S
    began = time.monotonic()
    with pytest.raises(SourceError) as caught:
        pull("org/model")
    assert time.monotonic() - began < GIVE_UP_S / 2
    told = caught.value.message + (caught.value.hint or "")
    assert "another host than localhost" in told
    assert "Signature" not in told


def test_a_hub_that_does_not_exist_ends_the_pull_at_once(
    pull: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://nowhere.invalid")
    pull.settings["give_up_s"] = GIVE_UP_S
    began = time.monotonic()
    with pytest.raises(UnknownHost, match=r"cannot look up nowhere\.invalid"):
        pull("org/model")
    assert time.monotonic() - began < GIVE_UP_S / 2

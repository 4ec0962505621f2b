"""A node that speaks TLS by itself: with every client, in whole and in part, and when something is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.node.asking import BIG, BIG_FILE
from tests.node.secure import ask_secured, certificate_of, place_of, run_node, secured
from tests.papers import Papers, issue

StartNode = Callable[..., NodeProcess]
MIB = 1024 * 1024


@dataclass(frozen=True)
class Safe:
    """A node with a certificate."""

    node: NodeProcess
    papers: Papers
    data: Path

    @property
    def endpoint(self) -> str:
        return self.node.endpoint


@pytest.fixture(scope="module")
def safe(calm_hub: ChaosHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Safe]:
    folder = tmp_path_factory.mktemp("safe")
    papers = issue(folder / "papers", "127.0.0.1", "localhost")
    tls = {"tls_cert": papers.chain, "tls_key": papers.key, "handshake": 1.0, "page_entries": 3}
    with NodeProcess(folder / "node", {"hub": calm_hub.endpoint}, **tls) as node:
        yield Safe(node, papers, folder / "node")


def test_files_come_whole_and_in_part_cold_and_warm(safe: Safe) -> None:
    url = safe.endpoint + BIG_FILE
    assert url.startswith("https://")
    for _ in range(2):
        assert ask_secured(url, safe.papers.authority).body == BIG
    part = ask_secured(url, safe.papers.authority, Range="bytes=4000000-8999999")
    assert (part.status, part.body) == (206, BIG[4_000_000:])
    assert ask_secured(url, safe.papers.authority, Range="bytes=-10").body == BIG[-10:]
    small = safe.endpoint + "/org/tiny/resolve/main/config.json"
    assert ask_secured(small, safe.papers.authority).body == b'{"hidden": 1}'


def test_links_say_https(safe: Safe) -> None:
    reply = ask_secured(
        f"{safe.endpoint}/api/models/org/tiny/tree/main?recursive=true", safe.papers.authority
    )
    assert reply.headers["link"].startswith(f"<{safe.endpoint}/api/")


def test_one_connection_serves_many_and_speaks_what_is_safe(safe: Safe) -> None:
    with secured(safe.endpoint, safe.papers.authority) as connection:
        for _ in range(2):
            connection.request("GET", BIG_FILE)
            assert connection.getresponse().read() == BIG
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"alive\n"
        assert isinstance(connection.sock, ssl.SSLSocket)
        assert connection.sock.selected_alpn_protocol() == "http/1.1"
        assert connection.sock.version() in ("TLSv1.2", "TLSv1.3")


def test_what_is_older_than_tls_1_2_is_refused(safe: Safe) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(place_of(safe.endpoint), timeout=20) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock)


def test_the_stock_client(safe: Safe, stock_client: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    script = "from huggingface_hub import snapshot_download as get; print(get('org/tiny'))"
    done = stock_client(safe.endpoint, "-c", script, SSL_CERT_FILE=str(safe.papers.authority))
    assert done.returncode == 0, done.stderr
    got = Path(done.stdout.strip()) / "weights/model-00001-of-00002.safetensors"
    assert got.read_bytes() == BIG


def test_curl_and_our_own_client(safe: Safe, tmp_path: Path) -> None:
    curl = ["curl", "-sSf", "--cacert", str(safe.papers.authority), "-r", "1000-", safe.endpoint + BIG_FILE]
    assert subprocess.run(curl, check=True, capture_output=True).stdout == BIG[1000:]
    pull = [sys.executable, "-m", "headrace", "pull", "org/tiny", "--quiet", "--dest", str(tmp_path / "dest")]
    env = {**os.environ, "HF_ENDPOINT": safe.endpoint, "HEADRACE_CA_BUNDLE": str(safe.papers.authority)}
    done = subprocess.run(pull, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dest/weights/model-00001-of-00002.safetensors").read_bytes() == BIG


def ends(sock: socket.socket) -> bool:
    """Whether the other side hangs up, and says no more than what TLS has to say about it."""
    came = b""
    with contextlib.suppress(ConnectionResetError):
        while block := sock.recv(4096):
            came += block
    return b"HTTP" not in came


def test_a_client_that_speaks_plain_http_is_left(safe: Safe) -> None:
    with socket.create_connection(place_of(safe.endpoint), timeout=20) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert ends(sock)
    assert ask_secured(safe.endpoint + "/healthz", safe.papers.authority).status == 200


def test_handshakes_that_hang_are_ended_and_hold_up_nobody(safe: Safe) -> None:
    half = bytes.fromhex("1603010200010001fc0303")
    hanging = [socket.create_connection(place_of(safe.endpoint), timeout=10) for _ in range(20)]
    try:
        for sock in hanging:
            sock.sendall(half)
        assert ask_secured(safe.endpoint + BIG_FILE, safe.papers.authority).body == BIG
        assert [ends(sock) for sock in hanging] == [True] * len(hanging)
    finally:
        for sock in hanging:
            sock.close()


def test_readers_that_never_read_cost_little_and_hold_up_nobody(safe: Safe) -> None:
    def resident() -> int:
        pages = int(Path(f"/proc/{safe.node.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    assert ask_secured(safe.endpoint + BIG_FILE, safe.papers.authority).body == BIG
    before = resident()
    lazy = []
    context = ssl.create_default_context(cafile=str(safe.papers.authority))
    try:
        for _ in range(20):
            sock = context.wrap_socket(
                socket.create_connection(place_of(safe.endpoint), timeout=20), server_hostname="127.0.0.1"
            )
            sock.sendall(f"GET {BIG_FILE} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            lazy.append(sock)
        assert ask_secured(safe.endpoint + BIG_FILE, safe.papers.authority).body == BIG
        assert resident() - before < 20 * 3 * MIB
    finally:
        for sock in lazy:
            sock.close()


def test_who_ends_its_side_is_sent_nothing_more(tmp_path: Path, start_node: StartNode) -> None:
    papers = issue(tmp_path / "papers", "127.0.0.1")
    large, path = content(24 * MIB, seed=6), "/org/large/resolve/main/large.safetensors"
    write_repo(tmp_path / "hub", "org/large", {"large.safetensors": large})
    context = ssl.create_default_context(cafile=str(papers.authority))
    with ChaosHub(tmp_path / "hub") as hub:
        log = tmp_path / "access.log"
        node = start_node(hub, tls_cert=papers.chain, tls_key=papers.key, access_log=log)
        assert ask_secured(node.endpoint + path, papers.authority).body == large
        sock = socket.create_connection(place_of(node.endpoint), timeout=20)
        with context.wrap_socket(sock, server_hostname="127.0.0.1") as secure:
            secure.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            assert secure.recv(1000).startswith(b"HTTP/1.1 200")
            socket.socket.shutdown(secure, socket.SHUT_WR)  # of the connection below, without a word of TLS
            while len(lines := log.read_text().splitlines()) < 2:
                with contextlib.suppress(OSError):
                    secure.recv(4 * MIB)
        told = json.loads(lines[1])
        assert told["status"] == 499
        assert told["bytes"] < len(large)


def test_what_turns_out_wrong_ends_in_a_reset(tmp_path: Path, start_node: StartNode) -> None:
    papers = issue(tmp_path / "papers", "127.0.0.1")
    big = content(9_000_000, seed=5)
    write_repo(tmp_path / "hub", "org/lied", {"big.safetensors": big})
    with ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, tls_cert=papers.chain, tls_key=papers.key)
        url = "/org/lied/resolve/main/big.safetensors"
        assert ask_secured(node.endpoint + url, papers.authority, "HEAD").status == 200
        hub.set_faults(Fault("flip", offset=1_000_000))
        # Of a reset Python's own clients say no more than that TLS was not ended.
        curl = ["curl", "-sS", "--cacert", str(papers.authority), node.endpoint + url]
        done = subprocess.run(curl, check=False, capture_output=True)
        assert len(done.stdout) < len(big)
        assert b"reset by peer" in done.stderr
        hub.clear_faults()
        assert insist(node.endpoint + url, papers.authority) == big


def insist(url: str, authority: Path) -> bytes:
    """Ask until an answer is not cut off: what was fetched last may still have been wrong."""
    while True:
        with contextlib.suppress(ConnectionResetError, http.client.IncompleteRead):
            return ask_secured(url, authority).body


def test_a_renewed_certificate_is_shown_without_a_restart(
    calm_hub: ChaosHub, start_node: StartNode, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = issue(tmp_path / "first", "127.0.0.1"), issue(tmp_path / "second", "127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    shutil.copy(first.chain, chain)
    shutil.copy(first.key, key)
    node = start_node(calm_hub, tls_cert=chain, tls_key=key)
    before = certificate_of(node.endpoint)
    with secured(node.endpoint, first.authority) as kept:
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"alive\n"
        # A pair that does not belong together: what was shown is shown on, and the log says why.
        shutil.copy(second.chain, chain)
        time.sleep(2.5)
        assert certificate_of(node.endpoint) == before
        shutil.copy(second.key, key)
        until = time.monotonic() + 20
        while certificate_of(node.endpoint) == before:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert ask_secured(node.endpoint + "/healthz", second.authority).status == 200
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"alive\n"
    node.stop()
    assert "the certificate stays as it was" in capfd.readouterr().err


def locked_up(folder: Path) -> tuple[Path, Path]:
    papers = issue(folder, "127.0.0.1")
    locked, words = folder / "locked.pem", "-aes256 -passout pass:x"
    command = ["openssl", "pkey", "-in", str(papers.key), *words.split(), "-out", str(locked)]
    subprocess.run(command, check=True)
    return papers.chain, locked


def no_pair(folder: Path) -> tuple[Path, Path]:
    return issue(folder / "a", "127.0.0.1").chain, issue(folder / "b", "127.0.0.1").key


def no_pem(folder: Path) -> tuple[Path, Path]:
    papers = issue(folder, "127.0.0.1")
    papers.chain.write_text("nothing")
    return papers.chain, papers.key


def not_there(folder: Path) -> tuple[Path, Path]:
    return issue(folder, "127.0.0.1").chain, folder / "missing.pem"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (locked_up, "is locked by a passphrase"),
        (no_pair, "is not the key of"),
        (no_pem, "are no certificate with its key"),
        (not_there, "cannot be read: No such file"),
    ],
)
def test_papers_that_are_none(make: Callable[[Path], tuple[Path, Path]], told: str, tmp_path: Path) -> None:
    chain, key = make(tmp_path / "papers")
    done = run_node(tmp_path, "--tls-cert", str(chain), "--tls-key", str(key))
    assert done.returncode == 2
    assert told in done.stderr
    assert "hint: " in done.stderr


def test_a_hangup_takes_a_renewed_certificate_at_once(
    calm_hub: ChaosHub, start_node: StartNode, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = issue(tmp_path / "first", "127.0.0.1"), issue(tmp_path / "second", "127.0.0.1")
    node = start_node(calm_hub, listen="0.0.0.0:0", tls_cert=first.chain, tls_key=first.key, log_level="info")
    endpoint = node.endpoint.replace("0.0.0.0", "127.0.0.1")
    shutil.copy(second.chain, first.chain)
    shutil.copy(second.key, first.key)
    os.kill(node.pid, signal.SIGHUP)
    until = time.monotonic() + 20
    while certificate_of(endpoint) != ssl.PEM_cert_to_DER_cert(second.chain.read_text().split("\n\n")[0]):
        assert time.monotonic() < until
        time.sleep(0.05)
    node.stop()
    told = capfd.readouterr().err
    assert "the certificate was renewed" in told
    assert "plain http" not in told


def test_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    done = run_node(tmp_path, "--tls-cert", "chain.pem")
    assert done.returncode == 2
    assert "the key is not named" in done.stderr


def test_digests_hold_over_tls(safe: Safe) -> None:
    reply = ask_secured(safe.endpoint + BIG_FILE, safe.papers.authority)
    assert hashlib.sha256(reply.body).hexdigest() == reply.headers["etag"].strip('"')

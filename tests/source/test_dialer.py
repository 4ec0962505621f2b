"""Hosts are reached at the first address that answers, through TLS that proves who they are, or it is said why not."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from headrace.errors import HeadraceError, Stalled, UnknownHost, Unreachable, Untrusted, UsageError
from headrace.source.addresses import Resolver
from headrace.source.dialer import Dialer, Road, interleaved
from headrace.source.http import HttpSession
from headrace.source.trust import Trust
from tests.papers import Papers, issue
from tests.ports import free_port
from tests.source.conftest import Serve, always, answer
from tests.source.test_http import FixedResolver, get

NOW = datetime.now(timezone.utc)
FAR_S = 60.0  # a time limit that no test waits for


def fill(stack: contextlib.ExitStack, address: str, port: int) -> None:
    """Make an address one that neither accepts nor refuses: the queue of those that wait there is full."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    stack.enter_context(socket.create_server((address, port), family=family, backlog=0))
    for _ in range(4):
        client = stack.enter_context(socket.socket(family))
        client.settimeout(0)
        client.connect_ex((address, port))


@pytest.fixture
def black_hole() -> Iterator[Callable[[str, int], None]]:
    with contextlib.ExitStack() as stack:
        yield lambda address, port: fill(stack, address, port)


# Addresses


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([], []),
        (["1.1.1.1", "1.1.1.2"], ["1.1.1.1", "1.1.1.2"]),
        (["::1", "::2", "1.1.1.1", "1.1.1.2"], ["::1", "1.1.1.1", "::2", "1.1.1.2"]),
        (["1.1.1.1", "1.1.1.2", "::1"], ["1.1.1.1", "::1", "1.1.1.2"]),
    ],
)
def test_families_take_turns(addresses: list[str], expected: list[str]) -> None:
    assert interleaved(addresses) == expected


@pytest.mark.parametrize("holes", [["127.0.0.2"], ["127.0.0.2", "127.0.0.3", "127.0.0.4"]])
def test_an_address_that_swallows_everything_costs_no_more_than_a_moment(
    holes: list[str], serve: Serve, black_hole: Callable[[str, int], None]
) -> None:
    server = serve(always(answer(200, b"body")))
    for hole in holes:
        black_hole(hole, server.port)
    dialer = Dialer(FixedResolver(*holes, "127.0.0.1"), connect_timeout_s=FAR_S)
    session = HttpSession(dialer)
    began = time.monotonic()
    response = session.request("GET", f"http://many.test:{server.port}/", {}, patience_s=5)
    assert (response.read(10), response.address) == (b"body", "127.0.0.1")
    assert time.monotonic() - began < FAR_S / 2
    response.close()
    session.close()


def test_all_that_failed_are_named(black_hole: Callable[[str, int], None]) -> None:
    port = free_port("127.0.0.2", "127.0.0.9", "::1")
    black_hole("127.0.0.2", port)
    session = HttpSession(Dialer(FixedResolver("127.0.0.2", "127.0.0.9", "::1"), connect_timeout_s=0.4))
    with pytest.raises(Unreachable) as caught:
        get(session, f"http://many.test:{port}/")
    assert all(one in caught.value.message for one in ("127.0.0.2: timed out", "127.0.0.9: ", "::1: "))


def test_losers_of_the_race_leave_no_socket_open(
    serve: Serve, black_hole: Callable[[str, int], None], open_files: Callable[[], int]
) -> None:
    server = serve(always(answer(200, b"body")))
    black_hole("127.0.0.2", server.port)
    session = HttpSession(Dialer(FixedResolver("127.0.0.2", "127.0.0.9", "127.0.0.1")))
    before = open_files()
    get(session, f"http://many.test:{server.port}/")
    session.close()
    server.close()
    assert open_files() <= before


def test_an_address_that_cannot_even_be_tried_spoils_no_other(
    serve: Serve, open_files: Callable[[], int]
) -> None:
    server = serve(always(answer(200, b"body")))
    session = HttpSession(Dialer(FixedResolver("fe80::1%nosuch0", "127.0.0.1")))
    before = open_files()
    assert get(session, f"http://many.test:{server.port}/") == b"body"
    session.close()
    server.close()
    assert open_files() <= before


# Names


class Asked:
    """Answers look-ups with what it was given, one after the other; the last one again and again."""

    def __init__(self, *answers: OSError | tuple[str, ...]) -> None:
        self._answers = list(answers)

    def __call__(self, host: str) -> tuple[str, ...]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


NOBODY = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
LATER = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def test_a_name_that_does_not_exist_is_believed_the_second_time() -> None:
    resolver = Resolver(ask=Asked(NOBODY))
    kinds = []
    for _ in range(3):
        with pytest.raises(Unreachable) as caught:
            resolver.addresses("nowhere.invalid")
        kinds.append((type(caught.value), caught.value.permanent))
    assert kinds == [(Unreachable, False), (UnknownHost, True), (UnknownHost, True)]


def test_all_wait_for_the_one_lookup_of_a_host() -> None:
    asked, over = [], threading.Event()

    def hang(host: str) -> tuple[str, ...]:
        asked.append(host)
        over.wait(FAR_S)
        return ("127.0.0.1",)

    resolver = Resolver(timeout_s=0.01, ask=hang)
    for _ in range(20):
        with pytest.raises(Unreachable, match="took longer"):
            resolver.addresses("host.test")
    assert asked == ["host.test"]
    patient = Resolver(timeout_s=FAR_S, ask=hang)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(patient.addresses, "host.test") for _ in range(4)]
        over.set()
        assert {one.result() for one in waiting} == {("127.0.0.1",)}
    assert 2 <= len(asked) <= 5


def test_one_answer_counts_once_however_many_wait_for_it() -> None:
    over = threading.Event()

    def ask(host: str) -> tuple[str, ...]:
        over.wait(FAR_S)
        raise NOBODY

    def wait() -> None:
        waiting.add(threading.get_ident())
        if len(waiting) == 4:
            over.set()

    def kind(_: int) -> type[Exception]:
        with pytest.raises(Unreachable) as caught:
            resolver.addresses("nowhere.invalid", wait)
        return type(caught.value)

    resolver, waiting = Resolver(timeout_s=FAR_S, ask=ask), set[int]()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(kind, range(4))) == {Unreachable}


def test_a_name_that_comes_and_goes_is_asked_for_again() -> None:
    resolver = Resolver(ask=Asked(LATER, LATER, NOBODY, LATER, ("127.0.0.1",)))
    for _ in range(4):
        with pytest.raises(Unreachable) as caught:
            resolver.addresses("host.test")
        assert not caught.value.permanent
    assert resolver.addresses("host.test") == ("127.0.0.1",)


# TLS


def session_of(papers: Papers, **options: object) -> HttpSession:
    return HttpSession(Dialer(trust=Trust(papers.authority), **options))  # type: ignore[arg-type]


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return issue(tmp_path / "papers", "127.0.0.1", "::1", "localhost", "many.test")


@pytest.mark.parametrize("size", [0, 1, 16_384, 3_000_001])
def test_a_body_comes_whole_through_tls(size: int, papers: Papers, serve: Serve) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    server = serve(always(answer(200, body)), tls=papers.of_server)
    session = session_of(papers)
    for _ in range(2):
        response = session.request("GET", server.url, {}, patience_s=5)
        assert response.read(4_000_000) == body
        response.close()
    assert server.connections == 1
    session.close()


def test_records_are_gathered_while_they_are_at_hand_and_not_waited_for(papers: Papers, serve: Serve) -> None:
    sent, go_on = threading.Event(), threading.Event()

    def script(heard: object, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
        connection.sendall(b"x" * 150_000)
        sent.set()
        go_on.wait(20)
        connection.sendall(b"y" * 50_000)

    session = session_of(papers)
    response = session.request("GET", serve(script, tls=papers.of_server).url, {}, patience_s=20)
    assert sent.wait(20)
    buffer, pieces = memoryview(bytearray(1_000_000)), list[int]()
    while sum(pieces) < 150_000:
        pieces.append(response.readinto(buffer))
    assert max(pieces) > 16_384
    go_on.set()
    while sum(pieces) < 200_000:
        pieces.append(response.readinto(buffer))
    assert response.readinto(buffer) == 0
    response.close()
    session.close()


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "expired": (
        {"not_before": NOW - timedelta(days=9), "not_after": NOW - timedelta(days=2)},
        "has expired; this machine's clock says 20",
    ),
    "not yet": (
        {"not_before": NOW + timedelta(days=2), "not_after": NOW + timedelta(days=9)},
        "is not valid yet; this machine's clock says 20",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_certificate_out_of_its_time_is_told_with_this_machines_clock(
    case: str, serve: Serve, tmp_path: Path
) -> None:
    times, told = WRONG[case]
    papers = issue(tmp_path / "papers", "127.0.0.1", **times)  # type: ignore[arg-type]
    server = serve(always(answer(200)), tls=papers.of_server)
    with pytest.raises(Untrusted, match=told) as caught:
        get(session_of(papers), server.url)
    assert caught.value.permanent
    assert "clock" in (caught.value.hint or "")


def test_a_certificate_of_another_host_is_told(serve: Serve, tmp_path: Path) -> None:
    papers = issue(tmp_path / "papers", "other.test")
    server = serve(always(answer(200)), tls=papers.of_server)
    with pytest.raises(Untrusted, match="another host"):
        get(session_of(papers), server.url)
    assert server.heard == []


def test_an_authority_that_nobody_knows_is_told_and_how_to_name_it(
    serve: Serve, papers: Papers, tmp_path: Path
) -> None:
    for trust in (Trust(), Trust(issue(tmp_path / "others", "x.test").authority)):
        server = serve(always(answer(200)), tls=papers.of_server)
        with pytest.raises(Untrusted, match="authority that is not known") as caught:
            get(HttpSession(Dialer(trust=trust)), server.url)
        assert "HEADRACE_CA_BUNDLE" in (caught.value.hint or "")
        assert server.heard == []


def test_a_certificate_that_vouches_for_itself_is_told(serve: Serve, papers: Papers, tmp_path: Path) -> None:
    server = serve(always(answer(200)), tls=issue(tmp_path / "own", self_signed=True).of_server)
    with pytest.raises(Untrusted, match="vouches for itself"):
        get(session_of(papers), server.url)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x46", Untrusted),  # alert: protocol version
        (b"\x15\x03\x03\x00\x02\x02\x28", Untrusted),  # alert: handshake failure
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Untrusted),
        (b"\x15\x03\x03\x00\x02\x02\x50", Unreachable),  # alert: internal error
        (b"", Unreachable),
    ],
    ids=["version", "handshake", "plain", "internal", "nothing"],
)
def test_who_speaks_no_tls_of_ours_is_told_at_once(
    raw: bytes, kind: type[HeadraceError], papers: Papers
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_one() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(raw)

        thread = threading.Thread(target=serve_one)
        thread.start()
        with pytest.raises(kind) as caught:
            get(session_of(papers), f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert type(caught.value) is kind


def test_a_handshake_that_drips_ends(papers: Papers) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
                while not over.wait(0.02):
                    connection.sendall(b"\0")

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(Unreachable, match="handshake"):
            get(session_of(papers, connect_timeout_s=0.3), f"https://127.0.0.1:{listener.getsockname()[1]}/")
        over.set()
        thread.join()


def test_addresses_that_say_nothing_to_a_handshake_share_one_time(papers: Papers, serve: Serve) -> None:
    server = serve(always(answer(200, b"body")), tls=papers.of_server)
    mute = [f"127.0.0.{number}" for number in range(2, 6)]
    with contextlib.ExitStack() as stack:
        for address in mute:
            stack.enter_context(socket.create_server((address, server.port)))
        session = session_of(papers, resolver=FixedResolver(*mute), connect_timeout_s=0.5)
        with pytest.raises(Unreachable) as caught:
            get(session, f"https://many.test:{server.port}/")
        assert all(f"{address}: no TLS handshake in time" in caught.value.message for address in mute)
        resolver = FixedResolver(*mute, "127.0.0.1")
        session = session_of(papers, resolver=resolver, connect_timeout_s=1.5)
        assert get(session, f"https://many.test:{server.port}/") == b"body"  # it had its share
        session.close()


def test_after_a_failed_handshake_the_next_address_is_tried(papers: Papers, serve: Serve) -> None:
    server = serve(always(answer(200, b"body")), tls=papers.of_server)
    with socket.create_server(("127.0.0.2", server.port)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        session = session_of(papers, resolver=FixedResolver("127.0.0.2", "127.0.0.1"))
        assert get(session, f"https://many.test:{server.port}/") == b"body"
        thread.join()
        session.close()


def test_silence_is_a_stall_behind_tls_too(papers: Papers, serve: Serve) -> None:
    def script(heard: object, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        connection.recv(1)

    with pytest.raises(Stalled):
        get(session_of(papers), serve(script, tls=papers.of_server).url, patience_s=0.3)


# What the user says of the road


@pytest.mark.parametrize("kind", ["missing", "empty", "no pem"])
def test_a_bundle_that_is_none_is_told_by_the_variable_that_names_it(kind: str, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    if kind != "missing":
        bundle.write_text("" if kind == "empty" else "-----BEGIN CERTIFICATE-----\nnonsense\n")
    trust = Trust(bundle, "SSL_CERT_FILE")
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE names .*ca\.pem"):
        trust.context()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_a_folder_may_be_the_bundle(papers: Papers, serve: Serve, tmp_path: Path) -> None:
    server = serve(always(answer(200, b"body")), tls=papers.of_server)
    folder = tmp_path / "rehashed"
    folder.mkdir()
    session = HttpSession(Dialer(trust=Trust(folder)))
    with pytest.raises(Untrusted):
        get(session, server.url)
    openssl = ["openssl", "x509", "-noout", "-subject_hash", "-in", str(papers.authority)]
    number = subprocess.run(openssl, check=True, capture_output=True, text=True).stdout.strip()
    (folder / f"{number}.0").write_bytes(papers.authority.read_bytes())
    assert get(session, server.url) == b"body"
    session.close()


def test_a_road_can_be_handed_to_another_process(papers: Papers) -> None:
    road = Road(str(papers.authority), "X", {"https": ("https_proxy", "http://u:secret@p.test:1")})
    again = Road(**json.loads(json.dumps(asdict(road)))).dialer()
    proxy = again.proxies.of(("https", "hub.test", 443))
    assert proxy is not None
    assert (proxy.host, proxy.port) == ("p.test", 1)
    assert len(again.trust.context().get_ca_certs()) == 1
    assert "secret" not in repr(road) + repr(again) + repr(proxy)

"""A session: one answer at a time, connections kept where that is sound, and an abort that is felt at once."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.errors import BadAnswer, BrokenStream, HeadraceError, Stalled, Unreachable
from headrace.source.addresses import Resolver
from headrace.source.http import Dialer, HttpSession
from tests.ports import free_port
from tests.source.conftest import Heard, ScriptedServer, Serve, always, answer, read_all

PROMPT_S = 2.0  # an abort is felt in milliseconds; the rest is a busy machine's


class FixedResolver(Resolver):
    """Knows one answer for every host."""

    def __init__(self, *addresses: str) -> None:
        super().__init__()
        self._fixed = addresses

    def addresses(self, host: str, check: Callable[[], None] = lambda: None) -> tuple[str, ...]:
        return self._fixed


def get(session: HttpSession, url: str, patience_s: float = 5.0) -> bytes:
    response = session.request("GET", url, {}, patience_s=patience_s)
    try:
        return response.read(1_000_000)
    finally:
        response.close()


def test_a_connection_is_kept_while_answers_are_read_to_their_end(serve: Serve, session: HttpSession) -> None:
    server = serve(always(answer(200, b"body")))
    assert [get(session, server.url + "/x") for _ in range(3)] == [b"body"] * 3
    assert server.connections == 1
    session.request("GET", server.url, {}, patience_s=5).close()
    assert get(session, server.url) == b"body"
    assert server.connections == 2


@pytest.mark.parametrize("raw", [answer(200, b"body", Connection="close"), b"HTTP/1.0 200 OK\r\n\r\nbody"])
def test_a_server_that_closes_is_dialled_again(raw: bytes, serve: Serve, session: HttpSession) -> None:
    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(raw)

    server = serve(script)
    assert [get(session, server.url) for _ in range(2)] == [b"body"] * 2
    assert server.connections == 2


def test_a_kept_connection_that_was_closed_while_idle_is_replaced_unnoticed(
    serve: Serve, session: HttpSession
) -> None:
    closed = threading.Event()

    def script(heard: Heard, connection: socket.socket) -> bool:
        connection.sendall(answer(200, b"body"))
        if heard.connection > 1:
            return True
        connection.shutdown(socket.SHUT_RDWR)  # it had announced to keep it
        closed.set()
        return False

    server = serve(script)
    assert get(session, server.url) == b"body"
    assert closed.wait(5)
    assert get(session, server.url) == b"body"
    assert len(server.heard) == 2


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_chunked_body_comes_whole(size: int, serve: Serve, session: HttpSession) -> None:
    body = b"c" * size
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[at : at + 99_999]), body[at : at + 99_999])
        for at in range(0, size, 99_999)
    )
    server = serve(
        always(answer(200, chunks + b"0\r\n\r\n", Content_Length=None, Transfer_Encoding="chunked"))
    )
    response = session.request("GET", server.url, {}, patience_s=5)
    assert response.length is None
    assert response.read(size or 1) == body
    response.close()


def test_of_a_chunked_body_what_has_come_is_given_at_once(serve: Serve, session: HttpSession) -> None:
    go_on = threading.Event()

    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        go_on.wait(10)

    server = serve(script)
    response = session.request("GET", server.url, {}, patience_s=5)
    buffer = memoryview(bytearray(1_000_000))
    assert response.readinto(buffer) == 5
    go_on.set()
    with pytest.raises(BrokenStream):
        response.readinto(buffer)
    response.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
    ],
    ids=range(10),
)
def test_what_is_no_answer_is_a_broken_stream(raw: bytes, serve: Serve, session: HttpSession) -> None:
    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(raw)

    server = serve(script)
    with pytest.raises(BrokenStream):
        get(session, server.url)


def test_a_body_beyond_its_bound_is_refused(serve: Serve, session: HttpSession) -> None:
    server = serve(always(answer(200, b"x" * 200_000)))
    response = session.request("GET", server.url, {}, patience_s=5)
    with pytest.raises(BadAnswer):
        response.read(100_000)
    response.close()


def test_silence_is_a_stall_in_head_and_body(serve: Serve, session: HttpSession) -> None:
    for told in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"):

        def script(heard: Heard, connection: socket.socket, told: bytes = told) -> None:
            connection.sendall(told)
            connection.recv(1)

        server = serve(script)
        with pytest.raises(Stalled):
            get(session, server.url, patience_s=0.2)


def test_the_next_address_is_tried_where_the_first_refuses(serve: Serve) -> None:
    server = serve(always(answer(200, b"body")))
    session = HttpSession(Dialer(FixedResolver("127.0.0.9", "127.0.0.1")))
    response = session.request("GET", f"http://many.test:{server.port}/", {}, patience_s=5)
    assert (response.read(10), response.address, response.host) == (b"body", "127.0.0.1", "many.test")
    assert response.siblings == ("127.0.0.9", "127.0.0.1")
    assert server.heard[0].headers["host"] == f"many.test:{server.port}"
    response.close()
    session.close()


def test_an_address_that_is_named_is_the_only_one_tried(serve: Serve) -> None:
    server = serve(always(answer(200, b"body")))
    session = HttpSession(Dialer(FixedResolver("127.0.0.1")))
    with pytest.raises(Unreachable, match=r"127\.0\.0\.9"):
        session.request("GET", f"http://many.test:{server.port}/", {}, address="127.0.0.9", patience_s=5)
    session.close()


def test_ipv6(serve: Serve, session: HttpSession) -> None:
    try:
        server = serve(always(answer(200, b"six")), host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    assert get(session, server.url) == b"six"
    assert server.heard[0].headers["host"] == f"[::1]:{server.port}"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("", "/"),
        ("?a=1", "/?a=1"),
        ("/a b", "/a%20b"),
        ("/ü?ü", "/%C3%BC?%C3%BC"),
        ("/%20%zz", "/%20%zz"),
        ("/a#b", "/a"),
    ],
)
def test_what_may_not_stand_in_a_request_is_quoted(
    path: str, sent: str, serve: Serve, session: HttpSession
) -> None:
    server = serve(always(answer(200)))
    get(session, server.url + path)
    assert server.heard[0].target == sent


def test_a_name_nobody_knows_is_told(session: HttpSession) -> None:
    for host in ("nowhere.invalid", "a" * 70 + ".invalid"):
        with pytest.raises(Unreachable, match="look up"):
            get(session, f"http://{host}/")


def aborted_while(session: HttpSession, url: str, ready: Callable[[], object]) -> tuple[HeadraceError, float]:
    """What a request ends in, and how soon, when its session is aborted once `ready` returns."""
    outcome: queue.SimpleQueue[HeadraceError] = queue.SimpleQueue()

    def work() -> None:
        try:
            get(session, url, patience_s=30)
        except HeadraceError as error:
            outcome.put(error)

    thread = threading.Thread(target=work)
    thread.start()
    ready()
    began = time.monotonic()
    session.abort()
    error = outcome.get(timeout=20)
    took = time.monotonic() - began
    thread.join()
    return error, took


class Mute:
    """Answers nothing but `told`, and knows when it was asked."""

    def __init__(self, told: bytes) -> None:
        self._told = told
        self.asked = threading.Event()

    def __call__(self, heard: Heard, connection: socket.socket) -> None:
        connection.sendall(self._told)
        self.asked.set()
        connection.recv(1)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nx",
        b"HTTP/1.0 200 OK\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx",
    ],
    ids=["head", "body", "closing", "unbounded", "chunked"],
)
def test_an_abort_is_felt_while_a_server_is_silent(
    told: bytes, serve: Serve, session: HttpSession, open_files: Callable[[], int]
) -> None:
    mute = Mute(told)
    server = serve(mute)
    before = open_files()
    error, took = aborted_while(session, server.url, lambda: mute.asked.wait(10))
    assert isinstance(error, BrokenStream)
    assert took < PROMPT_S
    server.close()
    assert open_files() <= before


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A URL where connections are neither accepted nor refused: the queue of those that wait is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_nobody_answers(black_hole: str) -> None:
    session = HttpSession(Dialer(connect_timeout_s=0.2))
    with pytest.raises(Unreachable, match="timed out"):
        get(session, black_hole)


def test_an_abort_is_felt_while_connecting(
    black_hole: str, session: HttpSession, open_files: Callable[[], int]
) -> None:
    before = open_files()

    def connecting() -> None:
        deadline = time.monotonic() + 10
        while session._current is None or not session._current.sockets:
            assert time.monotonic() < deadline

    error, took = aborted_while(session, black_hole, connecting)
    assert isinstance(error, BrokenStream)
    assert took < PROMPT_S
    assert open_files() == before


def test_an_abort_is_felt_during_a_tls_handshake(tmp_path: Path, open_files: Callable[[], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        session = HttpSession(Dialer(connect_timeout_s=30))
        accepted: list[socket.socket] = []

        def hello_came() -> None:
            accepted.append(listener.accept()[0])
            accepted[0].recv(1)

        error, took = aborted_while(session, url, hello_came)
        accepted[0].close()
    assert isinstance(error, BrokenStream)
    assert took < PROMPT_S


@pytest.fixture
def mute_names() -> Iterator[Callable[[str], tuple[str, ...]]]:
    """Names that nobody answers for until the test is over."""
    over = threading.Event()

    def ask(host: str) -> tuple[str, ...]:
        over.wait(30)
        return ()

    yield ask
    over.set()


def test_an_abort_is_felt_while_a_name_is_looked_up(mute_names: Callable[[str], tuple[str, ...]]) -> None:
    asked = threading.Event()

    def ask(host: str) -> tuple[str, ...]:
        asked.set()
        return mute_names(host)

    session = HttpSession(Dialer(Resolver(30.0, ask)))
    error, took = aborted_while(session, "http://slow.test/", lambda: asked.wait(10))
    assert isinstance(error, BrokenStream)
    assert took < PROMPT_S


def test_a_name_that_is_not_answered_for_is_told(mute_names: Callable[[str], tuple[str, ...]]) -> None:
    with pytest.raises(Unreachable, match="took longer"):
        Resolver(0.2, mute_names).addresses("slow.test")


def test_a_name_is_remembered() -> None:
    asked: list[str] = []

    def ask(host: str) -> tuple[str, ...]:
        asked.append(host)
        return ("127.0.0.1",)

    resolver = Resolver(5.0, ask)
    assert [resolver.addresses("a.test"), resolver.addresses("a.test")] == [("127.0.0.1",)] * 2
    assert asked == ["a.test"]


def test_an_aborted_session_refuses_until_it_is_revived(serve: Serve, session: HttpSession) -> None:
    server = serve(always(answer(200, b"body")))
    assert get(session, server.url) == b"body"
    session.abort()
    with pytest.raises(BrokenStream):
        get(session, server.url)
    session.revive()
    assert get(session, server.url) == b"body"


def test_failures_leave_no_socket_open(serve: Serve, dialer: Dialer, open_files: Callable[[], int]) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"

    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")

    server = serve(script)
    session = HttpSession(dialer)
    before = open_files()
    for _ in range(20):
        for url in (nobody, server.url):
            with pytest.raises(HeadraceError):
                get(session, url)
    session.close()
    settle(server)
    assert open_files() <= before + 1  # a server thread may still hold one


def settle(server: ScriptedServer) -> None:
    """Until the server has closed what it had accepted."""
    deadline = time.monotonic() + 5
    while any(one.fileno() >= 0 for one in server._open) and time.monotonic() < deadline:
        threading.Event().wait(0.01)


def test_read_all_of_an_unbounded_answer(serve: Serve, session: HttpSession) -> None:
    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"z" * 5000)

    response = session.request("GET", serve(script).url, {}, patience_s=5)
    assert read_all(response, 10_000) == b"z" * 5000
    response.close()

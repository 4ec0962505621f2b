"""Heads come whole, within a time and a size, or not at all; bodies are framed in one way or refused."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from headrace.errors import BadAnswer, BrokenStream, HeadraceError, Stalled
from headrace.ranges import Range
from headrace.source.contract import Request
from headrace.source.http import Dialer, HttpSession
from tests.source.conftest import DATA, Heard, Script, Serve, answer, ask_for, hub, read_all
from tests.source.test_http import get

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
ALL = Range(0, len(DATA))


def once(raw: bytes) -> Script:
    """This, and an end."""

    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(raw)

    return script


def dripping(raw: bytes, then: bytes, pause_s: float) -> Script:
    """`raw`, then `then` again and again, a piece at a time."""

    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(raw)
        pause = threading.Event()
        with contextlib.suppress(OSError):
            while True:
                pause.wait(pause_s)
                connection.sendall(then)

    return script


@pytest.mark.parametrize(
    ("raw", "then"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"\r"),
    ],
    ids=["status", "headers", "header", "interim", "nothing"],
)
def test_a_head_that_drips_ends_as_one_that_does_not_come(
    raw: bytes, then: bytes, serve: Serve, session: HttpSession
) -> None:
    with pytest.raises(Stalled, match="in time"):
        get(session, serve(dripping(raw, then, 0.02)).url, patience_s=0.4)


def test_a_listing_that_drips_ends(serve: Serve, session: HttpSession) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    with pytest.raises(Stalled, match=r"bytes a second|in time"):
        get(session, serve(dripping(raw, b"[", 0.02)).url, patience_s=0.4)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "then"),
    [(b"2;", b"a"), (b"2\r\n{}\r\n0\r\n", b"X: y\r\n"), (b"2\r\n{}\r\n0\r\nX: ", b"y")],
    ids=["size", "trailers", "trailer"],
)
@pytest.mark.parametrize("whole", [False, True])
def test_what_frames_a_body_may_not_drip_for_ever(
    raw: bytes, then: bytes, *, whole: bool, serve: Serve, session: HttpSession
) -> None:
    server = serve(dripping(CHUNKED + raw, then, 0.02))
    response = session.request("GET", server.url, {}, patience_s=0.4)
    with pytest.raises(Stalled):
        response.read(1000) if whole else read_all(response, 1000)
    response.close()


def test_trailers_have_an_end(serve: Serve, session: HttpSession) -> None:
    server = serve(dripping(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n" * 1000, 0))
    with pytest.raises(BrokenStream, match="trailers"):
        get(session, server.url, patience_s=30)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " * 200_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000 + OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 4",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 20x OK\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ],
    ids=range(14),
)
def test_a_head_that_cannot_be_relied_on_is_refused(raw: bytes, serve: Serve, session: HttpSession) -> None:
    with pytest.raises(BrokenStream):
        get(session, serve(once(raw)).url)


@pytest.mark.parametrize(
    "raw",
    [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\nContent-Length: 4\n\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n4;x=y\r\nbody\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nbody",
    ],
    ids=range(8),
)
@pytest.mark.parametrize("pieces", [1, 7], ids=["whole", "in pieces"])
def test_an_answer_is_understood_however_it_comes(
    raw: bytes, pieces: int, serve: Serve, session: HttpSession
) -> None:
    def script(heard: Heard, connection: socket.socket) -> None:
        step = -(-len(raw) // pieces)
        for at in range(0, len(raw), step):
            connection.sendall(raw[at : at + step])
            threading.Event().wait(0.005 if pieces > 1 else 0)

    assert get(session, serve(script).url) == b"body"


@pytest.mark.parametrize("status", [204, 304])
def test_a_body_where_none_can_be_spoils_no_later_answer(
    status: int, serve: Serve, session: HttpSession
) -> None:
    def script(heard: Heard, connection: socket.socket) -> bool:
        connection.sendall(answer(status, b"HTTP/1.1 200 OK\r\n\r\nevil") if heard.connection == 1 else OK)
        return True

    server = serve(script)
    assert get(session, server.url) == b""
    assert get(session, server.url) == b"body"
    assert server.connections == 2


def test_what_comes_behind_an_answer_is_no_answer(serve: Serve, session: HttpSession) -> None:
    def script(heard: Heard, connection: socket.socket) -> bool:
        connection.sendall(
            OK + (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil" if heard.connection == 1 else b"")
        )
        return True

    server = serve(script)
    assert [get(session, server.url) for _ in range(2)] == [b"body", b"body"]
    assert server.connections == 2


def test_an_answer_with_a_length_and_chunks_ends_its_connection(serve: Serve, session: HttpSession) -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"

    def script(heard: Heard, connection: socket.socket) -> bool:
        connection.sendall(raw)
        return True

    server = serve(script)
    assert [get(session, server.url) for _ in range(2)] == [b"body"] * 2
    assert server.connections == 2


# Bodies of files


def chunks(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def file_from(raw: bytes, serve: Serve, request: Request | None = None) -> bytes:
    dialer = Dialer()
    session = HttpSession(dialer)
    try:
        stream = hub(serve(once(raw)).url, dialer).open(request or ask_for(ALL, whole=True), session)
        try:
            return read_all(stream, len(DATA) + 1)
        finally:
            stream.close()
    finally:
        session.close()


@pytest.mark.parametrize(
    "raw",
    [chunks(DATA), answer(200, DATA, Content_Length=None), answer(200, DATA)],
    ids=["chunks", "end", "length"],
)
def test_a_whole_file_comes_however_it_is_framed(raw: bytes, serve: Serve) -> None:
    assert file_from(raw, serve) == DATA


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (chunks(DATA)[:-20], BrokenStream),
        (chunks(DATA)[:-5], BrokenStream),
        (chunks(DATA[:-1]), BrokenStream),
        (chunks(DATA + b"x"), BadAnswer),
        (answer(200, DATA[:-1], Content_Length=None), BrokenStream),
        (answer(200, DATA + b"x", Content_Length=None), BadAnswer),
        (answer(200, DATA[:-1], Content_Length=len(DATA)), BrokenStream),
        (answer(200, DATA + b"x"), BadAnswer),
        (answer(200, DATA[:-1]), BadAnswer),
        (answer(200, DATA, Content_Encoding="gzip"), BadAnswer),
        (answer(200, DATA, Content_Encoding="br"), BadAnswer),
        (answer(204, DATA), BadAnswer),
        (answer(206, DATA, Content_Range=f"bytes 1-{len(DATA)}/{len(DATA) + 1}"), BadAnswer),
    ],
    ids=range(13),
)
def test_a_file_that_is_not_the_one_asked_for_is_refused(
    raw: bytes, error: type[HeadraceError], serve: Serve
) -> None:
    with pytest.raises(error):
        file_from(raw, serve)


@pytest.mark.parametrize("headers", [{}, {"Location": ""}])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_nowhere_is_no_answer(status: int, headers: dict[str, str], serve: Serve) -> None:
    with pytest.raises(BadAnswer):
        file_from(answer(status, b"moved", **headers), serve)

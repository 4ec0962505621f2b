"""A hub is asked for signed URLs only when one is needed, and shows none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.errors import AccessDenied, BadAnswer, BrokenStream, Busy, HeadraceError, SourceError, Stalled
from headrace.ranges import Range
from headrace.source.http import Dialer, HttpSession
from headrace.source.hub import HubSource
from headrace.source.signed import SignedUrls
from tests.source.conftest import (
    CONTENT,
    Heard,
    Serve,
    always,
    answer,
    ask_for,
    hub,
    partial_answer,
    read_all,
)

SOME = Range(100, 200)
DATE = "Sun, 22 Nov 2026 10:15:30 GMT"
EPOCH = 1795342530  # the same moment


# Signed URLs


class Signing:
    """A hub that leads to `cdn` with a new signature each time; `heard` counts how often it was asked."""

    def __init__(
        self, serve: Serve, *, life_s: float | None = None, refuse: Callable[[str], bool] = lambda _: False
    ) -> None:
        self.issued = 0
        self._life_s = life_s
        self._refuse = refuse
        self._lock = threading.Lock()
        self.cdn = serve(self._deliver)
        self.home = serve(self._lead)

    def _lead(self, heard: Heard, connection: socket.socket) -> bool:
        with self._lock:
            self.issued += 1
            number = self.issued
        query = f"n={number}" + ("" if self._life_s is None else f"&Expires={EPOCH + self._life_s}")
        time.sleep(0.05)  # so that those who would ask too have the time to
        connection.sendall(answer(302, Location=f"{self.cdn.url}/file?{query}", Date=DATE))
        return True

    def _deliver(self, heard: Heard, connection: socket.socket) -> bool:
        connection.sendall(answer(403) if self._refuse(heard.target) else partial_answer(SOME))
        return True


def open_once(source: HubSource, dialer: Dialer) -> None:
    session = HttpSession(dialer)
    try:
        source.open(ask_for(SOME), session).close()
    finally:
        session.close()


def test_a_signature_with_time_left_is_used_again(serve: Serve, dialer: Dialer) -> None:
    signing = Signing(serve, life_s=1000)
    source = hub(signing.home.url, dialer)
    for _ in range(5):
        open_once(source, dialer)
    assert (signing.issued, len(signing.cdn.heard)) == (1, 5)


def test_a_signature_that_is_about_to_end_is_renewed_and_not_refused(serve: Serve, dialer: Dialer) -> None:
    signing = Signing(serve, life_s=0)
    source = hub(signing.home.url, dialer)
    for _ in range(3):
        open_once(source, dialer)
    assert (signing.issued, len(signing.cdn.heard)) == (3, 3)


def test_one_lane_renews_for_all(serve: Serve, dialer: Dialer) -> None:
    signing = Signing(serve, refuse=lambda target: "n=1" in target and len(signing.cdn.heard) > 1)
    source = hub(signing.home.url, dialer)
    open_once(source, dialer)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: open_once(source, dialer), range(8)))
    assert signing.issued == 2


def test_a_signature_that_is_refused_as_soon_as_it_is_given_is_no_word_on_who_may_read(
    serve: Serve, dialer: Dialer
) -> None:
    signing = Signing(serve, refuse=lambda _: True)
    source = hub(signing.home.url, dialer)
    for _ in range(2):
        with pytest.raises(Busy, match="refuses the URL that hub gave out") as caught:
            open_once(source, dialer)
        assert not isinstance(caught.value, AccessDenied)
    assert signing.issued <= 4


@pytest.mark.parametrize(
    ("raw", "is_kept"),
    [
        (answer(503), False),
        (answer(400), False),
        (b"", False),
        (answer(206, b"x" * 100, Content_Range="bytes 100-199/9"), False),
        (
            answer(206, b"x" * 50, Content_Range="bytes 100-199/5120", Content_Length=100),
            False,
        ),  # within the body
        (answer(429, Retry_After="0"), True),
        (answer(200, b"x" * 5120), True),  # another range may come
    ],
    ids=range(7),
)
@pytest.mark.parametrize("known", [False, True])
def test_a_host_that_fails_is_left_as_soon_as_the_hub_leads_elsewhere(
    raw: bytes, *, known: bool, is_kept: bool, serve: Serve, session: HttpSession, dialer: Dialer
) -> None:
    works = [known]

    def script(heard: Heard, connection: socket.socket) -> None:
        works_now, works[0] = (
            works[0],
            False,
        )  # before it answers: the next one may be quicker than this thread
        connection.sendall(partial_answer(SOME) if works_now else raw)

    sick, sound = serve(script), serve(always(partial_answer(SOME)))
    leads = [sick, sound]
    home = serve(
        lambda _, connection: connection.sendall(answer(302, Location=f"{leads.pop(0).url}/x?Signature=s"))
    )
    source = hub(home.url, dialer)
    if known:
        fetch(source, session)
    with pytest.raises(SourceError):
        fetch(source, session)
    if is_kept:
        with pytest.raises(SourceError):
            fetch(source, session)
        assert len(leads) == 1
    else:
        fetch(source, session)
        assert not leads


def test_a_host_that_always_fails_does_not_make_the_hub_be_asked_in_a_storm(
    serve: Serve, session: HttpSession, dialer: Dialer
) -> None:
    signing = Signing(serve)
    signing.cdn.script = lambda _, connection: connection.sendall(answer(503))
    source = hub(signing.home.url, dialer)
    began = time.monotonic()
    for _ in range(40):
        with pytest.raises(Busy):
            fetch(source, session)
    assert signing.issued <= 2 + (time.monotonic() - began)


def test_who_gives_up_a_request_says_nothing_of_its_host(serve: Serve, dialer: Dialer) -> None:
    raw = partial_answer(SOME)[:-50]
    begun = threading.Event()

    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(raw)
        begun.set()
        connection.recv(1)

    cdn = serve(script)
    home = serve(always(answer(302, Location=f"{cdn.url}/x?Signature=s")))
    source, session = hub(home.url, dialer), HttpSession(dialer)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            lane = pool.submit(fetch, source, session, 60)
            assert begun.wait(60)
            session.abort()
            with pytest.raises(BrokenStream):
                lane.result(60)
            begun.clear()
            session.revive()
    session.close()
    assert len(home.heard) == 1


def test_a_life_that_is_not_told_is_not_endless() -> None:
    urls = SignedUrls()
    urls.keep(CONTENT, "url", None)
    assert urls._known[CONTENT].until - time.monotonic() == pytest.approx(600, abs=30)


def test_while_the_hub_fails_to_renew_one_after_the_other_tries() -> None:
    urls = SignedUrls()
    urls.keep(CONTENT, "old", None)
    asking, most, lock = 0, 0, threading.Lock()

    def renew(_: int) -> None:
        nonlocal asking, most
        assert urls.find(CONTENT, "old", 20, lambda: None) is None
        with lock:
            asking += 1
            most = max(most, asking)
        time.sleep(0.01)
        with lock:
            asking -= 1
        urls.settle(CONTENT)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(renew, range(6)))
    assert most == 1


def test_who_waits_for_a_renewal_waits_no_longer_than_its_patience() -> None:
    urls = SignedUrls()
    urls.keep(CONTENT, "old", None)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(urls.find, CONTENT, "old", 1.0, lambda: None).result() is None
        with pytest.raises(Stalled):
            urls.find(CONTENT, "old", 0.2, lambda: None)


@pytest.mark.parametrize(("life_s", "left_s"), [(3600, 3540), (100, 90), (0, 0), (-5, -4.5)])
def test_the_margin_is_a_minute_or_a_tenth(life_s: float, left_s: float) -> None:
    urls = SignedUrls()
    urls.keep(CONTENT, "url", life_s)
    assert urls._known[CONTENT].until - time.monotonic() == pytest.approx(left_s, abs=2)


# Where redirects may lead


def test_https_leads_to_no_plain_http() -> None:
    source = hub("https://hub.test", Dialer())
    source.home.is_private = True
    with pytest.raises(BadAnswer, match="from https to plain http") as caught:
        source.home.target("https://hub.test/x", "http://cdn.test/y?Signature=secret")
    assert "secret" not in caught.value.message
    assert source.home.target("https://hub.test/x", "https://cdn.test/y") == "https://cdn.test/y"
    plain = hub("http://hub.test", Dialer())
    plain.home.is_private = True
    assert plain.home.target("https://hub.test/x", "http://cdn.test/y") == "http://cdn.test/y"


# What errors say


def fetch(source: HubSource, session: HttpSession, patience_s: float = 1) -> None:
    stream = source.open(ask_for(SOME, patience_s=patience_s), session)
    try:
        read_all(stream, len(SOME))
    finally:
        stream.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 206 x\r\nContent-Length: 100\r\nContent-Range: bytes 100-199/5120\r\n\r\nshort",
        answer(200, b"page", Content_Type="text/html"),
        answer(206, b"x" * 100, Content_Range="bytes 0-99/5120"),
        *(answer(status) for status in (204, 400, 401, 403, 404, 407, 410, 416, 429, 500)),
        answer(302, Location="/again?Signature=s3cr3t"),
        answer(302, Location="ftp://u:s3cr3t@h/x?Signature=s3cr3t"),
        answer(302, Location="http://u:s3cr3t@127.0.0.1:9/x?Signature=s3cr3t"),
        answer(302, Location="http://s3cr3t@nowhere.invalid/x?Signature=s3cr3t"),
        answer(302, Location="https://u:s3cr3t/x@127.0.0.1/?Signature=s3cr3t"),
    ],
    ids=range(20),
)
def test_no_failure_shows_a_signature_or_a_token(raw: bytes, serve: Serve) -> None:
    dialer = Dialer()

    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(raw)

    cdn = serve(script)
    home = serve(always(answer(302, Location=f"http://u:s3cr3t@127.0.0.1:{cdn.port}/x?Signature=s3cr3t")))
    source, session = hub(home.url, dialer, token="hf_s3cr3t"), HttpSession(dialer)
    for _ in range(2):  # where it leads is remembered
        with pytest.raises(HeadraceError) as caught:
            fetch(source, session)
        chain: BaseException | None = caught.value
        while chain is not None:
            assert "s3cr3t" not in repr(chain) + str(getattr(chain, "hint", ""))
            chain = chain.__cause__
    session.close()

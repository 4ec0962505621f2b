"""A proxy is found as curl and requests find it, told what it must know, and its password is told to nobody else."""

from __future__ import annotations

import contextlib
import socket
from base64 import b64encode
from collections.abc import Callable

import pytest

from headrace.errors import (
    AccessDenied,
    BadAnswer,
    HeadraceError,
    ProxyRefused,
    RepoNotFound,
    Unreachable,
    UsageError,
)
from headrace.source.access import Access
from headrace.source.addresses import Resolver
from headrace.source.dialer import Dialer
from headrace.source.http import HttpSession
from headrace.source.hub import HubSource
from headrace.source.proxy import Proxies, Proxy
from headrace.wire import normalized_endpoint
from tests.source.conftest import DATA, Heard, Serve, always, answer, ask_for, partial_answer
from tests.source.test_http import get
from tests.source.test_hub import SOME

Talk = Callable[[Dialer], HttpSession]
SECRET = "s3cret%40"  # as it stands in the URL; the word is s3cret@
BASIC = "Basic " + b64encode(b"user:s3cret@").decode()


class NoNames(Resolver):
    """Looks up addresses only: behind a proxy nothing else may be looked up here."""

    def addresses(self, host: str, check: Callable[[], None] = lambda: None) -> tuple[str, ...]:
        if host != "127.0.0.1":
            raise AssertionError(f"{host} was looked up")
        return (host,)


def through(url: str, no: str = "") -> Dialer:
    table = {"all": ("all_proxy", url), "no": ("no_proxy", no)}
    return Dialer(NoNames(), proxies=Proxies(table))


@pytest.mark.parametrize(
    ("no", "exempt"),
    [
        ("", ()),
        ("*", ("hub.test", "sub.hub.test", "127.0.0.1", "10.1.2.3", "::1", "localhost")),
        ("hub.test", ("hub.test", "sub.hub.test")),
        (".hub.test", ("hub.test", "sub.hub.test")),
        ("*.hub.test", ("hub.test", "sub.hub.test")),
        ("HUB.TEST", ("hub.test", "sub.hub.test")),
        ("ub.test", ()),
        ("localhost,127.0.0.1", ("127.0.0.1", "localhost")),
        ("127.0.0.0/8 10.0.0.0/8", ("127.0.0.1", "10.1.2.3")),
        ("::1", ("::1",)),
        ("[::1]", ("::1",)),
        ("[::1]:443", ("::1",)),
        ("::/0", ("::1",)),
        ("hub.test:443, localhost:80", ("hub.test", "sub.hub.test")),
        ("127.0.0.1:443", ("127.0.0.1",)),
        (",,", ()),
    ],
)
def test_who_is_exempt(no: str, exempt: tuple[str, ...]) -> None:
    proxies = Proxies({"https": ("https_proxy", "http://p.test:3128"), "no": ("no_proxy", no)})
    hosts = ("hub.test", "sub.hub.test", "127.0.0.1", "10.1.2.3", "::1", "localhost")
    assert tuple(host for host in hosts if proxies.of(("https", host, 443)) is None) == exempt


def test_each_scheme_has_its_own() -> None:
    proxies = Proxies({"http": ("http_proxy", "one.test:1"), "all": ("ALL_PROXY", "http://two.test")})
    one, two = proxies.of(("http", "h", 80)), proxies.of(("https", "h", 443))
    assert one is not None
    assert two is not None
    assert (one.name, two.name, two.variable) == ("proxy one.test:1", "proxy two.test:80", "ALL_PROXY")
    assert Proxies({}).of(("https", "h", 443)) is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("socks5://user:s3cret@p.test:1", "SOCKS is not supported"),
        ("socks5h://p.test:1", "SOCKS is not supported"),
        ("SOCKS4://p.test", "SOCKS is not supported"),
        ("https://user:s3cret@p.test", "behind TLS"),
        ("ftp://user:s3cret@p.test", "no proxy"),
        ("http://user:s3cret@", "no proxy"),
        ("http://user:s3cret@p.test:99999", "no proxy"),
        ("http://user:s3cret@[::1", "no proxy"),
        ("http://user:s3cret@a b", "no proxy"),
        ("http://user:12#s3cret@p.test:3128", "no proxy"),
        ("http://user:12/s3cret@p.test:3128", "no proxy"),
        ("http://user:12?s3cret@p.test:3128", "no proxy"),
        ("user:12#s3cret@p.test:3128", "no proxy"),
    ],
)
def test_what_cannot_be_a_proxy_is_told_without_its_secrets(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        Proxy.parse(url, "HTTPS_PROXY")
    assert "HTTPS_PROXY" in caught.value.message
    assert "12" not in caught.value.message
    assert "s3cret" not in caught.value.message + str(caught.value.hint)


def test_http_goes_in_absolute_form_and_no_name_is_looked_up(serve: Serve, talk: Talk) -> None:
    proxy = serve(always(answer(200, b"body")))
    session = talk(through(f"http://user:{SECRET}@127.0.0.1:{proxy.port}"))
    for _ in range(2):
        response = session.request("GET", "http://hub.test/a b?c=d", {}, patience_s=5)
        assert (response.host, response.address) == ("hub.test", f"proxy 127.0.0.1:{proxy.port}")
        assert response.siblings == (response.address,)
        assert response.read(10) == b"body"
        response.close()
    assert proxy.connections == 1
    heard = proxy.heard[0]
    assert (heard.target, heard.headers["host"]) == ("http://hub.test/a%20b?c=d", "hub.test")
    assert heard.headers["proxy-authorization"] == BASIC


def test_an_international_name_goes_to_a_proxy_as_look_ups_have_it(serve: Serve, talk: Talk) -> None:
    proxy = serve(always(answer(403)))
    dialer = through(f"127.0.0.1:{proxy.port}")
    for scheme in ("http", "https"):
        source = HubSource("hub", normalized_endpoint(f"{scheme}://bücher.test"), dialer)
        with contextlib.suppress(HeadraceError):
            source.ask("/api/x", talk(dialer))
    assert [heard.target for heard in proxy.heard] == [
        "http://xn--bcher-kva.test/api/x",
        "xn--bcher-kva.test:443",
    ]


def test_an_address_that_a_plan_chose_behind_a_proxy_is_the_proxy(serve: Serve, talk: Talk) -> None:
    proxy = serve(always(answer(200, b"body")))
    session = talk(through(f"127.0.0.1:{proxy.port}"))
    for _ in range(2):
        name = f"proxy 127.0.0.1:{proxy.port}"
        session.request("GET", "http://hub.test/", {}, address=name, patience_s=5).close()
    assert len(proxy.heard) == 2


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (407, ProxyRefused, "does not accept the user name and password in all_proxy"),
        (401, ProxyRefused, "does not accept the user name and password in all_proxy"),
        (403, ProxyRefused, "refuses to lead to hub.test"),
        (502, Unreachable, "cannot reach hub.test"),
        (504, Unreachable, "cannot reach hub.test"),
    ],
)
def test_what_a_proxy_answers_to_connect_is_told(
    status: int, kind: type[HeadraceError], told: str, serve: Serve, talk: Talk
) -> None:
    proxy = serve(always(answer(status)))
    session = talk(through(f"http://user:{SECRET}@127.0.0.1:{proxy.port}"))
    with pytest.raises(kind, match=told) as caught:
        get(session, "https://hub.test/")
    assert type(caught.value) is kind
    assert caught.value.hint
    assert "s3cret" not in caught.value.message + caught.value.hint
    assert proxy.heard[0].target == "hub.test:443"
    assert proxy.heard[0].headers["proxy-authorization"] == BASIC


def test_a_proxy_that_wants_a_password_is_told_for_http_too(serve: Serve, talk: Talk) -> None:
    proxy = serve(always(answer(407)))
    with pytest.raises(ProxyRefused, match="wants a user name and a password") as caught:
        get(talk(through(f"http://127.0.0.1:{proxy.port}")), "http://hub.test/")
    assert "USER:PASSWORD" in (caught.value.hint or "")


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 2"])
def test_what_is_no_proxy_is_told(raw: bytes, serve: Serve, talk: Talk) -> None:
    def script(heard: Heard, connection: socket.socket) -> None:
        connection.sendall(raw)

    proxy = serve(script)
    with pytest.raises((ProxyRefused, Unreachable), match="proxy 127"):
        get(talk(through(f"http://127.0.0.1:{proxy.port}")), "https://hub.test/")


def test_a_proxy_that_is_silent_or_gone_is_told(serve: Serve, talk: Talk) -> None:
    def mute(heard: Heard, connection: socket.socket) -> None:
        connection.recv(1)

    silent = serve(mute)
    table = {"all": ("all_proxy", f"http://127.0.0.1:{silent.port}")}
    dialer = Dialer(NoNames(), proxies=Proxies(table), connect_timeout_s=0.3)
    with pytest.raises(Unreachable, match="does not answer"):
        get(talk(dialer), "https://hub.test/")
    silent.close()
    with pytest.raises(Unreachable, match=r"cannot connect to proxy 127.*refused") as caught:
        get(talk(dialer), "https://hub.test/")
    assert "all_proxy" in (caught.value.hint or "")


def test_a_file_comes_through_a_proxy_from_hosts_that_only_it_knows(serve: Serve, talk: Talk) -> None:
    def script(heard: Heard, connection: socket.socket) -> bool:
        if heard.target.startswith("http://hub.test/"):
            connection.sendall(answer(302, Location="http://cdn.test/signed?Signature=x"))
        else:
            connection.sendall(partial_answer(SOME))
        return True

    proxy = serve(script)
    dialer = through(f"http://127.0.0.1:{proxy.port}")
    session = talk(dialer)
    source = HubSource("hub", "http://hub.test", dialer, access=Access("hf_secret"))
    stream = source.open(ask_for(SOME), session)
    got = memoryview(bytearray(len(DATA)))
    assert stream.readinto(got) == len(SOME)
    stream.close()
    assert [heard.headers.get("authorization") for heard in proxy.heard] == ["Bearer hf_secret", None]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "http://localhost/",
        "http://localhost./",
        "http://127.0.0.1./",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://017700000001/",
        "http://169.254.43518/",
    ],
)
def test_a_public_name_behind_a_proxy_may_not_lead_into_this_network(
    target: str, serve: Serve, talk: Talk
) -> None:
    proxy = serve(always(answer(302, Location=target)))
    dialer = through(f"http://127.0.0.1:{proxy.port}")
    with pytest.raises(BadAnswer, match="private"):
        HubSource("hub", "http://hub.test", dialer).open(ask_for(SOME), talk(dialer))


def test_who_is_exempt_is_reached_without_it(serve: Serve, talk: Talk) -> None:
    server = serve(always(answer(200, b"direct")))
    session = talk(through("http://127.0.0.1:9", no="127.0.0.0/8"))
    assert get(session, server.url) == b"direct"


@pytest.mark.parametrize("in_clear", [False, True])
def test_a_proxy_on_another_machine_reads_no_token(*, in_clear: bool, serve: Serve, talk: Talk) -> None:
    class Names(Resolver):
        def addresses(self, host: str, check: Callable[[], None] = lambda: None) -> tuple[str, ...]:
            return ("127.0.0.1",)

    proxy = serve(always(answer(200, b"{}")))
    table = {"http": ("http_proxy", f"http://proxy.test:{proxy.port}")}
    dialer = Dialer(Names(), proxies=Proxies(table))
    source = HubSource("hub", "http://127.0.0.1:9", dialer, access=Access("hf_secret", in_clear=in_clear))
    assert source.ask("/api/x", talk(dialer)).status == 200
    assert ("authorization" in proxy.heard[0].headers) is in_clear


@pytest.mark.parametrize("status", [401, 403])
def test_what_may_be_a_proxys_refusal_is_not_blamed_on_a_token(status: int, serve: Serve, talk: Talk) -> None:
    proxy = serve(always(answer(status)))
    dialer = through(f"127.0.0.1:{proxy.port}")
    with pytest.raises((AccessDenied, RepoNotFound)) as caught:
        HubSource("hub", "http://hub.test", dialer).open(ask_for(SOME), talk(dialer))
    assert "token" not in (caught.value.hint or "")
    assert f"proxy 127.0.0.1:{proxy.port}" in (caught.value.hint or "")
    assert "all_proxy" in (caught.value.hint or "")


def test_who_has_no_token_is_not_told_that_it_is_wrong(serve: Serve, talk: Talk) -> None:
    dialer = Dialer()
    server = serve(always(answer(403)))
    with pytest.raises(AccessDenied) as caught:
        HubSource("hub", server.url, dialer).open(ask_for(SOME), talk(dialer))
    assert caught.value.hint == "a token may be needed"

"""Words of HTTP are read as RFC 9110 has them, and hostile ones are no words."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UsageError
from headrace.names import Repo, RepoKind
from headrace.ranges import Range
from headrace.wire import (
    RateLimit,
    Unsatisfiable,
    api_path,
    is_private_address,
    is_resumption,
    normalized_endpoint,
    origin_of,
    parse_content_range,
    parse_date,
    parse_etag,
    parse_next_link,
    parse_range_header,
    range_header,
    rate_limit,
    redacted,
    resolve_path,
    retry_after_s,
    shown,
    signed_life_s,
)

HUGE = "9" * 5000


@given(st.integers(0, 100), st.integers(1, 100))
def test_a_range_that_was_written_is_read_back(start: int, length: int) -> None:
    wanted = Range(start, start + length)
    assert parse_range_header(range_header(wanted), start + length) == wanted


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", Range(0, 1)),
        ("bytes=2-", Range(2, 10)),
        ("bytes=2-99", Range(2, 10)),
        ("bytes=-3", Range(7, 10)),
        ("bytes=-99", Range(0, 10)),
        (" bytes=1-2 ", Range(1, 3)),
        ("Bytes=1-2", Range(1, 3)),
        (None, None),
        ("", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=\u0661-\u0662", None),
        (f"bytes={HUGE}-", None),
        (f"bytes=-{HUGE}", None),
    ],
)
def test_reads_range_headers(header: str | None, expected: Range | None) -> None:
    assert parse_range_header(header, 10) == expected


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=10-12", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_says_when_nothing_of_a_range_exists(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range_header(header, size)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes 0-0/1", (Range(0, 1), 1)),
        ("bytes 2-5/10", (Range(2, 6), 10)),
        (" bytes 2-5/10 ", (Range(2, 6), 10)),
        ("Bytes 2-5/10", (Range(2, 6), 10)),
        ("bytes 2-5/*", None),
        ("bytes */10", None),
        ("bytes 5-2/10", None),
        ("bytes 2-10/10", None),
        ("bytes 2-5", None),
        ("bytes -1-5/10", None),
        ("bytes \u0662-\u0665/10", None),
        (f"bytes 0-{HUGE}/{HUGE}", None),
        ("", None),
        (None, None),
    ],
)
def test_reads_content_ranges(header: str | None, expected: tuple[Range, int] | None) -> None:
    assert parse_content_range(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('<https://h/p?cursor=a,b>; rel="next"', "https://h/p?cursor=a,b"),
        ("</p>; rel=next", "/p"),
        ('</1>; rel="prev", </3>; rel="next"', "/3"),
        ('</3>; title="x"; rel="next"', "/3"),
        ('</3>; REL="next"', "/3"),
        ('</1>; rel="prev"', None),
        ('</1>; rel="nextish"', None),
        ('</1>; unrel="next"', None),
        ("", None),
        (None, None),
    ],
)
def test_finds_the_next_page(header: str | None, expected: str | None) -> None:
    assert parse_next_link(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [('"abc"', "abc"), ('W/"abc"', "abc"), ("abc", "abc"), (' "abc" ', "abc"), ("", None), (None, None)],
)
def test_reads_etags(header: str | None, expected: str | None) -> None:
    assert parse_etag(header) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "7", "RateLimit": '"api";r=0;t=55'}, 7.0),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api";t=55;r=0'}, 55.0),
        ({"RateLimit": '"api";r=12;t=55'}, None),
        ({"RateLimit": '"api";r=0, "resolvers";r=9;t=55'}, None),
        ({"RateLimit": '"api";r=9;t=5, "resolvers";r=0;t=55'}, 55.0),
        ({"Retry-After": "-7"}, None),
        ({"Retry-After": "\xb2"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": HUGE}, None),
        ({}, None),
    ],
)
def test_reads_how_long_to_wait(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://HuggingFace.co/", "https://huggingface.co"),
        ("HTTPS://huggingface.co:443", "https://huggingface.co"),
        ("http://node:80/a//", "http://node/a"),
        ("http://node:443", "http://node:443"),
        ("http://127.0.0.1:8090/", "http://127.0.0.1:8090"),
        ("http://[::1]:8090/", "http://[::1]:8090"),
        ("http://[FE80::1]", "http://[fe80::1]"),
        ("https://h/Path/Case", "https://h/Path/Case"),
        ("https://Bücher.example/x", "https://xn--bcher-kva.example/x"),
    ],
)
def test_endpoints_have_one_form(url: str, expected: str) -> None:
    assert normalized_endpoint(url) == expected
    assert normalized_endpoint(expected) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "huggingface.co",
        "ftp://h",
        "https://",
        "https:///path",
        "https://user@h",
        "https://user:secret@h",
        "https://:secret@h",
        "https://@h",
        "https://h?token=secret",
        "https://h#secret",
        "https://h:99999",
        "https://h:x",
        "http://[::1",
        "http://a b",
        "http://a\\b",
        "http://a%2fb",
        "http://ü..example",
        f"http://{'ü' * 70}.example",
        "http://h/a b",
        "user:secret@h",
        "https:user:secret@h",
    ],
)
def test_refuses_what_is_no_endpoint_and_keeps_its_secrets(url: str) -> None:
    with pytest.raises(UsageError) as refusal:
        normalized_endpoint(url)
    assert "secret" not in refusal.value.message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:secret@h:8/p?sig=secret#secret", "https://h:8/p"),
        ("https://h/@scope/p", "https://h/@scope/p"),
        ("user:secret@h/p", "h/p"),
        ("//u:secret@h/p", "//h/p"),
        ("https://u:secret@[::1/p?secret", ""),
        ("https://u:pass/word@h/p", ""),
        ("https://u/x:secret@h/p", "https://u/x…@h/p"),
        ("", ""),
    ],
)
def test_what_is_shown_hides_secrets(url: str, expected: str) -> None:
    assert shown(url) == expected


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    assert not shown(f"https://u:secret@h/{text}").startswith("https://u")
    assert isinstance(shown(text), str)


@given(st.text())
def test_any_text_is_an_endpoint_or_refused(text: str) -> None:
    for url in (text, f"http://{text}"):
        try:
            normal = normalized_endpoint(url)
        except UsageError:
            continue
        assert normalized_endpoint(normal) == normal


def test_origins_decide_by_scheme_host_and_port() -> None:
    assert origin_of("https://Hub/a") == ("https", "hub", 443) == origin_of("https://hub:443/b?c")
    assert origin_of("http://hub") == ("http", "hub", 80)
    assert origin_of("http://hub:81") == ("http", "hub", 81)


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("192.168.0.1", True),
        ("169.254.169.254", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("2606:4700::1", False),
    ],
)
def test_knows_private_addresses(address: str, private: bool) -> None:  # noqa: FBT001
    assert is_private_address(address) is private


def test_paths_are_quoted_as_hub_clients_do() -> None:
    model, data = Repo("org/name"), Repo("org/data", RepoKind.DATASET)
    assert api_path(model, "revision", "refs/pr/1") == "/api/models/org/name/revision/refs%2Fpr%2F1"
    assert api_path(data, "tree", "main", "a b/c") == "/api/datasets/org/data/tree/main/a%20b%2Fc"
    assert resolve_path(model, "refs/pr/1", "a/b c.bin") == "/org/name/resolve/refs%2Fpr%2F1/a/b%20c.bin"
    assert resolve_path(data, "main", "a?b#c%") == "/datasets/org/data/resolve/main/a%3Fb%23c%25"


@pytest.mark.parametrize(
    "address",
    [
        "100.100.100.200",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "224.0.0.1",
        "ff02::1",
        "169.254.169.254",
        "::ffff:10.0.0.1",
    ],
)
def test_addresses_that_lead_into_a_network_are_private(address: str) -> None:
    assert is_private_address(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "64:ff9b::808:808", "2002:808:808::", "2606:4700::1111"])
def test_public_addresses_are_not(address: str) -> None:
    assert not is_private_address(address)


DATE, MOMENT = "Sun, 22 Nov 2026 10:15:30 GMT", 1795342530
POLICY = b64encode(b'{"Statement":[{"Condition":{"DateLessThan":{"AWS:EpochTime":%d}}}]}' % (MOMENT + 77))
CLOUDFRONT = POLICY.decode().translate(str.maketrans("+=/", "-_~"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DATE, MOMENT),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Sun, 32 Nov 2026 10:15:30 GMT", None),
        ("Sun, 22 Nov 2026 25:15:30 GMT", None),
        ("Sun, 22 Nov 0000 10:15:30 GMT", None),
        ("22 Nov 2026", None),
        ("17", None),
        ("", None),
        (None, None),
    ],
)
def test_dates_of_http(text: str | None, expected: float | None) -> None:
    assert parse_date(text) == expected


@pytest.mark.parametrize(
    ("query", "date", "expected"),
    [
        ("X-Amz-Date=20261122T101500Z&X-Amz-Expires=3600", DATE, 3570),
        ("X-Amz-Date=20261122T101500Z&X-Amz-Expires=3600", None, 3600),
        ("X-Goog-Date=20261122T101500Z&X-Goog-Expires=60", DATE, 30),
        (f"Expires={MOMENT + 5}&Signature=x", DATE, 5),
        (f"Expires={MOMENT + 5}.250&Signature=x", DATE, 5.25),
        (f"Expires={MOMENT - 5}&Signature=x", DATE, -5),
        (f"Expires={MOMENT + 5}", None, None),
        (f"Policy={CLOUDFRONT}&Signature=x&Key-Pair-Id=y", DATE, 77),
        ("se=2026-11-22T10%3A15%3A45Z&sig=x", DATE, 15),
        ("X-Amz-Date=20269922T101500Z&X-Amz-Expires=3600", DATE, None),
        ("X-Amz-Date=20261122T101500Z&X-Amz-Expires=soon", DATE, None),
        ("Policy=%%%&Expires=never", DATE, None),
        ("", DATE, None),
    ],
)
def test_how_long_a_signature_lasts_is_counted_from_the_servers_date(
    query: str, date: str | None, expected: float | None
) -> None:
    assert signed_life_s(f"https://cdn.test/x?{query}", date) == expected


@given(st.text(), st.text())
def test_any_signature_and_date_may_come(query: str, date: str) -> None:
    for url in (f"https://h/x?{query}", f"https://h/x?X-Amz-Date={query}&Policy={query}&Expires={date}"):
        assert isinstance(signed_life_s(url, date), float | None)
        assert isinstance(signed_life_s(url, DATE), float | None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"RateLimit": '"api";r=489;t=189'}, RateLimit(489, 189)),
        (
            {
                "RateLimit": '"resolvers";r=2;t=9',
                "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300',
            },
            RateLimit(2, 9, 3000, 300),
        ),
        ({"RateLimit": '"a";r=5;t=9, "b";r=1;t=60'}, RateLimit(1, 60)),
        ({"RateLimit": '"a";r=0;t=9, "b";r=0;t=60'}, RateLimit(0, 60)),
        ({"RateLimit": "nonsense"}, None),
        ({"RateLimit": '"a";r=-1;t=9'}, None),
        ({"RateLimit": '"a";r=1'}, None),
    ],
)
def test_what_a_hub_allows(headers: dict[str, str], expected: RateLimit | None) -> None:
    assert rate_limit(headers) == expected


SECRET = "s3cr3t"


@given(
    st.sampled_from(["http", "https", "HTTP", "ftp", "socks5", "", "x"]),
    st.text(),
    st.text(st.characters(codec="ascii")),
    st.text(),
)
def test_no_secret_of_any_url_is_shown(scheme: str, user: str, host: str, path: str) -> None:
    for url in (
        f"{scheme}://{user}:{SECRET}@{host}/{path}",
        f"{scheme}://{SECRET}@{host}/{path}",
        f"{scheme}://{host}/{path}?Signature={SECRET}",
        f"{scheme}://{host}/{path}?a=b&token={SECRET}#x",
        f"{scheme}://{host}/{path}#{SECRET}",
        f"//{SECRET}@{host}/{path}",
        f"{user}:{SECRET}@{host}",
    ):
        assert SECRET not in shown(url)


@given(
    st.sampled_from(
        [
            "HTTPError: 403 for url: https://bucket.test/file?X-Amz-Date=1&X-Amz-Signature={} (retry)",
            "cannot connect to http://somebody:{}@proxy.test:3128: refused",
            "InvalidURL: '/file?Signature={}&Expires=1' has a space",
            "ValueError: Invalid header value b'Bearer {}'",
            "{{'Authorization': 'Digest a=\"b\", response=\"{}\"', 'Accept': '*/*'}}",
            "Settings(token='{} of two words', cache='x')",
            'KeyError: "password": "{}"',
            "AWS_SECRET_ACCESS_KEY={} is refused",
            "user:{}@host is no host",
            "the word {} was told before",
        ]
    ),
    st.from_regex(r"[A-Za-z0-9_-]{16,40}", fullmatch=True),
)
def test_no_secret_is_left_in_words(words: str, secret: str) -> None:
    told = redacted(words.format(secret), [secret] if "told before" in words else [])
    assert secret not in told
    assert secret[:16] not in redacted(f"a token hf_{secret} is refused")


@pytest.mark.parametrize(
    "piece", [":", "a:", "a", "?", "?=", "token", "token-", "token:", "token ", 'token="', "a://", "a.", " "]
)
def test_words_without_end_are_gone_through_in_time(piece: str) -> None:
    words = piece * (16_384 // len(piece))
    assert SECRET not in redacted(f"{words}\nsecret={SECRET} user:{SECRET}@host path?key={SECRET}")


def test_words_without_secrets_stay_as_they_are() -> None:
    words = (
        "ModuleNotFoundError: No module named 'headrace'; see https://host.test/a/b:c (line 3, in <module>)"
    )
    assert redacted(words) == words


def test_an_endpoint_without_a_scheme_is_shown_as_it_was_written() -> None:
    with pytest.raises(UsageError, match="'localhost:8090' is not an endpoint"):
        normalized_endpoint("localhost:8090")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=5-", True),
        ("Bytes=1-", True),
        ("bytes=0-", False),
        ("bytes=-5", False),
        ("bytes=5-9", False),
        ("bytes=1-,5-", False),
        (None, False),
    ],
)
def test_who_asks_for_all_from_a_byte_on_resumes(header: str | None, expected: bool) -> None:  # noqa: FBT001
    assert is_resumption(header) is expected

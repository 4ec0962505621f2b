"""Requests that a node may be sent, sensible and not, each told by its seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from urllib.parse import quote

TOKEN = "hf_fuzzSecretToken"
REPOS = (
    "org/open",
    "org/open",
    "org/open",
    "legacy",
    "org/closed",
    "org/asking",
    "org/absent",
    "org/data",
    "org/page",
    "Org/Closed",
)
KINDS = ("models", "models", "datasets", "spaces", "Models", "kernels")
REVISIONS = (
    "main",
    "main",
    "main",
    "refs%2Fpr%2F1",
    "refs/pr/1",
    "0" * 40,
    "deadbee",
    "absent",
    "HEAD",
    "main~1",
    "..",
)
FILES = (
    "config.json",
    "big.safetensors",
    "secret.bin",
    "README.md",
    "sub/page.html",
    "sub",
    "evil.svg",
    "absent.txt",
    "%E2%82%AC.txt",
)
API = (
    "/api/{kind}/{repo}",
    "/api/{kind}/{repo}/revision/{rev}",
    "/api/{kind}/{repo}/tree/{rev}",
    "/api/{kind}/{repo}/tree/{rev}/{file}",
    "/api/{kind}/{repo}/paths-info/{rev}",
    "/api/{kind}/{repo}/refs",
    "/api/{kind}/{repo}/commits/{rev}",
    "/api/{kind}/{repo}/auth-check",
    "/api/{kind}/{repo}/xet-read-token/{rev}",
    "/api/{kind}/{repo}/discussions",
    "/api/{kind}/{repo}/treesize/{rev}",
    "/api/{kind}/{repo}/secrets",
    "/api/{kind}/{repo}/parquet/default/train/0.parquet",
    "/api/resolve-cache/{kind}/{repo}/{rev}/{file}",
    "/api/{kind}",
    "/api/whoami-v2",
    "/api/papers/1",
    "/api/telemetry/x",
    "/api/quicksearch",
    "/papers/1.md",
)
FILE_PATHS = (
    "/{repo}/resolve/{rev}/{file}",
    "/{repo}/resolve/{rev}/{file}",
    "/{kind}/{repo}/resolve/{rev}/{file}",
    "/{repo}/raw/{rev}/{file}",
    "/{repo}.git/info/refs",
    "/{repo}/info/lfs/objects/batch",
)
OWN = (
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/_headrace/blocks/{digest}",
    "/_headrace/blobs/{digest}",
    "/_headrace/status.json",
    "/_headrace/openapi.json",
    "/_headrace/admin/{file}",
    "/_headrace/{file}",
)
DETOURS = (
    "..",
    ".",
    "",
    "%2e%2e",
    "%2E%2E%2F",
    "..%2f..%2f..%2f",
    "%252e%252e",
    "%00",
    "%c0%ae%c0%ae",
    "%ff%fe",
    "%0d%0aSet-Cookie:x",
    "%0a",
    "\\..\\",
    "..;",
    "%u002e",
    "%",
    "%zz",
    "~",
    "'",
    '"',
    "<script>",
    "resolve",
    "raw",
    "api",
    "a" * 300,
    "%F0%9F%92%A9",
    "xn--",
    "%EF%BC%8E%EF%BC%8E",
    "blobs",
    "capability.key",
)
RANGES = (
    "bytes=0-0",
    "bytes=5-",
    "bytes=-1",
    "bytes=-0",
    "bytes=9-1",
    "bytes=0-99999999999999999999999999",
    "bytes=18446744073709551615-",
    "bytes=--1",
    "bytes=1-2-3",
    "bytes=",
    "bytes",
    "items=0-1",
    "bytes= 0 - 1",
    "bytes=\u0661-\u0662",
    "bytes=0x1-2",
    "bytes=1e3-",
    ",".join(["bytes=0-1"] + [f"{n}-{n}" for n in range(1200)]),
    "bytes=0-1,3-4",
    "bytes=,",
)
METHODS = ("GET",) * 12 + ("HEAD",) * 4 + ("POST",) * 4
ODD_METHODS = (
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "get",
    "PROPFIND",
    "A" * 40,
    "G\x00T",
    "",
    "GET ",
)
VERSIONS = ("HTTP/1.1",) * 90 + (
    "HTTP/1.0",
    "HTTP/1.0",
    "HTTP/0.9",
    "HTTP/2.0",
    "HTTP/9.9",
    "http/1.1",
    "",
    "X",
)
PREFACES = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"GET /\r\n",
    b"\r\n\r\n\r\n",
    b"\x00" * 64,
    b"SSH-2.0-x\r\n",
    b"EHLO x\r\n",
    b"\x05\x01\x00",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\n\r\n",
)


# CANARY, THERE and FOLDER stand for an origin, its host and port, and a file, of which nothing may be heard.
HEADERS = {
    "Host": ("node",) * 40 + ("THERE", "", "a b", "[::1", "x" * 300, "\u00e9", "node\x0b"),
    "Range": RANGES,
    "If-Range": ("*", '"x"', "x", "Mon, 01 Jan 2024 00:00:00 GMT"),
    "If-None-Match": ("*", '"x"', "W/", "," * 50),
    "Authorization": (f"Bearer {TOKEN}", f"Basic {TOKEN}", TOKEN, f"bearer  {TOKEN}", f"{TOKEN}\u00e9"),
    "Cookie": (f"token={TOKEN}",),
    "X-Forwarded-Host": ("THERE", "a,b,c", '"'),
    "X-Forwarded-For": ("1.2.3.4", "::1", "," * 30, "x"),
    "X-Forwarded-Proto": ("https", "gopher", "https,http"),
    "X-Forwarded-Prefix": ("/x", "//THERE", "..", "CANARY"),
    "Forwarded": ("for=1;host=THERE", ";;;,,", 'for="' + "x" * 99),
    "Accept-Encoding": ("gzip", "br;q=x", "*"),
    "Expect": ("100-continue", "200-ok"),
    "Upgrade": ("websocket", "h2c", "TLS/1.0"),
    "Connection": ("upgrade", "keep-alive", "close, upgrade", "Transfer-Encoding"),
    "User-Agent": ("wget", "x" * 2000, "\u202e", ""),
    "Origin": ("CANARY", "null"),
    "Access-Control-Request-Method": ("GET",),
    "X-Accel-Redirect": ("FOLDER",),
    "X-Original-URL": ("FOLDER", "CANARY"),
    "X-HTTP-Method-Override": ("DELETE",),
    "X-Big": (*("x" * 100,) * 9, "x" * 8100, "x" * 8300, "x" * 30000),
}
NAMES = tuple(name for name in HEADERS if name != "Host")
ODD_HEADERS = (
    "bad header",
    " folded: x",
    "X-Nul: a\x00b",
    "X-Bare: a\rb",
    ": empty",
    "Sp ace: x",
    "Range : bytes=0-1",
    f"{TOKEN}",
)


@dataclass(frozen=True)
class Case:
    """What is sent on one connection; `method` is that of the one request it is, empty where nobody can tell."""

    sent: bytes
    method: str = ""


class Grammar:
    """Makes cases. `digests` are of contents that exist; `canary` is an origin that nobody may ask for anything."""

    def __init__(self, digests: tuple[str, ...], canary: str, folder: str) -> None:
        self._digests = digests
        self._canary = canary
        self._host = canary.partition("://")[2]
        self._folder = folder

    def case(self, seed: str) -> Case:
        """The case of a seed, the same each time."""
        rng = Random(seed)
        kind = rng.random()
        if kind < 0.02:
            return Case(rng.choice(PREFACES) + rng.randbytes(rng.randrange(40)))
        if kind > 0.75:
            return self._sensible(rng)
        method = rng.choice(ODD_METHODS) if rng.random() < 0.1 else rng.choice(METHODS)
        sent = self._request(rng, method)
        if kind < 0.25:
            return Case(_mutated(rng, sent))
        if kind < 0.3:
            return Case(sent + b"".join(self._request(rng, "GET") for _ in range(rng.randrange(5))))
        return Case(sent, method)

    def _sensible(self, rng: Random) -> Case:
        """What a client may well ask, with one thing that is odd about it."""
        method, repo = rng.choice(("GET", "GET", "GET", "HEAD")), rng.choice(("org/open", "org/open", *REPOS))
        path = rng.choice((*API[:6], *FILE_PATHS[:2])).format(
            kind="models", repo=repo, rev="main", file=rng.choice(FILES)
        )
        head = f"{method} {path}?{self._argument(rng)} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n"
        return Case((head + self._header(rng, rng.choice(NAMES)) + "\r\n\r\n").encode(), method)

    def _request(self, rng: Random, method: str) -> bytes:
        line = f"{method} {self._target(rng)} {rng.choice(VERSIONS)}"
        headers, body = self._headers(rng), b""
        if method == "POST" or rng.random() < 0.05:
            more, body = _body(rng)
            headers += more
        if rng.random() < 0.9:
            headers.append("Connection: close")
        rng.shuffle(headers)
        head = "\r\n".join([line, *headers]) + "\r\n\r\n"
        return head.encode("utf-8", "surrogatepass") + body

    def _target(self, rng: Random) -> str:
        path = rng.choice((API, API, FILE_PATHS, FILE_PATHS, OWN)[rng.randrange(5)]).format(
            kind=rng.choice(KINDS),
            repo=rng.choice(REPOS),
            rev=rng.choice(REVISIONS),
            file=rng.choice(FILES),
            digest=rng.choice(self._digests),
        )
        if rng.random() < 0.25:
            path = self._detour(rng, path)
        if rng.random() < 0.4:
            path += "?" + "&".join(self._argument(rng) for _ in range(rng.randrange(4)))
        if rng.random() < 0.05:
            path = (
                rng.choice((self._canary, "http://node", "https://u:p@node", "ftp://x", "//" + self._host))
                + path
            )
        if rng.random() < 0.01:
            path = rng.choice(("*", self._host, "", "x", "/" + "a/" * 4000, "/" + "%2e" * 9000, "#", "?"))
        return path

    def _detour(self, rng: Random, path: str) -> str:
        parts = path.split("/")
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(1, len(parts) + 1)
            word = rng.choice((*DETOURS, self._folder, quote(self._folder, safe="")))
            if rng.random() < 0.5:
                parts.insert(at, word)
            else:
                parts[at - 1 : at] = [word if at > 1 else ""]
        return "/".join(parts)

    def _argument(self, rng: Random) -> str:
        name = rng.choice(
            [
                "url",
                "cursor",
                "limit",
                "expand",
                "expand[]",
                "recursive",
                "blobs",
                "securityStatus",
                "until",
                "proof",
                "download",
                "p",
                "search",
                "x",
            ]
        )
        value = rng.choice(
            (
                "true",
                "1",
                "-1",
                "9" * 400,
                "",
                self._canary,
                quote(self._canary, safe=""),
                "%00",
                "%ff",
                "ZmFi",
                "ZA==",
                "../..",
                "downloads",
                "a" * 500,
            )
        )
        return f"{name}={value}"

    def _headers(self, rng: Random) -> list[str]:
        headers = [self._header(rng, "Host")] if rng.random() < 0.97 else []
        headers += [self._header(rng, rng.choice(NAMES)) for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 6)))]
        if rng.random() < 0.05:
            headers.append(rng.choice(ODD_HEADERS))
        if rng.random() < 0.01:
            headers += [f"X-{number}: {number}" for number in range(300)]
        return headers

    def _header(self, rng: Random, name: str) -> str:
        text = rng.choice(HEADERS[name])
        for word, meant in (("CANARY", self._canary), ("THERE", self._host), ("FOLDER", self._folder)):
            text = text.replace(word, meant)
        return f"{name}: {text}"


def _body(rng: Random) -> tuple[list[str], bytes]:
    body = rng.choice(
        (
            b'{"paths": ["config.json", "secret.bin"]}',
            b'{"paths": "config.json", "expand": true}',
            b"paths=config.json&paths=..%2F..%2Fx&expand=true",
            b"[" * 3000,
            b'{"paths": {"a": 1}, "expand": []}',
            b'{"paths": ["' + b"a/" * 2000 + b'", "\\u0000", "/", "//", "."]}',
            b"",
            b"\xff\xfe",
            rng.randbytes(200),
        )
    )
    kind = rng.choice(
        ("application/json", "application/x-www-form-urlencoded", "multipart/form-data", "x", "")
    )
    headers = [f"Content-Type: {kind}"]
    length, how = len(body), rng.random()
    if how < 0.6:
        return [*headers, f"Content-Length: {length}"], body
    if how < 0.75:
        chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (length, body) if length else b"0\r\n\r\n"
        return [*headers, "Transfer-Encoding: chunked"], chunks
    odd = (
        [f"Content-Length: {length + 50}"],
        [f"Content-Length: {length}", f"Content-Length: {length + 1}"],
        [f"Content-Length: {length}", "Transfer-Encoding: chunked"],
        ["Content-Length: -1"],
        ["Content-Length: 99999999999999999999"],
        ["Content-Length: 5000000"],
        ["Content-Length: +3"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        [f"Content-Length: {length}", "Content-Encoding: gzip"],
        [f"Content-Length: {length}", "Content-Encoding: deflate"],
    )
    return headers + list(rng.choice(odd)), rng.choice(
        (body, b"ffffffffffffffff\r\n" + body, b"zz\r\n", b"-1\r\n\r\n")
    )


def _mutated(rng: Random, sent: bytes) -> bytes:
    data = bytearray(sent)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(5)
        if how == 0:
            data[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif how == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del data[at : at + rng.randrange(1, 20)]
        elif how == 3:
            data[at:at] = data[: rng.randrange(60)]
        else:
            data[at:at] = rng.choice(
                (b"\r\n", b"\n", b"\r", b"\x00", b" ", b"%", b"\r\n\r\n", b"\xe2\x80\xae")
            )
    return bytes(data[: rng.randrange(len(data) + 1)]) if rng.random() < 0.1 else bytes(data)

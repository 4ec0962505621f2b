"""Words of HTTP that sources read and nodes write: headers, ranges, links, URLs. No sockets here.

Hub headers as huggingface_hub's clients and the hub itself use them; ranges as RFC 9110 §14.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from headrace.errors import UsageError
from headrace.names import Repo
from headrace.ranges import Range

REPO_COMMIT = "X-Repo-Commit"
LINKED_ETAG = "X-Linked-Etag"
LINKED_SIZE = "X-Linked-Size"
ERROR_CODE = "X-Error-Code"
ERROR_MESSAGE = "X-Error-Message"
WARNING = "X-HF-Warning"

NODE_SERVER = "headrace"
"""What a node calls itself in `Server`; proxies in front may call themselves."""
NODE_TOKEN = "hrn_"  # noqa: S105  # how one begins
"""A token of a node's own."""
NODE_REALM = 'realm="headrace"'
"""What a node that wants such a token says in `WWW-Authenticate`."""

BLOCK_BYTES = 4 * 1024 * 1024
"""The unit of verification lists, repair and hold-back."""

# Numbers are ASCII and short: `\d` would take other scripts' digits, and int() refuses thousands of them.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.IGNORECASE)
_RANGE = re.compile(r"bytes=(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))", re.IGNORECASE)
_NEXT_LINK = re.compile(r"<([^>]*)>\s*;(?:[^,]*[;\s])?rel=\"?next(?![^\s\";,])", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}")
_LEFT = re.compile(r";\s*r=([0-9]{1,9})\s*(?:;|$)")
_LIMIT = re.compile(r";\s*q=([0-9]{1,9})\s*(?:;|,|$)")
_WINDOW = re.compile(r";\s*w=([0-9]{1,9})\s*(?:;|,|$)")
_EPOCH = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_DATE = re.compile(
    r"[A-Z][a-z]{2}, ([0-9]{2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([0-9]{4}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)
_EPOCH_TIME = re.compile(rb'"AWS:EpochTime"\s*:\s*([0-9]{1,12})')
_ISO = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})T([0-9]{2}):?([0-9]{2}):?([0-9]{2})(?:\.[0-9]{1,9})?Z")
_RESET = re.compile(r";\s*t=([0-9]{1,9})\s*(?:;|$)")
_ASCII_NAME = re.compile(r"[a-z0-9._-]+")
_NO_HOST = re.compile(r"[\s\\%<>\"^`{|}]")
_BARE_HOST = re.compile(r"[\w.-]+(:\d+)?(/[\w./-]*)?")
# Compiled when they are needed, which is when something went wrong. Each leaves its group standing, which says what was
# there; a quoted value may have spaces. The words may be anything, and long: no pattern may begin anew within what it
# has looked through, which would take minutes.
_SECRETS = (
    r"(\b(?:proxy-authorization|authorization|set-cookie|cookie)\b).+",
    r"(\b(?:bearer|basic)\s+)\S+",
    (
        r"((?<![\w-])(?=[\w-]*(?:token|secret|passw|signature|credential|api[_-]?key))[\w-]+[\"']?\s*[:=]\s*)"
        r"(?:\"[^\"]*\"?|'[^']*'?|\S+)"
    ),
    r"(\b(?:hf_|hrn_|ms-))[\w-]{6,}",
)


_NAT64 = IPv6Network("64:ff9b::/96")


class Unsatisfiable(ValueError):
    """A Range header that asks for bytes the content does not have: HTTP 416."""


def normalized_endpoint(url: str) -> str:
    """An http(s) URL in the one form sources are compared by: lower-case host, no default port, no last slash.

    Raises:
        UsageError: not an http(s) URL, or one that carries a user name, query or fragment.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = _ascii_name(parts.hostname or "")
    sound = (
        parts.scheme in ("http", "https")
        and host
        and not _NO_HOST.search(host.partition("%")[0] if ":" in host else host)
        and "@" not in parts.netloc
        and not any(character.isspace() or character == "\\" for character in parts.path)
        and not (parts.query or parts.fragment)
    )
    if not sound:
        raise _no_endpoint(url)
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}[parts.scheme]
    location = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((parts.scheme, location, parts.path.rstrip("/"), "", ""))


def _no_endpoint(url: str) -> UsageError:
    """Without a scheme, what is before the port would be taken for one and not be shown."""
    told = url if _BARE_HOST.fullmatch(url) else shown(url)
    return UsageError(f"{told!r} is not an endpoint", hint="write http(s)://HOST[:PORT][/PATH]")


def _ascii_name(host: str) -> str:
    """A host as look-ups, certificates and the Host header have it; empty where it cannot be one."""
    if host.isascii():
        return host
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        return ""
    return name if _ASCII_NAME.fullmatch(name) else ""


def shown(url: str) -> str:
    """The URL as it may be printed or logged: without user, password, query (signatures) and fragment.

    Of what is no URL nothing is shown that could be one of these.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises where it is none: then this may be half of a password
    except ValueError:
        return ""
    if not parts.netloc:
        return parts.path.rpartition("@")[2]
    user, at, path = parts.path.rpartition("@")  # of a user name or password with a slash in it
    name, colon, _ = user.partition(":")
    told = f"{name}{'…' if colon else ''}{at}{path}"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], told, "", ""))


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Words that nobody chose for being read, a traceback's, as they may be printed or logged.

    URLs are `shown`, and what looks like a token, a password, a signature or a header with one is left out, rather too
    much than too little; `secrets` are left out whatever they look like.
    """
    for secret in secrets:
        text = text.replace(secret, "…")
    text = re.sub(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://\S+", lambda found: shown(found[0]) or "…", text)
    for pattern in _SECRETS:
        text = re.sub(pattern, r"\1…", text, flags=re.IGNORECASE)
    return re.sub(r"\S+", lambda found: _without_url_secrets(found[0]), text)


def _without_url_secrets(word: str) -> str:
    """The word without what would be a query in a URL, or user and password, where a scheme is missing."""
    path, _, query = word.partition("?")
    if "=" in query:
        word = f"{path}?…"
    user, _, host = word.rpartition("@")
    return f"…@{host}" if ":" in user[:-1] else word


def origin_of(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of an http(s) URL: what decides whether credentials may travel along."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def is_private_address(address: str) -> bool:
    """Whether this IP is not of the public internet: loopback, link-local, private, shared, multicast.

    IPv6 addresses that carry an IPv4 address (mapped, 6to4, NAT64) are what they carry.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        nat64 = IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        carried = ip.ipv4_mapped or ip.sixtofour or nat64
        if carried is not None:
            return carried.is_multicast or not carried.is_global
    return ip.is_multicast or not ip.is_global


def is_loopback(host: str) -> bool:
    """Whether this host, an address or a name, is this machine by what it is called."""
    host = host.rstrip(".")
    if host == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False  # a name: where it leads is not known here


def proxy_for(origin: tuple[str, str, int], table: Mapping[str, tuple[str, str]]) -> tuple[str, str] | None:
    """The variable and the URL of the proxy on the way to an origin, if there is one.

    `table` has (variable, value) for the schemes `http` and `https`, for `all`, and for `no`: those exempt.
    """
    scheme, host, port = origin
    variable, url = table.get(scheme) or table.get("all") or ("", "")
    words = re.split(r"[\s,]+", table.get("no", ("", ""))[1].lower())
    if not url or any(_covers(word, host.rstrip("."), port) for word in words if word):
        return None
    return variable, url


def host_of_proxy(url: str) -> str:
    """The host in the value of a proxy variable; empty where there is none to be made out."""
    try:
        return urlsplit(url if "://" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def _covers(word: str, host: str, port: int) -> bool:
    """Whether a word of `no_proxy` means this host: `*`, an address, a network, a name and all below it, `:PORT`."""
    if word == "*":
        return True
    try:
        network = ip_network(word.strip("[]"), strict=False)
    except ValueError:
        network = None  # no address
    if network is not None:
        return _is_in(host, network)
    bare, colon, wanted = word.rpartition(":")
    if colon and wanted.isdecimal():
        return int(wanted) == port and _covers(bare, host, port)
    name = word.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _is_in(host: str, network: object) -> bool:
    try:
        return ip_address(host.partition("%")[0]) in network  # type: ignore[operator]
    except ValueError:
        return False


def api_path(repo: Repo, *parts: str) -> str:
    """`/api/models/org/name/part/…`; each part is quoted whole, slashes included, as hub clients do."""
    return "/".join(
        [f"/api/{repo.kind.plural}/{quote(repo.name)}", *(quote(part, safe="") for part in parts)]
    )


def resolve_path(repo: Repo, revision: str, path: str) -> str:
    """`/org/name/resolve/REV/path`: where a file's bytes are asked for."""
    return f"/{repo.kind.url_prefix}{quote(repo.name)}/resolve/{quote(revision, safe='')}/{quote(path)}"


def range_header(wanted: Range) -> str:
    """The Range header that asks for exactly these bytes."""
    return f"bytes={wanted.start}-{wanted.stop - 1}"


def parse_content_range(header: str | None) -> tuple[Range, int] | None:
    """The range and the total size a 206 announces; None where the header says neither or makes no sense."""
    match = _CONTENT_RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    start, last, total = map(int, match.groups())
    return (Range(start, last + 1), total) if start <= last < total else None


def parse_range_header(header: str | None, size: int) -> Range | None:
    """The single range a request asks of content of `size` bytes.

    None means the whole: no header, another unit, several ranges or bad syntax, which RFC 9110 lets a server
    ignore.

    Raises:
        Unsatisfiable: nothing of what is asked exists.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(0, size - int(suffix)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= stop:
        raise Unsatisfiable(f"no byte of {header!r} in {size}")
    return Range(start, stop)


def is_resumption(header: str | None) -> bool:
    """Whether a request asks for everything from some byte on, as those do that have what is before it."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    return match is not None and bool(match.group(1)) and not match.group(2) and int(match.group(1)) > 0


def parse_next_link(header: str | None) -> str | None:
    """The URL of the next page in a Link header, if there is one."""
    match = _NEXT_LINK.search(header) if header else None
    return match.group(1) if match else None


def parse_etag(header: str | None) -> str | None:
    """An ETag without weakness mark and quotes."""
    return header.strip().removeprefix("W/").strip('"') if header else None


def parse_date(text: str | None) -> float | None:
    """The moment an HTTP date means, in seconds since 1970; None where it is none of the form RFC 9110 §5.6.7 wants."""
    match = _DATE.fullmatch(text.strip()) if text else None
    if match is None:
        return None
    day, month, year, hour, minute, second = match.groups()
    numbers = (
        int(year),
        _MONTHS.index(month) // 3 + 1,
        int(day),
        int(hour),
        int(minute),
        min(int(second), 59),
    )
    return _moment(numbers)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server wants to be left alone: `Retry-After`, else the hub's `RateLimit` when spent.

    A date is judged by the server's own `Date`: this machine's clock may be wrong.
    """
    told = (headers.get("Retry-After") or "").strip()
    if _SECONDS.fullmatch(told):
        return float(told)
    moment, now = parse_date(told), parse_date(headers.get("Date"))
    if moment is not None and now is not None:
        return max(0.0, moment - now)
    limit = rate_limit(headers)
    return limit.reset_s if limit is not None and limit.left == 0 else None


@dataclass(frozen=True)
class RateLimit:
    """How many more requests are welcome before `reset_s` seconds have passed.

    `limit` is how many there are in all in `window_s` seconds, where that is told.
    """

    left: int
    reset_s: float
    limit: int | None = None
    window_s: float | None = None


def rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """What `RateLimit` and `RateLimit-Policy` say of this kind of request; of several windows the one with least left.

    As hubs write it: `RateLimit: "api";r=489;t=189`, `RateLimit-Policy: "fixed window";"api";q=500;w=300`.
    """
    found = []
    for quota in (headers.get("RateLimit") or "").split(","):
        left, reset = _LEFT.search(quota), _RESET.search(quota)
        if left and reset:
            found.append(RateLimit(int(left.group(1)), float(reset.group(1))))
    if not found:
        return None
    least = min(found, key=lambda one: (one.left, -one.reset_s))
    policy = headers.get("RateLimit-Policy") or "" if len(found) == 1 else ""
    limit, window = _LIMIT.search(policy), _WINDOW.search(policy)
    return replace(
        least,
        limit=int(limit.group(1)) if limit else None,
        window_s=float(window.group(1)) if window else None,
    )


def signed_life_s(url: str, date: str | None) -> float | None:
    """How long a signed URL works, counted from the server's `date`; None where it does not say.

    S3 and Google Cloud Storage (X-Amz-Date + X-Amz-Expires), CloudFront (Expires, or a Policy), Azure (se).
    """
    try:
        query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    except ValueError:
        return None
    now = parse_date(date)
    for vendor in ("amz", "goog"):
        issued, life = parse_instant(query.get(f"x-{vendor}-date")), query.get(f"x-{vendor}-expires", "")
        if issued is not None and _SECONDS.fullmatch(life):
            return float(life) if now is None else issued + float(life) - now
    end = parse_instant(query.get("se"))
    if _EPOCH.fullmatch(query.get("expires", "")):
        end = float(query["expires"])
    elif "policy" in query:
        end = _policy_end(query["policy"])
    return end - now if end is not None and now is not None else None


def _policy_end(policy: str) -> float | None:
    """The end in a CloudFront policy: base64 of JSON, with its own three letters for those that URLs cannot have."""
    text = policy.translate(str.maketrans("-_~", "+=/"))
    try:
        found = _EPOCH_TIME.search(b64decode(text))
    except ValueError:
        return None
    return float(found.group(1)) if found else None


def parse_instant(text: str | None) -> float | None:
    """The moment that `20261122T101530Z`, `2026-11-22T10:15:30Z` or `…30.000Z` means, in seconds since 1970."""
    match = _ISO.fullmatch(text) if text else None
    return _moment(tuple(map(int, match.groups()))) if match else None


def _moment(numbers: tuple[int, ...]) -> float | None:
    try:
        year, month, day, hour, minute, second = numbers
        return datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return None

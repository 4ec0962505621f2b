"""Words of HTTP that sources read and nodes write: headers, ranges, links, URLs. No sockets here.

Hub headers as huggingface_hub's clients and the hub itself use them; ranges as RFC 9110 §14.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote, urlsplit, urlunsplit

from headrace.errors import UsageError
from headrace.names import Repo
from headrace.ranges import Range

REPO_COMMIT = "X-Repo-Commit"
LINKED_ETAG = "X-Linked-Etag"
LINKED_SIZE = "X-Linked-Size"
ERROR_CODE = "X-Error-Code"
ERROR_MESSAGE = "X-Error-Message"
WARNING = "X-HF-Warning"

BLOCK_BYTES = 4 * 1024 * 1024
"""The unit of verification lists, repair and hold-back."""

# Numbers are ASCII and short: `\d` would take other scripts' digits, and int() refuses thousands of them.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.IGNORECASE)
_RANGE = re.compile(r"bytes=(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))", re.IGNORECASE)
_NEXT_LINK = re.compile(r"<([^>]*)>\s*;(?:[^,]*[;\s])?rel=\"?next(?![^\s\";,])", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}")
_SPENT = re.compile(r";\s*r=0\s*(?:;|$)")
_RESET = re.compile(r";\s*t=([0-9]{1,9})\s*(?:;|$)")
_NO_HOST = re.compile(r"[\s\\%<>\"^`{|}]")


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
    host = parts.hostname or ""
    sound = (
        parts.scheme in ("http", "https")
        and host
        and not _NO_HOST.search(host.partition("%")[0] if ":" in host else host)
        and "@" not in parts.netloc
        and not any(character.isspace() or character == "\\" for character in parts.path)
        and not (parts.query or parts.fragment)
    )
    if not sound:
        raise UsageError(f"{shown(url)!r} is not an endpoint", hint="write http(s)://HOST[:PORT][/PATH]")
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}[parts.scheme]
    location = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((parts.scheme, location, parts.path.rstrip("/"), "", ""))


def shown(url: str) -> str:
    """The URL as it may be printed or logged: without user, password, query (signatures) and fragment.

    Of what is no URL nothing is shown that could be one of these.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if not parts.netloc:
        return parts.path.rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


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


def parse_next_link(header: str | None) -> str | None:
    """The URL of the next page in a Link header, if there is one."""
    match = _NEXT_LINK.search(header) if header else None
    return match.group(1) if match else None


def parse_etag(header: str | None) -> str | None:
    """An ETag without weakness mark and quotes."""
    return header.strip().removeprefix("W/").strip('"') if header else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server wants to be left alone: `Retry-After` in seconds, else the hub's `RateLimit` when spent."""
    after = _SECONDS.fullmatch((headers.get("Retry-After") or "").strip())
    if after:
        return float(after.group())
    for quota in (headers.get("RateLimit") or "").split(","):
        reset = _RESET.search(quota)
        if reset and _SPENT.search(quota):
            return float(reset.group(1))
    return None

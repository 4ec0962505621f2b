"""Lists of digests beside files: what `sha256sum` writes, as `SHA256SUMS`, `sha256sums.txt` or `FILE.sha256`."""

from __future__ import annotations

import re

from headrace.errors import BadManifest
from headrace.manifest import Digest

NAMES = ("SHA256SUMS", "sha256sums.txt")
"""What such a list is called where it is beside the files of a folder."""

BYTES_MOST = 16 * 1024 * 1024

_LINE = re.compile(r"(\\?)([0-9A-Fa-f]{64}) [ *](.+)")
_BARE = re.compile(r"[0-9A-Fa-f]{64}")
_ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


def parse_checksums(text: str) -> dict[str, Digest]:
    """Path → digest, of GNU coreutils' format; empty where there is a line that is none, as in a web page.

    A line with a backslash in front has them in its name as well, for line feeds and backslashes.

    Raises:
        BadManifest: a path has two digests.
    """
    found: dict[str, Digest] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            return {}
        escaped, digits, path = match.groups()
        if escaped:
            path = re.sub(r"\\[\\nr]", lambda one: _ESCAPES[one[0]], path)
        path, digest = path.removeprefix("./"), Digest(Digest.SHA256, digits.lower())
        if found.setdefault(path, digest) != digest:
            raise BadManifest(f"a list of digests has two for {path!r}")
    return found


def digest_of(text: str, name: str) -> Digest | None:
    """The digest that a file beside `name`, about it alone, tells: a bare one, or a list with that name in it."""
    first = text.strip()
    if _BARE.fullmatch(first):
        return Digest(Digest.SHA256, first.lower())
    listed = parse_checksums(text)
    found = {one for path, one in listed.items() if path.rpartition("/")[2] == name}
    return found.pop() if len(found) == 1 else None

"""A file, or the part of it that a Range header names, as an answer (RFC 9110, section 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from headrace.testing.answer import Answer, Slice
from headrace.testing.catalog import Entry

_SINGLE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE | re.ASCII)


class Unsatisfiable(Exception):
    """The range is well formed, but no byte of the file lies in it."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes asked for as (start, stop), or None for the whole file.

    Several ranges and malformed ones are ignored, as the RFC allows and the hub does.

    Raises:
        Unsatisfiable: the answer is a 416.
    """
    match = _SINGLE_RANGE.fullmatch(header or "")
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), size if last == "" else min(size, int(last) + 1)
        if last != "" and int(last) < int(first):
            return None
    if start >= stop:
        raise Unsatisfiable
    return start, stop


def file_answer(entry: Entry, asked: Mapping[str, str], etag: str) -> Answer:
    """The 200, 206, 304 or 416 for `entry`; `asked` are the request's headers, `etag` comes quoted."""
    common = (
        ("ETag", etag),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", "text/plain; charset=utf-8" if not entry.lfs else "binary/octet-stream"),
    )
    about = Answer(200, common, file=entry.path, blob=entry.digest)
    if etag in asked.get("if-none-match", ""):
        return Answer(304, common, file=entry.path, blob=entry.digest)
    wanted = asked.get("range") if asked.get("if-range", etag) == etag else None
    try:
        part = parse_range(wanted, entry.size)
    except Unsatisfiable:
        whole = ("Content-Range", f"bytes */{entry.size}")
        return Answer(416, (*common, whole), b"Range Not Satisfiable", entry.path, entry.digest)
    if part is None:
        return Answer(200, about.headers, Slice(entry.file, 0, entry.size), entry.path, entry.digest)
    start, stop = part
    where = ("Content-Range", f"bytes {start}-{stop - 1}/{entry.size}")
    return Answer(206, (*common, where), Slice(entry.file, start, stop), entry.path, entry.digest)

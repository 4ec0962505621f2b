"""What can go wrong on the way to a client, as data. `bending` knows what each kind does to an answer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

HOWS: dict[str, tuple[str, ...]] = {
    "skew": (),
    "status": ("seconds", "date"),
    "quota": ("resolvers", "api"),
    "loop": (),
    "elsewhere": (),
    "whole": (),
    "page": (),
    "json": ("truncated", "types", "deep", "empty"),
    "gzip": ("real", "label"),
    "misrange": ("start", "end", "total"),
    "lengthless": ("chunked", "close"),
    "length": (),
    "rate": (),
    "trickle": (),
    "total": (),
    "collapse": (),
    "latency": (),
    "slowhead": (),
    "hangup": ("before", "head"),
    "double": (),
    "reset": (),
    "truncate": (),
    "stall": (),
    "expire": (),
    "flip": (),
    "moved": (),
    "crowd": ("reset", "busy", "silent"),
}
"""Every kind, with the ways it may take by name; the first is the usual one."""

_RATED = ("rate", "trickle", "total")
_COUNTED = ("collapse", "crowd", "quota")
_ADDRESSED = ("elsewhere", "moved")


@dataclass(frozen=True)
class Fault:
    """One way to misbehave.

    kind:
        The line
        `rate`      `rate` bytes a second for file contents on each connection, without a burst for new ones
        `trickle`   `rate` bytes a second for every body, API answers included
        `total`     `rate` bytes a second for all connections of one client address together
        `collapse`  while a client address has more than `most` connections open, what `most` of them could
                    have at `rate` each shrinks to a quarter, shared by all; up to `most` nothing happens
        `latency`   `delay_s` before the first byte of every answer, API answers included
        `slowhead`  the head comes byte by byte, `delay_s` apart, and never ends
        `hangup`    the connection ends `before` the answer, or after its `head`; API answers included
        `reset`     RST after `after_bytes` of a file's body
        `truncate`  the length promises all, but the connection ends cleanly after `after_bytes`
        `stall`     nothing more after `after_bytes`, and the connection stays open
        `expire`    RST after `after_bytes` of a body, and its signed address is refused (403) from then on
        `flip`      the byte at `offset` of the file is wrong in every answer that covers it
        `double`    the answer is sent twice: the second time nobody asked for it
        `crowd`     more than `most` connections of one client address: the others are `reset`, answered 503
                    (`busy`) or left `silent`; `times` counts connections
        The answer
        `status`    an error, `status`, instead of any answer; with Retry-After if `delay_s` is given, in
                    `seconds` or as a `date` by the hub's own clock
        `quota`     after `most` requests of a client address for `resolvers` (/resolve/) or the `api`
                    within `delay_s` seconds: 429. Every answer tells what is left, as the hub does
        `page`      200 and an HTML page instead of file or JSON, as captive portals do
        `json`      an API answer is `truncated`, has wrong `types`, is nested too `deep` or `empty`
        `gzip`      compressed though nobody asked: `real`ly, or by its `label` only
        `whole`     a Range header is ignored: 200 and the file from its beginning
        `misrange`  a 206 whose Content-Range lies by one byte about `start`, `end` or `total`
        `length`    Content-Length is wrong by `by` bytes (which may be negative)
        `lengthless` no Content-Length: `chunked`, or the end is where the connection is `close`d
        `skew`      the Date header is `by` seconds off; see also `ChaosHub.clock_off_s`
        The place
        `loop`      a redirect to the very address that was asked for
        `elsewhere` redirects lead to the origin `to` (`https://host:port`), and contents are redirected there
        `moved`     the main branch is another one, `to`
    match: a glob on the file's path inside its repo; `*` crosses slashes. Answers that are about no
        file have the empty path.
    host: `cdn` (large files), `hub` (small files and the API) or `any`.
    skip: how many answers are spared first.
    times: how many answers it hits, then it is over; None means for ever. An answer that is too short
        for the fault to show, or of another sort, is not hit and not counted.
    how: the way it takes, where a kind has several.
    """

    kind: str
    match: str = "*"
    host: str = "cdn"
    after_bytes: int = 0
    offset: int = 0  # bytes, in the file
    times: int | None = None
    skip: int = 0
    rate: float | None = None  # bytes a second
    delay_s: float = 0.0  # seconds
    status: int = 503
    how: str = ""
    by: int = 0
    most: int = 0
    to: str = ""

    def __post_init__(self) -> None:
        if self.kind not in HOWS:
            raise ValueError(f"unknown fault {self.kind!r}; there are {', '.join(sorted(HOWS))}")
        if self.host not in {"cdn", "hub", "any"}:
            raise ValueError(f"host must be cdn, hub or any, not {self.host!r}")
        hows = HOWS[self.kind]
        if self.how and self.how not in hows:
            raise ValueError(f"{self.kind} has no way {self.how!r}; it has {', '.join(hows) or 'none'}")
        HTTPStatus(self.status)  # raises for a code that does not exist
        if min(self.after_bytes, self.offset, self.delay_s, self.skip) < 0:
            raise ValueError("after_bytes, offset, delay_s and skip cannot be negative")
        self._require(_RATED, "a positive rate", (self.rate or 0) > 0)
        self._require(_COUNTED, "a positive most", self.most > 0)
        self._require(_ADDRESSED, "a place `to` lead to", bool(self.to))

    def _require(self, kinds: tuple[str, ...], what: str, given: object) -> None:
        if self.kind in kinds and not given:
            raise ValueError(f"a {self.kind} fault needs {what}")

    @property
    def way(self) -> str:
        """`how`, or what is usual where none was chosen."""
        return self.how or next(iter(HOWS[self.kind]), "")

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return dataclasses.asdict(self)

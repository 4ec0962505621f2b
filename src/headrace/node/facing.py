"""The side that a node shows: its certificate, the web server in front of it, and the record of who asked for what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import UsageError

STDOUT = "-"
_INTERNAL = re.compile(r"/[A-Za-z0-9._~/-]+/")


@dataclass(frozen=True)
class Facing:
    """What is told of it.

    Attributes:
        tls_cert, tls_key: PEM files, the chain with the server's own certificate first; without them it is plain http.
        handshake_s: seconds that a client gets for its side of the handshake.
        x_accel: the path under which the web server in front has the blobs; empty: the node sends them itself.
        access_log: a file that gets a JSON object a line for each request; `-` is standard output, empty none.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    handshake_s: float = 10.0
    x_accel: str = ""
    access_log: str = ""

    def check(self) -> None:
        """Raise `UsageError` where this cannot be meant."""
        if (self.tls_cert is None) != (self.tls_key is None):
            lacking = "key" if self.tls_key is None else "certificate"
            raise UsageError(
                f"TLS needs a certificate and its key, and the {lacking} is not named",
                hint="name both with `tls_cert` and `tls_key`",
            )
        if self.x_accel and (not _INTERNAL.fullmatch(self.x_accel) or "//" in self.x_accel):
            raise UsageError(
                f"{self.x_accel!r} is no path of a web server", hint="write it with both slashes: /_blobs/"
            )

    @property
    def scheme(self) -> str:
        """Of the node's own address."""
        return "http" if self.tls_cert is None else "https"

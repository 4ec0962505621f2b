"""What one plain connection gets, as wget, curl or a stock client's file would: measured for a while, then reckoned."""

from __future__ import annotations

import time
import urllib.request
from urllib.parse import urlsplit

from headrace.errors import Unreachable, UsageError
from headrace.manifest import Manifest
from headrace.wire import resolve_path, shown

MEASURED_S = 6.0
_CHUNK_BYTES = 64 * 1024


def single_connection(endpoint: str, manifest: Manifest) -> tuple[float, int]:
    """Seconds that all bytes of the manifest would take over one connection, and the bytes this was reckoned from.

    The largest file is fetched for `MEASURED_S` at most; what is left is reckoned at the rate seen after the
    first byte. Waiting for the first bytes of the other files is left out, in favour of the single connection.
    """
    if not manifest.total_bytes:
        raise UsageError(f"{manifest.repo} holds no bytes to measure with", hint="try another `repo`")
    largest = max(manifest.entries, key=lambda entry: entry.size)
    url = endpoint + resolve_path(manifest.repo, manifest.commit, largest.path)
    began = time.monotonic()
    try:
        with _opener(url).open(url, timeout=30) as answer:
            got = len(answer.read(1))
            first_byte = time.monotonic()
            while time.monotonic() - began < MEASURED_S and (chunk := answer.read(_CHUNK_BYTES)):
                got += len(chunk)
            flowing = time.monotonic() - first_byte
    except OSError as error:
        raise Unreachable(f"{shown(url)} over one connection: {error}") from error
    left = manifest.total_bytes - got
    return time.monotonic() - began + left * flowing / got, got


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Goes by the user's proxies, as Headrace does; not to this machine itself."""
    is_here = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    return urllib.request.build_opener(urllib.request.ProxyHandler({} if is_here else None))

"""The certificate by which a node proves who it is, as it is renewed in its files.

Every handshake takes the pair that was read last, so that a renewal needs no restart and ends no connection. A pair that
cannot be used is told of once, and the one before stays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path

from headrace.errors import UsageError
from headrace.node.lines import flat
from headrace.node.threads import Threads

_LOOK_S = 2.0

_log = logging.getLogger("headrace.node")

_Facts = tuple[int, int, int]


class Certificates:
    """A chain and its key, and the `context` of a server that has them. Belongs to one event loop."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises `UsageError` where they are no such pair, or cannot be read."""
        self._cert, self._key = cert, key
        self._seen = self._look()
        self._current = self._read()
        self.context = self._current
        # The listener keeps the context that it was given: each connection is moved on to the newest.
        self.context.sni_callback = self._hand_over

    async def watch(self, threads: Threads) -> None:
        """Take what comes into the files, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.renew(threads)

    async def renew(self, threads: Threads) -> None:
        """Take what is in the files now, if it is another pair than was read."""
        # A disk that does not answer must not keep clients waiting.
        seen = await threads.disk(self._look)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._current = await threads.disk(self._read)
        except UsageError as error:
            _log.warning("the certificate stays as it was: %s", flat(error.message))
        else:
            _log.info("the certificate was renewed")

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _look(self) -> tuple[_Facts, _Facts]:
        return _facts(self._cert), _facts(self._key)

    def _read(self) -> ssl.SSLContext:
        for path in (self._cert, self._key):
            _check_readable(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert, self._key, password=self._no_passphrase)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise UsageError(
                    f"{self._key} is not the key of {self._cert}",
                    hint="name the pair that was issued together",
                ) from None
            raise UsageError(
                f"{self._cert} and {self._key} are no certificate with its key: {error.reason or error}",
                hint="both are PEM files; the server's own certificate comes first, then those that signed it",
            ) from None
        return context

    def _no_passphrase(self) -> str:
        # OpenSSL would ask whoever sits at the terminal; nobody sits at a service.
        raise UsageError(
            f"{self._key} is locked by a passphrase",
            hint="write it without one, for its owner alone: openssl pkey -in LOCKED -out KEY",
        )


def _facts(path: Path) -> _Facts:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check_readable(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", hint="name a PEM file that the node may read"
        ) from None

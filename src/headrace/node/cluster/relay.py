"""Passes requests on to the lead: a server gives out what is here, and all that has yet to come has one owner.

Two processes that each held back another block of one file would together give out all of it, wrong as it may be. So
what is not here is asked of the lead, over a socket that only this node's user can open, and its answer goes out as it
comes: what the lead breaks off is broken off here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from headrace.errors import Busy, StoreError
from headrace.manifest import Digest, Entry
from headrace.metrics import FILL
from headrace.node.access.proof import Proofs
from headrace.node.api.calls import path_of
from headrace.node.api.outside import VIEW
from headrace.node.body.blobs import BlobStore
from headrace.node.body.bodies import Body, Stored
from headrace.node.body.rechecks import Recheck, Rechecks
from headrace.node.body.sender import Sender, reset
from headrace.node.fill.fill import Disrupted
from headrace.node.fill.fills import DOUBT_S
from headrace.node.fill.order import Order
from headrace.node.ground import Ground
from headrace.node.lines import flat
from headrace.node.memory.inventory import Inventory
from headrace.node.threads import Threads
from headrace.ranges import Range

_AGAIN_S = 1.0
_CONNECT_S = 5.0
_ASK_S = 5.0
_PIECE_BYTES = 128 * 1024  # twice that is held for a client that reads slowly
_LINE_BYTES_MOST = 64 * 1024
_OK = 200

# What is about one connection (RFC 9110 §7.6.1), and what a server says of itself alone.
_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te"),
        *("trailer", "transfer-encoding", "upgrade", "expect", "content-length", VIEW.lower()),
    }
)
_OURS = frozenset({"server", "date"})
_UNSAID = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")

_log = logging.getLogger("headrace.node")


class NotHere(Exception):
    """Content that this process cannot give out by itself."""


class Here:
    """Bodies of what is on disk and verified; see `Opener`. What else there is, the lead looks at."""

    def __init__(self, store: BlobStore, noted: Inventory, proofs: Proofs, threads: Threads) -> None:
        """`noted`: with nothing in front of it. The lead writes, and a doubt counts from that moment on."""
        self._store = store
        self._noted = noted
        self._proofs = proofs
        self._threads = threads
        self._rechecks = Rechecks(store, threads)

    async def open(self, order: Order, *, resumes: bool = False, completes: bool = False) -> Body:
        """The body of a content; close it. Raises `NotHere`, and as `Proofs.prove`."""
        del resumes  # nothing of it is held back
        stored = await self.stored(order.content.entry, completes=completes)
        try:
            await self._proofs.prove(order, stored.file())
        except BaseException:
            stored.close()
            raise
        return stored

    async def stored(self, entry: Entry, *, completes: bool = False) -> Stored:
        """The verified file, whoever may have it. Raises `NotHere`."""
        verified = await self._threads.disk(self._store.open, entry.digest, entry.size)
        if verified is None:
            raise NotHere
        recheck = Recheck(self._rechecks, entry, completes=completes)
        return Stored(verified, partial(self.is_doubted, entry.digest), recheck)

    async def is_doubted(self, digest: Digest) -> bool:
        """Whether somebody may hold wrong bytes of it."""
        return time.time() < await self._threads.disk(self._doubted_until, digest)

    def _doubted_until(self, digest: Digest) -> float:
        # The mark first: the lead takes it away when the catalog has it.
        until = 0.0
        with suppress(FileNotFoundError):
            until = self._store.layout.doubt(digest).stat().st_mtime + DOUBT_S
        return max(until, self._noted.doubted_until(digest))


class PassingSender(Sender):
    """Sends what is here, and has the lead answer for what is not."""

    def __init__(self, ground: Ground, relay: Relay) -> None:
        here = Here(ground.store, ground.noted, ground.proofs, ground.threads)
        super().__init__(here, ground.threads, ground.metrics, ground.edge.handover)
        self._relay = relay

    async def send(
        self, request: web.Request, order: Order, headers: dict[str, str], wanted: Range | None
    ) -> web.StreamResponse:
        """See `Sender.send`."""
        return await self._sent(request, super().send(request, order, headers, wanted))

    async def send_stored(
        self, request: web.Request, entry: Entry, headers: dict[str, str], wanted: Range | None
    ) -> web.StreamResponse:
        """See `Sender.send_stored`."""
        return await self._sent(request, super().send_stored(request, entry, headers, wanted))

    async def _sent(self, request: web.Request, here: Awaitable[web.StreamResponse]) -> web.StreamResponse:
        try:
            return await here
        except NotHere:
            request["cache"] = FILL
            return await self._relay.answer(request)


class Relay:
    """The way to the lead. Belongs to one event loop, on which it is made."""

    def __init__(self, path: Path) -> None:
        self._folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._session = aiohttp.ClientSession(
            # A connection for each: one that was kept might end at the moment in which it is used again.
            connector=aiohttp.UnixConnector(_short(self._folder, path.name), limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_UNSAID,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            read_bufsize=_PIECE_BYTES,
            max_line_size=_LINE_BYTES_MOST,
            max_field_size=_LINE_BYTES_MOST,
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Have the lead answer this request.

        Raises:
            Busy: it cannot be reached.
        """
        headers = CIMultiDict(_through(request.headers.items(), request.headers.getall("Connection", [])))
        headers[VIEW] = request["view"].told()
        body = await request.read() if request.can_read_body else None
        answer = await self._asked(request.method, _target(request), headers, body)
        try:
            return await self._pass_on(request, answer)
        finally:
            answer.close()

    async def told(self, path: str) -> tuple[int, bytes]:
        """What the lead itself says at a path of its own: status and body. Raises `Busy`."""
        try:
            # One that is stuck takes connections, and says nothing.
            return await asyncio.wait_for(self._heard(path), _ASK_S)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise _away(error) from None

    async def _heard(self, path: str) -> tuple[int, bytes]:
        answer = await self._asked("GET", path, CIMultiDict({VIEW: '["", ""]'}), None)
        try:
            return answer.status, await answer.read()
        finally:
            answer.close()

    async def report(self) -> bytes:
        """The metrics of all processes."""
        return (await self.told("/metrics"))[1]

    async def check(self) -> None:
        """Raises `StoreError` where the lead is not ready."""
        status, text = await self.told("/readyz")
        if status != _OK:
            raise StoreError(flat(text.decode(errors="replace").strip()))

    async def close(self) -> None:
        """Ask nothing more."""
        await self._session.close()
        os.close(self._folder)

    async def _asked(
        self, method: str, target: str, headers: CIMultiDict[str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        url = URL(f"http://lead{target}", encoded=True)
        try:
            return await self._session.request(method, url, headers=headers, data=body, allow_redirects=False)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise _away(error) from None

    async def _pass_on(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = CIMultiDict(
            _through(answer.headers.items(), answer.headers.getall("Connection", []), _OURS)
        )
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        if "Content-Length" in answer.headers:
            response.content_length = int(answer.headers["Content-Length"])
        request["sent"] = 0
        try:
            await response.prepare(request)
            async for piece in _pieces(answer):
                await response.write(piece)
                request["sent"] += len(piece)
            await response.write_eof()
        except Disrupted:
            reset(request)
        except (ConnectionError, TimeoutError):
            request["broken"] = True  # the client has left, which is its right
        except asyncio.CancelledError:
            reset(request)  # the node is stopping, and this client took too long
            raise
        except Exception:  # noqa: BLE001  # whatever it is: an answer that has begun must not end as if it were whole
            _log.exception("an answer could not be passed on")
            reset(request)
        return response


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes. Raises `Disrupted` where it ends early, which is how the lead cuts somebody off."""
    while True:
        try:
            piece = await answer.content.readany()
        except (aiohttp.ClientError, OSError):
            raise Disrupted from None
        if not piece:
            return
        yield piece


def _through(
    headers: Iterable[tuple[str, str]], named: list[str], ours: frozenset[str] = frozenset()
) -> list[tuple[str, str]]:
    """Headers as they are passed on; `named`: what `Connection` says is about the connection, too."""
    dropped = {word.strip().lower() for one in named for word in one.split(",")} | _HOP | ours
    return [(name, text) for name, text in headers if name.lower() not in dropped]


def _target(request: web.Request) -> str:
    query = request.raw_path.partition("?")[2]
    target = path_of(request.raw_path) + (f"?{query}" if query else "")
    return target.replace("#", "%23")


def _away(error: BaseException) -> Busy:
    _log.warning("the process that fetches does not answer: %s", type(error).__name__)
    return Busy("the node cannot fetch now", retry_after_s=_AGAIN_S)


def listen_inside(data: Path) -> tuple[socket.socket, Path]:
    """A socket in the data folder for the other processes of a node, and its path; whoever closes it removes that.

    Raises:
        StoreError: there can be none in that folder.
    """
    for left in data.glob("lead-*.sock"):
        _remove_if_left(left)
    path = data / f"lead-{secrets.token_hex(4)}.sock"
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _opened(data) as folder:
            sock.bind(_short(folder, path.name))
        path.chmod(0o600)  # nobody gets in before it listens
    except OSError as error:
        sock.close()
        hint = "serve with one process, or have the data folder on a local file system"
        raise StoreError(f"no socket can be made in {data}: {error.strerror}", hint=hint) from error
    return sock, path


def _remove_if_left(path: Path) -> None:
    """Remove a socket at which nobody listens: its node was killed."""
    try:
        with _opened(path.parent) as folder, socket.socket(socket.AF_UNIX) as probe:
            probe.connect(_short(folder, path.name))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError:
        return


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    number = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)


def _short(folder: int, name: str) -> str:
    """A path to a socket that fits into 108 bytes wherever its folder is (unix(7))."""
    return f"/proc/self/fd/{folder}/{name}"

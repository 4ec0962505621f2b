"""Sends one answer as planned, and counts every body byte that leaves."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import quote

from headrace.testing.answer import Slice
from headrace.testing.line import ClientGone, Line
from headrace.testing.plan import Ending, Framing, Plan
from headrace.testing.requestlog import Record

_LARGEST_SEND = 1 << 20  # bytes; bounds how far the count may run ahead of a blocked send
_HEADER_SAFE = "".join(chr(code) for code in range(0x20, 0x7F))
_ENDLESS = b"X-Padding: and so on\r\n"

Send = Callable[[int, int], int]
"""Sends some of the `count` bytes at a position of the body's own; how many is the answer."""


def deliver(plan: Plan, line: Line, record: Record) -> bool:
    """Send the planned answer; returns whether the connection can carry another one.

    Raises:
        OSError: the client went away; the record then holds what left until then.
    """
    try:
        line.pause(plan.delay_s)
        if plan.hangup == "before":
            line.finish()
            return False
        for _ in range(plan.copies):
            _send(plan, line, record)
        return _end(plan, line)
    except OSError:
        record.take_back(line.unsent())
        raise


def _send(plan: Plan, line: Line, record: Record) -> None:
    head = _head(plan)
    body = plan.answer.body
    if plan.head_drip_s is not None:
        _drip(head, plan.head_drip_s, line)
    elif plan.hangup or not plan.sends_body:
        line.send(head)
    elif isinstance(body, bytes) and not plan.buckets(line) and plan.framing is Framing.LENGTH:
        record.count(len(body))
        line.send(head + body)
    else:
        line.send(head)
        _send_body(plan, line, record)


def _drip(head: bytes, pause_s: float, line: Line) -> None:
    for byte in itertools.chain(head[:-2], itertools.cycle(_ENDLESS)):
        line.send(bytes([byte]))
        line.pause(pause_s)


def _send_body(plan: Plan, line: Line, record: Record) -> None:
    body = plan.answer.body
    span = plan.span if isinstance(body, Slice) else range(len(body))
    position = span.start
    with _sender(body, line) as send:
        while position < span.stop:
            buckets = plan.buckets(line)
            flip = min((offset for offset in plan.flips if offset >= position), default=span.stop)
            largest = min([_LARGEST_SEND, *(bucket.chunk for bucket in buckets)])
            # The wrong byte leaves by itself, so all others can take the fast way.
            count = 1 if flip == position else min(largest, flip - position, span.stop - position)
            if buckets:
                line.pause(max(bucket.spend(count) for bucket in buckets))
            record.count(count)
            sent = 0
            try:
                if plan.framing is Framing.CHUNKED:
                    line.send(b"%x\r\n" % count)
                if flip == position and isinstance(body, Slice):
                    line.send(_wrong_byte(body, position))
                    sent = 1
                while sent < count:
                    sent += send(position + sent, count - sent)
            finally:
                record.take_back(count - sent)
            if plan.framing is Framing.CHUNKED:
                line.send(b"\r\n")
            position += sent
    if plan.framing is Framing.CHUNKED and plan.cut is None:
        line.send(b"0\r\n\r\n")


@contextmanager
def _sender(body: bytes | Slice, line: Line) -> Iterator[Send]:
    if isinstance(body, bytes):

        def send_bytes(position: int, count: int) -> int:
            line.send(body[position : position + count])
            return count

        yield send_bytes
        return
    with body.file.open("rb") as file:

        def send_file(position: int, count: int) -> int:
            sent = line.send_file(file.fileno(), position, count)
            if sent == 0:
                raise ClientGone("the file became shorter while it was sent")
            return sent

        yield send_file


def _wrong_byte(body: Slice, position: int) -> bytes:
    with body.file.open("rb") as file:
        return bytes([os.pread(file.fileno(), 1, position)[0] ^ 0xFF])


def _end(plan: Plan, line: Line) -> bool:
    if plan.cut is None:
        if not plan.is_last and plan.hangup is None:
            return True
        line.finish()
        return False
    _, ending = plan.cut
    if ending is Ending.RESET:
        line.reset()
    elif ending is Ending.TRUNCATE:
        line.finish()
    else:
        line.pause(None)
    return False


def _head(plan: Plan) -> bytes:
    answer = plan.answer
    phrase = HTTPStatus(answer.status).phrase
    date = formatdate(time.time() + plan.date_off_s, usegmt=True)
    lines = [f"HTTP/1.1 {answer.status} {phrase}", f"Date: {date}"]
    # File names end up in messages: encoded, they can neither break the head nor forge a header.
    lines += [f"{name}: {quote(value, safe=_HEADER_SAFE)}" for name, value in answer.headers]
    if answer.status not in {204, 304}:
        lines.append(
            {
                Framing.LENGTH: f"Content-Length: {max(0, answer.length + plan.length_off)}",
                Framing.CHUNKED: "Transfer-Encoding: chunked",
                Framing.CLOSE: "Connection: close",
            }[plan.framing]
        )
    return "\r\n".join([*lines, "", ""]).encode("ascii")

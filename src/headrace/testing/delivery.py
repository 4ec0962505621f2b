"""Sends one answer as planned, and counts every body byte that leaves."""

from __future__ import annotations

import os
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import quote

from headrace.testing.answer import Answer, Slice
from headrace.testing.faults import Ending, Plan
from headrace.testing.line import ClientGone, Line
from headrace.testing.requestlog import Record

_LARGEST_SEND = 1 << 20  # bytes; bounds how far the count may run ahead of a blocked send
_HEADER_SAFE = "".join(chr(code) for code in range(0x20, 0x7F))


def deliver(plan: Plan, line: Line, record: Record) -> bool:
    """Send the planned answer; returns whether the connection can carry another one.

    Raises:
        OSError: the client went away; the record then holds what left until then.
    """
    try:
        line.pause(plan.delay_s)
        _send(plan, line, record)
        return _end(plan, line)
    except OSError:
        record.take_back(line.unsent())
        raise


def _send(plan: Plan, line: Line, record: Record) -> None:
    head = _head(plan.answer)
    body = plan.answer.body
    if isinstance(body, bytes):
        shown = body if plan.sends_body else b""
        record.count(len(shown))
        line.send(head + shown)
        return
    line.send(head)
    if plan.span:
        _send_slice(body, plan, line, record)


def _send_slice(body: Slice, plan: Plan, line: Line, record: Record) -> None:
    bucket = None if plan.rate is None else line.bucket(plan.rate)
    largest = _LARGEST_SEND if bucket is None else bucket.chunk
    span = plan.span
    position = span.start
    with body.file.open("rb") as file:
        while position < span.stop:
            flip = min((offset for offset in plan.flips if offset >= position), default=span.stop)
            # The wrong byte leaves by itself, so all others can take the fast way.
            count = 1 if flip == position else min(largest, flip - position, span.stop - position)
            if bucket is not None:
                line.pause(bucket.spend(count))
            record.count(count)
            sent = 0
            try:
                sent = _send_piece(line, file.fileno(), position, count, flipped=flip == position)
            finally:
                record.take_back(count - sent)
            position += sent


def _send_piece(line: Line, file: int, position: int, count: int, *, flipped: bool) -> int:
    if flipped:
        line.send(bytes([os.pread(file, 1, position)[0] ^ 0xFF]))
        return count
    sent = line.send_file(file, position, count)
    if sent == 0:
        raise ClientGone("the file became shorter while it was sent")
    return sent


def _end(plan: Plan, line: Line) -> bool:
    if plan.cut is None:
        return True
    _, ending = plan.cut
    if ending is Ending.RESET:
        line.reset()
    elif ending is Ending.TRUNCATE:
        line.finish()
    else:
        line.pause(None)
    return False


def _head(answer: Answer) -> bytes:
    phrase = HTTPStatus(answer.status).phrase
    lines = [f"HTTP/1.1 {answer.status} {phrase}", f"Date: {formatdate(usegmt=True)}"]
    # File names end up in messages: encoded, they can neither break the head nor forge a header.
    lines += [f"{name}: {quote(value, safe=_HEADER_SAFE)}" for name, value in answer.headers]
    if answer.status not in {204, 304}:
        lines.append(f"Content-Length: {answer.length}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")

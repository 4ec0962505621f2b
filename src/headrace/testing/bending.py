"""What each kind of fault does to an answer.

A fault never touches a socket. It edits the plan by which `delivery` sends one answer, so a new kind is one
function that says whether it hits, one that edits the plan, a line in `_KINDS` and its name among the faults.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from headrace.testing.answer import Answer, Slice, refusal
from headrace.testing.bucket import TokenBucket
from headrace.testing.cdn import signature_of
from headrace.testing.faults import Fault
from headrace.testing.line import Line
from headrace.testing.plan import Ending, Framing, Plan

_COLLAPSED = 0.25  # of what the line could carry before
_DEEP = 100_000  # brackets: more than any parser's stack bears

Memory = dict[str, Any]
"""What one fault in force remembers from answer to answer."""


@dataclass(frozen=True)
class _Kind:
    hits: Callable[[Fault, Plan], bool]
    bend: Callable[[Fault, Plan, Memory], None]


# Whom it concerns


def _always(_fault: Fault, _plan: Plan) -> bool:
    return True


def _has_body(_fault: Fault, plan: Plan) -> bool:
    return plan.sends_body and plan.answer.length > 0


def _carries_content(_fault: Fault, plan: Plan) -> bool:
    return len(plan.span) > 0


def _ends_early(fault: Fault, plan: Plan) -> bool:
    return len(plan.span) > fault.after_bytes


def _is_signed(fault: Fault, plan: Plan) -> bool:
    return _ends_early(fault, plan) and bool(signature_of(plan.request))


def _covers_offset(fault: Fault, plan: Plan) -> bool:
    return fault.offset in plan.span and fault.offset not in plan.flips


def _is_partial(_fault: Fault, plan: Plan) -> bool:
    return plan.answer.status == HTTPStatus.PARTIAL_CONTENT


def _is_content(_fault: Fault, plan: Plan) -> bool:
    return isinstance(plan.answer.body, Slice)


def _is_json(_fault: Fault, plan: Plan) -> bool:
    return plan.answer.status == HTTPStatus.OK and _header(plan.answer, "Content-Type").startswith(
        "application/json"
    )


def _is_useful(fault: Fault, plan: Plan) -> bool:
    return _is_content(fault, plan) or _is_json(fault, plan)


def _is_rationed(fault: Fault, plan: Plan) -> bool:
    is_api = plan.request.segments[:1] == ("api",)
    return is_api if fault.way == "api" else not is_api and "resolve" in plan.request.segments


def _can_lead(fault: Fault, plan: Plan) -> bool:
    if _header(plan.answer, "Location"):
        return True
    return _is_content(fault, plan) and plan.request.origin != fault.to


# What it does


def _skew(fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.date_off_s += fault.by


def _fail(fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.answer = refusal(fault.status, "The drill says no")
    if fault.delay_s:
        date = formatdate(time.time() + plan.date_off_s + fault.delay_s, usegmt=True)
        after = date if fault.way == "date" else f"{math.ceil(fault.delay_s)}"
        plan.answer = plan.answer.having(("Retry-After", after))


def _ration(fault: Fault, plan: Plan, memory: Memory) -> None:
    """A fixed window for each client, told by the two headers that the hub has."""
    now, client, name = time.monotonic(), plan.request.client, fault.way
    began_s, spent = memory.get(client, (now, 0))
    if now - began_s >= fault.delay_s:
        began_s, spent = now, 0
    memory[client] = began_s, spent + 1
    reset = math.ceil(began_s + fault.delay_s - now)
    told = (
        ("RateLimit", f'"{name}";r={max(0, fault.most - spent - 1)};t={reset}'),
        ("RateLimit-Policy", f'"fixed window";"{name}";q={fault.most};w={math.ceil(fault.delay_s)}'),
    )
    if spent >= fault.most:
        refused = refusal(429, f"We had to rate limit you; retry in {reset} s")
        plan.answer = refused.having(("Retry-After", str(reset)))
    plan.answer = plan.answer.having(*told)


def _loop(_fault: Fault, plan: Plan, _memory: Memory) -> None:
    request = plan.request
    here = f"{request.origin}{request.path}" + (f"?{request.query}" if request.query else "")
    plan.answer = Answer(302, (("Location", here),), b"Found", plan.answer.file)


def _lead_away(fault: Fault, plan: Plan, _memory: Memory) -> None:
    location = _header(plan.answer, "Location")
    if not location:
        location = f"{plan.request.path}?{plan.request.query}"
        plan.answer = Answer(302, (("Location", location),), b"Found", plan.answer.file)
    there, parts = urlsplit(fault.to), urlsplit(location)
    target = urlunsplit((there.scheme, there.netloc, parts.path, parts.query, ""))
    plan.answer = _with_header(plan.answer, "Location", target)


def _ignore_range(_fault: Fault, plan: Plan, _memory: Memory) -> None:
    body = plan.answer.body
    if isinstance(body, Slice):
        kept = tuple(header for header in plan.answer.headers if header[0] != "Content-Range")
        whole = Slice(body.file, 0, body.file.stat().st_size)
        plan.answer = dataclasses.replace(plan.answer, status=HTTPStatus.OK, headers=kept, body=whole)


def _portal(_fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.answer = Answer(HTTPStatus.OK, (("Content-Type", "text/html"),), b"<html>Please log in</html>\n")


def _spoil_json(fault: Fault, plan: Plan, _memory: Memory) -> None:
    good = _bytes_of(plan.answer)
    spoilt: dict[str, Callable[[], bytes]] = {
        "truncated": lambda: good[: len(good) // 2],
        "types": lambda: json.dumps(_other_types(json.loads(good))).encode(),
        "deep": lambda: b"[" * _DEEP + b"]" * _DEEP,
        "empty": lambda: b"",
    }
    plan.answer = dataclasses.replace(plan.answer, body=spoilt[fault.way]())


def _compress(fault: Fault, plan: Plan, _memory: Memory) -> None:
    if fault.way == "real":
        body = gzip.compress(_bytes_of(plan.answer), compresslevel=1)
        plan.answer = dataclasses.replace(plan.answer, body=body)
    plan.answer = plan.answer.having(("Content-Encoding", "gzip"))


def _mistake_range(fault: Fault, plan: Plan, _memory: Memory) -> None:
    span, _, total = _header(plan.answer, "Content-Range").removeprefix("bytes ").partition("/")
    told = dict(zip(("start", "end", "total"), map(int, (*span.split("-"), total)), strict=True))
    told[fault.way] += 1
    lie = f"bytes {told['start']}-{told['end']}/{told['total']}"
    plan.answer = _with_header(plan.answer, "Content-Range", lie)


def _frame(fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.framing = Framing(fault.way)


def _mistake_length(fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.length_off += fault.by


def _slow(fault: Fault, plan: Plan, _memory: Memory) -> None:
    rate = fault.rate or 0.0  # never None: checked when the fault was made
    plan.rate = rate if plan.rate is None else min(rate, plan.rate)


def _share_line(fault: Fault, plan: Plan, memory: Memory) -> None:
    bucket = memory.setdefault(plan.request.client, TokenBucket(fault.rate or 0.0))
    plan.paces.append(lambda _line: bucket)


def _crowd_out(fault: Fault, plan: Plan, _memory: Memory) -> None:
    crowd, host, client, most = plan.crowd, plan.host, plan.request.client, fault.most

    def pace(line: Line) -> TokenBucket:
        # Asked anew for each piece: connections come and go while a body is on its way.
        alone = fault.rate or _UNLIMITED
        here = crowd.here(host, client)
        return line.bucket("crowd", alone if here <= most else alone * most * _COLLAPSED / here)

    plan.paces.append(pace)


_UNLIMITED = float(1 << 30)  # bytes a second: what a line carries that nobody limits, about


def _late(fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.delay_s += fault.delay_s


def _drip(fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.head_drip_s = fault.delay_s


def _hang_up(fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.hangup = fault.way


def _repeat(_fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.copies = 2


def _cut(ending: Ending) -> Callable[[Fault, Plan, Memory], None]:
    def cut(fault: Fault, plan: Plan, _memory: Memory) -> None:
        plan.cut = (fault.after_bytes, ending)

    return cut


def _expire(fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.cut = (fault.after_bytes, Ending.RESET)
    plan.spent.add(signature_of(plan.request))


def _flip(fault: Fault, plan: Plan, _memory: Memory) -> None:
    plan.flips.add(fault.offset)


# Kinds act in this order, whatever the order of the faults: what is sent is settled first, then how fast,
# then where it ends, then which of the bytes that really leave are wrong.
_KINDS = {
    "skew": _Kind(_always, _skew),
    "status": _Kind(_always, _fail),
    "quota": _Kind(_is_rationed, _ration),
    "loop": _Kind(_always, _loop),
    "elsewhere": _Kind(_can_lead, _lead_away),
    "whole": _Kind(_is_partial, _ignore_range),
    "page": _Kind(_is_useful, _portal),
    "json": _Kind(_is_json, _spoil_json),
    "gzip": _Kind(_is_useful, _compress),
    "misrange": _Kind(_is_partial, _mistake_range),
    "lengthless": _Kind(_has_body, _frame),
    "length": _Kind(_has_body, _mistake_length),
    "rate": _Kind(_carries_content, _slow),
    "trickle": _Kind(_has_body, _slow),
    "total": _Kind(_has_body, _share_line),
    "collapse": _Kind(_has_body, _crowd_out),
    "latency": _Kind(_always, _late),
    "slowhead": _Kind(_always, _drip),
    "hangup": _Kind(_always, _hang_up),
    "double": _Kind(_has_body, _repeat),
    "reset": _Kind(_ends_early, _cut(Ending.RESET)),
    "truncate": _Kind(_ends_early, _cut(Ending.TRUNCATE)),
    "stall": _Kind(_ends_early, _cut(Ending.STALL)),
    "expire": _Kind(_is_signed, _expire),
    "flip": _Kind(_covers_offset, _flip),
}

TURNS = {kind: turn for turn, kind in enumerate(_KINDS)}
"""The kinds that act on answers, in order; the others act on requests or connections."""


def hits(fault: Fault, plan: Plan) -> bool:
    """Whether the fault shows in this answer, as far as it is bent by now."""
    return _KINDS[fault.kind].hits(fault, plan)


def bend(fault: Fault, plan: Plan, memory: Memory) -> None:
    """Let the fault have its way with the plan; `memory` is its own."""
    _KINDS[fault.kind].bend(fault, plan, memory)


def _header(answer: Answer, name: str) -> str:
    return next((value for known, value in answer.headers if known == name), "")


def _with_header(answer: Answer, name: str, value: str) -> Answer:
    others = tuple(header for header in answer.headers if header[0] != name)
    return dataclasses.replace(answer, headers=(*others, (name, value)))


def _bytes_of(answer: Answer) -> bytes:
    body = answer.body
    if isinstance(body, bytes):
        return body
    with body.file.open("rb") as file:
        file.seek(body.start)
        return file.read(body.stop - body.start)


def _other_types(value: Any) -> Any:
    """The same shape of nonsense everywhere: words become numbers, numbers words, objects lists of values."""
    if isinstance(value, dict):
        return {name: _other_types(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_other_types(one) for one in value]
    return len(value) if isinstance(value, str) else str(value)

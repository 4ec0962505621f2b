"""What others wrote, in the node's log."""

from __future__ import annotations

import io
import logging

from headrace.node.api.refusals import refusal
from headrace.node.lines import LineFormatter

EVIL = "no\r\nWARNING headrace.node: forged \x1b[2J\u202e"


def test_a_record_is_one_line_whatever_it_tells() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter("%(levelname)s %(message)s"))
    error = ValueError(EVIL)
    facts = (type(error), error, None)
    handler.handle(logging.LogRecord("x", logging.ERROR, "x.py", 1, "it said %s", (EVIL,), facts))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("ERROR it said no\\r\\n")
    assert all(line.startswith("  ") for line in lines[1:])
    assert out.getvalue().replace("\n", "").isprintable()


def test_a_message_passed_on_is_one_line() -> None:
    assert refusal(502, EVIL).message.isprintable()

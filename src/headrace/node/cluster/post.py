"""What a lead and its servers say to each other over the pipes between them."""

from __future__ import annotations

import base64
import json
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.node.config import NodeConfig
from headrace.node.lines import LineFormatter

READY = "ready"
LEAVING = "leaving"
REPORT = b"report"
"""The one thing a lead asks: the metrics of this process."""

_TRACES = LineFormatter()


@dataclass(frozen=True)
class Post:
    """What a server is told when it starts.

    Attributes:
        listener: the number of the socket it takes connections from.
        stdout: the number of the lead's standard output; this process's own leads to the lead.
        lead: the socket at which it asks the lead.
        levels: from which level on something is logged, by logger; the empty name is that of all others.
    """

    config: NodeConfig
    listener: int
    stdout: int
    lead: Path
    levels: Mapping[str, int]

    def as_line(self) -> bytes:
        """For `of_line`, on the other side of a pipe that nobody else can write to."""
        return base64.b64encode(pickle.dumps(self))

    @staticmethod
    def of_line(line: bytes) -> Post:
        """What that was made of."""
        post = pickle.loads(base64.b64decode(line))  # noqa: S301 - the lead alone writes there
        if not isinstance(post, Post):
            raise TypeError("a server is started by a node")
        return post


def levels() -> dict[str, int]:
    """The levels of this process's loggers."""
    named = {
        name: one.level
        for name, one in logging.root.manager.loggerDict.items()
        if isinstance(one, logging.Logger) and one.level
    }
    return {**named, "": logging.root.level}


def record_told(record: logging.LogRecord) -> dict[str, Any]:
    """A log record as JSON, which another process logs as its own."""
    told = {**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None}
    if record.exc_info and not record.exc_text:
        told["exc_text"] = _TRACES.formatException(record.exc_info)
    return told


def log_told(told: Mapping[str, Any]) -> None:
    """Log what another process had to log."""
    record = logging.makeLogRecord(told)
    logging.getLogger(record.name).handle(record)


def line(**words: Any) -> bytes:
    """One line of what a server says."""
    return json.dumps(words, default=str).encode() + b"\n"

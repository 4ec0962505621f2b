"""Lines: other people's text as it may stand in a log or a message."""

from __future__ import annotations

import logging
from typing import Any


def flat(text: str) -> str:
    """The text on one line, with everything escaped that could act on a terminal or forge another line."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class LineFormatter(logging.Formatter):
    """Writes a record as one flat line; a traceback follows it, indented, so that it cannot pass for a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """See `logging.Formatter`."""
        return flat(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """See `logging.Formatter`."""
        return "\n".join(f"  {flat(line)}" for line in super().formatException(ei).split("\n"))

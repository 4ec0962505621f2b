"""Prints what clients did through a node."""

from __future__ import annotations

import pytest

from tests.clients.table import TABLES, drawn


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The tables, also where all went well."""
    for heads, rows in config.stash.get(TABLES, {}).items():
        terminalreporter.section("clients through a node")
        for line in drawn(heads, rows):
            terminalreporter.write_line(line)

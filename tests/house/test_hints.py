"""Hints are for two doors: they name arguments and settings as Python does, and the command line names its options."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import headrace
from headrace.cli.report import OPTIONS, in_options
from headrace.cli.root import COMMANDS
from headrace.settings.specs import SPECS

PACKAGE = Path(headrace.__file__).parent
_OPTION = re.compile(r"\s--[a-z]")
_NAMED = re.compile(r"`(\w+)`")


def texts() -> Iterator[tuple[str, str]]:
    """Every piece of text that is no docstring, with its place, of modules whose errors Python programs may get."""
    for path in PACKAGE.rglob("*.py"):
        place = str(path.relative_to(PACKAGE))
        if place.startswith(("cli/", "testing/")) or place == "settings/specs.py":  # the help of settings
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield place, node.value


def options(command: click.Command) -> Iterator[str]:
    """All options of a command and of those below it."""
    for one in command.params:
        yield from one.opts
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from options(inner)


def test_no_text_outside_the_command_line_names_its_options() -> None:
    of_git = "git remote"
    assert [(place, text) for place, text in texts() if _OPTION.search(text) and of_git not in text] == []


def test_what_hints_name_has_an_option() -> None:
    known = {
        one
        for name in COMMANDS
        for one in options(getattr(importlib.import_module(f"headrace.cli.{name}"), name))
    }
    assert set(OPTIONS.values()) - known == set()
    named = {name for _, text in texts() for name in _NAMED.findall(text)}
    assert OPTIONS.keys() - named == set()
    settings = {one.key for one in SPECS if f"--{one.key.replace('_', '-')}" in known}
    assert (named & settings) - OPTIONS.keys() == set()


@pytest.mark.parametrize(
    ("hint", "typed"),
    [
        ("pull it once without `offline`", "pull it once without --offline"),
        ("`sources` or `tls_key`", "--source or --tls-key"),
        ("write it with `headrace lock`, or at `main`", "write it with `headrace lock`, or at `main`"),
        (None, None),
    ],
)
def test_the_command_line_writes_the_option(hint: str | None, typed: str | None) -> None:
    assert in_options(hint) == typed

"""What `--help` says, word for word, and that asking for it costs nothing.

After a change of the words: `COLUMNS=80 headrace pull --help > tests/cli/help/pull.txt`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from headrace.cli.root import COMMANDS
from headrace.cli.root import headrace as group
from tests.cli.shell import Shell

HELP = Path(__file__).parent / "help"
HEAVY = {"aiohttp", "torch", "sqlalchemy", "prometheus_client", "rich", "headrace.node"}
LOADED = """
import sys
from headrace.cli.root import headrace
try:
    headrace.main({arguments!r}, prog_name="headrace", standalone_mode=False)
finally:
    print(*sorted(name for name in sys.modules if name in {heavy!r}))
"""


@pytest.mark.parametrize("file", sorted(HELP.glob("*.txt")), ids=lambda file: file.stem)
def test_help_is_as_written_down(headrace: Shell, file: Path) -> None:
    told = headrace(*file.stem.split("-"), "--help")
    assert told.out == file.read_text(encoding="utf-8")
    assert "Examples:\n" in told.out
    assert (told.code, told.err) == (0, "")


def test_every_command_is_listed_and_explained(headrace: Shell) -> None:
    told = headrace("--help")
    assert told.code == 0
    for command, purpose in COMMANDS.items():
        assert f"  {command}" in told.out
        assert purpose.split(".")[0] in " ".join(told.out.split())
    assert "_HEADRACE_COMPLETE=bash_source" in told.out
    assert headrace().out == told.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(headrace: Shell, command: str) -> None:
    told = headrace(command, "-h")
    assert told.code == 0
    assert "Examples:\n" in told.out
    found = group.get_command(click.Context(group), command)
    assert found is not None
    assert found.short_help == COMMANDS[command]


def test_completion(headrace: Shell) -> None:
    process_env = {
        "_HEADRACE_COMPLETE": "bash_complete",
        "COMP_WORDS": "headrace pull --of",
        "COMP_CWORD": "2",
    }
    told = headrace(**process_env)
    assert (told.code, told.lines, told.err) == (0, ["plain,--offline"], "")


def test_the_version(headrace: Shell) -> None:
    told = headrace("--version")
    assert told.out.startswith("headrace ")
    assert told.out.strip()[-1].isdigit()


@pytest.mark.parametrize("arguments", [["--help"], ["pull", "--help"], ["config", "path"]])
def test_help_imports_nothing_heavy(headrace: Shell, arguments: list[str]) -> None:
    script = LOADED.format(arguments=arguments, heavy=HEAVY)
    process = headrace.spawn([sys.executable, "-c", script], {}, -1, -1)
    out, err = process.communicate(timeout=30)
    assert err == b""
    assert out.splitlines()[-1] == b""


def test_a_pull_imports_no_server_and_no_tensors(headrace: Shell) -> None:
    script = LOADED.format(arguments=["pull", "org/tiny"], heavy=HEAVY)
    process = headrace.spawn([sys.executable, "-c", script], {}, -1, -1)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.splitlines()[-1] == b""

"""What is not needed for an answer is not waited for."""

from __future__ import annotations

import sys

import pytest

import headrace as package
from tests.cli.shell import Shell

OURS = {"headrace.load", "headrace.cli", "headrace.cli.main", "headrace.cli.output"}


def imported(told_err: str) -> set[str]:
    return {
        line.rpartition("|")[2].strip() for line in told_err.splitlines() if line.startswith("import time:")
    }


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_to_say_the_version_nothing_is_imported(headrace: Shell, option: str) -> None:
    told = headrace(option, PYTHONPROFILEIMPORTTIME="1")
    assert (told.code, told.out) == (0, f"headrace {package.__version__}\n")
    names = imported(told.err)
    assert {name for name in names if name.startswith("headrace.")} <= OURS
    assert names & {"click", "rich", "http.client", "ssl", "asyncio", "logging", "dataclasses"} == set()


def test_importing_the_package_is_light(headrace: Shell) -> None:
    script = "import sys; before = set(sys.modules); import headrace; print(*(set(sys.modules) - before))"
    process = headrace.spawn([sys.executable, "-c", script], {}, -1, -1)
    out, _ = process.communicate(timeout=30)
    assert set(out.decode().split()) <= {"headrace", "headrace.load", "__future__"}


def test_a_pull_of_what_is_here_imports_no_engine(headrace: Shell) -> None:
    """Where it goes the ordinary way, too: see `test_quick.py` for the other."""
    headrace("pull", "-q", "org/tiny")
    told = headrace("pull", "-q", "org/tiny", PYTHONPROFILEIMPORTTIME="1", HEADRACE_LANES="32")
    assert told.code == 0
    unwanted = {
        "headrace.transfer.engine",
        "headrace.store.partial",
        "headrace.load.framework",
        "headrace.cli.bars",
    }
    unwanted |= {"asyncio", "ctypes", "importlib.metadata", "logging", "platformdirs", "rich", "tomllib"}
    assert imported(told.err) & unwanted == set()


def test_load_is_the_function_whatever_was_imported_first(headrace: Shell) -> None:
    script = "import headrace.load.needed, headrace, headrace.load.framework; headrace.load; "
    script += (
        "from headrace.load import framework; from headrace import load; print(load.__name__, callable(load))"
    )
    process = headrace.spawn([sys.executable, "-c", script], {}, -1, -1)
    assert process.communicate(timeout=30)[0] == b"load True\n"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    assert set(package.__all__) | {"errors", "events"} <= set(dir(package))
    assert package.errors.HeadraceError is package.HeadraceError
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense  # type: ignore[attr-defined]

"""Nothing in the tree speaks of one machine or of how it was written; every dependency is pinned."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]

# Built from pieces, so that this file does not find itself.
_MACHINE = "|".join(("work", "farm", "root", "opt/" + "wheels", "opt/" + "pypi"))
_REGISTRIES = (
    ("py" + "pi", "org"),
    ("python" + "hosted", "org"),
    ("registry" + r"\.npmjs", "org"),
    ("deb" + r"\.debian", "org"),
)
_WRITERS = (
    "clau" + "de",
    "anth" + "ropic",
    "chat" + "gpt",
    "co" + "pilot",
    "ai[- ]" + "agent",
    "coding " + "session",
)
TELLTALES = {
    "a path of one machine": re.compile(rf"(?<![\w.~$}}])/({_MACHINE})/"),
    "the host of a registry": re.compile("|".join(rf"\b{name}\.{ending}\b" for name, ending in _REGISTRIES)),
    "a tool that wrote it": re.compile(
        rf"\b({'|'.join(_WRITERS)})\b|generated " + "with|co-authored" + "-by", re.IGNORECASE
    ),
}


def own_files() -> list[Path]:
    """Returns what git tracks, and what it would track."""
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def telltales(text: str) -> list[str]:
    return [what for what, pattern in TELLTALES.items() if pattern.search(text)]


def test_no_file_tells_tales() -> None:
    files = own_files()
    assert len(files) > 10
    found = [
        f"{path.relative_to(ROOT)}:{number}: {what}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        for what in telltales(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cd /wo" + "rk/main", "a path of one machine"),
        ("--find-links=/opt/whe" + "els/", "a path of one machine"),
        ("https://py" + "pi.org/simple", "the host of a registry"),
        ("files.python" + "hosted.org", "the host of a registry"),
        ("written by Clau" + "de", "a tool that wrote it"),
        ("Co-Authored" + "-By: somebody", "a tool that wrote it"),
    ],
)
def test_notices(line: str, expected: str) -> None:
    assert telltales(line) == [expected]


@pytest.mark.parametrize("line", ["src/work/plan.py", "$HOME/work/", "huggingface.co", "the agent of a user"])
def test_lets_pass(line: str) -> None:
    assert telltales(line) == []


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def package_name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def test_every_dependency_is_pinned() -> None:
    tables = project()
    declared = [
        *tables["build-system"]["requires"],
        *tables["project"]["dependencies"],
        *(name for extra in tables["project"]["optional-dependencies"].values() for name in extra),
        *(name for group in tables["dependency-groups"].values() for name in group),
    ]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {package_name(line) for line in lines if "==" in line}
    assert {package_name(name) for name in declared} - pinned == {"headrace"}


def test_the_client_stays_light() -> None:
    assert len(project()["project"]["dependencies"]) <= 6


def test_types_are_shipped() -> None:
    assert (ROOT / "src" / "headrace" / "py.typed").is_file()

"""The pages at the root tell the truth about the tree, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "headrace"

_FENCE = re.compile(r"^(```|~~~)(?P<language>.*?)\n(?P<body>.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ ", re.MULTILINE)
_NAMED = re.compile(r"`([^`\s]+)`|\]\(([^)\s]+)\)")


def page(name: str) -> str:
    path = ROOT / name
    assert path.is_file(), f"{name} is missing"
    return path.read_text(encoding="utf-8")


def code_blocks(text: str) -> list[str]:
    return [match["language"].strip() + "\n" + match["body"] for match in _FENCE.finditer(text)]


def headings(text: str) -> list[str]:
    return [mark.strip() for mark in _HEADING.findall(_FENCE.sub("", text))]


def files_named(text: str) -> set[str]:
    """Finds what a page says is in the tree: links, and code words that look like one of our paths."""
    named = set()
    for word, link in _NAMED.findall(_FENCE.sub("", text)):
        target = (link or word).partition("#")[0]
        if link:
            is_ours = bool(target) and "://" not in target
        else:
            first = target.partition("/")[0] or "?"
            below = "/" in target and ((ROOT / first).is_dir() or (PACKAGE / first).is_dir())
            is_ours = target.endswith((".py", ".md")) or below
        if is_ours and not re.search(r"[<>*{}…]", target):
            named.add(target)
    return named


def exists(name: str) -> bool:
    if any((base / name).exists() for base in (ROOT, PACKAGE.parent, PACKAGE)):
        return True
    # A bare file name is enough where the text has said which folder it speaks of.
    return "/" not in name and any(
        any((ROOT / top).rglob(name)) for top in ("src", "tests", "tools", "docs", "bench")
    )


def parts() -> list[str]:
    folders = [path.parent.name + "/" for path in PACKAGE.glob("*/__init__.py")]
    modules = [path.name for path in PACKAGE.glob("*.py")]
    return sorted(folders + modules)


def test_architecture_names_only_files_that_exist() -> None:
    named = files_named(page("ARCHITECTURE.md"))
    assert named
    assert [name for name in sorted(named) if not exists(name)] == []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "CHANGELOG.md", "BENCHMARKS.md"])
def test_pages_lead_nowhere_that_is_not_there(name: str) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#\s]+)", page(name))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_architecture_names_every_part() -> None:
    text = page("ARCHITECTURE.md")
    assert [part for part in parts() if not re.search(rf"(?<![\w-]){re.escape(part)}", text)] == []


def test_readme_says_the_same_in_both_languages() -> None:
    english, chinese = page("README.md"), page("README.zh-CN.md")
    assert headings(english) == headings(chinese)
    assert code_blocks(english) == code_blocks(chinese)


def test_what_a_page_names_is_found() -> None:
    text = "See `plan/gone.py`, [this](docs/gone.md), `src/`, `org/name`, `/healthz`, `plan/*.py`, [that](https://a.example/b).\n"
    text += "```\nnot/looked/at.py\n```\n"
    assert files_named(text) == {"plan/gone.py", "docs/gone.md", "src/"}
    assert not exists("plan/gone.py")
    assert exists("src/")


def test_headings_and_code_are_told_apart() -> None:
    text = "# One\n\n```sh\n# a comment\nmake\n```\n\n## Two\n"
    assert headings(text) == ["#", "##"]
    assert code_blocks(text) == ["sh\n# a comment\nmake\n"]

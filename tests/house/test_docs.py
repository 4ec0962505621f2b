"""What `docs/` says is true of the code: the reference is what the code says, links lead somewhere, commands parse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from headrace.cli.root import headrace
from headrace.errors import HeadraceError
from headrace.settings.environment import LENT
from headrace.settings.specs import SPECS
from tools import reference

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*DOCS, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "README.md", "README.zh-CN.md"))]
VARIABLES = {"HEADRACE_DEBUG", "HEADRACE_CA_BUNDLE", LENT, *(name for one in SPECS for name in one.variables)}

_FENCE = re.compile(r"^```(?P<language>\w*).*?\n(?P<body>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_the_reference_is_current(name: str) -> None:
    written = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.pages()[name], "run .venv/bin/python tools/reference.py"


def test_the_reference_has_every_error_and_setting() -> None:
    pages = reference.pages()
    kinds = [HeadraceError]
    for kind in kinds:
        kinds += [one for one in kind.__subclasses__() if one.__module__ == "headrace.errors"]
    assert [one.__name__ for one in kinds[1:] if f"`{one.__name__}`" not in pages["errors.md"]] == []
    assert [one.key for one in SPECS if f"| `{one.key}` |" not in pages["settings.md"]] == []


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    dead = []
    for link in _LINK.findall(text):
        target, _, anchor = link.partition("#")
        found = (page.parent / target) if target else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            dead.append(link)
    assert dead == []


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    reached = {(ROOT / "docs" / link).resolve() for link in _LINK.findall(index)}
    alone = [name_of(page) for page in DOCS if page.parent.name != "decisions" and page.name != "README.md"]
    assert [name for name in alone if (ROOT / name).resolve() not in reached] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "decisions"], ids=name_of)
def test_lines_are_no_longer_than_agreed(page: Path) -> None:
    lines = _FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "<!--"))] == []


def shown_commands(page: Path) -> Iterator[list[str]]:
    """The `headrace` commands of console blocks, without prompt, variables before and redirections behind them."""
    for block in _FENCE.finditer(page.read_text(encoding="utf-8")):
        if block["language"] not in ("console", "sh", "bash"):
            continue
        for line in block["body"].replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ").removeprefix("sudo ")
            if line.startswith("$ ") or block["language"] != "console":
                words = shlex.split(command, comments=True)
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words.pop(0)
                if words[:1] == ["headrace"]:
                    yield words[
                        1 : next((n for n, word in enumerate(words) if word in ("|", ">", "&&", "&")), None)
                    ]


def parse(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    """What click does before a command runs. Raises for what it does not understand."""
    context = command.make_context(name, list(words), parent)
    rest = [*context._protected_args, *context.args]
    if isinstance(command, click.Group):
        inner_name, inner, rest = command.resolve_command(context, rest)
        assert inner is not None
        parse(inner, inner_name or "", rest, context)
    else:
        assert rest == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_shown_parse(page: Path) -> None:
    for words in shown_commands(page):
        parse(headrace, "headrace", words)


def test_commands_are_found_and_wrong_ones_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ A=1 headrace pull org/x \\\n    --nope | tail  # so\nheadrace said\n```\n")
    (words,) = shown_commands(page)
    assert words == ["pull", "org/x", "--nope"]
    with pytest.raises(click.NoSuchOption):
        parse(headrace, "headrace", words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_variables_that_are_named_are_read(page: Path) -> None:
    named = set(re.findall(r"\bHEADRACE_[A-Z_]+\b", page.read_text(encoding="utf-8")))
    assert named - VARIABLES == set()

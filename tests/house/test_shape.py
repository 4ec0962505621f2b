"""The code is within its budgets, and the check that says so notices when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import shape

ROOT = Path(__file__).parents[2]


def test_code_is_within_budget() -> None:
    assert shape.faults(ROOT) == []


def faults_of(tmp_path: Path, text: str, file: str = "src/headrace/thing.py") -> list[str]:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return shape.faults(tmp_path)


def function(body: str, lines: int = 1) -> str:
    return "def work(a):\n" + f"    {body}\n" * lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n" * 501, "thing.py:1 module: 501 lines (budget 500)"),
        (function("a += 1", 60), "thing.py:1 work: 61 lines (budget 60)"),
        ("def work(self, a, b, c, d, *, e, f, g, h, i): ...", "thing.py:1 work: 9 parameters (budget 8)"),
        (function("a = 1 if a else 2", 15), "work: 16 branches (budget 15)"),
        (function("return " + " and ".join("a" * 16)), "work: 16 branches (budget 15)"),
        (
            "def work(a):\n"
            + "".join(f"{'    ' * level}if a:\n" for level in range(1, 6))
            + "    " * 6
            + "a()",
            "work: 5 levels of nesting (budget 4)",
        ),
        ("try:\n    a()\nexcept:\n    b()", "thing.py:3 bare except"),
        ("try:\n    a()\nexcept OSError:\n    pass  # noqa: S110", "thing.py:3 except and pass"),
        ("def work():\n    global a", "thing.py:2 global a"),
        ("import os\nhome = os.environ['HOME']", "thing.py:2 reads the environment"),
        ("import os\nclass A:\n    home = os.getenv('HOME')", "thing.py:3 reads the environment"),
        ("import os\ndef work(home=os.getenv('HOME')): ...", "thing.py:2 reads the environment"),
        ("def", "thing.py:1 does not parse"),
    ],
)
def test_reports(tmp_path: Path, text: str, expected: str) -> None:
    (fault,) = faults_of(tmp_path, text)
    assert expected in fault


@pytest.mark.parametrize(
    "text",
    [
        'def work():\n    """' + "\n" * 70 + '"""\n',
        function("pass", 59),
        "if a:\n    pass\n" + "elif a:\n    pass\n" * 10,
        "def work(a):\n    if a:\n        a()\n" + "    elif a:\n        a()\n" * 10,
        "try:\n    a()\nexcept OSError:\n    pass  # closed already",
        "try:\n    a()\nexcept OSError:\n    # closed already\n    pass",
        "import os\ndef work():\n    return os.environ['HOME']",
    ],
)
def test_accepts(tmp_path: Path, text: str) -> None:
    assert faults_of(tmp_path, text) == []


def test_settings_may_read_the_environment(tmp_path: Path) -> None:
    assert faults_of(tmp_path, "import os\nhome = os.environ", "src/headrace/settings/environment.py") == []


def test_a_test_must_check_something(tmp_path: Path) -> None:
    text = """
def holds(x):
    assert x

def test_asserts():
    assert True

def test_expects_an_error():
    with pytest.raises(ValueError):
        work()

def test_asks_a_helper():
    holds(1)

def test_only_runs():
    work()
"""
    (fault,) = faults_of(tmp_path, text, "tests/test_thing.py")
    assert fault.startswith("tests/test_thing.py:15 test_only_runs:")


def test_patches_have_a_budget(tmp_path: Path) -> None:
    patch = "    monkeypatch.setattr(a, 'b', 1)\n"
    test = "def test_it(monkeypatch):\n" + patch * 3 + "    assert a.b\n"
    assert faults_of(tmp_path, test, "tests/test_thing.py") == []
    heading, *places = faults_of(tmp_path, test.replace(patch, patch * 2), "tests/test_thing.py")
    assert heading.startswith("6 patch lines in 1 tests (budget 3)")
    assert len(places) == 6

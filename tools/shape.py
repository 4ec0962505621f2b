"""Holds the code to its budgets: short modules, short flat functions, no swallowed error, no test without a check.

    python tools/shape.py [ROOT]     prints `path:line name: 72 lines (budget 60)`; exits 1 when something is over

Ruff's own limits on complexity and arguments agree with these; module length, nesting, reasons and patches are
checked only here.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

MODULE_LINES = 500
FUNCTION_LINES = 60
PARAMETERS = 8
BRANCHES = 15
NESTING = 4
PATCHES_PER_100_TESTS = 3

FOLDERS = ("src", "tests", "tools", "bench", "deploy")
ENVIRONMENT_READERS = frozenset({"environment.py"})

Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.comprehension)
_DECISIONS = (*_LOOPS, ast.If, ast.IfExp, ast.ExceptHandler, ast.match_case)
_ENVIRONMENT = frozenset({"os.environ", "environ", "os.getenv", "getenv"})
_CHECKING_CALL = re.compile(r"^(assert|check|expect|verify|raises$|warns$|fail$)")
_PATCH = re.compile(r"(^|\.)patch(\.\w+)?$|(^|\.)monkeypatch\.setattr$|(^|\.)\w*Mock$|(^|\.)mocker\.\w+$")


@dataclass
class Tests:
    """What is counted over all test files together."""

    functions: int = 0
    patches: list[str] = field(default_factory=list)

    def faults(self) -> Iterator[str]:
        """Yields every patch once there are more than the budget; begun hundreds of tests count whole."""
        budget = PATCHES_PER_100_TESTS * -(-self.functions // 100)
        if len(self.patches) > budget:
            yield f"{len(self.patches)} patch lines in {self.functions} tests (budget {budget}); fakes serve better:"
            yield from (f"  {place}" for place in self.patches)


def faults(root: Path) -> list[str]:
    """Returns one line for everything under `root` that is out of shape."""
    found: list[str] = []
    tests = Tests()
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            found.append(f"{name}:{error.lineno} does not parse: {error.msg}")
            continue
        found += _module_faults(name, text, tree)
        if name.startswith("tests/"):
            found += _test_faults(name, tree, tests)
    return found + list(tests.faults())


def _module_faults(name: str, text: str, tree: ast.Module) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines > MODULE_LINES:
        yield f"{name}:1 module: {lines} lines (budget {MODULE_LINES})"
    reasons = _reasons(text)
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            yield from (f"{name}:{node.lineno} {node.name}: {fault}" for fault in _function_faults(node))
        elif isinstance(node, ast.Global):
            yield f"{name}:{node.lineno} global {', '.join(node.names)}: state belongs to an object with an owner"
        elif isinstance(node, ast.ExceptHandler):
            yield from (f"{name}:{node.lineno} {fault}" for fault in _handler_faults(node, reasons))
    if Path(name).name not in ENVIRONMENT_READERS:
        for line in _environment_at_import(tree):
            yield f"{name}:{line} reads the environment at import; settings/environment.py does that, when it is called"


def _function_faults(function: Function) -> Iterator[str]:
    arguments = function.args
    parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    measures = (
        ("lines", _lines(function), FUNCTION_LINES),
        ("parameters", sum(parameter.arg not in ("self", "cls") for parameter in parameters), PARAMETERS),
        ("branches", _branches(function), BRANCHES),
        ("levels of nesting", _nesting(function.body), NESTING),
    )
    for what, value, budget in measures:
        if value > budget:
            yield f"{value} {what} (budget {budget})"


def _lines(function: Function) -> int:
    whole = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None:
        return whole
    return whole - ((first.end_lineno or first.lineno) - first.lineno + 1)


def _branches(function: Function) -> int:
    """Counts the ways through a function: one, and one more for every decision."""
    decisions = 1
    for node in ast.walk(function):
        decisions += isinstance(node, _DECISIONS)
        decisions += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
    return decisions


def _nesting(body: Iterable[ast.AST]) -> int:
    """Returns how deep blocks stand in each other; `elif` is no deeper than its `if`."""
    deepest = 0
    for node in body:
        if isinstance(node, _SCOPES):
            continue
        if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            depth = max(1 + _nesting(node.body), _nesting(node.orelse))
        else:
            depth = isinstance(node, _BLOCKS) + _nesting(ast.iter_child_nodes(node))
        deepest = max(deepest, depth)
    return deepest


def _handler_faults(handler: ast.ExceptHandler, reasons: set[int]) -> Iterator[str]:
    if handler.type is None:
        yield "bare except: name what is expected"
    lines = range(handler.lineno, (handler.end_lineno or handler.lineno) + 1)
    if all(isinstance(step, ast.Pass) for step in handler.body) and reasons.isdisjoint(lines):
        yield "except and pass: a comment must say why nothing is to be done"


def _reasons(text: str) -> set[int]:
    """Returns the lines that carry a comment which says something, beyond directives to linters."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    directive = re.compile(r"#\s*(noqa\b|type:|pragma\b|mypy:)[^#]*$")
    return {t.start[0] for t in tokens if t.type == tokenize.COMMENT and not directive.match(t.string)}


def _environment_at_import(tree: ast.Module) -> Iterator[int]:
    """Yields the lines that touch the environment when the module is imported: all but function bodies."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            pending += [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]
            pending += [] if isinstance(node, ast.Lambda) else node.decorator_list
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, (ast.Attribute, ast.Name)) and _dotted(node) in _ENVIRONMENT:
            yield node.lineno


def _test_faults(name: str, tree: ast.Module, tests: Tests) -> Iterator[str]:
    functions = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
    checking = {function.name for function in functions if _checks(function, frozenset())}
    for function in functions:
        if function.name.startswith("test_"):
            tests.functions += 1
            if not _checks(function, checking):
                yield f"{name}:{function.lineno} {function.name}: a test that checks nothing cannot fail"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    tests.patches += [f"{name}:{call.lineno}" for call in calls if _PATCH.search(_dotted(call.func))]


def _checks(function: Function, helpers: Iterable[str]) -> bool:
    """Tells whether a function asserts, expects an error, or calls a helper of its file that does."""
    known = frozenset(helpers)
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = _dotted(node.func).rpartition(".")[2]
            if called in known or _CHECKING_CALL.match(called.lstrip("_")):
                return True
    return False


def _dotted(node: ast.AST) -> str:
    """Returns `a.b.c` for such an expression, the last known part of it for another."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""


def main() -> int:
    """Checks the tree given on the command line, or this project."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    found = faults(root)
    print("\n".join(found) if found else "shape: within budget")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

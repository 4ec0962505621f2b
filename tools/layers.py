"""Checks which part of the package imports which: imports point down, and pure parts stay pure.

A part is a folder or a module right under the package. Every import counts, wherever it stands: at the top, inside a
function, under `TYPE_CHECKING`. A part that is in no table here is an error, so that a new one is placed by decision.

    python tools/layers.py [PACKAGE_FOLDER]     exits 1 when something points the wrong way
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FACADE = "__init__"
VOCABULARY = frozenset(
    {"errors", "names", "ranges", "manifest", "layout", "wire", "events", "lockfile", "blocklist"}
)

# Top to bottom. A part imports what stands in rows below its own. Parts of one row do not know each other,
# but for the facade's two halves and the vocabulary.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli"}),
    frozenset({"demo"}),
    frozenset({FACADE, "facade"}),
    frozenset({"doctor", "web"}),
    frozenset({"fleet"}),
    frozenset({"sync", "node"}),
    frozenset({"tune"}),
    frozenset({"load"}),
    frozenset({"library"}),
    frozenset({"transfer"}),
    frozenset({"source", "store", "metrics"}),
    frozenset({"plan"}),
    VOCABULARY,
)
# Beside the rows: each imports the vocabulary only, and only the parts named may import it.
ASIDE: dict[str, frozenset[str]] = {
    "settings": frozenset({FACADE, "facade", "cli", "demo"}),
    "testing": frozenset({"cli", "demo"}),
}
CLOSE = (VOCABULARY, frozenset({FACADE, "facade"}))
STANDARD_LIBRARY_ONLY = VOCABULARY | {"plan", "testing"}

_IMPURE = frozenset(
    {
        *(
            "asyncio",
            "concurrent",
            "fcntl",
            "glob",
            "io",
            "logging",
            "mmap",
            "multiprocessing",
            "os",
            "pathlib",
        ),
        *("queue", "random", "secrets", "select", "selectors", "shutil", "socket", "sqlite3", "ssl"),
        *("subprocess", "tempfile", "threading", "time", "http.client", "http.server", "urllib.request"),
    }
)
FORBIDDEN: dict[str, frozenset[str]] = {
    **dict.fromkeys(VOCABULARY, _IMPURE),
    # Paths are its subject: it computes with them and touches none.
    "layout": _IMPURE - {"os", "pathlib"},
    "plan": _IMPURE | {"datetime", "http", "urllib"},
}


@dataclass(frozen=True)
class Import:
    """One import, seen from the file it stands in; `names` holds every module it may mean."""

    line: int
    names: tuple[str, ...]


def faults(package: Path) -> list[str]:
    """Returns one line for everything in `package` that the tables do not allow."""
    return [
        f"{path}:{line}: {reason}"
        for path in sorted(package.rglob("*.py"))
        for line, reason in sorted(set(_faults_of_file(package, path)))
    ]


def _faults_of_file(package: Path, path: Path) -> Iterator[tuple[int, str]]:
    relative = path.relative_to(package).with_suffix("")
    part = relative.parts[0]
    if part not in ASIDE and not any(part in row for row in LAYERS):
        yield 1, f"`{part}` is in no layer; place it in LAYERS of tools/layers.py"
        return
    within = (package.name, *relative.parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        for statement in _imports(node, within):
            target = _target(package, statement)
            reason = _refusal_outside(part, statement) if target is None else _refusal_inside(part, target)
            if reason:
                yield statement.line, reason
        if part in FORBIDDEN and isinstance(node, ast.Call) and ast.unparse(node.func) == "open":
            yield node.lineno, f"`{part}` opens a file; it is pure"


def _imports(node: ast.AST, within: tuple[str, ...]) -> Iterator[Import]:
    """Yields what a node imports, be it a statement or an `import_module("...")` call."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(node.lineno, (alias.name,))
    elif isinstance(node, ast.ImportFrom):
        base = within[: len(within) - node.level + 1] if node.level else ()
        module = ".".join((*base, *filter(None, [node.module])))
        for alias in node.names:
            yield Import(node.lineno, (module, f"{module}.{alias.name}"))
    elif isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith("import_module"):
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield Import(node.lineno, (name.value,))


def _target(package: Path, statement: Import) -> str | None:
    """Returns the part of the package that is imported; None for a module from elsewhere."""
    top, _, rest = statement.names[0].partition(".")
    if top != package.name:
        return None
    if rest:
        return rest.split(".")[0]
    if len(statement.names) > 1:  # from headrace import x: a part, or a name of the facade
        name = statement.names[1].split(".")[1]
        if (package / name).is_dir() or (package / f"{name}.py").is_file():
            return name
    return FACADE


def _refusal_inside(part: str, target: str) -> str | None:
    if part == target or any(part in row and target in row for row in CLOSE):
        return None
    if target in ASIDE:
        if part in ASIDE[target]:
            return None
        return f"`{part}` imports `{target}`, which is for {_list(ASIDE[target])} only"
    if target in VOCABULARY:
        return None
    if part in ASIDE:
        return f"`{part}` imports `{target}`; it may import the vocabulary only"
    heights = {name: height for height, row in enumerate(reversed(LAYERS)) for name in row}
    if target not in heights:
        return f"`{part}` imports `{target}`, which is in no layer"
    if heights[target] == heights[part]:
        return f"`{part}` imports `{target}`, which stands beside it; imports point down"
    if heights[target] > heights[part]:
        return f"`{part}` imports `{target}`, which stands above it; imports point down"
    return None


def _refusal_outside(part: str, statement: Import) -> str | None:
    if part in STANDARD_LIBRARY_ONLY and statement.names[0].split(".")[0] not in sys.stdlib_module_names:
        return f"`{part}` imports {statement.names[0]}; it may use the standard library only"
    for module in FORBIDDEN.get(part, ()):
        if any(name == module or name.startswith(f"{module}.") for name in statement.names):
            return f"`{part}` imports {module}; it is pure: no clock, no I/O, no thread, no chance"
    return None


def _list(parts: frozenset[str]) -> str:
    return ", ".join(sorted(parts - {FACADE}))


def main() -> int:
    """Checks the package given on the command line, or this project's."""
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "src" / "headrace"
    found = faults(package)
    print("\n".join(found) if found else "layers: imports point down")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

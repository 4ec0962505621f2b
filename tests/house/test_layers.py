"""Imports point down, and the check that says so notices when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import layers

PACKAGE = Path(__file__).parents[2] / "src" / "headrace"


def test_imports_point_down() -> None:
    assert layers.faults(PACKAGE) == []


def faults_of(tmp_path: Path, files: dict[str, str]) -> list[str]:
    package = tmp_path / "headrace"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [fault.removeprefix(f"{package}/") for fault in layers.faults(package)]


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("transfer/engine.py", "import headrace.load.hooks", "`load`, which stands above"),
        ("transfer/engine.py", "from headrace.load import hooks", "`load`, which stands above"),
        ("transfer/engine.py", "from ..load import hooks", "`load`, which stands above"),
        ("transfer/engine.py", "import json, headrace.cli", "`cli`, which stands above"),
        ("transfer/engine.py", "def f():\n    from headrace.node import app", "`node`, which stands above"),
        (
            "transfer/engine.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import headrace.web",
            "`web`, which",
        ),
        (
            "transfer/engine.py",
            "import importlib\nimportlib.import_module('headrace.fleet')",
            "`fleet`, which stands above",
        ),
        ("store/hub.py", "from headrace import source", "`source`, which stands beside"),
        ("source/hub.py", "from headrace.store import ledger", "`store`, which stands beside"),
        ("sync/run.py", "from headrace.node import app", "`node`, which stands beside"),
        ("load/hooks.py", "from headrace import pull", "`__init__`, which stands above"),
        ("load/hooks.py", "import headrace", "`__init__`, which stands above"),
        ("errors.py", "from .plan import retry", "`plan`, which stands above"),
        (
            "node/api/app.py",
            "from headrace.settings import Settings",
            "is for cli, demo, facade only",
        ),
        ("settings.py", "from headrace.plan import lanes", "the vocabulary only"),
        ("node/api/app.py", "from headrace.testing import hub", "is for cli, demo only"),
        ("testing/hub.py", "from headrace.store import hub", "the vocabulary only"),
        ("testing/hub.py", "import aiohttp", "standard library only"),
        ("manifest.py", "import click", "standard library only"),
        ("plan/lanes.py", "import numpy", "standard library only"),
        ("wire.py", "from http import client", "imports http.client"),
        ("names.py", "from pathlib import PurePath", "imports pathlib"),
        ("events.py", "open('log')", "opens a file"),
        ("plan/lanes.py", "open('log')", "opens a file"),
        ("newcomer/thing.py", "", "`newcomer` is in no layer"),
        ("cli/main.py", "import headrace.newcomer", "in no layer"),
    ],
)
def test_reports(tmp_path: Path, file: str, text: str, expected: str) -> None:
    (fault,) = faults_of(tmp_path, {file: text, "source/__init__.py": ""})
    assert fault.startswith(f"{file}:")
    assert expected in fault


# fmt: off
CLOCKS_AND_DOORS = [
    "time", "datetime", "socket", "ssl", "http", "urllib", "os", "io", "pathlib", "tempfile", "shutil", "threading",
    "queue", "concurrent", "asyncio", "multiprocessing", "subprocess", "random", "secrets", "logging",
]
# fmt: on


@pytest.mark.parametrize("module", [*CLOCKS_AND_DOORS, "concurrent.futures", "urllib.parse"])
def test_reports_a_plan_that_is_not_pure(tmp_path: Path, module: str) -> None:
    (fault,) = faults_of(tmp_path, {"plan/lanes.py": f"def f():\n    import {module}"})
    assert fault.startswith("plan/lanes.py:2: `plan` imports")


def test_accepts_what_points_down(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from headrace import facade, settings",
        "facade.py": "import headrace.load.hooks, torch",
        "cli/main.py": "import headrace, click\nfrom headrace import settings, testing, __version__",
        "fleet/director.py": "from headrace.node import app\nfrom headrace import plan",
        "layout.py": "import os\nfrom pathlib import Path\nfrom . import names",
        "names.py": "from urllib.parse import quote\nfrom headrace.layout import Cache",
        "plan/__init__.py": "",
        "plan/lanes.py": "import math\nfrom . import retry\nfrom ..ranges import Range",
        "settings.py": "import os, platformdirs\nfrom headrace.names import Repo",
        "testing/hub.py": "import http.server, threading\nfrom headrace import wire",
        "wire.py": "from http import HTTPStatus",
    }
    assert faults_of(tmp_path, files) == []

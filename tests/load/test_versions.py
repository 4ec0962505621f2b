"""Older versions of transformers: what the hook relies on is in all that it is said to be tested with.

The oldest lives beside the newest, in `.venv/transformers50`, made by `scripts/setup`; `make soak` installs others, too.
The last before 5.x (`.venv/transformers4`) is outside of that: what it loads is pulled before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import headrace
from headrace.testing import ChaosHub
from tests.load.zoo import Hubful

BESIDE = Path(sys.prefix)
PROGRAM = """
import json, logging, os, sys
from pathlib import Path
told = []
class Kept(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())
logging.getLogger("headrace.load").addHandler(Kept())
logging.getLogger("headrace.load").setLevel(logging.INFO)
import torch, transformers, headrace
facts = {"version": transformers.__version__, "wrong": [], "told": told}
def same(name, ours, stock):
    ours, stock = ours.state_dict(), stock.state_dict()
    facts["wrong"] += [f"{name}: {key}" for key in ours.keys() | stock.keys()
                       if key not in ours or key not in stock or not torch.equal(ours[key], stock[key])]
def mapped(folder):
    return any(line.split()[5:] and line.split()[5].startswith(folder) for line in open("/proc/self/maps"))
for repo, cls, folder in json.loads(sys.argv[1]):
    cls = getattr(transformers, cls)
    with headrace.streaming():
        model = cls.from_pretrained(repo)
    facts["is_mapped"] = mapped(os.environ["HF_HUB_CACHE"])
    stock = cls.from_pretrained(folder)
    same(repo, model, stock)
    other = headrace.load_settings(cache=os.environ["HF_HUB_CACHE"] + "2")
    same(repo, headrace.load(cls, repo, settings=other), stock)
print("FACTS", json.dumps(facts))
"""


@pytest.fixture(scope="module")
def hubful(hubful: Hubful) -> Hubful:
    """Models of three kinds, as the newest version writes them."""
    for name, dtype, shard_bytes in MODELS:
        hubful.model(name, dtype, shard_bytes)
    return hubful


MODELS = {
    ("llama", torch.bfloat16, 120_000): "AutoModelForCausalLM",
    ("mixtral", torch.float32, 1 << 30): "AutoModelForCausalLM",
    ("t5", torch.float16, 1 << 30): "AutoModelForSeq2SeqLM",
}


@pytest.fixture
def program(hubful: Hubful, tmp_path: Path) -> Callable[..., Mapping[str, Any]]:
    """Runs the program by an interpreter, with all the models or the first; its facts, and who fetched weights."""

    def run(python: Path, models: int, *packages: Path) -> Mapping[str, Any]:
        search = [*map(str, packages), str(Path(headrace.__file__).parents[1])]
        rows = [
            (hubful.model(*stored), cls, str(hubful.at(hubful.model(*stored))))
            for stored, cls in list(MODELS.items())[:models]
        ]
        with ChaosHub(hubful.hub) as hub:
            own = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "cache")}
            done = subprocess.run(
                [str(python), "-c", PROGRAM, json.dumps(rows)],
                env={**os.environ, "HF_HUB_DISABLE_XET": "1", **own, "PYTHONPATH": os.pathsep.join(search)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            fetched = [
                one
                for one in hub.log().select("GET")
                if (one.file or "").endswith(".safetensors") and one.blob
            ]
        facts: dict[str, Any] = json.loads(done.stdout.rpartition("FACTS ")[2])
        return {**facts, "agents": {(one.agent or "").partition("/")[0] for one in fetched}}

    return run


def beside(name: str) -> Path:
    """The interpreter of an environment beside the first."""
    python = BESIDE / name / "bin" / "python"
    found = list((BESIDE / name).glob("lib/python*/site-packages/transformers"))
    if not found:
        pytest.skip(f"transformers is not installed in {python.parents[1]}: `make setup` says why")
    return python


@pytest.mark.timeout(180)
def test_the_oldest_version_is_given_models_while_they_come(
    program: Callable[..., Mapping[str, Any]],
) -> None:
    facts = program(beside("transformers50"), len(MODELS))
    assert facts["version"] == "5.0.0"
    assert (facts["wrong"], facts["told"], facts["is_mapped"]) == ([], [], True)
    assert facts["agents"] == {"headrace"}


@pytest.mark.timeout(180)
def test_before_that_models_are_pulled_first(program: Callable[..., Mapping[str, Any]]) -> None:
    facts = program(beside("transformers4"), 1)
    assert facts["version"].startswith("4.57.")
    assert facts["wrong"] == []
    assert facts["agents"] == {"headrace"}
    assert [one for one in facts["told"] if "4.57" in one and "was not tested" in one]


@pytest.mark.soak
@pytest.mark.parametrize(
    ("version", "environment"), [("5.5.0", "transformers50"), ("5.12.0", "transformers50"), ("5.18.0", ".")]
)
def test_versions_between(
    version: str, environment: str, program: Callable[..., Mapping[str, Any]], tmp_path: Path
) -> None:
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-qq",
        "--no-deps",
        "--target",
        str(tmp_path / version),
    ]
    subprocess.run([*install, f"transformers=={version}"], check=True)
    facts = program(BESIDE / environment / "bin" / "python", len(MODELS), tmp_path / version)
    assert facts["version"] == version
    assert (facts["wrong"], facts["told"], facts["is_mapped"]) == ([], [], True)
    assert facts["agents"] == {"headrace"}

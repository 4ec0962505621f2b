"""The clients before 5.x (transformers 4.57, huggingface_hub 0.36) read the cache that our pull made.

They live in an environment of their own, `.venv/transformers4`, made by `scripts/setup`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

import headrace
from headrace.testing import ChaosHub, write_repo

OLD = Path(sys.prefix) / "transformers4" / "bin"
LOAD = """
import transformers
tokenizer = transformers.AutoTokenizer.from_pretrained("org/bert")
model = transformers.AutoModel.from_pretrained("org/bert")
told(version=transformers.__version__, words=tokenizer.tokenize("water wheel"),
     sums={name: float(value.double().sum()) for name, value in model.state_dict().items()})
"""
SCAN = """
import huggingface_hub
found = huggingface_hub.scan_cache_dir()
(repo,) = found.repos
(revision,) = repo.revisions
told(version=huggingface_hub.__version__, repo=repo.repo_id, refs=sorted(revision.refs), size=repo.size_on_disk,
     files=sorted(file.file_name for file in revision.files), warnings=[str(one) for one in found.warnings],
     path=huggingface_hub.snapshot_download("org/bert", local_files_only=True))
"""


@pytest.fixture(scope="module")
def old() -> Path:
    """The programs of the second environment."""
    if not (OLD / "huggingface-cli").exists():
        pytest.skip(f"transformers 4 is not installed in {OLD.parent}: `make setup` says why")
    return OLD


@pytest.fixture
def pulled(tmp_path: Path) -> headrace.Snapshot:
    """A tiny BERT as transformers 5 writes it, pulled into a cache; the hub is gone by now."""
    made = tmp_path / "made"
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=7
    )
    transformers.BertModel(config).save_pretrained(made)
    (made / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwater\nwheel\n")
    write_repo(tmp_path / "hub", "org/bert", {path.name: path.read_bytes() for path in made.iterdir()})
    with ChaosHub(tmp_path / "hub") as hub:
        settings = headrace.load_settings({"HF_ENDPOINT": hub.endpoint}, cache=tmp_path / "cache")
        return headrace.pull("org/bert", settings=settings)


@pytest.fixture
def run(tmp_path: Path, pulled: headrace.Snapshot, old: Path) -> Callable[..., str]:
    """Runs a program of the second environment on that cache, offline; its standard output is the answer."""

    def call(program: str, *arguments: str) -> str:
        own = {
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(tmp_path / "home"),
        }
        command = [str(old / program), *arguments]
        done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def told_by(run: Callable[..., str], script: str) -> dict[str, Any]:
    prologue = "import json\ndef told(**facts): print(json.dumps(facts))\n"
    facts: dict[str, Any] = json.loads(run("python", "-c", prologue + script).splitlines()[-1])
    return facts


@pytest.mark.timeout(180)
def test_transformers_4_loads_the_same_weights(pulled: headrace.Snapshot, run: Callable[..., str]) -> None:
    told = told_by(run, LOAD)
    assert told["version"].startswith("4.57.")
    assert told["words"] == ["water", "wheel"]
    stock = transformers.AutoModel.from_pretrained(pulled.path).state_dict()
    assert told["sums"] == {name: float(value.double().sum()) for name, value in stock.items()}


def test_the_hub_client_of_then_finds_nothing_wrong(
    pulled: headrace.Snapshot, run: Callable[..., str]
) -> None:
    told = told_by(run, SCAN)
    files = sorted(path.name for path in pulled.path.iterdir())
    assert told == {
        "version": told["version"],
        "repo": "org/bert",
        "refs": ["main"],
        "size": pulled.bytes,
        "files": files,
        # It does not know the tag that tells backup programs what a cache is; newer stock clients write it, too.
        "warnings": [f"Repo path is not a directory: {pulled.path.parents[2] / 'CACHEDIR.TAG'}"],
        "path": str(pulled.path),
    }
    assert told["version"].startswith("0.36.")


def test_its_command_lines_use_it_offline(pulled: headrace.Snapshot, run: Callable[..., str]) -> None:
    for program in ("huggingface-cli", "hf"):
        assert run(program, "download", "org/bert").split()[-1] == str(pulled.path)
    assert "org/bert" in run("hf", "cache", "scan")

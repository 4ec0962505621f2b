"""Parts of diffusers, read while they come.

The library lives in an environment of its own, `.venv/clients`, made by `scripts/setup`: one script there makes models,
serves them, loads them, and tells what came of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.load.needed import Need, need_of, needed
from headrace.manifest import Digest, Entry
from tests.ports import free_port

PYTHON = Path(sys.prefix) / "clients" / "bin" / "python"
SCRIPT = Path(__file__).parent / "scripts" / "load_parts.py"
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script says of all cases."""
    if not list(PYTHON.parents[1].glob("lib/*/site-packages/diffusers")):
        pytest.skip(f"diffusers is not installed in {PYTHON.parents[1]}: `make setup` says why")
    folder, port = tmp_path_factory.mktemp("parts"), free_port()
    hub = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [str(PYTHON), str(SCRIPT), str(folder), str(port)],
        env={**os.environ, **hub, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "case", ["unet", "vae", "cast", "shards", "pipeline", "variant", "old", "part", "streamed"]
)
def test_it_is_loaded_while_it_comes_and_bit_equal(told: dict[str, Any], case: str) -> None:
    assert told[case]["same"]
    assert told[case]["said"] == []


def test_a_program_that_calls_from_pretrained_itself_is_served(told: dict[str, Any]) -> None:
    assert told["streamed"]["events"] > 0


@pytest.mark.parametrize("case", ["unet", "vae", "shards"])
def test_a_model_is_a_view_of_the_cache(told: dict[str, Any], case: str) -> None:
    assert told[case]["mapped"]


def test_everything_goes_by_the_name_that_it_has_when_it_is_loaded_from_the_cache(
    told: dict[str, Any],
) -> None:
    assert told["pipeline"]["names"] == told["again"]["names"]
    assert told["pipeline"]["names"][""][0] == "org/pipeline"
    assert told["unet"]["names"][""][0] == "org/unet"
    assert told["part"]["names"][""][0] == "org/old"


def test_other_formats_and_variants_are_not_fetched(told: dict[str, Any]) -> None:
    assert told["unneeded"] == 0


@pytest.mark.parametrize(
    ("case", "reason"), [("coded", "none of its files can be read earlier"), ("other", "SafetensorError")]
)
def test_what_cannot_be_read_while_it_comes_is_pulled_then_loaded(
    told: dict[str, Any], case: str, reason: str
) -> None:
    assert told[case]["same"]
    (said,) = told[case]["said"]
    assert "is pulled, then loaded" in said
    assert reason in said


def test_a_part_of_another_repo_is_that_repos(told: dict[str, Any]) -> None:
    assert told["borrowed"] == {"same": True, "said": []}


def test_where_parts_were_loaded_from_lasts_as_long_as_the_program(told: dict[str, Any]) -> None:
    lasting = told["lasting"]
    assert lasting["is_there"]
    ours, stock = lasting["saved"]
    assert ours == stock
    assert not os.path.lexists(lasting["from"])  # the program has ended


def test_what_was_read_and_is_wrong_is_told_and_never_published(told: dict[str, Any]) -> None:
    assert told["wrong"] == "DigestMismatch"
    assert told["published"] == []


PATHS = [
    "model_index.json",
    "v1.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_flax_model.msgpack",
    "text_encoder/model-00001-of-00002.safetensors",
    "text_encoder/model-00002-of-00002.safetensors",
    "vae/diffusion_pytorch_model.bin",
    "vae_decoder/model.onnx",
]
USUAL = [PATHS[0], PATHS[2], PATHS[3], *PATHS[7:]]


@pytest.mark.parametrize(
    ("need", "expected"),
    [(Need.A_MODEL, USUAL), (Need.VARIANTS, sorted([*USUAL, PATHS[4]], key=PATHS.index))],
)
def test_one_format_of_each_part_is_needed(need: Need, expected: list[str]) -> None:
    entries = [Entry(path, 1, Digest(Digest.SHA256, "0" * 64)) for path in PATHS]
    assert [entry.path for entry in needed(entries, need)] == expected


def test_what_a_class_of_diffusers_needs() -> None:
    model, scheduler = type("ModelMixin", (), {}), type("SchedulerMixin", (), {})
    assert need_of(model, {}) is Need.A_MODEL
    assert need_of(model, {"use_safetensors": True}) is Need.A_MODEL
    assert need_of(model, {"variant": "fp16"}) is Need.VARIANTS
    assert need_of(model, {"subfolder": "unet"}) is Need.VARIANTS
    assert need_of(model, {"use_safetensors": False}) is need_of(model, {"use_onnx": True}) is Need.EVERYTHING
    assert need_of(scheduler, {}) is Need.NO_WEIGHTS

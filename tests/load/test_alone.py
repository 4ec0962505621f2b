"""Where no process can be started beside a program, it fetches by itself, then loads, and one line of the log says so."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save

import headrace
from headrace.errors import LoadError, UsageError
from headrace.events import BlobPublished, Event, Loaded
from headrace.testing import ChaosHub, write_repo
from tests.conftest import Instead
from tests.load.confined import where_nothing_can_be_started
from tests.load.llama import llama
from tests.load.watching import start


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 8 MB, and two tensors."""
    root = tmp_path_factory.mktemp("hub")
    write_repo(root, "org/llama", llama(root / "made", layers=1))
    weights = {"a": torch.ones(1000), "b": torch.zeros(1000)}
    write_repo(root, "org/two", {"config.json": b"{}", "model.safetensors": save(weights)})
    return root


@pytest.fixture
def hub(
    repos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[ChaosHub]:
    """A hub that has them, and an empty cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    caplog.set_level(logging.INFO, "headrace.load")
    with ChaosHub(repos) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def test_a_model_is_pulled_then_loaded(hub: ChaosHub, repos: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []
    auto = transformers.AutoModelForCausalLM
    model: Any = where_nothing_can_be_started(lambda: headrace.load(auto, "org/llama", on_event=heard.append))
    ours, theirs = model.state_dict(), auto.from_pretrained(repos / "made").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert "org/llama is pulled, then loaded: cannot start" in caplog.text
    assert any(isinstance(one, BlobPublished) for one in heard)
    assert heard[-1] == next(one for one in heard if isinstance(one, Loaded))


def test_tensors_are_opened_when_all_are_here(hub: ChaosHub) -> None:
    with where_nothing_can_be_started(lambda: headrace.open_safetensors("org/two")) as tensors:
        assert torch.equal(tensors.get_tensor("a"), torch.ones(1000))
    with pytest.raises(LoadError, match=r"cannot start .*: Operation not permitted") as raised:
        where_nothing_can_be_started(lambda: headrace.prefetch("org/llama"))
    assert "do without it" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("executable", "why"),
    [
        ("", "does not know which Python"),
        ("/nowhere/python", "No such file"),
        ("/bin/true", "ended with exit code 0"),
    ],
    ids=["embedded", "removed", "another program"],
)
def test_what_is_no_python_is_done_without(
    executable: str, why: str, hub: ChaosHub, instead: Instead, caplog: pytest.LogCaptureFixture
) -> None:
    instead(sys, executable=executable)
    with headrace.open_safetensors("org/two") as tensors:
        assert sorted(tensors) == ["a", "b"]
    assert why in caplog.text


def test_what_makes_no_sense_is_told_before_anything_begins(hub: ChaosHub) -> None:
    with pytest.raises(UsageError):
        headrace.prefetch("no/such/name")
    with pytest.raises(UsageError):
        headrace.prefetch("org/two", sources="no source")


FROZEN = """
import sys, headrace
sys.frozen, sys.executable = True, sys.argv[1]
with headrace.open_safetensors("org/two") as tensors:
    print(*sorted(tensors))
"""


def test_a_frozen_program_does_not_start_itself(hub: ChaosHub, tmp_path: Path) -> None:
    itself, started = tmp_path / "app", tmp_path / "started"
    itself.write_text(f"#!/bin/sh\ntouch {started}\n")
    itself.chmod(0o755)
    said, trouble = start(FROZEN, str(itself)).communicate()
    assert said.split() == ["a", "b"], trouble
    assert not started.exists()

"""What a load tells of itself: how many tensors are there, what is waited for, what it took."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

import headrace
from headrace.events import BlobPublished, Event, Loaded, LoadProgress, as_json, from_json
from headrace.testing import ChaosHub, Fault
from tests.load.llama import write_llama

MIB = 1024 * 1024


@pytest.fixture
def hub(hub: ChaosHub, tmp_path: Path) -> ChaosHub:
    """A hub with a Llama of 12 MB."""
    write_llama(tmp_path, "org/llama")
    return hub


def test_a_load_says_how_far_it_is_and_what_it_waits_for(hub: ChaosHub) -> None:
    hub.set_faults(Fault("total", rate=4 * MIB))
    told: list[Event] = []
    model = headrace.load(transformers.AutoModelForCausalLM, "org/llama", on_event=told.append)
    far = [one for one in told if isinstance(one, LoadProgress)]
    names = set(model.state_dict())
    assert len(far) > 3
    assert {one.awaited for one in far} & names
    assert {one.tensors for one in far} >= {len(names)}
    assert [one.done for one in far] == sorted(one.done for one in far)
    assert [one.landed_bytes for one in far] == sorted(one.landed_bytes for one in far)
    assert all(one.landed_bytes <= one.bytes for one in far)
    assert {one.bytes for one in far} == {
        sum(
            e.size
            for e in told
            if isinstance(e, BlobPublished) and "safetensors" in e.path and "index" not in e.path
        )
    }
    (loaded,) = (one for one in told if isinstance(one, Loaded))
    assert loaded.tensors == len(names)
    assert far[-1].done == far[-1].tensors == loaded.tensors
    assert far[-1].landed_bytes == far[-1].bytes
    assert 0 < loaded.waited_s < loaded.seconds  # several threads waited, for the same seconds
    assert all(from_json(as_json(one)) == one for one in (*far, loaded))


def test_what_a_model_takes_of_its_files_is_told_and_what_they_hold(hub: ChaosHub, tmp_path: Path) -> None:
    told: list[Event] = []
    model = headrace.load(transformers.AutoModel, "org/llama", on_event=told.append)  # without the head
    last = [one for one in told if isinstance(one, LoadProgress)][-1]
    (loaded,) = (one for one in told if isinstance(one, Loaded))
    assert loaded.tensors == last.done == len(model.state_dict())
    assert last.tensors == last.done + 1


def test_what_is_here_waits_for_nothing(hub: ChaosHub) -> None:
    headrace.pull("org/llama")
    told: list[Event] = []
    headrace.load(transformers.AutoModelForCausalLM, "org/llama", on_event=told.append)
    assert not [one for one in told if isinstance(one, LoadProgress)]
    (loaded,) = (one for one in told if isinstance(one, Loaded))
    assert (loaded.repo, loaded.tensors, loaded.waited_s) == ("org/llama", 0, 0.0)
    assert loaded.seconds > 0


def test_who_comes_later_is_told_nothing_of_waits_before(hub: ChaosHub) -> None:
    hub.set_faults(Fault("total", rate=4 * MIB))
    told: list[Event] = []
    with headrace.prefetch("org/llama"):
        headrace.load(transformers.AutoModelForCausalLM, "org/llama")
        headrace.load(transformers.AutoModelForCausalLM, "org/llama", on_event=told.append)
    (loaded,) = (one for one in told if isinstance(one, Loaded))
    assert loaded.tensors > 0
    assert loaded.waited_s < loaded.seconds  # the first one waited longer than that

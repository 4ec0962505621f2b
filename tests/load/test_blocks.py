"""Under a trusted block list no wrong byte gets into a tensor, and what is wrong is fetched again at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import transformers

import headrace
from headrace.events import BlobRepaired, Done, Event, SourceLied
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault
from headrace.wire import BLOCK_BYTES
from tests.load.llama import MIDDLE, write_llama
from tests.load.zoo import differences

pytest.importorskip("aiohttp", reason="a node needs the extra `serve`")

MIB = 1024 * 1024


@dataclass(frozen=True)
class Rig:
    """A hub, and a node that has all of its model and is believed."""

    hub: ChaosHub
    node: NodeProcess
    made: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    root = tmp_path_factory.mktemp("served")
    made = write_llama(root, "org/llama", **MIDDLE)
    with (
        ChaosHub(root / "hub") as hub,
        NodeProcess(root / "node", {"hub": hub.endpoint}) as node,
    ):
        headrace.pull("org/llama", dest=root / "copy", sources=node.endpoint)
        yield Rig(hub, node, made)


@pytest.fixture
def rig(served: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", served.node.endpoint)
    yield served
    served.hub.clear_faults()


def test_no_wrong_byte_is_ever_in_a_tensor(rig: Rig, tmp_path: Path) -> None:
    rig.hub.set_faults(*(Fault("flip", offset=offset) for offset in range(MIB, 64 * MIB, MIB)))
    events: list[Event] = []
    model = headrace.load(
        transformers.AutoModelForCausalLM,
        "org/llama",
        sources=[rig.node.endpoint, rig.hub.endpoint],
        on_event=events.append,
    )
    stock = transformers.AutoModelForCausalLM.from_pretrained(rig.made)
    assert differences(model, stock) == []
    (repaired,) = [event for event in events if isinstance(event, BlobRepaired)]
    liar = rig.hub.endpoint.removeprefix("http://")
    assert [*repaired.gave] == [liar]
    assert [event.source for event in events if isinstance(event, SourceLied)] == [liar]
    (done,) = [event for event in events if isinstance(event, Done)]
    size = sum(path.stat().st_size for path in rig.made.iterdir())
    assert done.network_bytes <= size + repaired.wrong * BLOCK_BYTES
    (weights,) = (tmp_path / "cache").glob("models--org--llama/snapshots/*/model.safetensors")
    assert weights.read_bytes() == (rig.made / "model.safetensors").read_bytes()

"""Tensors on their way to an accelerator. Without one, a stand-in copies as late as it may, and so shows every haste."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save, save_file
from transformers import core_model_loading

import headrace
from headrace.load import device
from headrace.load.device import Lift, tensors_of, to_device
from headrace.load.tensors import ArrivingTensors, is_accelerator
from headrace.testing import ChaosHub, write_repo
from tests.conftest import Instead

SLOT_BYTES = 64
THERE = torch.device("cuda", 7)


class Late:
    """A device whose copies happen when somebody waits for them, and not a moment before."""

    def __init__(self) -> None:
        self.pending: dict[int, Callable[[], Any]] = {}
        self.carried = 0
        self._lock = threading.RLock()

    def host(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        self.carried += 1
        return torch.empty_like(tensor)

    def begin(self) -> None:
        pass

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> Event:
        with self._lock:
            assert source.data_ptr() not in self.pending, "a slot was filled before the device had it"
            self.pending[source.data_ptr()] = lambda: target.copy_(source)
        return Event(self, source.data_ptr())

    def end(self) -> None:
        with self._lock:
            for slot in tuple(self.pending):
                self.do(slot)

    def do(self, slot: int) -> None:
        with self._lock:
            self.pending.pop(slot, lambda: None)()


class Event:
    def __init__(self, late: Late, slot: int) -> None:
        self._late = late
        self._slot = slot

    def synchronize(self) -> None:
        self._late.do(self._slot)


@pytest.fixture
def late() -> Iterator[Late]:
    """Such a device, known as an accelerator's number 7."""
    made = Late()
    device._lifts[THERE] = Lift(made, slots=3, slot_bytes=SLOT_BYTES)
    yield made
    del device._lifts[THERE]


SHAPES = [(), (0, 3), (1,), (SLOT_BYTES - 1,), (3, SLOT_BYTES), (7, 5, 11)]
TYPES = [
    torch.bfloat16,
    torch.bool,
    torch.complex64,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.int64,
    torch.uint8,
]


def random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    size = torch.empty(shape, dtype=dtype).nbytes
    content = torch.randint(0, 2 if dtype is torch.bool else 256, (size,), dtype=torch.uint8)
    return content.view(dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)


def is_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit by bit: random bytes are many kinds of not-a-number."""
    return (one.shape, one.dtype) == (other.shape, other.dtype) and torch.equal(
        one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)
    )


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_and_shape_comes_out_as_it_went_in(late: Late, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        tensor = random(shape, dtype)
        assert is_equal(to_device(tensor, THERE), tensor)


def test_what_is_not_in_one_piece_is_put_in_order(late: Late) -> None:
    tensor = random((40, 30), torch.float32)
    assert is_equal(to_device(tensor.T[3:], THERE), tensor.T[3:].contiguous())
    shifted = torch.frombuffer(bytearray(range(201)), dtype=torch.uint8)[1:]  # at no boundary of anything
    assert is_equal(to_device(shifted, THERE), shifted)


def test_threads_share_the_slots(late: Late) -> None:
    tensors = [random((number + 1, 50), torch.float32) for number in range(64)]
    with ThreadPoolExecutor(8) as pool:
        carried = list(pool.map(lambda tensor: to_device(tensor, 7), tensors))
    assert all(map(is_equal, carried, tensors))
    assert late.carried == len(tensors)


def test_what_counts_as_an_accelerator(late: Late) -> None:
    assert all(map(is_accelerator, [0, "cuda", "cuda:3", torch.device("cuda", 1)]))
    assert not any(map(is_accelerator, ["cpu", "disk", "meta", torch.device("cpu"), None]))
    assert to_device(torch.ones(2), "cpu").tolist() == [1, 1]
    assert late.carried == 0


@pytest.fixture
def hub(hub: ChaosHub, tmp_path: Path) -> ChaosHub:
    """A hub with 4 tensors."""
    weights = {f"{number}.weight": torch.full((300, 100), float(number)) for number in range(4)}
    write_repo(tmp_path / "hub", "org/four", {"config.json": b"{}", "model.safetensors": save(weights)})
    return hub


def test_tensors_on_their_way_go_there_when_they_have_landed(hub: ChaosHub, late: Late) -> None:
    assert device.install()
    with headrace.prefetch("org/four") as coming:
        (entry,) = (one for one in coming.plan().manifest.entries if one.path == "model.safetensors")
        with ArrivingTensors(coming.arrival(entry), device=str(THERE)) as tensors:
            assert torch.all(tensors.get_tensor("1.weight") == 1)
            assert torch.all(tensors.get_slice("2.weight")[100:] == 2)
        assert late.carried == 2
        assert torch.all(tensors.tensors()["3.weight"] == 3)  # of what is here, by whatever is best at it
        assert late.carried == 6
        # As transformers does it: opened for the processor, moved when it is taken.
        part: Any = ArrivingTensors(coming.arrival(entry)).get_slice("3.weight")
        moved = core_model_loading._materialize_copy(part, THERE, torch.bfloat16)
        assert late.carried == 7
        assert moved.dtype is torch.bfloat16
        assert torch.all(moved == 3)
        kept = core_model_loading._materialize_copy(part, "cpu", torch.float16)
        assert kept.dtype is torch.float16
        assert late.carried == 7


class OwnPrefetch:
    """A `safe_open` of safetensors 0.9 and later, as its stub describes it."""

    def __init__(self, path: str, framework: str) -> None:
        self.asked: list[Any] = []

    def __enter__(self) -> OwnPrefetch:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        yield from [("b", 2), ("a", 1)]

    def prefetch(self, plan: Any = None, *, device: str | int | None = None, threads: int = 8) -> OwnPrefetch:
        assert (plan, device) == (None, "cuda:7")
        return self


def test_the_library_brings_what_is_here_if_it_can(late: Late, tmp_path: Path, instead: Instead) -> None:
    path = tmp_path / "model.safetensors"
    weights = {"a": random((5, 7), torch.float32), "b": random((2,), torch.int64)}
    save_file(weights, path)
    found = dict(tensors_of(path, THERE))
    assert all(is_equal(found[name], weights[name]) for name in weights)
    assert late.carried == 2
    instead(device, safe_open=OwnPrefetch)
    handed: list[tuple[str, Any]] = list(tensors_of(path, THERE))
    assert handed == [("b", 2), ("a", 1)]
    assert late.carried == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_an_accelerator_gets_what_was_sent(dtype: torch.dtype) -> None:
    for shape in [*SHAPES, (9, 1024, 1025)]:
        tensor = random(shape, dtype)
        there = to_device(tensor, "cuda")
        assert there.device.type == "cuda"
        assert is_equal(there.cpu(), tensor)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_is_loaded_to_an_accelerator_while_it_comes(hub: ChaosHub, tmp_path: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "made")
    made = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    write_repo(tmp_path / "hub", "org/bert", made)
    ours = headrace.load(transformers.AutoModel, "org/bert", device_map="cuda").state_dict()
    stock = transformers.AutoModel.from_pretrained(tmp_path / "made").state_dict()
    assert all(torch.equal(ours[name].cpu(), stock[name]) for name in stock)

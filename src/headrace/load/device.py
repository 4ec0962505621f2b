"""Tensors on their way to an accelerator: out of a file's mapping, through pinned memory, on a stream beside the others.

The driver is never given an address in the mapping of a file: it would pin those pages, fault them in while it holds
its locks, or read them twice. A processor copies a piece into a slot of pinned memory, the device fetches it from there
on a stream of its own, and meanwhile the next piece goes into the next slot. A slot is used again when its event says
that the device has it. The cache needs no second copy: what is read is the very file that it becomes.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from headrace.load.forklock import ForkLock
from headrace.load.tensors import ArrivingSlice, is_accelerator

_SLOTS = 4
_SLOT_BYTES = 8 * 1024 * 1024  # large enough that a copy hides its own start
_COPY = "_materialize_copy"


class Copied(Protocol):
    """A copy that was begun."""

    def synchronize(self) -> None:
        """Wait until it is done."""


class Accelerator(Protocol):
    """A device, as far as copies to it go."""

    def host(self, size: int) -> Tensor:
        """So many bytes of memory that the device can read by itself."""

    def like(self, tensor: Tensor) -> Tensor:
        """Memory of the device for a tensor of this shape and type."""

    def begin(self) -> None:
        """Copies from now on come after what this thread has told the device."""

    def copy(self, target: Tensor, source: Tensor) -> Copied:
        """Begin to copy bytes of the host's to the device."""

    def end(self) -> None:
        """What this thread tells the device from now on comes after the copies."""


@dataclass
class _Slot:
    memory: Tensor
    copied: Copied | None = None


class Lift:
    """A ring of slots to one device. For any thread; several share the slots."""

    def __init__(self, accelerator: Accelerator, slots: int = _SLOTS, slot_bytes: int = _SLOT_BYTES) -> None:
        self._accelerator = accelerator
        self._slot_bytes = slot_bytes
        self._free: queue.SimpleQueue[_Slot] = (
            queue.SimpleQueue()
        )  # the one that was used longest ago comes first
        for _ in range(slots):
            self._free.put(_Slot(accelerator.host(slot_bytes)))

    def carry(self, tensor: Tensor) -> Tensor:
        """The same tensor on the device. What is computed with it comes after its copy; nobody waits for that here."""
        whole = tensor.contiguous()
        there = self._accelerator.like(whole)
        if whole.numel() == 0:
            return there
        source, target = _bytes_of(whole), _bytes_of(there)
        self._accelerator.begin()
        try:
            for start in range(0, len(source), self._slot_bytes):
                stop = min(len(source), start + self._slot_bytes)
                self._carry(source[start:stop], target[start:stop])
        finally:
            self._accelerator.end()
        return there

    def _carry(self, source: Tensor, target: Tensor) -> None:
        slot = self._free.get()
        try:
            if slot.copied is not None:
                slot.copied.synchronize()
            piece = slot.memory[: len(source)]
            piece.copy_(source)
            slot.copied = self._accelerator.copy(target, piece)
        finally:
            self._free.put(slot)


class Cuda:
    """A device of CUDA's, or what torch calls so; see `Accelerator`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def host(self, size: int) -> Tensor:
        """See `Accelerator.host`. Where no memory may be pinned, any: copies of it wait, and are right."""
        try:
            return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
        except RuntimeError:
            return torch.empty(size, dtype=torch.uint8, device="cpu")

    def like(self, tensor: Tensor) -> Tensor:
        """See `Accelerator.like`."""
        return torch.empty_like(tensor, device=self._device)

    def begin(self) -> None:
        """See `Accelerator.begin`: the memory of `like` may still be read by what had it before."""
        self._side.wait_stream(torch.cuda.current_stream(self._device))

    def copy(self, target: Tensor, source: Tensor) -> Copied:
        """See `Accelerator.copy`."""
        with torch.cuda.stream(self._side):
            target.copy_(source, non_blocking=True)
            copied: Copied = self._side.record_event()
        return copied

    def end(self) -> None:
        """See `Accelerator.end`."""
        torch.cuda.current_stream(self._device).wait_stream(self._side)


_lifts: dict[torch.device, Lift] = {}
_making = ForkLock()


def to_device(tensor: Tensor, device: Any) -> Tensor:
    """The tensor there; to an accelerator by way of pinned memory. Raises as torch."""
    if not is_accelerator(device):
        return tensor.to(device)
    there = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if there == torch.device("cuda"):  # whichever this thread uses
        there = torch.device(there.type, torch.cuda.current_device())
    with _making.held():
        lift = _lifts.get(there)
        if lift is None:
            lift = _lifts[there] = Lift(Cuda(there))
    return lift.carry(tensor)


def tensors_of(path: Path, device: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a safetensors file that is here, on a device, in the order in which they get there.

    Where the library can bring them by itself (`safe_open.prefetch`, from 0.9 on), it does: it reads with many threads.
    """
    with safe_open(str(path), framework="pt") as file:
        if is_accelerator(device) and hasattr(file, "prefetch"):
            with file.prefetch(device=device if isinstance(device, int) else str(device)) as loader:
                yield from loader
            return
        for name in file.offset_keys():
            yield name, to_device(file.get_tensor(name), device)


def install() -> bool:
    """Have transformers bring tensors on their way to accelerators by `to_device`. Says whether it does.

    It takes a tensor out of the file, then moves it, in one function which is looked up by its name each time.
    """
    try:
        module = import_module("transformers.core_model_loading")
    except ImportError:
        return False
    with _making.held():
        copy = getattr(module, _COPY, None)
        if copy is None:
            return False
        if not hasattr(copy, "__wrapped__"):
            setattr(module, _COPY, _wrapped(copy))
    return True


def _wrapped(copy: Any) -> Any:
    @wraps(copy)
    def copied(tensor: Any, device: Any = None, dtype: Any = None, **more: Any) -> Any:
        if isinstance(tensor, ArrivingSlice) and device is not None and is_accelerator(device):
            there = to_device(tensor[...], device)
            return there if dtype is None else there.to(dtype)
        return copy(tensor, device, dtype, **more)

    return copied


def _bytes_of(tensor: Tensor) -> Tensor:
    """The memory of a contiguous tensor, of whatever shape and type."""
    return tensor.reshape(-1).view(torch.uint8)

"""The tensors of a safetensors file that is still on its way: the library's own reader, once the header is here.

The file has its full length from the start, so that the library maps it, parses and checks the header, and makes views
of the mapping, as of any other file. What is added is to wait, before a tensor is handed out, until its bytes are
there. Where they are follows from what the library made of the header, which is parsed once and by nobody else: the
format has tensors lie side by side and fill the file (https://huggingface.co/docs/safetensors, "Format").

Who reads a mapping of a file that another process cuts short gets SIGBUS from the kernel, and no error can be had in its
place. So a file is looked at before each tensor is handed out, and once more at the end.
"""

from __future__ import annotations

import math
import re
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open

from headrace.errors import StoreError
from headrace.load.progress import Progress
from headrace.load.slicing import part_of
from headrace.ranges import Range
from headrace.store.onlooker import OpenFile

_NUMBER = re.compile("[0-9]+")
_LENGTH = struct.Struct("<Q")
_HEADER_BYTES_MOST = 100_000_000  # as the library bounds it
_BITS = re.compile("[A-Z]+([0-9]+)")  # of one number, in the name of its type: BF16, F8_E4M3, F6_E2M3
_BITS_OF_BOOL = 8


class Readable(Protocol):
    """A file that is here, or on its way. For any thread."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def size(self) -> int:
        """In bytes, when it is complete."""

    @property
    def is_on_demand(self) -> bool:
        """Whether nothing of it comes but what is asked for."""

    @property
    def progress(self) -> Progress | None:
        """Is told of waits; None where nobody wants to hear of them."""

    @property
    def final(self) -> OpenFile | None:
        """The file, where all of it is here and verified, or a user's own; None while it comes."""

    def reach(self, wanted: Range) -> OpenFile:
        """Wait until these bytes may be read, and say where. Raises `HeadraceError`: they will not come."""

    def has_landed(self, wanted: Range) -> bool:
        """Whether these bytes may be read now. Raises as `reach`."""

    def expect(self, wanted: Range) -> None:
        """These bytes will be asked for: what comes on demand had better come before."""

    def settle(self) -> OpenFile:
        """Wait until what was read can be relied upon. Raises `HeadraceError`: it cannot."""


class ArrivingTensors:
    """What `safetensors.safe_open` gives, of a file on its way: `keys`, `metadata`, `get_tensor`, `get_slice`.

    As a context manager it ends when the whole file was verified. For any thread.
    """

    def __init__(self, arrival: Readable, framework: str = "pt", device: Any = "cpu", **options: Any) -> None:
        """Wait for the header.

        Raises:
            SafetensorError: it is none, as the library says.
            HeadraceError: it does not arrive.
        """
        self.arrival = arrival
        self._target = device if is_accelerator(device) else None
        self._how = {
            "framework": framework,
            "device": "cpu" if self._target is not None else device,
            **options,
        }
        self._lock = threading.Lock()
        self._handles: list[tuple[OpenFile, Any]] = []
        self._taken: frozenset[tuple[str, str]] = frozenset()  # kinds of tensors, and what was taken of them
        self._header = Range(0, 0)
        self._handle, self._places = self._begin()
        starts = {place.start for place in self._places.values() if place}
        self._is_told = len(starts) == sum(map(bool, self._places.values()))  # else each has the place of all
        if arrival.progress is not None:
            arrival.progress.opened(arrival, len(self._places))

    def __repr__(self) -> str:
        return f"<ArrivingTensors {self.arrival.name}, {len(self._places)} tensors>"

    def keys(self) -> list[str]:
        """The tensors' names, as the library orders them."""
        return list(self._handle.keys())

    def offset_keys(self) -> list[str]:
        """The tensors' names, in the order of the file."""
        return list(self._places)

    def metadata(self) -> dict[str, str] | None:
        """What the file says of itself."""
        told: dict[str, str] | None = self._handle.metadata()
        return told

    def get_tensor(self, name: str) -> Any:
        """A tensor, when all of it has landed.

        A view of the file; a copy where it lies in the file so that its numbers are not aligned. Of a file on its way
        nothing is certain before `settle`.

        Raises:
            SafetensorError: the header that came has none of this name, or the library does not know its type.
            StoreError: the file was cut short.
            HeadraceError: it does not arrive.
        """
        if name not in self._places:
            return self._handle.get_tensor(name)  # what it says of that, at once
        with self._promised():
            return self._placed(self._landed(name).get_tensor(name))

    def get_slice(self, name: str) -> ArrivingSlice:
        """A tensor of which nothing is waited for before a part of it is taken."""
        return ArrivingSlice(self, name, self._handle.get_slice(name))

    def tensors(self) -> dict[str, Any]:
        """All tensors, in the order in which they arrive."""
        if self._target is not None and self.arrival.final is not None:
            from headrace.load.device import tensors_of  # noqa: PLC0415  # only this needs torch

            return dict(tensors_of(self.arrival.final.path, self._target))
        return {name: self.get_tensor(name) for name in self.offset_keys()}

    def has_landed(self, name: str) -> bool:
        """Whether a tensor could be had at once. Raises as `Arrival.reach`."""
        return name not in self._places or self.arrival.has_landed(self._places[name])

    def take(self, name: str, index: Any) -> Any:
        """A part of a tensor, when that has landed. Raises as `get_tensor`."""
        self._expect(name, index)
        with self._promised():
            return self._placed(self._landed(name, index).get_slice(name)[index])

    def settle(self) -> None:
        """Wait until the whole file was verified. Raises as `Readable.settle`, and `StoreError` as `get_tensor`."""
        self._whole(self.arrival.settle())

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __enter__(self) -> ArrivingTensors:  # noqa: PYI034  # typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.settle()

    def _begin(self) -> tuple[Any, Mapping[str, Range]]:
        size = self.arrival.size
        length = 0
        if size >= _LENGTH.size:
            file = self.arrival.reach(Range(0, _LENGTH.size))
            (length,) = _LENGTH.unpack(self._whole(file).read(Range(0, _LENGTH.size)))
        data = _LENGTH.size + length
        if not 0 < length <= _HEADER_BYTES_MOST or data > size:
            # None that could be waited for. What the library says of it counts for the file that was promised.
            return self._open(self.arrival.settle()), {}
        self._header = Range(0, data)
        with self._promised():
            handle = self._open(self.arrival.reach(self._header))
        return handle, _places(handle, Range(data, size))

    @contextmanager
    def _promised(self) -> Iterator[None]:
        """What the library refuses may be wrong only because it was not sent as promised: that is told instead."""
        try:
            yield
        except SafetensorError:
            self.settle()
            raise

    def _expect(self, name: str, index: Any) -> None:
        """Who takes a part of one layer's tensor will take the same of the others' tensors of that name."""
        kind = _kind_of(name), str(index)
        with self._lock:
            is_new, self._taken = kind not in self._taken, self._taken | {kind}
        if is_new and self.arrival.is_on_demand:
            for other in self._places:
                if other != name and _kind_of(other) == kind[0]:
                    self.arrival.expect(self._part(other, index))

    def _part(self, name: str, index: Any) -> Range:
        """Where the bytes are that an index reaches."""
        place = self._places[name]
        if not self._is_told:
            return place
        part = part_of(self._handle.get_slice(name).get_shape(), len(place), index)
        return Range(place.start + part.start, place.start + part.stop)

    def _landed(self, name: str, index: Any = ...) -> Any:
        """The library's handle of the file in which this part of a tensor is."""
        progress = self.arrival.progress
        with progress.awaiting(self.arrival, name) if progress is not None else nullcontext():
            file = self._whole(self.arrival.reach(self._part(name, index)))
            while (handle := self._known(file)) is None:
                # Another file than before: where its tensors are is as certain as they are once its header is here.
                if self.arrival.reach(self._header) is file:
                    return self._open(file)
                file = self._whole(self.arrival.reach(self._part(name, index)))
        return handle

    def _known(self, file: OpenFile) -> Any:
        """The library's handle of a file that was opened before; None where that is new."""
        with self._lock:
            return next((handle for known, handle in self._handles if known is file), None)

    def _placed(self, tensor: Any) -> Any:
        """The tensor on the device that was asked for: never by the library, which copies out of the mapping."""
        if self._target is None:
            return _aligned(tensor)
        from headrace.load.device import to_device  # noqa: PLC0415  # only this needs torch

        return to_device(tensor, self._target)

    def _open(self, file: OpenFile) -> Any:
        handle = safe_open(str(self._whole(file).path), **self._how)
        with self._lock:
            self._handles.append((file, handle))
        return handle

    def _whole(self, file: OpenFile) -> OpenFile:
        """The same file, which is as long as it was when it was mapped."""
        if (found := file.size) != self.arrival.size:
            raise StoreError(
                f"{self.arrival.name} has {found} bytes instead of {self.arrival.size}: somebody changed it",
                hint="tensors taken from it before must not be touched any more: load it again",
            )
        return file


class ArrivingSlice:
    """What `safe_open(...).get_slice(name)` gives: its shape and dtype at once, its parts when they have landed."""

    def __init__(self, tensors: ArrivingTensors, name: str, known: Any) -> None:
        self._tensors = tensors
        self._name = name
        self._known = known

    def __repr__(self) -> str:
        return f"<ArrivingSlice {self._name}>"

    def get_shape(self) -> list[int]:
        """Of the whole tensor."""
        shape: list[int] = self._known.get_shape()
        return shape

    def get_dtype(self) -> str:
        """As the header writes it: `BF16`."""
        dtype: str = self._known.get_dtype()
        return dtype

    def __getitem__(self, index: Any) -> Any:
        return self._tensors.take(self._name, index)


def _kind_of(name: str) -> str:
    """What a tensor is in whichever layer."""
    return _NUMBER.sub("#", name)


def is_accelerator(device: Any) -> bool:
    """Whether this names a device of CUDA's, as frameworks do: a number, `cuda`, `cuda:1`."""
    return isinstance(device, int) or str(device).partition(":")[0] == "cuda"


def _places(handle: Any, data: Range) -> dict[str, Range]:
    """Where each tensor is, in the order of the file; `data` is what the header leaves of the file.

    Where the library is too old to tell the order, or tells of a type that this does not know, all of it is waited for.
    """
    names = handle.offset_keys() if hasattr(handle, "offset_keys") else []
    places, start = {}, data.start
    for name in names:
        part = handle.get_slice(name)
        bits = _BITS.match(part.get_dtype())
        each = int(bits.group(1)) if bits else _BITS_OF_BOOL
        stop = start + math.prod(part.get_shape()) * each // 8
        places[name] = Range(start, stop)
        start = stop
    return places if names and start == data.stop else dict.fromkeys(handle.keys(), data)


def _aligned(tensor: Any) -> Any:
    """The same tensor, copied where its numbers do not lie as processors and their libraries expect it."""
    if hasattr(tensor, "data_ptr") and tensor.data_ptr() % tensor.element_size():
        return tensor.clone()
    return tensor

"""The tensors of a safetensors file that is still on its way: the library's own reader, once the header is here.

The file has its full length from the start, so that the library maps it, parses and checks the header, and makes views
of the mapping, as of any other file. What is added is to wait, before a tensor is handed out, until its bytes are
there: where they are, the header says (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import Any

from safetensors import SafetensorError, safe_open

from headrace.load.arrival import Arrival
from headrace.ranges import Range
from headrace.store.onlooker import OpenFile

_LENGTH = struct.Struct("<Q")
_HEADER_BYTES_MOST = 100_000_000  # as the library bounds it


class ArrivingTensors:
    """What `safetensors.safe_open` gives, of a file on its way: `keys`, `metadata`, `get_tensor`, `get_slice`.

    As a context manager it ends when the whole file was verified. For any thread.
    """

    def __init__(self, arrival: Arrival, framework: str = "pt", device: Any = "cpu", **options: Any) -> None:
        """Wait for the header.

        Raises:
            SafetensorError: it is none, as the library says.
            HeadraceError: it does not arrive.
        """
        self.arrival = arrival
        self._how = {"framework": framework, "device": device, **options}
        self._lock = threading.Lock()
        self._handles: list[tuple[OpenFile, Any]] = []
        self._handle, self._places = self._begin()
        if arrival.progress is not None:
            arrival.progress.opened(arrival, len(self._places))

    def __repr__(self) -> str:
        return f"<ArrivingTensors {self.arrival.entry.path}, {len(self._places)} tensors>"

    def keys(self) -> list[str]:
        """The tensors' names, as the library orders them."""
        return list(self._handle.keys())

    def offset_keys(self) -> list[str]:
        """The tensors' names, in the order of the file."""
        return list(self._handle.offset_keys())

    def metadata(self) -> dict[str, str] | None:
        """What the file says of itself."""
        told: dict[str, str] | None = self._handle.metadata()
        return told

    def get_tensor(self, name: str) -> Any:
        """A tensor, when all of it has landed. Raises as `Arrival.reach`, and `SafetensorError` for unknown names."""
        if name not in self._places:
            return self._handle.get_tensor(name)  # what it says of that
        return self._landed(name).get_tensor(name)

    def get_slice(self, name: str) -> ArrivingSlice:
        """A tensor of which nothing is waited for before a part of it is taken."""
        return ArrivingSlice(self, name, self._handle.get_slice(name))

    def tensors(self) -> dict[str, Any]:
        """All tensors, in the order in which they arrive."""
        return {name: self.get_tensor(name) for name in self.offset_keys()}

    def range_of(self, name: str) -> Range:
        """Where a tensor's bytes are in the file."""
        return self._places[name]

    def take(self, name: str, index: Any) -> Any:
        """A part of a tensor, when the tensor has landed."""
        return self._landed(name).get_slice(name)[index]

    def settle(self) -> None:
        """Wait until the whole file was verified. Raises as `Arrival.settle`."""
        self.arrival.settle()

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
        size = self.arrival.entry.size
        length = 0
        if size >= _LENGTH.size:
            file = self.arrival.reach(Range(0, _LENGTH.size))
            (length,) = _LENGTH.unpack(file.read(Range(0, _LENGTH.size)))
        data = _LENGTH.size + length
        if not 0 < length <= _HEADER_BYTES_MOST or data > size:
            # None that could be waited for. What the library says of it counts for the file that was promised.
            return self._open(self.arrival.settle()), {}
        file = self.arrival.reach(Range(0, data))
        try:
            handle = self._open(file)
        except SafetensorError:
            self.arrival.settle()  # it may be wrong because it was not sent as promised
            raise
        return handle, _places(file.read(Range(_LENGTH.size, data)), data)

    def _landed(self, name: str) -> Any:
        """The library's handle of the file in which all of this tensor is."""
        progress = self.arrival.progress
        with progress.awaiting(self.arrival, name) if progress is not None else nullcontext():
            file = self.arrival.reach(self._places[name])
        with self._lock:
            for known, handle in self._handles:
                if known is file:
                    return handle
        return self._open(file)

    def _open(self, file: OpenFile) -> Any:
        handle = safe_open(str(file.path), **self._how)
        with self._lock:
            self._handles.append((file, handle))
        return handle


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


def _places(header: bytes, data: int) -> dict[str, Range]:
    """Where each tensor is, by a header that the library has found to be right; `data` is where the first byte is."""
    told = json.loads(header)
    told.pop("__metadata__", None)
    return {
        name: Range(data + facts["data_offsets"][0], data + facts["data_offsets"][1])
        for name, facts in told.items()
    }

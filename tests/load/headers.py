"""Safetensors files written byte by byte, so that they can be wrong."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any


def written(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, as it is where it is bytes, and a `length` that may lie about it."""
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(told) if length is None else length) + told + data


def tensor(dtype: str, shape: Sequence[int], start: int, stop: int) -> dict[str, Any]:
    """What a header says of one tensor."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}

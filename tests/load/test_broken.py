"""Broken safetensors files are refused as the library refuses them, here and on their way; and lies are told as lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import headrace
from headrace.errors import DigestMismatch, LoadError
from headrace.load.localfile import LocalFile
from headrace.load.tensors import ArrivingTensors
from headrace.ranges import Range
from headrace.store.onlooker import OpenFile
from headrace.testing import ChaosHub, Fault, write_repo
from tests.load.headers import tensor, written

MIB = 1024 * 1024
A = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
BROKEN = {
    "empty": b"",
    "seven-bytes": b"1234567",
    "no-header": written(b""),
    "no-header-and-data": written(b"", bytes(20)),
    "longer-than-a-file-can-be": written(b"{}", length=2**63),
    "length-of-all-ones": written(b"{}", length=2**64 - 1),
    "longer-than-allowed": written(b"{}", length=100_000_001),
    "longer-than-the-file": written(b"{}", length=50),
    "overlapping": written({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, bytes(12)),
    "gapped": written({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 12, 20)}, bytes(20)),
    "backwards": written({"a": tensor("F32", [2], 8, 0)}, bytes(8)),
    "negative": written({"a": tensor("F32", [2], -1, 7)}, bytes(8)),
    "cut-json": written(b'{"a":', bytes(8)),
    "no-utf8": written(b'{"\xff\xfe":1}', bytes(8)),
    "lone-surrogate": written(b'{"\\ud800":' + A + b"}", bytes(8)),
    "list": written(b"[1]"),
    "padded-with-zeros": written(b"{}\0\0\0"),
    "deep": written(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "same-name-twice": written(b'{"a":' + A + b',"a":' + A.replace(b"0,8", b"8,16") + b"}", bytes(16)),
    "metadata-twice": written(b'{"__metadata__":{"x":"1"},"__metadata__":{"x":"2"}}'),
    "field-twice": written(b'{"a":' + A.replace(b'"shape"', b'"dtype":"F32","shape"') + b"}", bytes(8)),
    "metadata-of-numbers": written({"__metadata__": {"x": 1}}),
    "other-size-than-shape": written({"a": tensor("F64", [2], 0, 8)}, bytes(8)),
    "half-a-byte": written({"a": tensor("F4", [3], 0, 2)}, bytes(2)),
    "unknown-type": written({"a": tensor("F33", [2], 0, 8)}, bytes(8)),
    "overflowing": written({"a": tensor("F32", [2**40, 2**40], 0, 8)}, bytes(8)),
    "offsets-of-floats": written(b'{"a":' + A.replace(b"0,8", b"0.0,8.0") + b"}", bytes(8)),
    "offsets-too-large": written(b'{"a":' + A.replace(b"0,8", b"0,%d" % 2**64) + b"}", bytes(8)),
    "without-offsets": written({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "number-out-of-range": written(b'{"a":' + A[:-1] + b',"x":' + b"1" * 5000 + b"}}", bytes(8)),
    "trailing": written({"a": tensor("F32", [2], 0, 8)}, bytes(10)),
    "truncated": written({"a": tensor("F32", [2], 0, 8)}, bytes(7)),
}
UNUSUAL = {
    "same-tensor-twice": written(b'{"a":' + A + b',"a":' + A + b"}", bytes(8)),
    "sequences": written(b'{"a":["F32",[2],[0,8]]}', bytes(8)),
    "more-fields": written({"a": {**tensor("F32", [2], 0, 8), "x": 10**300}}, bytes(8)),
    "no-tensors": written({}),
    "spaces": written(b"  {}   "),
    "null-metadata": written({"__metadata__": None}),
}


def padded(content: bytes) -> bytes:
    """The same beginning with enough behind it to be read while it comes."""
    return content + bytes(5 * MIB)


def verdict(open_it: Callable[[], Any]) -> tuple[type, str]:
    """How a file is refused, or the names in it."""
    try:
        return list, str(sorted(open_it().keys()))
    except SafetensorError as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", [*BROKEN, *UNUSUAL])
def test_a_file_here_is_judged_as_the_library_does(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes({**BROKEN, **UNUSUAL}[name])
    expected = verdict(lambda: safe_open(file, "pt"))
    assert verdict(lambda: headrace.open_safetensors(file)) == expected
    assert (expected[0] is SafetensorError) == (name in BROKEN)


def test_files_on_their_way_are_judged_as_the_library_does(hub: ChaosHub, tmp_path: Path) -> None:
    every = {**BROKEN, **UNUSUAL}
    files = {f"{name}.safetensors": content for name, content in every.items()}
    files |= {f"{name}-large.safetensors": padded(content) for name, content in every.items()}
    write_repo(tmp_path / "hub", "org/every", files)
    wrong = {}
    with headrace.prefetch("org/every") as coming:
        for entry in coming.plan().manifest.entries:
            local = tmp_path / "local.safetensors"
            local.write_bytes(files[entry.path])
            expected = verdict(lambda: safe_open(local, "pt"))  # noqa: B023  # called at once
            found = verdict(lambda: ArrivingTensors(coming.arrival(entry)))  # noqa: B023
            if found != expected:
                wrong[entry.path] = found, expected
        coming.finish()
    assert wrong == {}
    assert len(files) == 2 * len(every)


@pytest.mark.parametrize("name", ["longer-than-the-file", "overlapping"])
def test_a_repo_is_refused_as_its_file_is(name: str, hub: ChaosHub, tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "org/broken", {"model.safetensors": padded(BROKEN[name])})
    (tmp_path / "x.safetensors").write_bytes(padded(BROKEN[name]))
    expected = verdict(lambda: safe_open(tmp_path / "x.safetensors", "pt"))
    hub.set_faults(Fault("total", rate=8 * MIB))
    assert verdict(lambda: headrace.open_safetensors("org/broken")) == expected
    assert verdict(lambda: headrace.open_safetensors("org/broken")) == expected  # from the cache


@pytest.mark.parametrize(
    "offset",
    [
        pytest.param(0, id="length"),
        pytest.param(7, id="huge-length"),
        pytest.param(8, id="brace"),
        pytest.param(11, id="name"),
    ],
)
def test_a_lying_header_is_told_as_a_lie(offset: int, hub: ChaosHub, tmp_path: Path) -> None:
    content = written({"weight": tensor("F32", [MIB * 5 // 4], 0, 5 * MIB)}, bytes(5 * MIB))
    write_repo(tmp_path / "hub", "org/lied", {"model.safetensors": content})
    hub.set_faults(Fault("flip", offset=offset))
    with pytest.raises(DigestMismatch), headrace.open_safetensors("org/lied") as tensors:
        tensors.tensors()
    assert not list((tmp_path / "cache").glob("models--*/snapshots/*/*.safetensors"))


@settings(max_examples=300)
@given(
    changes=st.lists(
        st.tuples(st.integers(8, 300), st.sampled_from(b'0123456789{}[],:"FBU8\\ \x00')), max_size=4
    ),
    cut=st.integers(0, 3),
)
def test_any_header_means_what_the_library_takes_it_for(
    changes: list[tuple[int, int]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    header = {
        "x": tensor("F32", [2, 3], 0, 24),
        "y": tensor("BF16", [], 24, 26),
        "e": tensor("I64", [0], 26, 26),
    }
    header |= {
        "z": tensor("F4", [2, 2], 26, 28),
        "b": tensor("BOOL", [4], 28, 32),
        "c": tensor("C64", [1], 32, 40),
    }
    made = bytearray(written({"__metadata__": {"a": "b"}, **header}, bytes(range(28)) + bytes(12)))
    for place, byte in changes:
        made[place] = byte
    file = tmp_path_factory.mktemp("any") / "x.safetensors"
    file.write_bytes(made[: len(made) - cut])
    assert verdict(lambda: headrace.open_safetensors(file)) == verdict(lambda: safe_open(file, "pt"))
    with suppress(SafetensorError):
        asked = Asked(file)
        ours = ArrivingTensors(asked)
        stock: Any = safe_open(file, "pt")
        header_bytes = int.from_bytes(made[:8], "little")
        told = json.loads(made[8 : 8 + header_bytes])
        for name in ours:
            start, stop = told[name]["data_offsets"]
            assert torch.equal(as_bytes(ours.get_tensor(name)), as_bytes(stock.get_tensor(name)))
            assert asked.last == Range(start + 8 + header_bytes, stop + 8 + header_bytes)


class Asked(LocalFile):
    """A file that knows which of its bytes were waited for last."""

    last = Range(0, 0)

    def reach(self, wanted: Range) -> OpenFile:
        """As ever."""
        self.last = wanted
        return super().reach(wanted)


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """What it is made of."""
    return tensor.clone().reshape(-1).view(torch.uint8)


def test_a_repo_without_safetensors_says_so(hub: ChaosHub, tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "org/legacy", {"config.json": b"{}", "pytorch_model.bin": b"x" * 100})
    write_repo(tmp_path / "hub", "org/inner", {"config.json": b"{}", "unet/model.safetensors": save({})})
    with pytest.raises(LoadError, match="org/legacy has no safetensors files at its top") as caught:
        headrace.open_safetensors("org/legacy")
    assert "older format" in (caught.value.hint or "")
    with pytest.raises(LoadError, match="no safetensors") as caught:
        headrace.open_safetensors("org/inner")
    assert "folders" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "index",
    [b"", b"[]", b"{}", b'{"weight_map": 1}', b'{"weight_map": {"a": ["x"]}}', b"[" * 100_000, b"\xff"],
)
def test_an_index_that_is_none_is_told(index: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(LoadError, match="is no index"):
        headrace.open_safetensors(tmp_path)


@pytest.mark.parametrize("named", ["missing.safetensors", "../x.safetensors", "/x.safetensors", 7])
def test_an_index_that_names_what_is_not_there_is_told(named: object, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {{"a": "{named}"}}}}')
    with pytest.raises(LoadError, match="which is not there"):
        headrace.open_safetensors(tmp_path)

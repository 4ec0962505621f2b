"""Cold files on slow file systems are read by several at once, in the order of use, and no further than is wanted."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import transformers

import headrace
from headrace.errors import LoadError, UsageError
from headrace.load.readahead import ReadAhead, weights_in
from headrace.testing import ChaosHub, write_repo
from tests.load.zoo import differences
from tests.pull.mounts import Faults, served

MIB = 1024 * 1024
TENSORS = 24
DELAY_S = "0.03"
"""So long that it does not matter how busy this machine is."""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Path]:
    """A folder on a slow file system with a model of 24 tensors of 4 MiB, of which nothing is in memory."""
    behind = tmp_path / "behind"
    behind.mkdir()
    _write_sparse(behind / "model.safetensors", [f"layers.{number}.weight" for number in range(TENSORS)])
    with served(tmp_path, "tests.load.slowfs", DELAY_S, str(tmp_path / "log")) as point:
        yield point


def test_several_read_at_once_in_the_order_of_use(slow: Path, tmp_path: Path) -> None:
    with ReadAhead(weights_in(slow)) as ahead:
        assert ahead.join(30)
    assert re.match(
        r"done\. .* MB/s to one reader, and .* MB/s to 16 at once, so \d+ MiB were read", ahead.why
    )
    asked = [tuple(map(int, line.split()[1:])) for line in (tmp_path / "log").read_text().splitlines()]
    assert max(now for _, now in asked) > 16
    turns: dict[int, list[int]] = {}
    for turn, (offset, _) in enumerate(asked):
        turns.setdefault(_tensor(offset), []).append(turn)
    typical = [statistics.median(turns[number]) for number in range(TENSORS)]
    assert all(early < late for early, late in zip(typical, typical[8:], strict=False))
    with ReadAhead(weights_in(slow)) as again:
        assert again.join(30)
    # A page or two may have been needed for something else meanwhile.
    assert re.match(r"not (needed|done\. \d MiB of)", again.why)


def test_it_stops_where_loading_fails(slow: Path, tmp_path: Path) -> None:
    faults = Faults.at(tmp_path / "faults")
    faults.held = 1
    ahead = ReadAhead(weights_in(slow))
    with suppress(LookupError), ahead:
        _until(lambda: faults.waiting > 0)
        raise LookupError
    faults.held = 0
    assert ahead.join(30)
    assert _asked(tmp_path) < TENSORS * 4 * MIB / 2


def test_it_goes_on_as_long_as_the_model_is_alive(slow: Path, tmp_path: Path) -> None:
    class Model:
        pass

    model = Model()
    faults = Faults.at(tmp_path / "faults")
    faults.held = 1
    with ReadAhead(weights_in(slow)) as ahead:
        ahead.while_it_lives(model)
    _until(lambda: faults.waiting > 0)
    assert not ahead.join(0.1)
    del model
    gc.collect()
    faults.held = 0
    assert ahead.join(30)
    assert _asked(tmp_path) < TENSORS * 4 * MIB / 2


def test_a_file_that_is_nonsense_is_left_to_the_framework(tmp_path: Path) -> None:
    for name, content in (
        ("short", b"\x01"),
        ("lie", b"\xff" * 64),
        ("text", struct.pack("<Q", 4) + b"null"),
    ):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    with ReadAhead([*tmp_path.iterdir()]) as ahead:
        assert ahead.join(10)
    assert ahead.why.startswith("not needed.")  # they were written just now
    with ReadAhead([tmp_path / "gone.safetensors"]) as ahead:
        assert ahead.join(10)
    assert "A file cannot be read" in ahead.why


def test_the_files_of_a_model_are_those_that_a_framework_reads(tmp_path: Path) -> None:
    shards = [f"pytorch_model-{number}-of-10.bin" for number in (10, 2, 1)]
    for name in (*shards, "training_args.bin", "config.json"):
        (tmp_path / name).touch()
    assert [path.name for path in weights_in(tmp_path)] == sorted(shards, key=lambda name: int(name[14:-10]))
    (tmp_path / "model.safetensors").touch()
    assert [path.name for path in weights_in(tmp_path)] == ["model.safetensors"]
    assert weights_in(tmp_path / "gone") == ()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    config = transformers.BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=100
    )
    made: Any = transformers.BertModel(config)
    folder = tmp_path_factory.mktemp("made") / "bert"
    made.save_pretrained(folder)
    return folder


LOOKED_AT = "reading ahead: not "


def test_what_is_in_the_cache_is_looked_at_when_it_is_loaded(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_repo(tmp_path / "hub", "org/bert", {path.name: path.read_bytes() for path in bert.iterdir()})
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    caplog.set_level(logging.INFO, "headrace.load")
    with ChaosHub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        headrace.pull("org/bert")
        headrace.load(transformers.AutoModel, "org/bert")
        _until(lambda: LOOKED_AT in caplog.text)
    caplog.clear()
    with headrace.streaming():
        stock: Any = transformers.BertModel
        assert stock.from_pretrained("org/bert", cache_dir=str(tmp_path / "cache"), local_files_only=True)
    _until(lambda: LOOKED_AT in caplog.text)


def test_a_folder_is_loaded_and_looked_at(
    bert: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "headrace.load")
    expected = transformers.AutoModel.from_pretrained(bert)
    for named in (bert, str(bert)):
        caplog.clear()
        assert not differences(headrace.load(transformers.AutoModel, named), expected)
        _until(lambda: LOOKED_AT in caplog.text)
    monkeypatch.chdir(bert.parent)
    caplog.clear()
    assert not differences(headrace.load(transformers.AutoModel, "bert"), expected)  # as in transformers
    with headrace.streaming():
        assert not differences(transformers.AutoModel.from_pretrained("bert"), expected)
    _until(lambda: caplog.text.count(LOOKED_AT) == 2)


def test_it_goes_on_behind_from_pretrained(slow: Path, tmp_path: Path) -> None:
    """It returns before a tensor was touched."""
    config = transformers.BertConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=2, vocab_size=10000
    )
    made: Any = transformers.BertModel(config)
    made.save_pretrained(tmp_path / "behind" / "large")
    for path in (tmp_path / "behind" / "large").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with headrace.streaming():
        model = transformers.AutoModel.from_pretrained(slow / "large")
    size = (tmp_path / "behind" / "large" / "model.safetensors").stat().st_size
    _until(lambda: _asked(tmp_path) >= size)
    assert not differences(model, made)


def test_a_folder_that_cannot_be_loaded_says_which(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(LoadError, match=f"{tmp_path} cannot be loaded: OSError: .*model.safetensors"):
        headrace.load(transformers.AutoModel, tmp_path)
    with pytest.raises(UsageError, match=r"config\.json is no folder"):
        headrace.load(transformers.AutoModel, tmp_path / "config.json")
    with pytest.raises(UsageError, match=r"there is no file or folder .*/none"):
        headrace.load(transformers.AutoModel, f"{tmp_path}/none")


def _file_order() -> list[int]:
    """The tensors' numbers as the file has them: by their names' letters."""
    return sorted(range(TENSORS), key=str)


def _tensor(offset: int) -> int:
    """Whose bytes are there, but for the few that the header shifts them by."""
    return _file_order()[min(TENSORS - 1, offset // (4 * MIB))]


def _write_sparse(path: Path, names: list[str]) -> None:
    places = {
        name: {"dtype": "U8", "shape": [4 * MIB], "data_offsets": [at * 4 * MIB, (at + 1) * 4 * MIB]}
        for at, name in enumerate(sorted(names))
    }
    header = json.dumps(places).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + len(names) * 4 * MIB)


def _asked(folder: Path) -> int:
    """Bytes that the file system was asked for, about."""
    return len((folder / "log").read_text().splitlines()) * 128 * 1024


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)

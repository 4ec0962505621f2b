"""`headrace.open_safetensors`: every tensor as the library gives it, from a repo on its way, from a folder, from a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import headrace
from headrace.errors import LoadError, StoreError, UsageError
from headrace.events import Event, PullStarted
from headrace.facade import prefetch
from headrace.facade.dialogue import Order
from headrace.load.localfile import LocalFile
from headrace.load.needed import Need
from headrace.load.tensors import ArrivingTensors
from headrace.ranges import Range
from headrace.settings import load_settings
from headrace.store.onlooker import OpenFile
from headrace.testing import ChaosHub, Fault, content, write_repo
from tests.load.headers import tensor, written
from tests.load.watching import companions

MIB = 1024 * 1024
BITS = {
    **dict.fromkeys(["F64", "I64", "U64", "C64"], 64),
    **dict.fromkeys(["F32", "I32", "U32"], 32),
    **dict.fromkeys(["F16", "BF16", "I16", "U16"], 16),
    **dict.fromkeys(["F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["I8", "U8", "BOOL"], 8),
    **dict.fromkeys(["F6_E2M3", "F6_E3M2"], 6),
    "F4": 4,
}
INDEX = "model.safetensors.index.json"


def every_kind(numbers: int) -> bytes:
    """A file with a tensor of 2 x `numbers` of each type, a number and nothing of each whole-byte type; misaligned by a byte."""
    header, data = {"first": tensor("U8", [1], 0, 1)}, b"\1"
    for seed, (dtype, bits) in enumerate(BITS.items()):
        shapes = [[2, numbers], [], [0, 3]] if bits >= 8 else [[2, numbers]]
        for shape in shapes:
            size = (2 * numbers if len(shape) == 2 and shape[0] else int(not shape)) * bits // 8
            raw = bytes(byte & 1 for byte in content(size, seed)) if dtype == "BOOL" else content(size, seed)
            header[f"{dtype}{shape}"] = tensor(dtype, shape, len(data), len(data) + size)
            data += raw
    return written({"__metadata__": {"format": "pt"}, **header}, data)


def taken(opened: Any, name: str) -> object:
    """All there is to know of a tensor, or how it is refused."""
    try:
        found = opened.get_tensor(name)
    except SafetensorError as error:
        return str(error)
    return found.dtype, found.shape, found.reshape(-1).view(torch.uint8).tolist() if found.numel() else []


def child(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A program of its own, which has to end well."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **env},
        check=False,
    )


class Watched(LocalFile):
    """Notes what is waited for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reached: list[Range] = []

    def reach(self, wanted: Range) -> OpenFile:
        self.reached.append(wanted)
        return super().reach(wanted)


class Replaced(LocalFile):
    """A file that somebody took over: of the other one only that is there which was waited for."""

    def __init__(self, path: Path, other: Path) -> None:
        super().__init__(path)
        self._data = path.read_bytes()
        self._path = other
        other.write_bytes(bytes(self.size))
        self.other: OpenFile | None = None

    def take_over(self) -> None:
        self.other = OpenFile.at(self._path)

    def reach(self, wanted: Range) -> OpenFile:
        if self.other is None:
            return super().reach(wanted)
        with self._path.open("r+b") as file:
            file.seek(wanted.start)
            file.write(self._data[wanted.start : wanted.stop])
        return self.other


def sharded(tmp_path: Path, *shards: Mapping[str, torch.Tensor], index: bytes | None = None) -> list[str]:
    """The repo org/sharded of these files, with an index."""
    names = [f"model-{number}.safetensors" for number in range(len(shards))]
    where = ",".join(f'"{key}": "{name}"' for name, shard in zip(names, shards, strict=True) for key in shard)
    files = {name: save(dict(shard)) for name, shard in zip(names, shards, strict=True)}
    files[INDEX] = index or f'{{"metadata": {{}}, "weight_map": {{{where}}}}}'.encode()
    write_repo(tmp_path / "hub", "org/sharded", files)
    return names


@pytest.mark.parametrize("numbers", [4, 32 * 1024], ids=["small", "large"])
def test_every_type_is_what_the_library_gives(numbers: int, hub: ChaosHub, tmp_path: Path) -> None:
    local = tmp_path / "model.safetensors"
    local.write_bytes(every_kind(numbers))
    write_repo(tmp_path / "hub", "org/kinds", {"model.safetensors": local.read_bytes()})
    stock: Any = safe_open(local, "pt")
    with headrace.open_safetensors("org/kinds") as coming, headrace.open_safetensors(local) as here:
        assert sorted(coming.keys()) == sorted(here.keys()) == sorted(stock.keys())
        assert coming.metadata() == here.metadata() == {"format": "pt"}
        for name in stock.keys():  # noqa: SIM118  # the library's object is no mapping
            assert taken(coming, name) == taken(here, name) == taken(stock, name), name
            part, known = coming.get_slice(name), stock.get_slice(name)
            assert (part.get_shape(), part.get_dtype()) == (known.get_shape(), known.get_dtype())
    assert hub.log().blob_bytes >= local.stat().st_size


def test_misaligned_tensors_can_be_computed_with(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(every_kind(4))
    opened = headrace.open_safetensors(tmp_path / "x.safetensors")
    for name, found in ((name, opened.get_tensor(name)) for name in opened if not name.startswith("F6")):
        assert found.data_ptr() % found.element_size() == 0, name
        part = opened.get_slice(name)[:1] if found.dim() and found.dtype != torch.float4_e2m1fn_x2 else found
        assert part.data_ptr() % part.element_size() == 0, name
    weight = opened.get_tensor("F32[2, 4]").nan_to_num(0.0, 0.0, 0.0)
    assert torch.matmul(weight, weight.T).shape == (2, 2)


def test_nasty_names_are_names(hub: ChaosHub, tmp_path: Path) -> None:
    names = ["", " ", "a/../b", "ü\u202e\n\t\"'\\", "\0", "x" * 5000, "__metadata", "🦀", "0", "None"]
    weights = {name: torch.full((3,), float(number)) for number, name in enumerate(names)}
    write_repo(tmp_path / "hub", "org/nasty", {"model.safetensors": save(weights)})
    with headrace.open_safetensors("org/nasty") as opened:
        found = opened.tensors()
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) and name in opened for name in names)
        with pytest.raises(SafetensorError, match="does not contain tensor nowhere"):
            opened.get_tensor("nowhere")


def test_shards_are_one_and_their_first_tensors_come_before_the_last_bytes(
    hub: ChaosHub, tmp_path: Path
) -> None:
    shards = [
        {f"layer.{n}.{m}": torch.full((MIB // 2,), float(n * 4 + m)) for m in range(4)} for n in range(3)
    ]
    sharded(tmp_path, *shards)
    hub.set_faults(Fault("stall", match="model-2*", after_bytes=64 * 1024))
    events: list[Event] = []
    patient = headrace.load_settings(idle_timeout_s=1)
    with headrace.open_safetensors("org/sharded", settings=patient, on_event=events.append) as opened:
        assert len(opened) == 12
        assert opened.keys()[0] == "layer.0.0"
        with pytest.raises(SafetensorError, match="does not contain tensor layer"):
            opened.get_tensor("layer.9")  # told at once
        with pytest.raises(SafetensorError, match="does not contain tensor layer"):
            opened.get_slice("layer.9")
        assert opened.get_slice("layer.0.1")[5:7].tolist() == [1.0, 1.0]
        assert not list((tmp_path / "cache").glob("models--*/refs/main"))
        first = opened.get_tensor("layer.0.0")
        hub.set_faults()
        found = opened.tensors()
        assert list((tmp_path / "cache").glob("models--*/refs/main"))
    assert first.data_ptr() == found["layer.0.0"].data_ptr()  # one mapping
    assert all(torch.equal(found[name], shard[name]) for shard in shards for name in shard)
    assert any(isinstance(event, PullStarted) for event in events)
    hub.clear_log()
    again = headrace.open_safetensors("org/sharded").tensors()
    assert torch.equal(again["layer.2.3"], found["layer.2.3"])
    assert hub.log().blob_bytes == 0


def test_a_callback_may_take_tensors_of_the_file_that_is_waited_for(hub: ChaosHub, tmp_path: Path) -> None:
    data = save({f"layers.{number}": torch.full((MIB // 2,), float(number)) for number in range(3)})
    write_repo(tmp_path / "hub", "org/model", {"config.json": b"{}", "model.safetensors": data})
    hub.set_faults(Fault("total", rate=8 * MIB))
    opened: list[headrace.Tensors] = []
    taken: list[float] = []

    def taking(_: Event) -> None:
        if opened and not taken:
            taken.append(float(opened[0].get_tensor("layers.1")[0]))

    def verify() -> None:
        with headrace.open_safetensors("org/model", on_event=taking) as tensors:
            opened.append(tensors)

    thread = threading.Thread(target=verify, daemon=True)
    thread.start()
    thread.join(20)
    assert taken == [1.0]
    assert not thread.is_alive()


def test_a_name_in_two_files_means_the_later_one_where_an_index_joins_them(
    hub: ChaosHub, tmp_path: Path
) -> None:
    sharded(tmp_path, {"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": torch.ones(2)})
    with headrace.open_safetensors("org/sharded") as opened:
        assert opened.get_tensor("a").tolist() == [1.0, 1.0]
        assert sorted(opened) == ["a", "b"]
    folder = headrace.pull("org/sharded").path
    assert headrace.open_safetensors(folder).tensors()["a"].tolist() == [1.0, 1.0]
    (folder / INDEX).unlink()
    with pytest.raises(LoadError, match=r"'a' is in .*model-0.* and in .*model-1"):
        headrace.open_safetensors(folder)
    assert headrace.open_safetensors(folder / "model-0.safetensors").get_tensor("a").tolist() == [0.0, 0.0]


def test_only_the_files_of_an_index_count_and_adapters_stand_aside(tmp_path: Path) -> None:
    for name in ("adapter_model", "consolidated", "one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(save({name: torch.zeros(1)}))
    assert sorted(headrace.open_safetensors(tmp_path)) == ["one", "two"]
    (tmp_path / INDEX).write_text('{"weight_map": {"two": "two.safetensors"}}')
    assert sorted(headrace.open_safetensors(tmp_path)) == ["two"]
    (tmp_path / "model.safetensors").write_bytes(save({"whole": torch.zeros(1)}))
    assert sorted(headrace.open_safetensors(tmp_path)) == ["whole"]


def test_many_threads_take_the_same_tensors(hub: ChaosHub, tmp_path: Path) -> None:
    weights = {f"layers.{number}": torch.full((MIB // 4,), float(number)) for number in range(16)}
    write_repo(tmp_path / "hub", "org/many", {"model.safetensors": save(weights)})
    hub.set_faults(Fault("total", rate=24 * MIB))
    with headrace.open_safetensors("org/many") as opened, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda name: (name, opened.get_tensor(name)), [*weights] * 4))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found)


def test_a_long_header_is_asked_for_before_all_else(tmp_path: Path) -> None:
    many = {f"blocks.{number}.experts.{'weight' * 900}": number for number in range(4_000)}
    header = {name: tensor("U8", [2], 2 * number, 2 * number + 2) for name, number in many.items()}
    file = tmp_path / "long.safetensors"
    file.write_bytes(written(header, bytes(2 * len(many))))
    data = file.stat().st_size - 2 * len(many)
    watched = Watched(file)
    opened = ArrivingTensors(watched)
    assert opened.offset_keys() == list(header)
    assert watched.reached == [Range(0, 8), Range(0, data)]
    opened.get_tensor(next(reversed(header)))
    assert watched.reached[2:] == [Range(file.stat().st_size - 2, file.stat().st_size)]
    assert data > 20 * MIB


def test_a_prefetch_is_gone_on_with_and_left_to_who_began_it(hub: ChaosHub, tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "org/one", {"model.safetensors": save({"a": torch.ones(MIB * 2)})})
    with headrace.prefetch("org/one") as begun:
        with headrace.open_safetensors("org/one") as opened:
            assert opened.get_tensor("a")[0] == 1.0
        assert not begun.is_over
    assert hub.log().blob_bytes < 9 * MIB


def test_a_tensor_outlives_what_it_was_taken_from(hub: ChaosHub, tmp_path: Path) -> None:
    weights = {"a": torch.ones(MIB), "b": torch.full((MIB * 2,), 2.0)}
    write_repo(tmp_path / "hub", "org/two", {"model.safetensors": save(weights)})
    hub.set_faults(Fault("total", rate=8 * MIB), Fault("truncate", after_bytes=MIB, times=2))
    first = headrace.open_safetensors("org/two").get_tensor("a")  # nobody waits for the rest
    assert torch.equal(first, weights["a"])
    hub.set_faults()
    assert torch.equal(headrace.open_safetensors("org/two").tensors()["b"], weights["b"])
    assert torch.equal(first, weights["a"])
    assert hub.log().blob_bytes < 20 * MIB  # what had landed was gone on with


def test_who_cuts_a_file_short_or_writes_to_it_is_told_of(hub: ChaosHub, tmp_path: Path) -> None:
    made = save({"a": torch.ones(MIB), "b": torch.ones(MIB)})
    write_repo(tmp_path / "hub", "org/cut", {"model.safetensors": made})
    with headrace.open_safetensors("org/cut") as opened:
        opened.tensors()
        (blob,) = (tmp_path / "cache").glob("models--org--cut/snapshots/*/model.safetensors")
        os.truncate(blob, 5 * MIB)
        with pytest.raises(StoreError, match="somebody changed it"):
            opened.get_tensor("b")
        os.truncate(blob, len(made))
    file = tmp_path / "x.safetensors"
    for change in (lambda: os.truncate(file, 5 * MIB), lambda: file.write_bytes(made)):
        file.write_bytes(made)
        os.utime(file, (1, 1))
        opened = headrace.open_safetensors(file)
        assert opened.get_tensor("a")[0] == 1.0
        change()
        with pytest.raises(StoreError, match="was changed while it was read"):
            opened.get_tensor("b")
        with pytest.raises(StoreError, match="was changed while it was read"):
            opened.verify()


def test_errors_of_a_repo_name_it_and_its_file(hub: ChaosHub, tmp_path: Path) -> None:
    made = save({"a": torch.ones(MIB)})
    write_repo(tmp_path / "hub", "org/twice", {"one.safetensors": made, "two.safetensors": made})
    twice = "'a' is in one.safetensors and in two.safetensors of org/twice, and no index"
    for _ in ("on its way", "from the cache"):
        with pytest.raises(LoadError, match=f"^{twice}"):
            headrace.open_safetensors("org/twice")
        headrace.pull("org/twice")
    write_repo(tmp_path / "hub", "org/bare", {"config.json": b"{}"})
    headrace.pull("org/bare")
    with pytest.raises(LoadError, match=r"^org/bare has no safetensors"):
        headrace.open_safetensors("org/bare")
    write_repo(tmp_path / "hub", "org/cut", {"model.safetensors": made})
    folder = headrace.pull("org/cut").path
    opened = headrace.open_safetensors("org/cut")
    os.truncate(folder / "model.safetensors", 1000)
    with pytest.raises(StoreError, match=r"^model\.safetensors of org/cut was changed"):
        opened.get_tensor("a")


def test_a_file_that_another_takes_the_place_of_is_read_on(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(save({"a": torch.ones(9)}))
    with headrace.open_safetensors(file) as opened:
        (tmp_path / "y").write_bytes(save({"a": torch.zeros(9)}))
        (tmp_path / "y").replace(file)
        assert opened.get_tensor("a").tolist() == [1.0] * 9
    assert headrace.open_safetensors(file).get_tensor("a").tolist() == [0.0] * 9


def test_of_a_file_that_was_taken_over_the_header_is_waited_for_again(tmp_path: Path) -> None:
    first, second = torch.arange(5000.0), torch.arange(5000.0, 9000.0)
    (tmp_path / "one").write_bytes(save({"first": first, "second": second}))
    file = Replaced(tmp_path / "one", tmp_path / "other")
    opened = ArrivingTensors(file)
    assert torch.equal(opened.get_tensor("first"), first)
    file.take_over()
    assert torch.equal(opened.get_tensor("second"), second)
    assert torch.equal(opened.get_slice("first")[10:20], first[10:20])


def test_what_is_no_place_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "./nowhere", tmp_path / "pipe"):
        with pytest.raises(UsageError, match="no file or folder"):
            headrace.open_safetensors(place)
    with pytest.raises(LoadError, match="no safetensors"):
        headrace.open_safetensors(tmp_path)


def test_without_the_libraries_nothing_is_fetched_and_the_hint_says_how(hub: ChaosHub) -> None:
    for library in ("torch", "safetensors"):
        ended = child(f"""
            import sys
            sys.modules[{library!r}] = None
            import headrace
            try:
                headrace.open_safetensors("org/none")
            except headrace.errors.LoadError as error:
                print(error, error.hint)
        """)
        assert ended.stdout.startswith(f"{library} is not installed"), ended
        assert "headrace[torch]" in ended.stdout
    assert hub.log().count() == 0


def test_a_program_that_never_closes_it_ends_tidily(hub: ChaosHub, tmp_path: Path) -> None:
    write_repo(tmp_path / "hub", "org/slow", {"model.safetensors": save({"a": torch.ones(MIB * 8)})})
    hub.set_faults(Fault("total", rate=4 * MIB))
    ended = child(
        """
        import sys
        sys.modules["transformers"] = None
        import headrace
        opened = headrace.open_safetensors("org/slow")
        print(opened.keys())
        """,
        MARK_OF_THIS_TEST=str(tmp_path),
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "['a']\n", "")
    until = time.monotonic() + 20
    while _marked(str(tmp_path)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _marked(str(tmp_path))


def test_one_that_is_forgotten_waits_for_no_lock_and_ends_soon(hub: ChaosHub, tmp_path: Path) -> None:
    data = save({f"layers.{number}": torch.full((MIB // 2,), float(number)) for number in range(3)})
    write_repo(tmp_path / "hub", "org/model", {"config.json": b"{}", "model.safetensors": data})
    hub.set_faults(Fault("stall", match="*.safetensors", after_bytes=MIB))
    opened = [headrace.open_safetensors("org/model")]
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with prefetch._under_way._lock:
            held.set()
            over.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20)
    forgetter = threading.Thread(target=opened.clear)
    forgetter.start()
    forgetter.join(10)
    assert not forgetter.is_alive()
    over.set()
    holder.join()
    assert not prefetch.is_under_way(Order(load_settings(), (), "org/model", Need.A_MODEL))
    assert not companions()


def test_the_guide_does_what_it_shows(
    hub: ChaosHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {
        "model.embed_tokens.weight": torch.ones(4, 2, dtype=torch.bfloat16),
        "lm_head.weight": torch.ones(2),
    }
    write_repo(tmp_path / "hub", "org/model", {"model.safetensors": save(weights)})
    guide = Path(__file__).parents[2] / "docs" / "guides" / "tensors.md"
    blocks = re.findall("^```python\n(.*?)^```", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, str(guide), "exec"), {})  # the page is ours
    assert "2 tensors\ntorch.Size([4, 2]) torch.bfloat16\n" in capsys.readouterr().out
    assert len(blocks) == 3


def test_taking_all_tensors_costs_no_memory_of_its_own(hub: ChaosHub, tmp_path: Path) -> None:
    weights = {f"layers.{number}": torch.full((MIB * 2,), 1.0) for number in range(8)}
    write_repo(tmp_path / "hub", "org/64", {"model.safetensors": save(weights)})
    write_repo(tmp_path / "hub", "org/small", {"model.safetensors": save({"a": torch.ones(5 * MIB // 4)})})
    ended = child("""
        import headrace, torch
        torch.set_num_threads(1)
        def anonymous():
            lines = open("/proc/self/smaps_rollup").read().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))
        with headrace.open_safetensors("org/small") as opened:
            sum(one.sum() for one in opened.tensors().values())
        before = anonymous()
        opened = headrace.open_safetensors("org/64")
        found = opened.tensors()
        total = sum(float(one.sum()) for one in found.values())
        print(int(total), anonymous() - before)
    """)
    assert ended.returncode == 0, ended.stderr
    total, grown = map(int, ended.stdout.split())
    assert total == 8 * MIB * 2
    assert grown <= 64 * MIB * 0.05


def _marked(mark: str) -> list[str]:
    """The processes that run with this in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another user's
            if f"MARK_OF_THIS_TEST={mark}".encode() in environ.read_bytes().split(b"\0"):
                found.append(environ.parent.name)
    return found

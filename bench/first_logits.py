"""The program that is measured: it gets a model in one of several ways, and computes logits of a few tokens.

    python -m bench.first_logits WAY WHAT REPORT [MEETING]

Our ways and the library's own are the courses of `headrace bench load`; beside them stand those of others. WHAT is a
repo, a folder, a file or a URL, as the way wants it. REPORT is written when the logits are there: instants of
the monotonic clock, anonymous memory, and a digest of the logits. With a MEETING (a folder, a colon, a number) it waits
there for as many others before it counts the memory of the weights, and again before it ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import headrace
from headrace.cli.contestant import IMPORTED, LOADED, Course, Ours, Stock, go

_TOKENS = [1, 2, 3, 5, 8, 13, 21, 34]
_LOOK_S = 0.01


@dataclass(frozen=True)
class Marks:
    """What the program says of itself.

    Instants of the monotonic clock, s; bytes of memory that is no file's, at the instant of the same name; the share of
    the weights' pages that is this process's own account (PSS), bytes, where others were waited for.
    """

    imported_s: float
    loaded_s: float
    computed_s: float
    imported_bytes: int
    loaded_bytes: int
    logits: str
    weights_pss: int | None = None

    @classmethod
    def read(cls, path: Path) -> Marks:
        """From the report."""
        return cls(**json.loads(path.read_text()))


Reader = Callable[[Any, str, contextlib.ExitStack], Any]
"""From a class, what it is given and what stays open until the logits are there, to a model."""


@dataclass(frozen=True)
class Peer:
    """A course of somebody else's, beside the two of `headrace bench load`."""

    reader: Reader
    what: str
    stack: contextlib.ExitStack

    def begun(self) -> contextlib.AbstractContextManager[object]:
        """Nobody else begins before the imports."""
        return contextlib.nullcontext()

    def load(self, cls: Any, _: object, /) -> Any:
        """Have the reader read."""
        return self.reader(cls, self.what, self.stack)


def streaming(cls: Any, what: str, _: contextlib.ExitStack) -> Any:
    """An unmodified program under `headrace.streaming`."""
    with headrace.streaming():
        return cls.from_pretrained(what)


def torch_mmap(cls: Any, what: str, _: contextlib.ExitStack) -> Any:
    """A pickle of torch's, mapped."""
    import torch  # noqa: PLC0415

    weights = torch.load(f"{what}/weights.pt", mmap=True, weights_only=True, map_location="cpu")
    return _made_of(cls, what, weights)


def runai(cls: Any, what: str, _: contextlib.ExitStack) -> Any:
    """Run:ai's streamer."""
    from runai_model_streamer import SafetensorsStreamer  # noqa: PLC0415

    with SafetensorsStreamer() as streamer:
        streamer.stream_file(f"{what}/model.safetensors")
        weights = dict(streamer.get_tensors())
    return _made_of(cls, what, weights)


def fastsafetensors(cls: Any, what: str, stack: contextlib.ExitStack) -> Any:
    """IBM's, without GPUDirect."""
    from fastsafetensors import fastsafe_open  # noqa: PLC0415

    opened = fastsafe_open([f"{what}/model.safetensors"], device="cpu", nogds=True)
    file = stack.enter_context(opened)
    return _made_of(cls, what, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def tensorizer(cls: Any, what: str, _: contextlib.ExitStack) -> Any:
    """CoreWeave's, with its own format, from a file."""
    return _deserialized(cls, what, f"{what}/model.tensors")


def tensorizer_http(cls: Any, what: str, _: contextlib.ExitStack) -> Any:
    """The same by HTTP: WHAT is the folder with the configuration, a bar, and the URL."""
    folder, url = what.split("|")
    return _deserialized(cls, folder, url)


def _deserialized(cls: Any, folder: str, place: str) -> Any:
    from tensorizer import TensorDeserializer  # noqa: PLC0415

    with TensorDeserializer(place, device="cpu") as reader:
        return _made_of(cls, folder, {name: reader[name] for name in reader})


def _made_of(cls: Any, folder: str, weights: dict[str, Any]) -> Any:
    from transformers import AutoConfig  # noqa: PLC0415

    config = AutoConfig.from_pretrained(folder)
    return cls.from_pretrained(None, config=config, state_dict=weights)


PEERS: dict[str, Reader] = {
    "streaming": streaming,
    "torch-mmap": torch_mmap,
    "runai": runai,
    "fastsafetensors": fastsafetensors,
    "tensorizer": tensorizer,
    "tensorizer-http": tensorizer_http,
}


def course_of(way: str, what: str, stack: contextlib.ExitStack) -> Course:
    """The course that is called so."""
    if way == "stock":
        return Stock(what)
    if way in ("load", "prefetch"):
        return Ours(what, early=way == "prefetch")
    return Peer(PEERS[way], what, stack)


def main() -> None:
    """Go one way to its first logits."""
    way, what, report = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    with contextlib.ExitStack() as stack:
        marks = _compute(course_of(way, what, stack), sys.argv[4:])
        report.write_text(json.dumps(asdict(marks)))
        for meeting in sys.argv[4:]:
            _meet(meeting, "end")


def _compute(course: Course, meetings: list[str]) -> Marks:
    noted: dict[str, tuple[float, int]] = {}

    def note(what: str) -> None:
        noted[what] = time.monotonic(), _anonymous()

    # By this name, so that what the Auto classes import in from_pretrained is imported before.
    model = go(course, "LlamaForCausalLM", note)
    digest = _first_logits(model)
    computed_s = time.monotonic()
    (imported_s, imported_bytes), (loaded_s, loaded_bytes) = noted[IMPORTED], noted[LOADED]
    pss = None
    for meeting in meetings:
        _meet(meeting, "logits")
        pss = _weights_pss() + max(0, loaded_bytes - imported_bytes)
    return Marks(imported_s, loaded_s, computed_s, imported_bytes, loaded_bytes, digest, pss)


def _first_logits(model: Any) -> str:
    """Their digest."""
    import torch  # noqa: PLC0415

    with torch.no_grad():
        logits = model(torch.tensor([_TOKENS])).logits[0, -1].float().contiguous()
    return hashlib.sha256(logits.numpy().tobytes()).hexdigest()[:16]


def _meet(meeting: str, when: str) -> None:
    """Wait until as many as are expected have come so far."""
    folder, _, count = meeting.rpartition(":")
    (Path(folder) / f"{when}-{time.monotonic_ns()}").touch()
    while len(list(Path(folder).glob(f"{when}-*"))) < int(count):
        time.sleep(_LOOK_S)


def _anonymous() -> int:
    """Bytes of this process's memory that is no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _weights_pss() -> int:
    """This process's share of mapped files in caches: what others map, too, counts for each of them in part.

    A file that was read while it came is called what it was called then.
    """
    total = 0
    counts = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if not fields[0].endswith(":"):
            counts = any(part in line for part in ("/blobs/", ".partial", ".safetensors"))
        elif counts and fields[0] == "Pss:":
            total += int(fields[1]) * 1024
    return total


if __name__ == "__main__":
    main()

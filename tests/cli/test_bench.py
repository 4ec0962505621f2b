"""`headrace bench load`: each way in a process of its own, its stages, and what the chart makes of them."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.chart import chart
from headrace.cli.race import WAYS, Run
from headrace.testing import ChaosHub, Fault, content, write_repo
from headrace.testing.tree import FakeTree
from tests.cli.shell import TOKEN, Shell

# Stands in for a library that takes seconds to import: it reads what it is given, from where that library would.
LIBRARY = """
import pathlib
import sys

__version__ = "0.0"


class PreTrainedModel:
    @classmethod
    def from_pretrained(cls, name, revision="main", cache_dir=None, local_files_only=False):
        repo = pathlib.Path(cache_dir) / ("models--" + name.replace("/", "--"))
        ref = repo / "refs" / revision
        snapshot = repo / "snapshots" / (ref.read_text() if ref.exists() else revision)
        print("library: hello")
        with pathlib.Path(__file__).with_name("seen").open("a") as seen:
            seen.write("ours\\n" if "headrace.settings" in sys.modules else "alone\\n")
        made = cls()
        made.weights = (snapshot / "model.safetensors").read_bytes()
        return made


class TinyModel(PreTrainedModel):
    pass


AutoModel = TinyModel
"""
NAMES = [way.name for way in WAYS]


@pytest.fixture
def library(tmp_path: Path) -> str:
    """A folder to import from."""
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "torch.py").write_text("")
    (folder / "transformers.py").write_text(LIBRARY)
    return str(folder)


@pytest.fixture
def tiny(at_chaos: Shell, library: str) -> Shell:
    at_chaos.env |= {"PYTHONPATH": library, "HF_HUB_DISABLE_TELEMETRY": "1", "HEADRACE_GIVE_UP": "20"}
    return at_chaos


def test_all_ways_are_gone_and_compared(tiny: Shell, chaos: ChaosHub, library: str) -> None:
    told = tiny("bench", "load", "org/big", "--rounds", "1", "--json")
    assert told.code == 0, told.err
    *runs, outcome = told.events
    assert [run["way"] for run in runs] == NAMES == [way["way"] for way in outcome["ways"]]
    for run in runs:
        assert run["seconds"] == pytest.approx(run["transfer"] + run["imports"] + run["load"], abs=0.01)
        assert run["imports"] > 0
    assert (outcome["repo"], outcome["rounds"], outcome["ways"][0]["ratio"]) == ("org/big", 1, 1.0)
    assert outcome["bytes"] == 12_000_002
    assert chaos.log().body_bytes > 24_000_000  # both cold ways have fetched it all
    # The library by itself does not pay for our imports.
    assert Path(library, "seen").read_text().split() == ["ours" if way.is_ours else "alone" for way in WAYS]
    # The user's own cache, and what was made beside it, are as before.
    assert not tiny.cache.exists()
    assert not list(tiny.cache.parent.glob("headrace-bench-*"))


def test_the_table(tiny: Shell) -> None:
    told = tiny("bench", "load", "org/big", "--rounds", "1")
    assert told.code == 0, told.err
    assert [line[:22].strip() for line in told.lines] == ["", *NAMES]
    assert all(len(line) <= 80 for line in told.lines[1:])
    assert "org/big: 2 files, 11.4 MiB, from 127.0.0.1" in told.err
    assert "headrace, cold, 1 of 1" in told.err
    assert "hello" not in told.out + told.err


def test_what_cannot_be_loaded_is_an_error_and_leaves_nothing(tiny: Shell, library: str) -> None:
    told = tiny("bench", "load", "org/none", "--rounds", "1", "-q")
    assert (told.code, told.out) == (10, "")
    Path(library, "transformers.py").write_text("raise RuntimeError('no such luck')")
    told = tiny("bench", "load", "org/big", "--rounds", "1", "-q")
    assert (told.code, told.out) == (15, "")
    assert told.err == "error: hf download, then load: RuntimeError: no such luck\n"
    assert not list(tiny.cache.parent.glob("headrace-bench-*"))


def test_a_token_goes_nowhere_where_ours_does_not_go(tiny: Shell, tmp_path: Path) -> None:
    files = {"model.safetensors": content(50_000), "config.json": b"{}", "--odd.json": b"{}"}
    write_repo(tmp_path / "hub", "org/model", files)
    with ChaosHub(tmp_path / "hub", tokens={TOKEN: []}) as hub:
        # By this address it is another machine, to which no token goes over plain http.
        elsewhere = hub.endpoint.replace("127.0.0.1", "0.0.0.0")  # nothing is bound to it
        command = ("bench", "load", "org/model", "--rounds", "1", "-q", "--source")
        told = tiny(*command, elsewhere, HF_ENDPOINT="", HF_TOKEN=TOKEN)
        assert told.code == 0, told.err
        assert [line[:22].strip() for line in told.lines] == ["", *NAMES]
        assert hub.log().count(path_glob="*--odd.json") > 0
        assert not any(request.authorization_present for request in hub.log().requests)
        # To where ours goes, others go.
        told = tiny(*command, hub.endpoint, HF_ENDPOINT="", HF_TOKEN=TOKEN)
        assert told.code == 0, told.err
        clients = [one.agent or "" for one in hub.log().requests if one.authorization_present]
        assert any("headrace" in one for one in clients)
        assert any("hf_hub" in one for one in clients)


def test_what_other_programs_say_is_told_without_secrets(tiny: Shell, library: str) -> None:
    word = "a-word-like-any-other"
    said = f"401 with {word} for https://host.test/file?Signature=abcdef0123456789"
    Path(library, "transformers.py").write_text(f"raise RuntimeError({said!r})")
    elsewhere = tiny.env["HF_ENDPOINT"].replace("127.0.0.1", "0.0.0.0")  # a hub that is not told it
    told = tiny("bench", "load", "org/big", "--rounds", "1", "-q", HF_ENDPOINT=elsewhere, HF_TOKEN=word)
    assert told.err == "error: hf download, then load: RuntimeError: 401 with … for https://host.test/file\n"


def test_ctrl_c_ends_it_and_leaves_nothing(tiny: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("total", rate=6_000_000))
    process = tiny.start("bench", "load", "org/big")
    assert process.stderr is not None
    while b"headrace, cold" not in (line := process.stderr.readline()):
        assert line, "it ended before"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert not list(tiny.cache.parent.glob("headrace-bench-*"))


def test_where_no_hub_is_there_is_nothing_to_download_first(tiny: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "org" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["TinyModel"]}')
    (folder / "model.safetensors").write_bytes(content(50_000))
    sums = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}" for one in folder.iterdir()]
    (folder / "SHA256SUMS").write_text("\n".join(sums))
    with FakeTree(tmp_path / "tree", "python") as tree:
        told = tiny(
            "bench", "load", "org/model", "--rounds", "1", "--source", f"tree+{tree.endpoint}", HF_ENDPOINT=""
        )
    assert told.code == 0, told.err
    assert [line[:22].strip() for line in told.lines] == ["", *NAMES[1:]]
    assert "not compared with a download first: the hub's own client speaks to hubs only" in told.err


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    runs = [Run(WAYS[0], 6.0, 3.0, 1.0), Run(WAYS[1], 2.5, 3.0, 0.5), Run(WAYS[3], 0.0, 3.0, 0.1)]
    _, slow, fast, warm = chart(runs, 100, "utf-8")
    assert slow.endswith("░" * 24 + "▒" * 12 + "█" * 4)
    assert fast.split()[2:4] == ["6.00", "0.60"]
    assert fast.endswith("░" * 10 + "▒" * 12 + "█" * 2)
    assert "░" not in warm
    assert chart(runs, 40, "latin-1")[1].endswith("-------====#")


SHOW = """
from headrace.cli.loadline import LoadLine
from headrace.events import LoadProgress
line = LoadLine("cold", 0.0)
line.take(LoadProgress(0, 0, 4 << 20, 1 << 20, ""), 1.0)
line.take(LoadProgress(9, 2, 4 << 20, 3 << 20, "layers.1.\\x1b[31m"), 2.0)
line.close()
"""


def test_a_load_is_one_line_of_a_terminal(headrace: Shell) -> None:
    master, slave = pty.openpty()
    process = headrace.spawn([sys.executable, "-c", SHOW], {"COLUMNS": "120"}, slave, slave)
    os.close(slave)
    assert process.wait(20) == 0
    frames = [frame.strip() for frame in os.read(master, 65536).decode().split("\r")]
    os.close(master)
    assert [frame for frame in frames if frame] == [
        "cold",
        "cold: 0 of 0 tensors, 1.0/4.0 MiB, 0 B/s, waits for nothing",
        r"cold: 2 of 9 tensors, 3.0/4.0 MiB, 1.0 MiB/s, waits for layers.1.\x1b[31m",
    ]
    assert frames[-1] == ""


@pytest.mark.soak  # imports of seconds, four times
@pytest.mark.timeout(600)
def test_a_real_model(at_chaos: Shell, tmp_path: Path) -> None:
    make = (
        "import sys, torch, transformers as t\n"
        "c = t.LlamaConfig(hidden_size=256, intermediate_size=704, num_hidden_layers=3, num_attention_heads=4,"
        " num_key_value_heads=2, vocab_size=8000)\n"
        "t.LlamaForCausalLM(c).to(torch.bfloat16).save_pretrained(sys.argv[1])"
    )
    made = tmp_path / "made"
    subprocess.run([sys.executable, "-c", make, made], check=True, capture_output=True)
    write_repo(tmp_path / "hub", "org/llama", {one.name: one.read_bytes() for one in made.iterdir()})
    with ChaosHub(tmp_path / "hub") as hub:
        hub.set_faults(Fault("total", rate=4_000_000))
        process = at_chaos.start(
            "bench",
            "load",
            "org/llama",
            "--rounds",
            "1",
            "--json",
            HF_ENDPOINT=hub.endpoint,
            HEADRACE_GIVE_UP="30",
        )
        out, err = process.communicate(timeout=550)
    assert process.returncode == 0, err
    runs: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()[:-1]]
    assert [run["way"] for run in runs] == NAMES

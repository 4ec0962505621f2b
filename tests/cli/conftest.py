"""The command line as its users start it: a process, against a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.facade.probe import USUAL_REPO
from headrace.testing import ChaosHub, content, write_repo
from tests.cli.shell import HOSTILE, TOKEN, Shell

_FAR_OUT = {"type": "file", "path": "../../escaped.txt", "size": 1, "oid": "0" * 40}
_HUGE = {"type": "file", "path": "huge.bin", "size": 2**52, "oid": "1" * 40}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hubs hold; no test changes it."""
    root = tmp_path_factory.mktemp("shelf")
    tiny = {
        "config.json": b'{"hidden": 1}',
        "empty.txt": b"",
        "twin.bin": content(40_000, seed=7),
        "weights/model.safetensors": content(300_000),
        "weights/twin.bin": content(40_000, seed=7),
    }
    write_repo(root, "org/tiny", tiny)
    write_repo(root, "org/tiny", {"config.json": b"{}"}, revision="v1")
    write_repo(root, "org/big", {"model.safetensors": content(12_000_000), "config.json": b"{}"})
    write_repo(root, "org/data", {"train.csv": b"a,b\n1,2\n"}, kind="dataset")
    write_repo(root, "org/gated", {"weights.bin": b"gated"}, gated="manual")
    write_repo(root, "org/private", {"weights.bin": b"private"}, private=True)
    write_repo(root, "org/evil", {name: content(2_000, seed=index) for index, name in enumerate(HOSTILE)})
    write_repo(root, "org/escape", {"a.txt": b"a"}, tree_extra=[_FAR_OUT])
    write_repo(root, "org/huge", {"a.txt": b"a"}, tree_extra=[_HUGE])
    write_repo(root, USUAL_REPO, {"model.safetensors": content(2_000_000)})
    write_repo(root, "org/many", {f"part-{index:03}.json": b"%d" % index for index in range(120)})
    return root


@pytest.fixture(scope="session")
def calm(shelf: Path) -> Iterator[ChaosHub]:
    """A hub without faults."""
    with ChaosHub(shelf, tokens={TOKEN: ["org/private"]}) as hub:
        yield hub


@pytest.fixture(scope="session")
def other(shelf: Path) -> Iterator[ChaosHub]:
    """Another hub; see `chaos`."""
    with ChaosHub(shelf) as hub:
        yield hub


@pytest.fixture
def chaos(other: ChaosHub) -> ChaosHub:
    """A hub to be treated badly: it forgets what the last test did to it."""
    other.clear_faults()
    other.clear_log()
    return other


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is compiled to."""
    return tmp_path_factory.mktemp("bytecode")


@pytest.fixture
def headrace(tmp_path: Path, calm: ChaosHub, bytecode: Path) -> Shell:
    """The command line, at a calm hub."""
    return Shell(tmp_path, calm.endpoint, bytecode)


@pytest.fixture
def at_chaos(tmp_path: Path, chaos: ChaosHub, bytecode: Path) -> Shell:
    """The command line, at a hub with faults; it loses patience soon."""
    shell = Shell(tmp_path, chaos.endpoint, bytecode)
    shell.env |= {"HEADRACE_GIVE_UP": "1.5", "HEADRACE_IDLE_TIMEOUT": "0.5"}
    return shell

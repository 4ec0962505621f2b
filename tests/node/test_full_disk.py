"""A node whose disk is full refuses what does not fit, serves the rest, and goes on when there is room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, content, write_repo
from tests.node.asking import Reply, ask
from tests.node.keeping import assert_agrees
from tests.pull.mounts import in_memory

MIB = 1024 * 1024
BIG, COLD, WARM, SMALL = content(20 * MIB, 1), content(6 * MIB, 2), content(5 * MIB, 3), b"{}"
FILES = {"big.bin": BIG, "cold.bin": COLD, "warm.bin": WARM, "small.json": SMALL, "other.json": b"[]"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MiB, on which the data folder of the test's nodes lies."""
    with in_memory(tmp_path / "node", "size=32m") as disk:
        yield disk


@pytest.fixture
def full_hub(tmp_path: Path) -> Iterator[ChaosHub]:
    write_repo(tmp_path / "hub", "org/x", FILES)
    with ChaosHub(tmp_path / "hub") as hub:
        yield hub


def take_room(disk: Path, leave: int) -> Path:
    """Take all the room that there is, but for this."""
    filler = disk / "filler"
    facts = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, facts.f_bavail * facts.f_frsize - leave)
    return filler


def get(node: NodeProcess, path: str, **headers: str) -> Reply:
    return ask(f"{node.endpoint}/org/x/resolve/main/{path}", "GET", None, **headers)


def assert_no_room(reply: Reply) -> None:
    assert reply.status == HTTPStatus.INSUFFICIENT_STORAGE
    assert reply.json() == {"error": reply.headers["x-error-message"]}
    assert reply.headers["server"] == "headrace"
    assert "/" not in reply.headers["x-error-message"].replace(
        "org/x/", ""
    )  # nothing about this machine's folders


def test_what_does_not_fit_is_refused_and_works_when_there_is_room(
    disk: Path, full_hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(full_hub)
    assert get(node, "warm.bin").body == WARM
    filler = take_room(disk, leave=8 * MIB)
    assert_no_room(get(node, "big.bin"))
    for part in ("0-99", f"{len(BIG) - 9}-"):
        assert_no_room(get(node, "big.bin", Range=f"bytes={part}"))
    assert get(node, "small.json").body == SMALL
    assert get(node, "cold.bin").body == COLD
    assert get(node, "warm.bin", Range="bytes=9-99").body == WARM[9:100]
    assert ask(f"{node.endpoint}/readyz").status == HTTPStatus.OK
    filler.unlink()
    assert get(node, "big.bin").body == BIG


def test_a_disk_that_refuses_what_seems_to_fit_is_given_room(
    tmp_path: Path, start_node: Callable[..., NodeProcess]
) -> None:
    files = {f"{seed}.json": b"%d" % seed for seed in range(80)}
    write_repo(tmp_path / "hub", "org/x", files)
    # Bytes there are enough, but no names for so many files.
    with in_memory(tmp_path / "node", "size=32m,nr_inodes=90") as disk, ChaosHub(tmp_path / "hub") as hub:
        node = start_node(hub, free_space=0)
        for _ in range(2):
            for path, data in files.items():
                assert get(node, path).body == data
        assert len([*disk.glob("blobs/*/*/*")]) < len(files)
        node.stop()
        assert_agrees(disk)


@pytest.mark.parametrize("ttl", [60, 0])
def test_with_no_room_at_all_what_is_here_is_served(
    ttl: int, disk: Path, full_hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(full_hub, visibility_ttl=ttl, ref_ttl=ttl, free_space=0)
    for path in ("warm.bin", "small.json"):
        assert get(node, path).body == FILES[path]
    filler = take_room(disk, leave=0)
    assert_no_room(get(node, "cold.bin"))  # more than there would be, were all else to go
    for path in ("warm.bin", "small.json", "other.json"):  # for the last of them the first goes
        assert get(node, path).body == FILES[path]
    assert ask(f"{node.endpoint}/healthz").status == HTTPStatus.OK
    filler.unlink()
    for path, data in FILES.items():
        assert get(node, path).body == data

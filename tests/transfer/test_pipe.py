"""Bytes that go through a pipe are the same bytes, and the way through memory is there where no pipe can be had."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from headrace import pull
from headrace.errors import NoSpace
from headrace.layout import WorkshopLayout
from headrace.source.connection import Wire
from headrace.store.lease import LeaseWatch
from headrace.store.partial import Partial, claim_partial
from headrace.testing import ChaosHub, content, write_repo
from headrace.transfer import lane
from headrace.transfer.pipe import Pipe, open_pipe
from tests.conftest import Instead
from tests.transfer.conftest import content_of

DATA = content(3_000_000)


@pytest.fixture
def partial(tmp_path: Path) -> Iterator[Partial]:
    """A partial for `DATA`."""
    digest = content_of(DATA).entry.digest
    lease = LeaseWatch(WorkshopLayout(tmp_path, digest)).acquire()
    assert lease is not None
    partial = claim_partial(tmp_path, digest, len(DATA), lease)
    yield partial
    partial.close()


def carry(wire: Wire, pipe: Pipe, partial: Partial) -> int:
    position = 0
    while count := wire.splice(pipe.entry, len(DATA)):
        partial.take(pipe.exit, count, position)
        position += count
    return position


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe that is closed in the end."""
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A connection on which `DATA` arrives."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs, suppress(OSError):  # who has had enough closes
            theirs.sendall(DATA)

    thread = threading.Thread(target=send)
    thread.start()
    with ours:
        yield Wire(ours, 5.0)
    thread.join()


def test_what_goes_through_a_pipe_arrives(partial: Partial, wire: Wire, pipe: Pipe) -> None:
    assert carry(wire, pipe, partial) == len(DATA)
    assert partial.path.read_bytes() == DATA


def test_a_file_system_that_cannot_splice_gets_its_bytes(
    partial: Partial, wire: Wire, pipe: Pipe, instead: Instead
) -> None:
    real = os.splice

    def splice(source: int, target: int, count: int, **where: int) -> int:
        if "offset_dst" in where:
            raise OSError(errno.EINVAL, "no splice here")
        return real(source, target, count, **where)

    instead(os, splice=splice)
    assert carry(wire, pipe, partial) == len(DATA)
    assert partial.path.read_bytes() == DATA


def test_a_disk_that_refuses_is_told_in_our_words(
    partial: Partial, wire: Wire, pipe: Pipe, instead: Instead
) -> None:
    def splice(*_: int, **__: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    count = wire.splice(pipe.entry, 1000)
    assert count
    instead(os, splice=splice)
    with pytest.raises(NoSpace):
        partial.take(pipe.exit, count, 0)


def test_silence_is_bounded_on_this_way_too(pipe: Pipe) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        Wire(ours, 0.1).splice(pipe.entry, 1000)


@pytest.mark.parametrize("opening", [open_pipe, lambda: None], ids=["pipes", "no pipes"])
def test_a_pull_with_and_without_pipes(
    opening: Callable[[], Pipe | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: Instead
) -> None:
    opened: list[Pipe | None] = []

    def open_one() -> Pipe | None:
        opened.append(opening())
        return opened[-1]

    instead(lane, open_pipe=open_one)
    write_repo(tmp_path / "hub", "org/model", {"model.safetensors": DATA})
    with ChaosHub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        snapshot = pull("org/model", dest=tmp_path / "out")
    assert (snapshot.path / "model.safetensors").read_bytes() == DATA
    assert opened

"""Ctrl-C and SIGTERM: fast, told with what was kept, resumable."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from headrace.testing import ChaosHub, Fault
from tests.cli.shell import Shell, next_event

SIZE = 12_000_002
# A second, and what a busy machine adds.
SOON_S = 1.5
TWO_STAGES = """
import threading
from headrace.cli.interrupt import in_two_stages
with in_two_stages():
    try:
        print("ready", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print("first", flush=True)
        threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_within_a_second_and_goes_on_later(at_chaos: Shell, chaos: ChaosHub, number: int) -> None:
    chaos.set_faults(Fault("rate", rate=1_500_000))
    process = at_chaos.start("pull", "--json", "org/big")
    next_event(process, lambda event: event["event"] == "progress" and event["landed_bytes"] > 3_000_000)
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    took = time.monotonic() - began
    assert process.returncode == 130
    assert took < SOON_S
    assert b'"event": "error", "code": "interrupted"' in out.splitlines()[-1]
    assert b"interrupted: " in err
    assert b"of 11.4 MiB are kept" in err
    assert b"hint: to go on: headrace pull --json org/big\n" in err
    assert b"Traceback" not in err
    chaos.clear_faults()
    done = at_chaos("pull", "--json", "org/big").events[-1]
    assert done["event"] == "done"
    assert 0 < done["network_bytes"] <= SIZE - 2_500_000


def test_it_stops_while_nobody_answers(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("latency", delay_s=20, host="hub"))
    process = at_chaos.start("pull", "org/big", HEADRACE_GIVE_UP="60")
    # That the request is there shows that the client waits for its answer.
    deadline = time.monotonic() + 10
    while not chaos.log().requests and time.monotonic() < deadline:
        pass
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, time.monotonic() - began < SOON_S) == (130, True)
    assert err.startswith(b"interrupted before anything was fetched\n")


def test_the_second_ends_at_once(headrace: Shell) -> None:
    process = headrace.spawn([sys.executable, "-c", TWO_STAGES], {}, subprocess.PIPE, subprocess.PIPE)
    assert process.stdout is not None
    for word in (b"ready\n", b"first\n"):
        assert process.stdout.readline() == word
        process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert process.communicate() == (b"", b"")


def test_an_interruption_does_not_show_a_signature(at_chaos: Shell, chaos: ChaosHub) -> None:
    chaos.set_faults(Fault("latency", delay_s=20, host="hub"))
    process = at_chaos.start(
        "pull", f"{chaos.endpoint}/org/big/resolve/main/model.safetensors?Signature=s3cret"
    )
    deadline = time.monotonic() + 10
    while not chaos.log().requests and time.monotonic() < deadline:
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"hint: to go on: the same command again\n" in err
    assert b"s3cret" not in out + err

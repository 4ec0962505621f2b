"""A node as a process: how it starts, how it ends, what it tells."""

from __future__ import annotations

import http.client
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault
from tests.node.asking import BIG, BIG_FILE, TINY, ask, open_stream

StartNode = Callable[..., NodeProcess]


def wait_for_end(process: int, patience_s: float = 10.0) -> bool:
    """Whether a process that is no child of ours ends in time."""
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], patience_s)[0])
    finally:
        os.close(watched)


def test_sigterm_ends_node_and_worker_with_status_0(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub)
    assert ask(node.endpoint + "/healthz").status == 200
    worker = node.worker
    began = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - began < 5
    assert wait_for_end(worker, 0)


def test_a_stream_that_outlives_the_farewell_is_reset(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub, farewell=0.5)
    hub.set_faults(Fault("rate", rate=200_000))
    with open_stream(node.endpoint + BIG_FILE) as response:
        response.read(1000)
        assert node.stop() == 0
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            response.read()


def test_streams_get_one_farewell(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub, farewell=4)
    hub.set_faults(Fault("rate", rate=200_000))
    with open_stream(node.endpoint + BIG_FILE) as response:
        response.read(1000)
        told_at = time.monotonic()
        assert node.stop() == 0
        assert 4 <= time.monotonic() - told_at < 7.5  # not two


def test_a_stream_may_end_within_the_farewell(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub)
    hub.set_faults(Fault("rate", rate=1_000_000))
    with open_stream(node.endpoint + BIG_FILE) as response:
        first = response.read(1000)
        os.kill(node.pid, signal.SIGTERM)
        assert first + response.read() == BIG
    assert node.stop() == 0


def test_the_worker_of_a_killed_node_ends(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub)
    hub.set_faults(Fault("rate", rate=100_000))
    with open_stream(node.endpoint + BIG_FILE) as response:
        response.read(1000)
        os.kill(node.pid, signal.SIGKILL)
        assert wait_for_end(node.worker)


def test_metrics_count_what_happened(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub)
    for _ in range(2):
        assert ask(node.endpoint + BIG_FILE).body == BIG
    ask(node.endpoint + "/org/tiny/resolve/main/absent")
    reply = ask(node.endpoint + "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(reply.body.decode()))
    assert all(family.documentation for family in families)
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }
    assert (
        found["headrace_served_bytes_total", "fill"]
        == found["headrace_served_bytes_total", "hit"]
        == len(BIG)
    )
    assert found["headrace_source_bytes_total", "hub"] == len(BIG)
    assert found["headrace_requests_total", "200", "resolve"] == 2
    assert found["headrace_requests_total", "404", "resolve"] == 1
    assert found["headrace_fills_started_total",] == found["headrace_fills_ended_total", "published"] == 1
    assert found["headrace_active_streams",] == found["headrace_running_fills",] == 0
    assert found["headrace_first_byte_seconds_count", "hit"] == 1


def test_the_log_has_one_line_a_request_and_no_secret(
    hub: ChaosHub, start_node: StartNode, capfd: pytest.CaptureFixture[str]
) -> None:
    node = start_node(hub, log_level="info")
    ask(node.endpoint + "/org/tiny/resolve/main/config.json?token=sesame", Authorization="Bearer hf_sesame")
    node.stop()
    told = capfd.readouterr().err
    (line,) = [line for line in told.splitlines() if "config.json" in line]
    assert "status=200" in line
    assert f"bytes={len(TINY['config.json'])}" in line
    assert "sesame" not in told


def run_node(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.node", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_a_node_is_never_its_own_source(tmp_path: Path, free_ports: tuple[int, int]) -> None:
    listen = f"127.0.0.1:{free_ports[0]}"
    result = run_node(
        "--data", str(tmp_path), "--listen", listen, "--source", f"me=http://localhost:{free_ports[0]}/"
    )
    assert result.returncode == 2
    assert "nothing to mirror" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_address_in_use_is_told(tmp_path: Path, calm: NodeProcess) -> None:
    listen = calm.endpoint.removeprefix("http://")
    result = run_node("--data", str(tmp_path), "--listen", listen, "--source", "hub=http://hub.invalid")
    assert result.returncode == 2
    assert "cannot listen" in result.stderr
    assert "another program" in result.stderr


@pytest.mark.parametrize(
    ("listen", "data", "told"),
    [
        ("203.0.113.7:8090", "data", "this machine has no such address"),
        ("no-such-host.invalid:8090", "data", "write an address of this machine"),
        ("127.0.0.1:0", "file/below", "choose another folder"),
    ],
)
def test_what_it_cannot_start_with_is_told(tmp_path: Path, listen: str, data: str, told: str) -> None:
    (tmp_path / "file").touch()
    place = str(tmp_path / data)
    result = run_node("--data", place, "--listen", listen, "--source", "hub=http://hub.invalid")
    assert result.returncode == 2
    assert told in result.stderr


def test_beyond_this_machine_without_tls_it_warns(
    hub: ChaosHub, start_node: StartNode, capfd: pytest.CaptureFixture[str]
) -> None:
    node = start_node(hub, listen="0.0.0.0:0")
    port = node.endpoint.rpartition(":")[2]
    assert ask(f"http://127.0.0.1:{port}/healthz").status == 200
    node.stop()
    assert "plain http" in capfd.readouterr().err


def test_idle_connections_do_not_hold_up_the_end(hub: ChaosHub, start_node: StartNode) -> None:
    node = start_node(hub)
    connection = http.client.HTTPConnection(node.endpoint.removeprefix("http://"), timeout=20)
    try:
        for _ in range(2):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"alive\n"
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began < 5
    finally:
        connection.close()

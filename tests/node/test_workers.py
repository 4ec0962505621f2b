"""A node of several processes: one node to whoever asks, whichever of them answers."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub, Fault, content, write_repo
from headrace.wire import BLOCK_BYTES
from tests.node.asking import Reply, ask
from tests.node.crowd import download
from tests.node.holders import connect, connected, holder
from tests.node.test_process import run_node, wait_for_end
from tests.node.test_sending import until

StartNode = Callable[..., NodeProcess]
DATA = content(3 * BLOCK_BYTES, seed=23)
DIGEST = hashlib.sha256(DATA).hexdigest()
PATH = "/org/big/resolve/main/big.safetensors"
SMALL_PATH = "/org/big/resolve/main/small.json"
SLOW = Fault("rate", rate=200_000)
CUT = (ConnectionResetError, http.client.IncompleteRead)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[ChaosHub]:
    write_repo(tmp_path / "hub", "org/big", {"big.safetensors": DATA, "small.json": b"{}"})
    with ChaosHub(tmp_path / "hub") as hub:
        yield hub


def say(connection: http.client.HTTPConnection, path: str, **headers: str) -> http.client.HTTPResponse:
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def ask_of(node: NodeProcess, pid: int, path: str, method: str = "GET", **headers: str) -> Reply:
    with connected(node, pid) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, told, response.read())


def counted(node: NodeProcess, pid: int) -> dict[tuple[str, ...], float]:
    text = ask_of(node, pid, "/metrics").body.decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def replaced(node: NodeProcess) -> bool:
    """Whether a new process takes connections. One that was told to end may close those that have asked nothing yet."""
    known = {node.pid, *node.servers}
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(http.client.RemoteDisconnected, ConnectionResetError), closing(connect(node)) as one:
            if holder(node, one) not in known:
                return True
        time.sleep(0.02)
    return False


def test_each_process_takes_its_share(origin: ChaosHub, start_node: StartNode) -> None:
    node = start_node(origin, workers=3)
    assert len(node.servers) == 2
    with ExitStack() as stack:
        several = [connect(node) for _ in range(30)]
        for one in several:
            stack.callback(one.close)
        taken = [holder(node, one) for one in several]
    for pid in (node.pid, *node.servers):
        assert taken.count(pid) >= 2


def test_whoever_answers_it_is_the_same_answer(origin: ChaosHub, start_node: StartNode) -> None:
    node = start_node(origin, workers=2)
    (server,) = node.servers
    for headers in ({}, {"Range": "bytes=5-9"}, {"Range": "bytes=-3"}, {"Range": f"bytes={len(DATA)}-"}):
        cold, warm = (ask_of(node, server, PATH, **headers) for _ in range(2))
        led = ask_of(node, node.pid, PATH, **headers)
        assert cold.status == warm.status == led.status
        assert cold.body == warm.body == led.body
        told = [
            {
                name: value
                for name, value in one.headers.items()
                if name not in ("date", "cache-status", "age")
            }
            for one in (cold, warm, led)
        ]
        for one in told:
            one.pop("x-headrace-blocks", None)  # says until when
        assert told[0] == told[1] == told[2]
    refused, led = (ask_of(node, pid, "/org/big/resolve/main/x") for pid in (server, node.pid))
    assert (refused.status, refused.body) == (led.status, led.body)
    assert led.status == 404
    assert ask_of(node, server, "/readyz").body == b"ready\n"


def test_what_strangers_say_of_themselves_is_not_passed_on(origin: ChaosHub, start_node: StartNode) -> None:
    node = start_node(origin, workers=2)
    forged = '["http://elsewhere.invalid", "6.6.6.6"]'
    for pid in (node.pid, *node.servers):
        page = ask_of(node, pid, PATH, **{"X-Headrace-View": forged})
        assert page.body == DATA
        assert "elsewhere" not in str(page.headers)


def test_a_hundred_clients_of_three_processes_cost_one_fetch(origin: ChaosHub, start_node: StartNode) -> None:
    node = start_node(origin, workers=3)
    clients = download(node.endpoint + PATH, DATA, 100)
    assert [client.is_done for client in clients] == [True] * 100
    assert len(DATA) <= origin.settled_log().bytes_of(DIGEST) <= 1.01 * len(DATA)


def test_all_processes_together_give_out_no_wrong_file(origin: ChaosHub, start_node: StartNode) -> None:
    """The last block that nobody has is one for all of them; who was cut off is given the whole from its beginning."""
    node = start_node(origin, workers=3)
    origin.set_faults(Fault("flip", offset=1_000_000, times=1), Fault("total", rate=6_000_000))
    pids = (node.pid, *node.servers)

    def part(index: int) -> bytes:
        got = b""
        wanted = f"bytes={index * BLOCK_BYTES}-{(index + 1) * BLOCK_BYTES - 1}"
        with connected(node, pids[index]) as connection:
            try:
                response = say(connection, PATH, Range=wanted)
                if response.status != 206:
                    return b""  # it came after the mismatch, and is given all of what is right
                while piece := response.read1(65536):
                    got += piece
            except CUT:
                return got
        return got

    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(part, range(3)))
    assert sum(map(len, parts)) < len(DATA)
    for pid in pids:
        again = ask_of(node, pid, PATH, Range=f"bytes={BLOCK_BYTES}-")
        assert (again.status, again.body) == (200, DATA)


def test_a_client_of_a_server_is_reset_when_what_it_has_is_wrong(
    origin: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(origin, workers=2)
    origin.set_faults(Fault("flip", offset=1_000_000, times=1), Fault("total", rate=6_000_000))
    with connected(node, node.servers[0]) as connection, pytest.raises(ConnectionResetError):
        say(connection, PATH).read()


def test_what_rotted_ends_at_every_process(origin: ChaosHub, start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(origin, workers=2)
    (server,) = node.servers
    for pid in (node.pid, server):
        assert ask_of(node, pid, PATH, Range="bytes=0-9").status == 206
    time.sleep(1.1)  # it is read again what was known of the file
    (blob,) = tmp_path.glob(f"node/blobs/**/{DIGEST}")
    blob.write_bytes(bytes(len(DATA)))
    assert ask_of(node, server, PATH).body == DATA
    end = ask_of(node, server, PATH, Range="bytes=5000000-")
    assert (end.status, end.body) == (200, DATA)  # somebody may have read what was wrong


def test_a_repo_that_was_closed_is_closed_at_every_process(
    origin: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node(origin, workers=2, ref_ttl=0, visibility_ttl=1)
    pids = (node.pid, *node.servers)
    for pid in pids:
        assert ask_of(node, pid, PATH, Range="bytes=0-9").status == 206
    (tmp_path / "hub" / "models" / "org" / "big" / ".hub.json").write_text(json.dumps({"private": True}))
    time.sleep(1)  # for so long it may be believed to be open
    assert ask_of(node, pids[0], PATH).status == 401
    origin.stop()
    time.sleep(1.1)  # the other process has read what this one wrote
    for pid in pids:
        for path in (PATH, SMALL_PATH):
            assert ask_of(node, pid, path).status == 401


def test_a_server_that_dies_takes_its_own_connections_only(origin: ChaosHub, start_node: StartNode) -> None:
    node = start_node(origin, workers=3)
    assert ask(node.endpoint + PATH).body == DATA
    origin.set_faults(SLOW)
    victim, other = node.servers
    counts = counted(node, node.pid)
    assert counted(node, other)["headrace_served_bytes_total", "fill"] == len(DATA)
    with connected(node, node.pid) as led, connected(node, other) as kept:
        os.kill(victim, signal.SIGKILL)
        for _ in range(30):  # whoever comes now is answered as well
            assert ask(node.endpoint + SMALL_PATH).body == b"{}"
        for one in (led, kept):
            assert say(one, PATH).read() == DATA
    assert replaced(node)
    later = counted(node, other)
    assert {
        name: (before, later.get(name))
        for name, before in counts.items()
        if name[0].endswith(("_total", "_count", "_bucket")) and later.get(name, 0) < before
    } == {}


def test_a_server_that_is_told_to_end_is_replaced(origin: ChaosHub, start_node: StartNode) -> None:
    node = start_node(origin, workers=2)
    os.kill(node.servers[0], signal.SIGTERM)
    assert replaced(node)
    assert node.stop() == 0


def test_a_stream_through_a_server_outlives_the_worker(origin: ChaosHub, start_node: StartNode) -> None:
    node = start_node(origin, workers=2)
    origin.set_faults(Fault("rate", rate=700_000))
    with connected(node, node.servers[0]) as connection:
        response = say(connection, PATH)
        first = response.read(1_000_000)
        os.kill(node.worker, signal.SIGKILL)
        origin.clear_faults()
        assert first + response.read() == DATA


def test_all_end_with_a_killed_lead_and_the_next_one_goes_on(
    origin: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    node = start_node(origin, workers=2)
    origin.set_faults(Fault("rate", rate=700_000))
    with connected(node, node.servers[0]) as connection:
        response = say(connection, PATH)
        response.read(2_000_000)
        os.kill(node.pid, signal.SIGKILL)
        with pytest.raises(CUT):
            response.read()
        for pid in (*node.servers, node.worker):
            assert wait_for_end(pid)
    node.stop()
    origin.clear_faults()
    node = start_node(origin, workers=2)
    assert ask_of(node, node.servers[0], PATH).body == DATA
    assert origin.settled_log().bytes_of(DIGEST) < 2 * len(DATA)
    assert len(list((tmp_path / "node").glob("*.sock"))) == 1
    node.stop()
    assert not list((tmp_path / "node").glob("*.sock"))


def is_refused(node: NodeProcess) -> bool:
    parts = urlsplit(node.endpoint)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("workers", [1, 3])
def test_a_node_ends_whatever_holds_it_up(origin: ChaosHub, start_node: StartNode, workers: int) -> None:
    """With streams at work, idle connections, somebody who does not read, and a fill that hangs."""
    node = start_node(origin, workers=workers, farewell=1.5)
    pids = (node.pid, *node.servers)
    assert ask(node.endpoint + SMALL_PATH).body == b"{}"
    origin.set_faults(Fault("stall", after_bytes=500_000))
    with ExitStack() as stack:
        for pid in pids:
            stack.enter_context(connected(node, pid))  # idle
            stalled = stack.enter_context(connected(node, pid))  # does not read
            stalled.request("GET", PATH)
        streams = [say(stack.enter_context(connected(node, pid)), PATH) for pid in pids]
        for stream in streams:
            assert stream.read(1000) == DATA[:1000]
        began = time.monotonic()
        os.kill(node.pid, signal.SIGTERM)
        time.sleep(0.5)
        assert is_refused(node)
        os.kill(node.pid, signal.SIGTERM)
        assert node.stop() == 0
        assert 1.5 <= time.monotonic() - began < 1.5 + 2.5
        for stream in streams:
            with pytest.raises(ConnectionResetError):
                stream.read()
    for pid in (*node.servers, node.worker):
        assert wait_for_end(pid, 0)


def test_a_stream_through_a_server_may_end_within_the_farewell(
    origin: ChaosHub, start_node: StartNode
) -> None:
    node = start_node(origin, workers=2)
    origin.set_faults(Fault("total", rate=6_000_000))
    with connected(node, node.servers[0]) as connection:
        response = say(connection, PATH)
        first = response.read(1000)
        os.kill(node.pid, signal.SIGTERM)
        assert first + response.read() == DATA
    assert node.stop() == 0


def test_a_node_ends_while_its_servers_do_not_start(origin: ChaosHub, tmp_path: Path) -> None:
    stuck = "import sys, time\nif 'headrace.node.cluster.server' in sys.orig_argv: time.sleep(60)\n"
    (tmp_path / "sitecustomize.py").write_text(stuck)
    data = tmp_path / "node"
    command = [sys.executable, "-m", "headrace.node", "--workers", "2", "--listen", "127.0.0.1:0"]
    command += ["--source", f"hub={origin.endpoint}", "--data", str(data)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}) as node:
        until(lambda: list(data.glob("lead-*.sock")))
        node.send_signal(signal.SIGTERM)
        try:
            assert node.wait(12) == 0
        finally:
            node.kill()
    assert not list(data.glob("lead-*.sock"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_is_one_clean_end(
    origin: ChaosHub, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "headrace.node", "--workers", "3", "--listen", "127.0.0.1:0"]
    command += ["--source", f"hub={origin.endpoint}", "--data", str(tmp_path / "node")]
    node = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert node.stdout is not None
    assert "endpoint" in node.stdout.readline()
    os.killpg(node.pid, number)
    _, said = node.communicate(timeout=15)
    assert node.returncode == 0
    assert said == ""


def test_the_log_of_all_is_one(
    origin: ChaosHub, start_node: StartNode, capfd: pytest.CaptureFixture[str]
) -> None:
    node = start_node(origin, workers=2, log_level="info")
    with ThreadPoolExecutor(8) as pool:
        names = [f"/none/{number}/{'x' * 300}" for number in range(120)]
        list(pool.map(lambda name: ask(node.endpoint + name), names))
    node.stop()
    lines = [line for line in capfd.readouterr().err.splitlines() if "path=/none/" in line]
    assert sorted(line.split("path=")[1].split(" ")[0] for line in lines) == sorted(names)
    assert all(
        line.startswith("INFO headrace.node.access: id=") and " remote=127.0.0.1 " in line for line in lines
    )


def test_two_nodes_do_not_share_an_address(tmp_path: Path, origin: ChaosHub, start_node: StartNode) -> None:
    node = start_node(origin, workers=2)
    listen = node.endpoint.removeprefix("http://")
    arguments = ("--data", str(tmp_path / "other"), "--listen", listen, "--source", "hub=http://hub.invalid")
    for workers in ("1", "2"):
        result = run_node(*arguments, "--workers", workers)
        assert result.returncode == 2
        assert "another program" in result.stderr


def test_how_many_may_serve_is_bounded(tmp_path: Path) -> None:
    result = run_node("--data", str(tmp_path), "--source", "hub=http://hub.invalid", "--workers", "0")
    assert result.returncode == 2
    assert "cannot serve with 0 processes" in result.stderr


def test_a_data_folder_may_be_far_down(origin: ChaosHub, tmp_path: Path) -> None:
    data = tmp_path / ("d" * 100) / ("e" * 100)
    with NodeProcess(data, {"hub": origin.endpoint}, workers=2) as node:
        (sock,) = data.glob("*.sock")
        assert sock.stat().st_mode & 0o777 == 0o600
        assert ask_of(node, node.servers[0], PATH).body == DATA

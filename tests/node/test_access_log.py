"""The record of requests: what stands in it, what never does, and that nobody waits for it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from headrace.errors import UsageError
from headrace.node.api.accesslog import AccessLog, Facts
from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub
from tests.node.asking import BIG, BIG_FILE, ask
from tests.node.secure import place_of, run_node

StartNode = Callable[..., NodeProcess]
SMALL = "/org/tiny/resolve/main/config.json"
FACTS: Facts = {"path": "/" + "x" * 200}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_line_a_request(hub: ChaosHub, start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(hub, access_log=tmp_path / "access.log")
    asked = [
        ask(node.endpoint + BIG_FILE, User_Agent="a client/1.0"),
        ask(node.endpoint + BIG_FILE, Range="bytes=0-99999", X_Forwarded_For="203.0.113.7"),
        ask(node.endpoint + BIG_FILE, "HEAD"),
        ask(node.endpoint + "/org/none/resolve/main/a", X_Request_Id="of-nginx.1"),
        ask(node.endpoint + "/healthz"),
    ]
    node.stop()
    ids = [one.headers["x-request-id"] for one in asked]
    # A line is written when an answer is over, which is after its last byte: the next one's may be before it.
    lines = sorted(lines_of(tmp_path / "access.log"), key=lambda line: ids.index(line["id"]))
    seen = [(one["method"], one["status"], one["bytes"], one["cache"], one["route"]) for one in lines]
    assert seen == [
        ("GET", 200, len(BIG), "fill", "resolve"),
        ("GET", 206, 100_000, "hit", "resolve"),
        ("HEAD", 200, 0, "hit", "resolve"),
        ("GET", asked[3].status, len(asked[3].body), "", "resolve"),
        ("GET", 200, 6, "", "healthz"),
    ]
    assert [one["id"] for one in lines] == ids
    assert lines[3]["id"] == "of-nginx.1"
    assert [one["remote"] for one in lines[:2]] == ["127.0.0.1", "203.0.113.7"]
    assert lines[0]["path"] == BIG_FILE
    assert lines[0]["repo"] == "org/tiny"
    assert lines[0]["agent"] == "a client/1.0"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"]) for one in lines)
    assert 0 < lines[0]["seconds"] < 60


def test_no_secret_and_no_forged_line(calm_hub: ChaosHub, start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(calm_hub, access_log=tmp_path / "access.log", trusted_proxies="10.0.0.0/8")
    token = "hf_" + "sesame" * 6
    headers = {"Authorization": f"Bearer {token}", "Cookie": "c=sesame", "X_Request_Id": "sesame"}
    headers["User_Agent"] = token
    ask(f"{node.endpoint}{SMALL}?proof=sesame&token=sesame", "GET", None, **headers)
    ask(f"{node.endpoint}/{token}/resolve/main/a")
    ask(f"{node.endpoint}/x%0A%7B%22status%22:1%7D")
    nasty = b"\xe2\x80\xae\xc2\x9b31m\x80\xff"
    with socket.create_connection(place_of(node.endpoint)) as sock:
        sock.sendall(
            b"GET http://user:sesame@here/%E2%80%AE" + b"y" * 4000 + b" HTTP/1.1\r\nHost: here\r\n"
            b"Connection: close\r\nUser-Agent: " + nasty + b"z" * 1000 + b"\r\n\r\n"
        )
        while sock.recv(65536):
            pass
    node.stop()
    text = (tmp_path / "access.log").read_text("ascii")
    assert "sesame" not in text
    assert all(one.isprintable() or one == "\n" for one in text)
    lines = lines_of(tmp_path / "access.log")
    assert len(lines) == 4
    assert lines[1]["path"] == "/hf_…/resolve/main/a"
    assert max(len(one["path"]) for one in lines) <= 2049
    assert max(len(one["agent"]) for one in lines) <= 257


def test_a_log_that_is_moved_away_is_begun_anew(
    calm_hub: ChaosHub, start_node: StartNode, tmp_path: Path
) -> None:
    log, old = tmp_path / "access.log", tmp_path / "access.log.1"
    node = start_node(calm_hub, access_log=log)
    ask(node.endpoint + "/healthz")
    until(log.read_text)
    log.rename(old)
    os.kill(node.pid, signal.SIGHUP)
    ask(node.endpoint + "/readyz")
    node.stop()
    assert [one["path"] for one in lines_of(old)] == ["/healthz"]
    assert [one["path"] for one in lines_of(log)] == ["/readyz"]


def test_a_hangup_ends_nothing(calm: NodeProcess) -> None:
    os.kill(calm.pid, signal.SIGHUP)
    assert ask(calm.endpoint + "/healthz").status == 200


def test_what_cannot_be_written_is_counted_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stuck")
    reader = os.open(tmp_path / "stuck", os.O_RDONLY | os.O_NONBLOCK)  # somebody who never reads
    dropped: list[int] = []
    log = AccessLog(str(tmp_path / "stuck"), dropped.append)
    for _ in range(20_000):
        log.note(FACTS)
    assert 5_000 < sum(dropped) < 20_000
    os.close(reader)
    log.close()
    assert sum(dropped) <= 20_000


def test_a_full_disk_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    dropped: list[int] = []
    log = AccessLog("/dev/full", dropped.append)
    log.note(FACTS)
    until(lambda: dropped)
    log.note(FACTS)
    log.close()
    assert sum(dropped) == 2
    (record,) = caplog.records
    assert record.getMessage() == "requests are not recorded: No space left on device"


def test_it_may_be_standard_output(calm_hub: ChaosHub, tmp_path: Path) -> None:
    script = tmp_path / "told"
    with script.open("wb") as told:
        command = [
            sys.executable,
            "-m",
            "headrace.node",
            "--data",
            str(tmp_path / "data"),
            "--access-log",
            "-",
        ]
        command += ["--listen", "127.0.0.1:0", "--source", f"hub={calm_hub.endpoint}", "--with-parent"]
        with Popen(command, stdin=PIPE, stdout=told) as process:
            until(lambda: script.read_text().endswith("\n"))
            ask(json.loads(script.read_text())["endpoint"] + "/healthz")
            process.terminate()
    assert [one.get("path") for one in lines_of(script)] == [None, "/healthz"]


def test_lines_of_several_processes_stay_whole_in_one_pipe() -> None:
    writes = """if True:
        from headrace.node.api.accesslog import AccessLog
        logs = [AccessLog("-", lambda _: None) for _ in range(3)]  # each writes by itself, as a process does
        for number in range(2_000):
            for log in logs:
                log.note({"number": number, "path": 150 * "x"})
        for log in logs:
            log.close()
    """
    with Popen([sys.executable, "-c", writes], stdout=PIPE) as process:
        assert process.stdout is not None
        told = bytearray()
        while block := os.read(process.stdout.fileno(), 5_000):
            told += block
            time.sleep(0.0005)
    assert all(json.loads(line)["path"] == 150 * "x" for line in told.splitlines())


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        AccessLog(str(tmp_path / "nowhere" / "access.log"), lambda _: None)
    done = run_node(tmp_path, "--access-log", str(tmp_path))
    assert done.returncode == 2
    assert "Is a directory" in done.stderr

"""Requests that nobody should send get a clear answer, lead nowhere, and leave no secret behind."""

from __future__ import annotations

import http.client
import json
import resource
import socket
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace.node.process import NodeProcess
from headrace.testing import ChaosHub
from tests.node.asking import BIG_FILE, TINY, Reply, ask

PATHS_INFO = "/api/models/org/tiny/paths-info/main"
JSON, FORM, PARTS = "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
HEAD = b"Host: node\r\nConnection: close\r\n"


def send(endpoint: str, request: bytes) -> bytes:
    """What a node says to a request that is written word by word."""
    host, _, port = urlsplit(endpoint).netloc.rpartition(":")
    with closing(socket.create_connection((host, int(port)), timeout=10)) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def post(endpoint: str, kind: str, body: bytes, **headers: str) -> Reply:
    return ask(endpoint + PATHS_INFO, "POST", body, Content_Type=kind, **headers)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b'{"paths": null}'),
        (JSON, b'{"paths": 5}'),
        (JSON, b"[1]"),
        (JSON, b"[" * 100_000),
        (JSON, b"\xff"),
        (JSON, b'{"paths": ["\\ud800"]}'),
        (JSON, json.dumps({"paths": ["x"] * 10_001}).encode()),
        (FORM, b"paths=\xff"),
        (FORM, b"&".join([b"paths=x"] * 10_003)),
    ],
)
def test_questions_that_make_no_sense_are_refused(calm: NodeProcess, kind: str, body: bytes) -> None:
    reply = post(calm.endpoint, kind, body)
    assert reply.status == HTTPStatus.BAD_REQUEST
    assert "paths" in reply.headers["x-error-message"]


def test_what_is_said_of_a_body_cannot_break_its_reading(calm: NodeProcess) -> None:
    for kind, body in ((JSON, b'{"paths": ["config.json"]}'), (FORM, b"paths=config.json")):
        reply = post(calm.endpoint, f"{kind}; charset=odd", body)
        assert [row["path"] for row in reply.json()] == ["config.json"]
    assert post(calm.endpoint, PARTS, b"--x\r\nnonsense").status == HTTPStatus.OK
    assert post(calm.endpoint, JSON, b"plain", Content_Encoding="gzip").status == HTTPStatus.BAD_REQUEST


def test_a_question_that_is_too_long_is_refused_in_words(calm: NodeProcess) -> None:
    reply = post(calm.endpoint, JSON, b"x" * (4 * 1024 * 1024 + 1))
    assert reply.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert "4194304 bytes" in reply.headers["x-error-message"]


def test_absurd_numbers_are_no_numbers(calm: NodeProcess) -> None:
    many = "9" * 5000
    assert ask(f"{calm.endpoint}/api/models/org/tiny/tree/main?limit={many}").status == HTTPStatus.OK
    target = f"/api/datasets/org/data/parquet/default/train/{many}.parquet"
    assert ask(calm.endpoint + target).status == HTTPStatus.NOT_FOUND


def test_a_whole_url_is_asked_for_as_its_path_is(calm: NodeProcess) -> None:
    line = b"GET http://node:80/api/models/org/tiny/tree/main?limit=1 HTTP/1.1\r\n"
    answer = send(calm.endpoint, line + HEAD + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Link: <http://node/api/models/org/tiny/tree/main?limit=1&" in answer


def test_who_tells_no_host_is_answered(calm: NodeProcess) -> None:
    answer = send(calm.endpoint, b"GET /api/models/org/tiny/tree/main?limit=1 HTTP/1.0\r\n\r\n")
    assert b"Link: <http://localhost/api/models/org/tiny/tree/main?limit=1&" in answer


@pytest.mark.parametrize(
    "target",
    [
        "/api/Models/org/gated/tree/main",
        "/api/models/org/tiny/XET-READ-TOKEN/main",
        "/api/kernels/org/tiny/Xet-Read-Token/main",
        "/api/resolve-cache/kernels/org/tiny/x/config.json",
        "/api/Resolve-Cache/models/org/gated/x/README.md",
        "/api/WhoAmI-v2",
        "/api/models/org/tiny/tree/main/..%2F..%2F..%2Fgated%2Frefs?expand=true",
        "/api/models/org/tiny/tree/main/%2E%2E/%2E%2E?expand=true",
    ],
)
def test_a_path_that_a_source_could_read_otherwise_is_not_passed_on(
    calm: NodeProcess, calm_hub: ChaosHub, target: str
) -> None:
    ask(f"{calm.endpoint}/api/models/org/tiny")
    before = [request.path for request in calm_hub.log().requests]
    assert ask(calm.endpoint + target).status == HTTPStatus.NOT_FOUND
    later = [request.path for request in calm_hub.log().requests][len(before) :]
    assert [path for path in later if not path.endswith("/revision/main")] == []


def test_a_folder_that_is_absent_is_so_in_every_form_of_the_question(calm: NodeProcess) -> None:
    for query in ("", "?expand=true"):
        reply = ask(f"{calm.endpoint}/api/models/org/tiny/tree/main/absent{query}")
        assert (reply.status, reply.headers["x-error-code"]) == (HTTPStatus.NOT_FOUND, "EntryNotFound")


def test_what_is_not_http_does_not_get_into_the_log(
    hub: ChaosHub, start_node: Callable[..., NodeProcess], capfd: pytest.CaptureFixture[str]
) -> None:
    node = start_node(hub, log_level="info")
    line = b"GET /api/models/org/tiny HTTP/1.1\r\n"
    for request, status in (
        (line + HEAD + b"Authorization: Bearer hf_secret\x01\r\n\r\n", b" 400 "),
        (line + HEAD + b"Authorization Bearer hf_secret\r\n\r\n", b" 400 "),
        (line + HEAD + b"Authorization: Bearer hf_secret" + b"x" * 9000 + b"\r\n\r\n", b" 431 "),
        (b"GET /_headrace/blocks/sha256:00?proof=hf_secret\xff HTTP/1.1\r\n" + HEAD + b"\r\n", b" 400 "),
    ):
        assert status in send(node.endpoint, request).partition(b"\r\n")[0]
    whole = b"GET http://user:hf_secret@node/api/models/org/tiny HTTP/1.1\r\n"
    assert send(node.endpoint, whole + HEAD + b"\r\n").startswith(b"HTTP/1.1 200 ")
    node.stop()
    log = capfd.readouterr().err
    assert "not HTTP" in log
    assert "secret" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("request_", "status", "more"),
    [
        (b"GET /api/models/org/tiny HTTP/1.1\r\n" + HEAD + b"Bad\x01hf_secret\r\n\r\n", 400, {}),
        (b"GET /" + b"hf_secret" * 2000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n", 431, {}),
        (b"\x16\x03\x01hf_secret\r\n\r\n", 400, {}),
        (b"GET /api/models/org/tiny HTTP/1.1\r\nExpect: hf_secret\r\n" + HEAD + b"\r\n", 417, {}),
        (b"CONNECT hf_secret.example:443 HTTP/1.1\r\n" + HEAD + b"\r\n", 405, {"allow": "GET, HEAD"}),
        (b"OPTIONS * HTTP/1.1\r\n" + HEAD + b"\r\n", 405, {"allow": "GET, HEAD"}),
        (b"DELETE /healthz HTTP/1.1\r\n" + HEAD + b"\r\n", 405, {}),
    ],
)
def test_whatever_is_refused_is_refused_in_one_shape(
    calm: NodeProcess, request_: bytes, status: int, more: dict[str, str]
) -> None:
    answer = send(calm.endpoint, request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): text for name, _, text in (one.partition(": ") for one in lines)}
    assert line.split()[1] == str(status)
    assert headers["server"] == "headrace"
    assert json.loads(body) == {"error": headers["x-error-message"]}
    assert more.items() <= headers.items()
    assert b"secret" not in answer


def number_left(pid: int) -> int:
    """The lowest number that a file opened next would get."""
    taken = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(taken) + 1)) - taken)


def test_a_node_that_may_open_no_more_files_says_so(
    hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    node = start_node(hub)
    for path in ("config.json", BIG_FILE.rpartition("main/")[2]):
        assert ask(f"{node.endpoint}/org/tiny/resolve/main/{path}").status == HTTPStatus.OK
    cold = "weights/model-00002-of-00002.safetensors"
    assert ask(f"{node.endpoint}/org/tiny/resolve/main/{cold}", "HEAD").status == HTTPStatus.OK
    connection = http.client.HTTPConnection(urlsplit(node.endpoint).netloc, timeout=10)
    with closing(connection):
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        soft, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (number_left(node.pid), hard))
        for path in ("config.json", cold):
            connection.request("GET", f"/org/tiny/resolve/main/{path}")
            reply = connection.getresponse()
            assert json.loads(reply.read())["error"] == reply.headers["X-Error-Message"]
            assert reply.status == HTTPStatus.SERVICE_UNAVAILABLE
            assert int(reply.headers["Retry-After"]) > 0
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (soft, hard))
        for path in ("config.json", cold):
            connection.request("GET", f"/org/tiny/resolve/main/{path}")
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (HTTPStatus.OK, TINY[path])


def test_a_node_serves_more_clients_than_a_system_allows_files_at_first(
    hub: ChaosHub, start_node: Callable[..., NodeProcess]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    try:
        node = start_node(hub)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    limits = Path(f"/proc/{node.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3:5] == [str(hard), str(hard)]

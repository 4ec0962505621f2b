"""The bench of a node works: real servers, small files; and its clients count what they should."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.contestants import ROOT
from bench.load import ask, crowd, part, read, stream
from bench.node import CASES, p99

SIZE = 3_000_000

needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


class Handler(http.server.BaseHTTPRequestHandler):
    """A file of zeros, that is cut off below /short."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        start, stop = 0, SIZE
        if "Range" in self.headers:
            start, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            stop = last + 1
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(bytes(stop - start if self.path != "/short" else 10))
        self.close_connection = self.path == "/short"

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_stream_counts_every_byte_of_every_round(url: str) -> None:
    load = stream(url + "/file", SIZE, 3, 2)
    assert (load.received, load.answers, load.failures) == (2 * SIZE, 6, [])
    assert len(load.first_bytes_s) == 6


def test_a_crowd_takes_the_whole_each(url: str) -> None:
    load = crowd(url + "/file", SIZE, 5)
    assert (load.received, load.answers, load.failures) == (5 * SIZE, 5, [])


def test_a_part_is_a_part(url: str) -> None:
    assert part(url + "/file", 100, 1100).received == 1000


def test_questions_are_repeated_until_time_is_up(url: str) -> None:
    load = ask("HEAD", url + "/file", 2, 0.2)
    assert load.answers >= 2
    assert (load.received, load.failures) == (0, [])


def test_what_is_wrong_does_not_count(url: str) -> None:
    assert crowd(url + "/none", SIZE, 1).failures == ["http/1.1 404 not found"]
    (short,) = crowd(url + "/short", SIZE, 1).failures
    assert short == f"ended, {SIZE - 10} bytes short"


def test_reads_a_file_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(SIZE))
    assert read(str(tmp_path / "file")).received == SIZE


def test_p99_leaves_out_one_in_a_hundred() -> None:
    assert p99([float(number) for number in range(100)]) == 98.0
    assert p99([3.0]) == 3.0


@needs_nginx
def test_measures_a_node_beside_nginx_and_its_origin(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    wanted = ["warm-16", "tls-16", "crowd"]
    command = [sys.executable, str(ROOT / "bench" / "node.py"), "--quick", f"--json={out}"]
    command += [f"--case={name}" for name in wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert list(figures) == wanted
    assert set(wanted) < set(CASES)
    assert "| CPU s/GB / nginx's | ≤ 1.5 |" in done.stdout
    assert 1.0 <= figures["crowd"]["bytes from the origin / size"][0] < 1.5
    assert "turns of the event loop over 50 ms" in figures["warm-16"]
    assert figures["tls-16"]["GB/s / nginx's"][0] > 0

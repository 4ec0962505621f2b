"""Starts a chaos hub, gives it orders, and reads its log."""

from __future__ import annotations

import http.client
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from headrace.testing.control import PREFIX
from headrace.testing.faults import Fault
from headrace.testing.requestlog import LoggedRequest, RequestLog

_START_S = 30.0
_STOP_S = 5.0


@dataclass
class ChaosHub:
    """A hub in a process of its own, started on `with` (or `start`) and stopped at its end.

        with ChaosHub(root, tokens={"hf_good": ["org/private"]}) as hub:
            hub.set_faults(Fault("reset", after_bytes=1_000_000, times=1, match="*.safetensors"))
            ...
            assert hub.log().bytes_of(digest) <= size * 1.01

    It dies with its parent, even one that is killed.

    Attributes:
        root: the folder with `models`, `datasets` and `spaces`; see `headrace.testing.catalog`.
        tokens: every token that is valid → names or globs of the repos it opens.
        rate: bytes a second that each connection gets, for ever; None is unlimited.
        latency_s: seconds before each answer, for ever.
        page_size: tree entries on one page.
        url_lifetime_s: seconds that a CDN address works; 0 makes it expired at once.
        url_style: how such an address says so; see `headrace.testing.cdn.Signer`.
        clock_off_s: seconds that the hub's clock is ahead of this machine's, in Date headers and addresses.
        ports: of hub and CDN; 0 takes a free one. Needed to come back after `stop`.
        host: the address of the hub, `127.0.0.1` or `::1`.
        cdn_host: the host name in CDN addresses; it must resolve to this machine.
        tls: PEM files with certificate chain and key, good for `host` and `cdn_host`: both then speak TLS alone.
    """

    root: str | os.PathLike[str]
    _: KW_ONLY
    tokens: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rate: int | None = None
    latency_s: float = 0.0
    page_size: int = 1000
    url_lifetime_s: float = 3600.0
    url_style: str = "cloudfront"
    clock_off_s: float = 0.0
    ports: tuple[int, int] = (0, 0)
    host: str = "127.0.0.1"
    cdn_host: str = "localhost"
    tls: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _addresses: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __enter__(self) -> ChaosHub:  # noqa: PYI034 - typing.Self came with Python 3.11
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """Where the hub is, as HF_ENDPOINT wants it: `http://127.0.0.1:41234`."""
        return self._addresses["endpoint"]

    @property
    def cdn(self) -> str:
        """Where large files come from: another host name and port."""
        return self._addresses["cdn"]

    @property
    def control(self) -> str:
        """The origin of the port that takes orders; see `headrace.testing.control`."""
        return self._addresses["control"]

    @property
    def pid(self) -> int:
        """The process, for those who want to stop or kill it."""
        if self._process is None:
            raise RuntimeError("the chaos hub is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            RuntimeError: it ended, or said nothing for 30 seconds; its own words are on stderr.
        """
        # The parent may have found this package by other means than an environment that is inherited.
        source = os.fspath(Path(__file__).parents[2])
        search = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "headrace.testing.hub", "--with-parent"]
        for option, value in self._options().items():
            command += [option, value]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": search}
        )
        self._addresses = self._read_addresses(self._process)
        # Not on the command line, where every user of the machine could read them.
        self._control("PUT", "tokens", dict(self.tokens))

    def stop(self) -> None:
        """End the process; open connections are dropped. Does nothing if it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def set_faults(self, *faults: Fault) -> None:
        """Put `faults` in the place of all earlier ones, with their `times` counted from here."""
        self._control("PUT", "faults", [fault.to_json() for fault in faults])

    def clear_faults(self) -> None:
        """No faults from the next answer on; answers on their way keep theirs."""
        self.set_faults()

    def set_tokens(self, tokens: Mapping[str, Sequence[str]]) -> None:
        """Put `tokens` in the place of all earlier ones; the others are invalid from now on."""
        self._control("PUT", "tokens", dict(tokens))

    def log(self) -> RequestLog:
        """Every request since the start or `clear_log`."""
        return RequestLog(tuple(LoggedRequest.from_json(one) for one in self._control("GET", "log")))

    def clear_log(self) -> None:
        """Forget all requests so far."""
        self._control("DELETE", "log")

    def settled_log(self, patience_s: float = 5.0) -> RequestLog:
        """The log once no answer is on its way any more: for clients that were killed or left early.

        Raises:
            TimeoutError: something is still being sent after `patience_s` seconds.
        """
        give_up_s = time.monotonic() + patience_s
        while True:
            log = self.log()
            if all(request.ended_s is not None for request in log.requests):
                return log
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"answers are still on their way after {patience_s} s")
            time.sleep(0.01)

    def _options(self) -> dict[str, str]:
        options = {
            "--root": os.fspath(Path(self.root).absolute()),
            "--latency": str(self.latency_s),
            "--page-size": str(self.page_size),
            "--url-lifetime": str(self.url_lifetime_s),
            "--url-style": self.url_style,
            "--clock-off": str(self.clock_off_s),
            "--host": self.host,
            "--port": str(self.ports[0]),
            "--cdn-port": str(self.ports[1]),
            "--cdn-host": self.cdn_host,
        }
        if self.rate is not None:
            options["--rate"] = str(self.rate)
        if self.tls is not None:
            chain, key = self.tls
            options |= {"--tls-cert": os.fspath(chain), "--tls-key": os.fspath(key)}
        return options

    def _control(self, method: str, noun: str, value: Any = None) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.control).netloc, timeout=30)
        try:
            body = None if value is None else json.dumps(value)
            connection.request(method, f"/{PREFIX}/{noun}", body)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise ValueError(json.loads(text)["error"])
        return json.loads(text) if text else None

    def _read_addresses(self, process: subprocess.Popen[bytes]) -> dict[str, str]:
        stdout = process.stdout
        if stdout is None or not select.select([stdout], [], [], _START_S)[0]:
            self.stop()
            raise RuntimeError(f"the chaos hub said nothing for {_START_S:.0f} s")
        line = stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError("the chaos hub ended while it was starting")
        addresses: dict[str, str] = json.loads(line)
        return addresses

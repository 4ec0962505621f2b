"""A client that reads as it pleases, straight from the socket."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit


class Stream:
    """A client that reads as it pleases."""

    def __init__(self, url: str, **headers: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=10)
        lines = [f"GET {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.reader = self.socket.makefile("rb")
        self.head: list[str] = []

    def read_head(self) -> Stream:
        """Read up to the body."""
        while (line := self.reader.readline().decode().strip()) != "":
            self.head.append(line)
        return self

    @property
    def length(self) -> int:
        """The Content-Length, or 0."""
        return int(self.header("Content-Length") or 0)

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        found = (line.partition(": ") for line in self.head)
        return next((value for known, _, value in found if known == name), "")

    def read_until_it_breaks(self) -> tuple[bytes, type[OSError] | None]:
        got = b""
        try:
            while block := self.reader.read1(65536):
                got += block
        except OSError as error:
            return got, type(error)
        return got, None

    def close(self) -> None:
        self.reader.close()
        self.socket.close()

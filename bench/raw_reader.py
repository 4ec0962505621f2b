"""The least a reader can do: `python -m bench.raw_reader URL SIZE` receives a file and forgets it.

Sixteen connections take ranges of 8 MiB from the front, as each gets done with its last; bytes land in one buffer a
connection, and nothing is hashed or written. What the line gives to it is what the line has.
"""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from bench.scenario import LANES

_RANGE = 8 * 1024 * 1024
_BUFFER = 1024 * 1024


class Reader:
    """Reads `size` bytes at `url`, over as many threads as call `work`."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._starts: Iterator[int] = iter(range(0, size, _RANGE))
        self._lock = threading.Lock()
        self.received = 0

    def work(self) -> None:
        """Take ranges until none is left."""
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(parts.netloc)
        buffer = bytearray(_BUFFER)
        while (start := self._next()) is not None:
            stop = min(start + _RANGE, self._size)
            connection.request("GET", parts.path, headers={"Range": f"bytes={start}-{stop - 1}"})
            answer = connection.getresponse()
            while count := answer.readinto(buffer):
                with self._lock:
                    self.received += count

    def _next(self) -> int | None:
        with self._lock:
            return next(self._starts, None)


def redirected(url: str) -> str:
    """Where the hub sends whoever asks for the file."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", parts.path)
    target = connection.getresponse().headers["Location"]
    connection.close()
    return str(target)


def main() -> None:
    """Read it all, or exit with 1."""
    reader = Reader(redirected(sys.argv[1]), int(sys.argv[2]))
    threads = [threading.Thread(target=reader.work) for _ in range(LANES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(reader.received != int(sys.argv[2]))


if __name__ == "__main__":
    main()

"""A site on a port of this process, for the fakes that need no process of their own."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TypeVar

from headrace.testing.book import FaultBook
from headrace.testing.faults import Fault
from headrace.testing.listener import Listener, Site, Traffic
from headrace.testing.requestlog import Ledger, LoggedRequest, RequestLog

Server = TypeVar("Server", bound="LocalServer")


class LocalServer:
    """Serves `sites`, each by its name on a port of its own, from `with` (or `start`) to its end.

    Faults strike, and the log tells of, all of them; a site's name is what both call its `host`.
    """

    def __init__(self, **sites: Site) -> None:
        self._sites = sites
        self._book = FaultBook()
        self._ledger = Ledger()
        self._listeners: dict[str, Listener] = {}

    def __enter__(self: Server) -> Server:  # noqa: PYI019 - typing.Self came with Python 3.11
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Bind a port for each site and answer."""
        traffic = Traffic(self._book, self._ledger)
        for name, site in self._sites.items():
            listener = Listener(("127.0.0.1", 0), site, name, traffic)
            self._listeners[name] = listener
            threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        while self._listeners:
            _, listener = self._listeners.popitem()
            listener.shutdown()
            listener.server_close()

    def origin(self, name: str) -> str:
        """Where a site is."""
        return f"http://127.0.0.1:{self._listeners[name].port}"

    def set_faults(self, *faults: Fault) -> None:
        """Put `faults` in the place of all earlier ones."""
        self._book.replace(list(faults))

    def log(self) -> RequestLog:
        """Every request so far."""
        return RequestLog(tuple(LoggedRequest.from_json(one) for one in self._ledger.dump()))

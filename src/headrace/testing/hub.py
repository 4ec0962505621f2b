"""The chaos hub as a process: `python -m headrace.testing.hub --root DIR`.

Prints one JSON line with its addresses when it is ready, then serves until it is told to stop.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from headrace.testing.access import Access
from headrace.testing.book import FaultBook
from headrace.testing.catalog import Catalog
from headrace.testing.cdn import URL_STYLES, CdnSite, Signer
from headrace.testing.control import ControlSite
from headrace.testing.faults import Fault
from headrace.testing.listener import Listener, Traffic
from headrace.testing.requestlog import Ledger
from headrace.testing.resolve import Resolver
from headrace.testing.site import HubSite

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


class Hub:
    """The three ports and what they share."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Bind all ports; `options` are those of `parse_options`.

        Raises:
            OSError: an address cannot be bound.
        """
        catalog = Catalog(options.root)
        access = Access()
        signer = Signer(options.url_lifetime, lambda: time.time() + options.clock_off, options.url_style)
        ledger = Ledger()
        book = FaultBook(_profile(options))
        if options.tokens is not None:
            access.grant(json.loads(options.tokens.read_bytes()))
        resolver = Resolver(catalog, signer, lambda: self.cdn)
        site = HubSite(catalog, access, resolver, options.page_size)
        control = ControlSite(book, access, ledger)
        self._host = options.host
        self._cdn_host = options.cdn_host
        self._tls = _tls(options)
        traffic = Traffic(book, ledger, self._tls)
        self._hub = Listener((options.host, options.port), site, "hub", traffic)
        self._cdns = _listen_everywhere(options, CdnSite(catalog, signer), traffic)
        # What is asked of the control port is no traffic: it gets a log and a fault book of its own.
        self._control = Listener(("127.0.0.1", 0), control, "control", Traffic(FaultBook(), Ledger()))

    @property
    def endpoint(self) -> str:
        """The hub's own origin, for HF_ENDPOINT."""
        return f"{self._scheme}://{_bracketed(self._host)}:{self._hub.port}"

    @property
    def cdn(self) -> str:
        """The origin that large files come from."""
        return f"{self._scheme}://{_bracketed(self._cdn_host)}:{self._cdns[0].port}"

    @property
    def _scheme(self) -> str:
        return "http" if self._tls is None else "https"

    @property
    def addresses(self) -> dict[str, str]:
        """What the ready line tells."""
        control = f"http://127.0.0.1:{self._control.port}"
        return {"endpoint": self.endpoint, "cdn": self.cdn, "control": control}

    def serve(self, until: threading.Event) -> None:
        """Answer requests until the event is set; connections still open then are dropped."""
        with ExitStack() as stack:
            for listener in (self._hub, *self._cdns, self._control):
                threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
                stack.callback(listener.socket.close)
                stack.callback(listener.shutdown)
            until.wait()


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line as a namespace with one field for each option."""
    parser = argparse.ArgumentParser(prog="python -m headrace.testing.hub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with models/, datasets/, spaces/")
    parser.add_argument("--host", default="127.0.0.1", help="address of the hub [%(default)s]")
    parser.add_argument("--port", type=int, default=0, help="port of the hub; 0 takes a free one")
    parser.add_argument("--cdn-host", default="localhost", help="host name of the CDN [%(default)s]")
    parser.add_argument("--cdn-port", type=int, default=0, help="port of the CDN; 0 takes a free one")
    parser.add_argument("--rate", type=_size, help="bytes a second and connection, as 500K or 2M")
    parser.add_argument(
        "--bears", type=int, help="connections of one client; with more all slow down, see --rate"
    )
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--page-size", type=int, default=1000, help="tree entries on a page [%(default)s]")
    parser.add_argument("--url-lifetime", type=float, default=3600.0, help="seconds a CDN address works")
    parser.add_argument("--url-style", default="cloudfront", choices=URL_STYLES, help="how they say so")
    parser.add_argument("--clock-off", type=float, default=0.0, help="seconds that the hub's clock is off")
    parser.add_argument("--tokens", type=Path, help="JSON file: token to the repos it opens")
    parser.add_argument("--tls-cert", type=Path, help="PEM chain: hub and CDN speak TLS alone")
    parser.add_argument("--tls-key", type=Path, help="its PEM key, where the chain's file does not hold it")
    parser.add_argument("--with-parent", action="store_true", help="stop when standard input ends")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM, SIGINT or, with --with-parent, the end of standard input."""
    options = parse_options(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    hub = Hub(options)
    sys.stdout.write(json.dumps(hub.addresses) + "\n")
    sys.stdout.flush()
    if options.with_parent:
        threading.Thread(target=_await_parent, args=(stop,), daemon=True).start()
    hub.serve(until=stop)
    return 0


def _await_parent(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def _listen_everywhere(options: argparse.Namespace, site: CdnSite, traffic: Traffic) -> list[Listener]:
    """One listener for each address of the CDN's name, all on one port: clients may try any of them."""
    found = socket.getaddrinfo(options.cdn_host, None, type=socket.SOCK_STREAM)
    listeners: list[Listener] = []
    for host in dict.fromkeys(str(address[0]) for *_, address in found):
        port = listeners[0].port if listeners else options.cdn_port
        try:
            listeners.append(Listener((host, port), site, "cdn", traffic))
        except OSError:
            # A name often has an IPv6 address that this machine does not; one address is enough.
            continue
    if not listeners:
        raise OSError(f"no address of {options.cdn_host} can be bound to port {options.cdn_port}")
    return listeners


def _profile(options: argparse.Namespace) -> list[Fault]:
    profile = []
    if options.clock_off:
        profile.append(Fault("skew", host="any", by=round(options.clock_off)))
    if options.latency:
        profile.append(Fault("latency", host="any", delay_s=options.latency))
    if options.rate:
        profile.append(Fault("rate", host="any", rate=options.rate))
    if options.bears:
        profile.append(Fault("collapse", rate=options.rate, most=options.bears))
    return profile


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    return int(float(number) * _UNITS[unit])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    sys.exit(main())

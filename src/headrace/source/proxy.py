"""Proxies: which one a URL goes through, and what it is told.

The user names them as for curl and requests: `https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`. A proxy looks
up names itself, so behind one no name but its own is looked up here. https goes through a tunnel (CONNECT,
RFC 9110 §9.3.6), http in absolute form (RFC 9112 §3.2.2). Its password is in no text that leaves this module but
the header.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from headrace.errors import ProxyRefused, SourceError, Unreachable, UsageError
from headrace.wire import proxy_for

_SUCCESS = range(200, 300)
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b")
_PORT = 80
_HINT = "write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT with special characters as %XX"

Origin = tuple[str, str, int]
"""Scheme, host and port."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy; `variable` is where it was named."""

    host: str
    port: int
    variable: str
    authorization: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What it is called where an address would stand, without its password."""
        return f"proxy {named_place(self.host, self.port)}"

    @classmethod
    def parse(cls, url: str, variable: str) -> Proxy:
        """Read the value of a proxy variable. Raises `UsageError`, which shows nothing of it but the scheme."""
        scheme, colon, _ = url.partition("://")
        scheme = scheme.lower() if colon else "http"
        _check_scheme(scheme, variable)
        try:
            parts = urlsplit(url if colon else f"//{url}")
            host, port = parts.hostname or "", parts.port or _PORT
        except ValueError:
            host, port, parts = "", 0, urlsplit("")
        # What stands behind the host may be a half of a password with a special character in it.
        strange = parts.path not in ("", "/") or parts.query or parts.fragment
        if scheme != "http" or strange or not host or not re.fullmatch(r"[\w.:%-]+", host):
            raise UsageError(f"{variable} names no proxy that could be used", hint=_HINT)
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = f"Basic {b64encode(pair.encode()).decode()}"
        return cls(host, port, variable, authorization)

    @property
    def headers(self) -> dict[str, str]:
        """What it must be told with each request that it reads."""
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}

    def refusal(self, status: int, host: str) -> SourceError:
        """What its answer means, when asked for `host`."""
        if status in (
            HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
            HTTPStatus.UNAUTHORIZED,
        ):  # tinyproxy says 401
            if self.authorization is None:
                told = f"{self.name} wants a user name and a password"
            else:
                told = f"{self.name} does not accept the user name and password in {self.variable}"
            return ProxyRefused(told, hint=f"{self.variable}: {_HINT}")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Unreachable(
                f"{self.name} cannot reach {host} (HTTP {status})",
                hint=f"the proxy is named in {self.variable}; hosts in NO_PROXY are reached without it",
            )
        return ProxyRefused(
            f"{self.name} refuses to lead to {host} (HTTP {status})",
            hint=f"ask its keepers to allow {host}, or name the host in NO_PROXY if it can be reached without",
        )

    def check_tunnel(self, head: bytes, host: str) -> None:
        """Raise what the head of its answer to CONNECT means, unless that is success."""
        status = _STATUS.match(head)
        if status is None:
            raise ProxyRefused(f"{self.name} does not speak HTTP", hint=f"check the port in {self.variable}")
        if int(status.group(1)) not in _SUCCESS:
            raise self.refusal(int(status.group(1)), host)


@dataclass(frozen=True)
class Proxies:
    """The user's proxies: for the schemes `http` and `https`, and `all`: (variable, URL); `no` those exempt."""

    table: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)

    def of(self, origin: Origin) -> Proxy | None:
        """The one to go through. Raises `UsageError` where the user named one that cannot be."""
        named = proxy_for(origin, self.table)
        return Proxy.parse(named[1], named[0]) if named else None


def named_place(host: str, port: int) -> str:
    """`HOST:PORT`, as URLs and CONNECT have it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_scheme(scheme: str, variable: str) -> None:
    if scheme.startswith("socks"):
        hint = "name an HTTP proxy, or unset it; many SOCKS programs also speak HTTP on another port"
        raise UsageError(f"{variable} names a {scheme[:7]} proxy, and SOCKS is not supported", hint=hint)
    if scheme == "https":
        hint = "http:// is the way to the proxy; what passes through it to https hosts stays encrypted"
        raise UsageError(f"{variable} names a proxy behind TLS, which is not supported", hint=hint)

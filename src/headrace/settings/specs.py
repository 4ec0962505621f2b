"""Every setting: its key, its variables, how it is read, what it is for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any


def _parse_flag(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("", "0", "false", "no", "off"):
        return False
    raise ValueError(text)


def _parse_seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _parse_patience(text: str) -> float:
    value = _parse_seconds(text)
    if value == 0:  # no server answers in no time
        raise ValueError(text)
    return value


def _parse_count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _parse_network(text: str) -> str:
    return str(ip_network(text.strip("[]"), strict=False))


def _parse_calls(text: str) -> int:
    return 0 if text.strip() == "0" else _parse_count(text)


def _parse_bytes(text: str) -> int:
    """Bytes: a number, with K, M, G or T behind it for powers of 1024."""
    number = text.strip().upper()
    power = "_KMGT".find(number[-1:], 1)
    value = float(number[:-1]) * 1024**power if power > 0 else float(number)
    if not (value == 0 or 1 <= value < float("inf")):
        raise ValueError(text)
    return int(value)


def parse_path(text: str) -> Path:
    """A path as hub clients read it: `~` and variables are expanded, and what cannot be stays as it is."""
    if not text:
        raise ValueError(text)
    return Path(os.path.expandvars(os.path.expanduser(text)))  # noqa: PTH111  # Path's own raises for unknown users


@dataclass(frozen=True)
class Spec:
    """One setting: its key in `headrace.toml`, its variables in the environment, how it is read, what it is for.

    Where there may be several values, each is parsed: `between` stands between them in a variable; in a file they are
    a list.
    """

    key: str
    variables: tuple[str, ...]
    parse: Callable[[str], Any]
    default: Any
    help: str
    wanted: str
    between: str = ""

    def read(self, told: object) -> Any:
        """The value, or several of them, as a variable, a file or an argument tells it. Raises `ValueError`."""
        if not self.between:
            return self.parse(str(told))
        if isinstance(told, (str, os.PathLike)):
            told = os.fspath(told).split(self.between)
        if not isinstance(told, (list, tuple)):
            raise ValueError(told)  # noqa: TRY004  # whatever it is, it cannot be read
        values = (self.parse(str(one).strip()) for one in told if str(one).strip())
        return tuple(dict.fromkeys(values))

    def shown(self, value: Any) -> str:
        """The value as a person reads it, and as a variable would have it."""
        return self.between.join(map(str, value)) if self.between else str(value)


SPECS = (
    Spec("cache", ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"), parse_path, None, "the hub cache", "a folder"),
    Spec(
        "reuse",
        ("HEADRACE_REUSE",),
        parse_path,
        (),
        "folders whose files are copied instead of fetched, where they are what is wanted",
        f"folders, `{os.pathsep}` between them; in a file a list",
        between=os.pathsep,
    ),
    Spec(
        "modelscope_cache",
        ("MODELSCOPE_CACHE",),
        parse_path,
        None,
        "the cache of ModelScope's client, of the same use",
        "a folder",
    ),
    Spec(
        "torch_home",
        ("TORCH_HOME",),
        parse_path,
        None,
        "where torch hub keeps checkpoints, likewise",
        "a folder",
    ),
    Spec(
        "offline",
        ("HEADRACE_OFFLINE", "HF_HUB_OFFLINE"),
        _parse_flag,
        False,  # noqa: FBT003  # the default stands where all defaults stand
        "never use the network",
        "1 or 0",
    ),
    Spec("lanes", ("HEADRACE_LANES",), _parse_count, 32, "connections in all, at most", "a number from 1"),
    Spec(
        "lanes_per_host",
        ("HEADRACE_LANES_PER_HOST",),
        _parse_count,
        16,
        "connections to one host, at most",
        "a number from 1",
    ),
    Spec(
        "limit_rate",
        ("HEADRACE_LIMIT_RATE",),
        _parse_bytes,
        0,
        "bytes a second over all connections, at most; 0 is no limit",
        "a number, or one with K, M or G, powers of 1024",
    ),
    Spec(
        "idle_timeout_s",
        ("HEADRACE_IDLE_TIMEOUT",),
        _parse_patience,
        5.0,
        "seconds of silence before a connection is replaced",
        "seconds above 0",
    ),
    Spec(
        "give_up_s",
        ("HEADRACE_GIVE_UP",),
        _parse_patience,
        60.0,
        "seconds without a new byte from anywhere before a pull fails",
        "seconds above 0",
    ),
    Spec(
        "ca_bundle",
        ("HEADRACE_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        parse_path,
        None,
        "certificates that are believed instead of the system's",
        "a PEM file, or a folder of such",
    ),
    Spec(
        "use",
        ("HEADRACE_USE",),
        str,
        (),
        "the sources that pulls use, the first also by `env` and `run`; none is all that are configured",
        'names or URLs: ["near", "hf-mirror"] in a file, near,hf-mirror elsewhere',
        between=",",
    ),
    Spec("listen", ("HEADRACE_LISTEN",), str, "127.0.0.1:8090", "where `serve` listens", "HOST:PORT"),
    Spec("data", ("HEADRACE_DATA",), parse_path, None, "where `serve` keeps blobs and catalog", "a folder"),
    Spec(
        "ref_ttl_s",
        ("HEADRACE_REF_TTL",),
        _parse_seconds,
        60.0,
        "seconds a node believes what a branch meant",
        "seconds",
    ),
    Spec(
        "calls_most",
        ("HEADRACE_CALLS_MOST",),
        _parse_calls,
        0,
        "calls that a node makes to one source in five minutes at most, whatever that allows; 0 is as it says",
        "a number",
    ),
    Spec(
        "offline_grants_s",
        ("HEADRACE_OFFLINE_GRANTS",),
        _parse_seconds,
        0.0,
        "seconds for which who was let into a private or gated repo stays so while a node cannot ask its source",
        "seconds",
    ),
    Spec(
        "quota",
        ("HEADRACE_QUOTA",),
        _parse_bytes,
        0,
        "how much a node's blobs may take together, with those on their way; 0 is no bound",
        "bytes, or a number with K, M, G or T (powers of 1024)",
    ),
    Spec(
        "free_space",
        ("HEADRACE_FREE_SPACE",),
        _parse_bytes,
        None,
        "how much of its disk a node leaves free; unset it is 1G or a fiftieth of the disk, whichever is less",
        "as `quota`",
    ),
    Spec(
        "scrub_rate",
        ("HEADRACE_SCRUB_RATE",),
        _parse_bytes,
        64 * 1024 * 1024,
        "bytes a second at which a node reads again what it has, to find what has rotted; 0 is not at all",
        "a number, with K, M or G behind it",
    ),
    Spec(
        "scrub_days",
        ("HEADRACE_SCRUB_DAYS",),
        _parse_patience,
        30.0,
        "days after which a node reads a file again",
        "days, more than 0; `scrub_rate` 0 is never",
    ),
    Spec(
        "trusted_proxies",
        ("HEADRACE_TRUSTED_PROXIES",),
        _parse_network,
        ("127.0.0.0/8", "::1/128"),
        "proxies in front of a node whose `Forwarded` and `X-Forwarded-*` count",
        "addresses or networks, commas between them; in a file a list",
        between=",",
    ),
    Spec(
        "workers",
        ("HEADRACE_WORKERS",),
        _parse_count,
        1,
        "processes with which `serve` serves",
        "a number from 1",
    ),
    Spec(
        "connections",
        ("HEADRACE_CONNECTIONS",),
        _parse_calls,
        0,
        "connections of clients to a node at once; 0 is as many as it may open files, up to 4096",
        "a number",
    ),
    Spec(
        "connections_each",
        ("HEADRACE_CONNECTIONS_EACH",),
        _parse_count,
        512,
        "connections to a node from one address that is no trusted proxy's",
        "a number from 1",
    ),
    Spec(
        "browser_origins",
        ("HEADRACE_BROWSER_ORIGINS",),
        str,
        (),
        "web pages of others that browsers let read a node's answers; `*` is all of them",
        "origins (https://tool.example), commas between them; in a file a list",
        between=",",
    ),
    Spec(
        "tls_cert",
        ("HEADRACE_TLS_CERT",),
        parse_path,
        None,
        "with which certificate chain `serve` speaks TLS",
        "a PEM file",
    ),
    Spec("tls_key", ("HEADRACE_TLS_KEY",), parse_path, None, "the key of that certificate", "a PEM file"),
    Spec(
        "x_accel",
        ("HEADRACE_X_ACCEL",),
        str,
        "",
        "the path under which nginx in front of a node has its blobs, to send them itself",
        "a path: /_blobs/",
    ),
    Spec(
        "access_log",
        ("HEADRACE_ACCESS_LOG",),
        parse_path,
        None,
        "where `serve` writes a JSON object for each request; `-` is standard output",
        "a file, or -",
    ),
    Spec(
        "allow",
        ("HEADRACE_ALLOW",),
        str,
        (),
        "globs of the repos that a node gives out; none is all",
        "globs as org/* or datasets/org/*, commas between them; in a file a list",
        between=",",
    ),
    Spec(
        "deny",
        ("HEADRACE_DENY",),
        str,
        (),
        "globs of the repos that a node does not give out, whatever `allow` says",
        "globs, as for `allow`",
        between=",",
    ),
    Spec(
        "requests_per_minute",
        ("HEADRACE_REQUESTS_PER_MINUTE",),
        _parse_calls,
        0,
        "requests that a node answers to one client (a node token, else an address) in a minute; 0 is no limit",
        "a number",
    ),
    Spec(
        "streams_per_client",
        ("HEADRACE_STREAMS_PER_CLIENT",),
        _parse_calls,
        0,
        "files that a node sends to one client at once; 0 is no limit",
        "a number",
    ),
)

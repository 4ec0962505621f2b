"""Settings: the one place that reads the environment and files.

A value comes from, in this order: an argument, the environment, `headrace.toml` of the project (in the working
directory or above), `headrace.toml` of the user, the default. Each remembers where it came from. Facade and
command line build `Settings` once; everything below receives plain values.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from headrace.errors import UsageError
from headrace.wire import is_private_address, normalized_endpoint, origin_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HUGGING_FACE = "https://huggingface.co"
BUILT_IN_SOURCES = {"huggingface": HUGGING_FACE, "hf-mirror": "https://hf-mirror.com"}
FILE_NAME = "headrace.toml"

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def parse_bytes(text: str) -> int:
    """A number of bytes: `50M`, `1.5G`, `4096`; K, M, G, T are powers of 1024. Raises `ValueError`."""
    number = text.strip().upper().removesuffix("B")
    unit = number[-1:] if number[-1:] in "KMGT" else ""
    value = float(number.removesuffix(unit)) * _UNITS[unit]
    if value < 0:
        raise ValueError(text)
    return int(value)


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


def _parse_count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _parse_path(text: str) -> Path:
    return Path(text).expanduser()


@dataclass(frozen=True)
class Spec:
    """One setting: its key in `headrace.toml`, its variables in the environment, how it is read, what it is for."""

    key: str
    variables: tuple[str, ...]
    parse: Callable[[str], Any]
    default: Any
    help: str
    wanted: str


SPECS = (
    Spec("cache", ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"), _parse_path, None, "the hub cache", "a folder"),
    Spec("offline", ("HEADRACE_OFFLINE", "HF_HUB_OFFLINE"), _parse_flag, False, "never use the network", "1 or 0"),
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
        "idle_timeout_s",
        ("HEADRACE_IDLE_TIMEOUT",),
        _parse_seconds,
        5.0,
        "seconds of silence before a connection is replaced",
        "seconds",
    ),
    Spec(
        "give_up_s",
        ("HEADRACE_GIVE_UP",),
        _parse_seconds,
        60.0,
        "seconds without a new byte from anywhere before a pull fails",
        "seconds",
    ),
    Spec("listen", ("HEADRACE_LISTEN",), str, "127.0.0.1:8090", "where `serve` listens", "HOST:PORT"),
    Spec("data", ("HEADRACE_DATA",), _parse_path, None, "where `serve` keeps blobs and catalog", "a folder"),
    Spec(
        "ref_ttl_s",
        ("HEADRACE_REF_TTL",),
        _parse_seconds,
        60.0,
        "seconds a node believes what a branch meant",
        "seconds",
    ),
)


@dataclass(frozen=True)
class SourceSetting:
    """A source as configured: `url` is normalised; `token` is what may be sent to it."""

    name: str
    url: str
    token: str | None = field(default=None, repr=False)
    token_hint: str | None = None


@dataclass(frozen=True)
class Settings:
    """All settings, read. `origins` says for each key where its value came from."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    tables: Mapping[str, Mapping[str, Any]]
    hf_endpoint: str | None
    token: str | None = field(repr=False)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def cache(self) -> Path:
        """The hub cache."""
        path: Path = self.values["cache"]
        return path

    def trusted(self, named: tuple[str, ...] = ()) -> SourceSetting:
        """The source whose manifests are believed: `HF_ENDPOINT`; the one marked trusted; the first named; the hub.

        `named` are the `--source` arguments.
        """
        marked = next((name for name, table in self.tables.items() if table.get("trusted")), None)
        if self.hf_endpoint is not None:
            return self.source(self.hf_endpoint, trusted=True)
        return self.source(marked or (named[0] if named else HUGGING_FACE), trusted=True)

    def carriers(self, named: tuple[str, ...] = ()) -> tuple[SourceSetting, ...]:
        """The sources that carry bytes: those named, else those configured, else the trusted one."""
        trusted = self.trusted(named)
        names = named or tuple(self.tables) or (trusted.url,)
        found = {one.url: one for one in map(self.source, names)}
        return tuple(trusted if url == trusted.url else one for url, one in found.items())

    def source(self, name_or_url: str, *, trusted: bool = False) -> SourceSetting:
        """The source of this name or URL, with the token it may be sent.

        Raises:
            UsageError: neither a known name nor a URL.
        """
        known = {name: normalized_endpoint(str(table.get("url", ""))) for name, table in self.tables.items()}
        known = BUILT_IN_SOURCES | known
        if name_or_url in known:
            name, url = name_or_url, known[name_or_url]
        elif "://" in name_or_url:
            url = normalized_endpoint(name_or_url)
            name = next((name for name, at in known.items() if at == url), origin_of(url)[1])
        else:
            raise UsageError(
                f"{name_or_url!r} is no source", hint=f"a URL, or one of: {', '.join(sorted(known))}"
            )
        wants_token = trusted or bool(self.tables.get(name, {}).get("token"))
        if self.token is None or not wants_token:
            return SourceSetting(name, url)
        if _is_exposed(url) and not self.tables.get(name, {}).get("plain_http_token"):
            hint = (
                f"the token was not sent over plain http to another machine; use https, or set "
                f"plain_http_token = true for it in [sources.{name}] of {FILE_NAME}"
            )
            return SourceSetting(name, url, None, hint)
        return SourceSetting(name, url, self.token)


def load_settings(
    environment: Mapping[str, str] | None = None, directory: Path | None = None, **arguments: Any
) -> Settings:
    """Read the environment and the files; `arguments` (by key, None for not given) come before both.

    Raises:
        UsageError: a value that cannot be read, with where it stands; or an argument that is no setting.
    """
    environment = os.environ if environment is None else environment
    files = [path for path in _files(environment, directory or Path.cwd()) if path.is_file()]
    tables = [(str(path), _read_toml(path)) for path in files]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for spec in SPECS:
        values[spec.key], origins[spec.key] = _value(spec, environment, tables)
    _fill_paths(values, origins, environment)
    for key, value in arguments.items():
        if key not in values:
            raise UsageError(f"there is no setting {key!r}", hint=f"known are: {', '.join(values)}")
        if value is not None:
            values[key], origins[key] = value, "argument"
    sources: dict[str, Mapping[str, Any]] = {}
    for _, table in reversed(tables):
        sources.update(table.get("sources", {}))
    endpoint = environment.get("HF_ENDPOINT") or None
    token = _token(environment)
    return Settings(values, origins, sources, normalized_endpoint(endpoint) if endpoint else None, token)


def user_file(environment: Mapping[str, str] | None = None) -> Path:
    """Where the user's own `headrace.toml` is looked for."""
    home = (os.environ if environment is None else environment).get("XDG_CONFIG_HOME")
    return (Path(home) / "headrace" if home else Path(platformdirs.user_config_dir("headrace"))) / FILE_NAME


def is_debugging() -> bool:
    """Whether tracebacks are wanted (`HEADRACE_DEBUG=1`)."""
    return os.environ.get("HEADRACE_DEBUG", "") not in ("", "0")


def _files(environment: Mapping[str, str], directory: Path) -> list[Path]:
    """The project's file, if any, and the user's; the first wins."""
    above = next((p / FILE_NAME for p in (directory, *directory.parents) if (p / FILE_NAME).is_file()), None)
    return [*([above] if above else []), user_file(environment)]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint="it must be TOML; see the settings reference") from error


def _value(
    spec: Spec, environment: Mapping[str, str], tables: list[tuple[str, dict[str, Any]]]
) -> tuple[Any, str]:
    for variable in spec.variables:
        if environment.get(variable):
            return _parsed(spec, environment[variable], variable), variable
    for origin, table in tables:
        if spec.key in table:
            return _parsed(spec, str(table[spec.key]), f"{spec.key} in {origin}"), origin
    return spec.default, "default"


def _parsed(spec: Spec, text: str, where: str) -> Any:
    try:
        return spec.parse(text)
    except ValueError:
        raise UsageError(f"{where} is {text!r}", hint=f"{spec.help}: write {spec.wanted}") from None


def _fill_paths(values: dict[str, Any], origins: dict[str, str], environment: Mapping[str, str]) -> None:
    """Defaults that depend on other variables, as huggingface_hub derives them."""
    if values["cache"] is None:
        values["cache"] = _hf_home(environment) / "hub"
        origins["cache"] = "HF_HOME" if environment.get("HF_HOME") else "default"
    if values["data"] is None:
        values["data"] = Path(platformdirs.user_data_dir("headrace")) / "node"


def _hf_home(environment: Mapping[str, str]) -> Path:
    if environment.get("HF_HOME"):
        return Path(environment["HF_HOME"]).expanduser()
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"


def _token(environment: Mapping[str, str]) -> str | None:
    """`HF_TOKEN` (empty means none), else the file at `HF_TOKEN_PATH`, else the one `hf auth login` writes."""
    if "HF_TOKEN" in environment:
        return environment["HF_TOKEN"].strip() or None
    path = Path(environment.get("HF_TOKEN_PATH") or _hf_home(environment) / "token").expanduser()
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _is_exposed(url: str) -> bool:
    """Whether a token sent there would cross a network in the clear."""
    scheme, host, _ = origin_of(url)
    if scheme == "https" or host == "localhost":
        return False
    try:
        return not (is_private_address(host) and host.startswith(("127.", "::1")))
    except ValueError:
        return True  # a name: where it leads is not known here

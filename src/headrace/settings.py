"""Settings: the one place that reads the environment and files.

A value comes from, in this order: an argument, the environment, `headrace.toml` of the project (in the working
directory or above), `headrace.toml` of the user, the default. Each remembers where it came from. Facade and
command line build `Settings` once; everything below receives plain values.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.errors import UsageError
from headrace.wire import host_of_proxy, is_loopback, normalized_endpoint, origin_of, proxy_for

HUGGING_FACE = "https://huggingface.co"
BUILT_IN_SOURCES = {"huggingface": HUGGING_FACE, "hf-mirror": "https://hf-mirror.com"}
FILE_NAME = "headrace.toml"

_ON_LINUX: bool = sys.platform.startswith("linux")

ANYBODYS = frozenset(
    ("offline", "lanes", "lanes_per_host", "limit_rate", "idle_timeout_s", "give_up_s", "ref_ttl_s")
)
"""What a project's file may say: it arrives with somebody else's checkout, and these give nothing away."""

_FLAGS = ("trusted", "token", "plain_http_token")
_FLAGS_HINT = "tokens are read from HF_TOKEN; token = true says that this source may have it"


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


def _parse_rate(text: str) -> int:
    """Bytes a second: a number, with K, M, G or T behind it for powers of 1024."""
    number = text.strip().upper()
    power = "_KMGT".find(number[-1:], 1)
    value = float(number[:-1]) * 1024**power if power > 0 else float(number)
    if not (value == 0 or 1 <= value < float("inf")):
        raise ValueError(text)
    return int(value)


def _parse_path(text: str) -> Path:
    """A path as hub clients read it: `~` and variables are expanded, and what cannot be stays as it is."""
    if not text:
        raise ValueError(text)
    return Path(os.path.expandvars(os.path.expanduser(text)))  # noqa: PTH111  # Path's own raises for unknown users


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
        _parse_rate,
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
        _parse_path,
        None,
        "certificates that are believed instead of the system's",
        "a PEM file, or a folder of such",
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
    plain_http_token: bool = False


@dataclass(frozen=True)
class Settings:
    """All settings, read. `origins` says for each key where its value came from.

    `proxies` has for `http`, `https`, `all` and `no` the variable that names them and its value.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    tables: Mapping[str, Mapping[str, Any]]
    hf_endpoint: str | None
    token: str | None = field(repr=False)
    token_origin: str | None = None
    proxies: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def having(self, **values: Any) -> Settings:
        """The same settings with other values for these keys."""
        return replace(self, values={**self.values, **values})

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

    @property
    def trusted_origin(self) -> str:
        """What made the trusted source the trusted one, where no `--source` is named."""
        if self.hf_endpoint is not None:
            return "HF_ENDPOINT"
        marked = any(table.get("trusted") for table in self.tables.values())
        return f"trusted = true in {FILE_NAME}" if marked else "default"

    def carriers(self, named: tuple[str, ...] = ()) -> tuple[SourceSetting, ...]:
        """The sources that carry bytes: those named, else those configured, else the trusted one."""
        trusted = self.trusted(named)
        names = named or tuple(self.tables) or (trusted.url,)
        found = {one.url: one for one in map(self.source, names)}
        return tuple(trusted if url == trusted.url else one for url, one in found.items())

    def mirrored(self) -> tuple[SourceSetting, ...]:
        """What a node mirrors where it is not told, its trusted source first: those configured, else the hub.

        `HF_ENDPOINT` comes last but for huggingface.co: where a node runs it mostly says where that very node is.
        """
        names = sorted(self.tables, key=lambda name: not self.tables[name].get("trusted"))
        return tuple(map(self.source, names or (self.hf_endpoint or HUGGING_FACE,)))

    def source(self, name_or_url: str, *, trusted: bool = False) -> SourceSetting:
        """The source of this name or URL, with the token it may be sent.

        Raises:
            UsageError: neither a known name nor a URL.
        """
        configured = ((name, table["url"]) for name, table in self.tables.items() if "url" in table)
        known = BUILT_IN_SOURCES | {name: normalized_endpoint(str(url)) for name, url in configured}
        if name_or_url in known:
            name, url = name_or_url, known[name_or_url]
        elif "://" in name_or_url:
            url = normalized_endpoint(name_or_url)
            name = next((name for name, at in known.items() if at == url), url.partition("://")[2])
        else:
            raise UsageError(
                f"{name_or_url!r} is no source", hint=f"a URL, or one of: {', '.join(sorted(known))}"
            )
        wants_token = trusted or bool(self.tables.get(name, {}).get("token"))
        if self.token is None or not wants_token:
            return SourceSetting(name, url)
        allowed = bool(self.tables.get(name, {}).get("plain_http_token"))
        if not allowed and (way_out := self._exposure(url)) is not None:
            hint = (
                f"the token was not sent over plain http to another machine; {way_out}, or set "
                f'plain_http_token = true for it in [sources."{name}"] of {FILE_NAME}'
            )
            return SourceSetting(name, url, None, hint)
        return SourceSetting(name, url, self.token, plain_http_token=allowed)

    def _exposure(self, url: str) -> str | None:
        """If a token sent there would cross a network in the clear: what to do instead."""
        origin = origin_of(url)
        if origin[0] == "https":
            return None
        if not is_loopback(origin[1]):
            return "use https"
        proxy = proxy_for(origin, self.proxies)
        if proxy is None or is_loopback(host_of_proxy(proxy[1])):
            return None
        return f"{proxy[0]} leads there through a proxy: name {origin[1]} in NO_PROXY"


def load_settings(
    environment: Mapping[str, str] | None = None, directory: Path | None = None, **arguments: Any
) -> Settings:
    """Read the environment and the files; `arguments` (by key, None for not given) come before both.

    Raises:
        UsageError: a value that cannot be read, with where it stands; or an argument that is no setting.
    """
    environment = os.environ if environment is None else environment
    files = [path for path in settings_files(environment, directory) if _is_file(path)]
    own = user_file(environment)
    tables = [(str(path), _read_toml(path, own, mine=path == own)) for path in files]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for spec in SPECS:
        values[spec.key], origins[spec.key] = _value(spec, environment, tables)
    _fill_paths(values, origins, environment)
    for key, value in arguments.items():
        known = next((spec for spec in SPECS if spec.key == key), None)
        if known is None:
            raise UsageError(f"there is no setting {key!r}", hint=f"known are: {', '.join(values)}")
        if value is not None:
            values[key], origins[key] = _parsed(known, str(value), f"argument {key}"), "argument"
    sources: dict[str, Mapping[str, Any]] = next((t["sources"] for _, t in tables if "sources" in t), {})
    return Settings(
        values, origins, sources, _endpoint(environment), *_token(environment), _proxies(environment)
    )


def user_file(environment: Mapping[str, str] | None = None) -> Path:
    """Where the user's own `headrace.toml` is looked for."""
    environment = os.environ if environment is None else environment
    return _own_folder(environment, "XDG_CONFIG_HOME", "~/.config", "user_config_dir") / FILE_NAME


def settings_files(environment: Mapping[str, str] | None = None, directory: Path | None = None) -> list[Path]:
    """Where settings are read from: the project's file if there is one, and the user's; the first wins."""
    folders: list[Path] = []
    with suppress(FileNotFoundError):  # a shell may stand in a folder that is gone
        directory = directory or Path.cwd()
        folders = [directory, *directory.parents]
    above = next((folder / FILE_NAME for folder in folders if _is_file(folder / FILE_NAME)), None)
    return [*([above] if above else []), user_file(environment)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # behind a folder that we may not enter
        return False


def wants_color() -> bool:
    """Whether the user has not asked for plain text (`NO_COLOR`, see no-color.org)."""
    return not os.environ.get("NO_COLOR")


def is_debugging() -> bool:
    """Whether tracebacks are wanted (`HEADRACE_DEBUG=1`)."""
    return os.environ.get("HEADRACE_DEBUG", "") not in ("", "0")


def _read_toml(path: Path, own: Path, *, mine: bool) -> dict[str, Any]:
    """Read a settings file; one that is not the user's own may only say how, not from whom, where to or for whom.

    Otherwise any checkout that somebody steps into could have the token sent to a host of its choice, or bring a
    cache whose ledger vouches for bytes that nobody verified.
    """
    if sys.version_info >= (3, 11):  # here: it is seldom that there is a file
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read {path}: {error}", hint="it must be TOML: lines like lanes = 8"
        ) from error
    known = {spec.key for spec in SPECS} | {"sources"}
    if unknown := sorted(set(table) - known):
        raise UsageError(
            f"{path} has no setting {unknown[0]!r}", hint=f"known are: {', '.join(sorted(known))}"
        )
    if not mine and (foreign := sorted(set(table) - ANYBODYS)):
        hint = f"whom to trust, and where things are, is said in your own file: {own}"
        raise UsageError(f"{path} may not name {foreign[0]}", hint=hint)
    _check_sources(table.get("sources", {}), path)
    return table


def _check_sources(sources: Any, path: Path) -> None:
    if not isinstance(sources, dict):
        raise UsageError(
            f"sources in {path} is no table", hint='write [sources.NAME] and url = "https://…" below it'
        )
    for name, one in sources.items():
        if not isinstance(one, dict) or not (name in BUILT_IN_SOURCES or "url" in one):
            hint = f'write [sources.{name}] and url = "https://…" below it'
            raise UsageError(f"source {name!r} in {path} has no url", hint=hint)
        for key in _FLAGS:
            # "no" would count as yes; and a token that is written here is not what would be sent.
            if not isinstance(one.get(key, False), bool):
                raise UsageError(
                    f"{key} of source {name!r} in {path} is neither true nor false", hint=_FLAGS_HINT
                )
        if "url" in one:
            try:
                normalized_endpoint(str(one["url"]))
            except UsageError as error:
                raise UsageError(f"source {name!r} in {path}: {error.message}", hint=error.hint) from None


def _value(
    spec: Spec, environment: Mapping[str, str], tables: list[tuple[str, dict[str, Any]]]
) -> tuple[Any, str]:
    for variable in spec.variables:
        if environment.get(variable):
            return _parsed(spec, environment[variable], variable), variable
    for origin, table in tables:
        if spec.key in table:
            value = _parsed(spec, str(table[spec.key]), f"{spec.key} in {origin}")
            return Path(origin).parent / value if isinstance(value, Path) else value, origin
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
        values["data"] = _own_folder(environment, "XDG_DATA_HOME", "~/.local/share", "user_data_dir") / "node"


def _own_folder(environment: Mapping[str, str], variable: str, default: str, kind: str) -> Path:
    """A folder of the program's own, by the XDG specification; elsewhere than on Linux as is usual there."""
    named = environment.get(variable, "")
    if named or _ON_LINUX:
        return Path(named if Path(named).is_absolute() else default).expanduser() / "headrace"
    import platformdirs  # noqa: PLC0415 - only where it is not known already

    return Path(getattr(platformdirs, kind)("headrace"))


def _hf_home(environment: Mapping[str, str]) -> Path:
    if environment.get("HF_HOME"):
        return _parse_path(environment["HF_HOME"])
    return _parse_path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"


def _endpoint(environment: Mapping[str, str]) -> str | None:
    endpoint = environment.get("HF_ENDPOINT")
    try:
        return normalized_endpoint(endpoint) if endpoint else None
    except UsageError as error:
        raise UsageError(f"HF_ENDPOINT: {error.message}", hint=error.hint) from None


def _token(environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The token and where it is from.

    `HF_TOKEN` (empty means none), else the file at `HF_TOKEN_PATH`, else the one `hf auth login` writes.
    """
    if "HF_TOKEN" in environment:
        token, origin = environment["HF_TOKEN"].strip(), "HF_TOKEN"
    else:
        path = _parse_path(environment.get("HF_TOKEN_PATH") or str(_hf_home(environment) / "token"))
        try:
            token, origin = path.read_text(encoding="utf-8").strip(), str(path)
        except (OSError, ValueError):
            return None, None
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError(
            f"{origin} holds something that is no token", hint="one word, as the hub gave it out"
        )
    return (token, origin) if token else (None, None)


def _proxies(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The proxy variables as curl, urllib and requests read them: in lower case first, where empty means none.

    A web server hands the header `Proxy` of any request to its scripts as `HTTP_PROXY` (httpoxy): not for them.
    """
    found = {}
    for word in ("http", "https", "all", "no"):
        lower, upper = f"{word}_proxy", f"{word}_proxy".upper()
        variables = (lower,) if word == "http" and "REQUEST_METHOD" in environment else (lower, upper)
        variable = next((one for one in variables if one in environment), None)
        if variable is not None and environment[variable].strip():
            found[word] = (variable, environment[variable].strip())
    return found

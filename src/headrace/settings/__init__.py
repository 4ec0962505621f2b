"""Settings: the one place that reads the environment and files.

A value comes from, in this order: an argument, the environment, `headrace.toml` of the project (in the working
directory or above), `headrace.toml` of the user, the default. Each remembers where it came from. Facade and
command line build `Settings` once; everything below receives plain values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from headrace.errors import UsageError
from headrace.settings.environment import endpoint_of, modelscope_token_of, proxies_of, token_of
from headrace.settings.files import (
    FILE_NAME,
    hf_home,
    is_file,
    own_folder,
    read_toml,
    settings_files,
    user_file,
)
from headrace.settings.sources import (
    BUILT_IN_SOURCES,
    HUB,
    HUGGING_FACE,
    MODELSCOPE,
    Location,
    SourceSetting,
)
from headrace.settings.specs import SPECS, Spec, parse_path
from headrace.wire import host_of_proxy, is_loopback, origin_of, proxy_for, shown


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
    modelscope_token: str | None = field(default=None, repr=False)

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
        first = named[0] if named else HUGGING_FACE
        return self.source(self.hf_endpoint or marked or first, trusted=True)

    @property
    def shelves(self) -> tuple[Path, ...]:
        """Folders beside the hub cache in which wanted content may lie: the user's first."""
        reuse: tuple[Path, ...] = self.values["reuse"]
        return (*reuse, self.values["torch_home"] / "hub" / "checkpoints", self.values["modelscope_cache"])

    @property
    def trusted_origin(self) -> str:
        """What made the trusted source the trusted one, where no `--source` is named."""
        if self.hf_endpoint is not None:
            return "HF_ENDPOINT"
        marked = any(table.get("trusted") for table in self.tables.values())
        return f"trusted = true in {FILE_NAME}" if marked else "default"

    def carriers(self, named: tuple[str, ...] = (), *, locked: bool = False) -> tuple[SourceSetting, ...]:
        """The sources that carry bytes: those named, else those to `use`, else those configured, else the trusted one.

        Where a lock file says what is wanted, to be named first makes nobody trusted.
        """
        trusted = self.trusted(() if locked else named)
        names = tuple(self.tables) or (str(trusted.at),)
        chosen = tuple(map(self.source, named)) or self._used() or map(self.source, names)
        found = {one.at: one for one in chosen}
        return _told_apart(trusted, found.values())

    def _used(self) -> tuple[SourceSetting, ...]:
        """The sources to `use`. Raises `UsageError` where one is none, with where it stands."""
        try:
            return tuple(map(self.source, self.values["use"]))
        except UsageError as error:
            raise UsageError(f"use, from {self.origins['use']}: {error.message}", hint=error.hint) from None

    def known(self) -> tuple[SourceSetting, ...]:
        """All sources there are: the trusted one, those to use, those configured, those built in."""
        trusted = self.trusted()
        found = {trusted.at: trusted}
        for one in (*self._used(), *map(self.source, (*self.tables, *BUILT_IN_SOURCES))):
            found.setdefault(one.at, one)
        return _told_apart(trusted, found.values())

    def named(self, names: tuple[str, ...]) -> tuple[SourceSetting, ...]:
        """The sources of these names or URLs, each once. Raises as `source`."""
        found = {one.at: one for one in map(self.source, names)}
        return _told_apart(self.trusted(), found.values())

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
        name, at, table = self._meant(name_or_url)
        setting = SourceSetting(name, at, names=table.get("names", {}))
        wants_token = _is_entitled(setting, table.get("token"), trusted=trusted)
        allowed = bool(table.get("plain_http_token"))
        way_out = self._exposure(at.url) if wants_token and not allowed else None
        setting = replace(setting, may_have_token=wants_token and way_out is None)
        token = self.modelscope_token if at.kind == MODELSCOPE else self.token
        if token is None or not wants_token:
            return setting
        if way_out is not None:
            hint = (
                f"the token was not sent over plain http to another machine; {way_out}, or set "
                f'plain_http_token = true for it in [sources."{name}"] of {FILE_NAME}'
            )
            return replace(setting, token_hint=hint)
        return replace(setting, token=token, plain_http_token=allowed)

    def _meant(self, name_or_url: str) -> tuple[str, Location, Mapping[str, Any]]:
        """The name of a source, where it is, and what the settings say of it. Raises as `source`."""
        told = BUILT_IN_SOURCES | {name: str(one["url"]) for name, one in self.tables.items() if "url" in one}
        known = {name: Location.parse(text) for name, text in told.items()}
        if name_or_url in known:
            name, at = name_or_url, known[name_or_url]
        elif "://" in name_or_url:
            at = Location.parse(name_or_url)
            # Where a kind cannot be seen, the URL of a source that is known says it.
            alike = (one for one in known.items() if at.url == one[1].url and at.kind in (HUB, one[1].kind))
            name, at = next(alike, (shown(at.url).partition("://")[2], at))
        else:
            raise UsageError(
                f"{name_or_url!r} is no source", hint=f"a URL, or one of: {', '.join(sorted(known))}"
            )
        if known.get(name, at) != at:  # what is said of a name is said of another place
            name = shown(str(at))
        return name, at, self.tables.get(name, {}) if name in known else {}

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


def _is_entitled(setting: SourceSetting, told: bool | None, *, trusted: bool) -> bool:  # noqa: FBT001  # TOML's
    """Whether this source may have its token: hubs and ModelScope do not know each other's."""
    if setting.at.kind == MODELSCOPE:
        is_own = trusted or setting.name == MODELSCOPE
        return bool(told or (is_own and told is not False))
    return bool(told or (trusted and setting.at.kind == HUB))


def _told_apart(trusted: SourceSetting, sources: Iterable[SourceSetting]) -> tuple[SourceSetting, ...]:
    """The same, the trusted one as such, and with different names: one host may have sources of several kinds."""
    found: dict[str, SourceSetting] = {}
    for one in sources:
        if one.at == trusted.at:
            found[trusted.name] = trusted
            continue
        place = shown(str(one.at))
        names = chain((one.name, place), (f"{place} ({number})" for number in count(2)))
        name = next(name for name in names if name not in found and name != trusted.name)
        found[name] = replace(one, name=name)
    return tuple(found.values())


def load_settings(
    environment: Mapping[str, str] | None = None, directory: Path | None = None, **arguments: Any
) -> Settings:
    """Read the environment and the files; `arguments` (by key, None for not given) come before both.

    Raises:
        UsageError: a value that cannot be read, with where it stands; or an argument that is no setting.
    """
    environment = os.environ if environment is None else environment
    files = [path for path in settings_files(environment, directory) if is_file(path)]
    own = user_file(environment)
    tables = [(str(path), read_toml(path, own, mine=path == own)) for path in files]
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
            values[key], origins[key] = _parsed(known, value, f"argument {key}"), "argument"
    sources: dict[str, Mapping[str, Any]] = next((t["sources"] for _, t in tables if "sources" in t), {})
    return Settings(
        values,
        origins,
        sources,
        endpoint_of(environment),
        *token_of(environment),
        proxies_of(environment),
        modelscope_token_of(environment),
    )


def _value(
    spec: Spec, environment: Mapping[str, str], tables: list[tuple[str, dict[str, Any]]]
) -> tuple[Any, str]:
    for variable in spec.variables:
        if environment.get(variable):
            return _parsed(spec, environment[variable], variable), variable
    for origin, table in tables:
        if spec.key in table:
            value = _parsed(spec, table[spec.key], f"{spec.key} in {origin}")
            return _from(Path(origin).parent, value), origin
    return spec.default, "default"


def _from(folder: Path, value: Any) -> Any:
    """Paths of a file are seen from its folder."""
    if isinstance(value, tuple):
        return tuple(_from(folder, one) for one in value)
    return folder / value if isinstance(value, Path) else value


def _parsed(spec: Spec, told: object, where: str) -> Any:
    try:
        return spec.read(told)
    except ValueError:
        text = told if spec.between else str(told)
        raise UsageError(f"{where} is {text!r}", hint=f"{spec.help}: write {spec.wanted}") from None


def _fill_paths(values: dict[str, Any], origins: dict[str, str], environment: Mapping[str, str]) -> None:
    """Defaults that depend on other variables, as huggingface_hub derives them."""
    if values["cache"] is None:
        values["cache"] = hf_home(environment) / "hub"
        origins["cache"] = "HF_HOME" if environment.get("HF_HOME") else "default"
    caches = parse_path(environment.get("XDG_CACHE_HOME") or "~/.cache")
    if values["modelscope_cache"] is None:
        values["modelscope_cache"] = parse_path("~/.cache") / "modelscope" / "hub"
    if values["torch_home"] is None:
        values["torch_home"] = caches / "torch"
    if values["data"] is None:
        values["data"] = own_folder(environment, "XDG_DATA_HOME", "~/.local/share", "user_data_dir") / "node"

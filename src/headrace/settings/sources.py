"""Sources as users name and configure them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.errors import UsageError
from headrace.names import parse_address
from headrace.wire import normalized_endpoint

HUGGING_FACE = "https://huggingface.co"
BUILT_IN_SOURCES = {
    "huggingface": HUGGING_FACE,
    "hf-mirror": "https://hf-mirror.com",
    "modelscope": "modelscope+https://modelscope.cn",
}
HUB = "hub"
MODELSCOPE = "modelscope"
"""The kind, and the built-in source of it."""

_KIND = re.compile(r"([a-z][a-z0-9_]*)\+(?=[a-z])")
_HTTP = re.compile(r"https?:", re.IGNORECASE)
_FLAGS = ("trusted", "token", "plain_http_token")
_FLAGS_HINT = (
    "tokens are read from HF_TOKEN and MODELSCOPE_API_TOKEN; token = true says that this source may have it"
)


@dataclass(frozen=True)
class Location:
    """Where a source is, and what is spoken there: `kind` is `hub` unless it is written, as in `tree+https://…`."""

    kind: str
    url: str

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read `[KIND+]URL`; http(s) URLs are normalised.

        Raises:
            UsageError: not such a thing.
        """
        written = _KIND.match(text)
        kind, url = (written[1], text[written.end() :]) if written else (HUB, text)
        return cls(kind, normalized_endpoint(url) if kind == HUB or _HTTP.match(url) else url)

    def __str__(self) -> str:
        return self.url if self.kind == HUB else f"{self.kind}+{self.url}"


@dataclass(frozen=True)
class SourceSetting:
    """A source as configured: `token` is what may be sent to it, `names` what repos are called there.

    The names are addresses, as in `datasets/org/name`: the usual one → the one there. `may_have_token` says
    whether a token, where there is one, is for this source, too.
    """

    name: str
    at: Location
    token: str | None = field(default=None, repr=False)
    token_hint: str | None = None
    plain_http_token: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    may_have_token: bool = False


def check_sources(sources: Any, path: Path) -> None:
    """Raise `UsageError` unless this is a table of sources, each of which could be used."""
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
        try:
            if "url" in one:
                Location.parse(str(one["url"]))
            _check_names(one.get("names", {}))
        except UsageError as error:
            raise UsageError(f"source {name!r} in {path}: {error.message}", hint=error.hint) from None


def _check_names(names: Any) -> None:
    told = names.items() if isinstance(names, dict) else [(names, names)]
    for pair in told:
        for one in pair:
            if not isinstance(one, str) or parse_address(one)[0].address != one:
                raise UsageError(
                    f"{one!r} in names is no repo", hint='write "ORG/NAME" = "ORG THERE/NAME THERE"'
                )

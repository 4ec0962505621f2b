"""The kinds of sources there are, and how one is made of what its user said.

Anybody may add a kind: an installed package names a function in the entry point group `headrace.sources`, and
the entry point's name is the kind, which users write in front of a URL (`KIND+URL`). The function takes a
`Described` and returns a `Source`; see docs/guides/a-source-of-your-own.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError, UsageError
from headrace.source.access import NOBODY, Access
from headrace.source.contract import Source
from headrace.source.dialer import Dialer

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "headrace.sources"


@dataclass(frozen=True)
class Described:
    """A source as its user describes it, and what it may work with.

    Attributes:
        name: what users call it.
        kind: what is spoken there.
        url: where it is; of an http(s) URL the one normal form, without a slash at its end.
        dialer: the way to hosts, to be given to every `HttpSession`.
        access: who asks.
        names: what repos are called there, by their usual address (`org/name`, `datasets/org/name`).
        patience_s: seconds that metadata may be silent.
        warn: is told what users of the source should know.
    """

    name: str
    kind: str
    url: str
    dialer: Dialer
    access: Access = NOBODY
    names: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = 5.0
    warn: Callable[[str], None] = lambda _: None


Maker = Callable[[Described], Source]

# Imported when one is made: most pulls need one kind only.
_OWN = {
    "hub": "headrace.source.hub:make_hub",
    "modelscope": "headrace.source.modelscope:make_modelscope",
    "tree": "headrace.source.tree:make_tree",
    "folder": "headrace.source.tree:make_tree",
}


def kinds() -> tuple[str, ...]:
    """The names of all kinds that can be made here."""
    return (*_OWN, *sorted(one.name for one in _foreign() if one.name not in _OWN))


def check_kind(name: str, kind: str) -> None:
    """Raise `UsageError` where a source of this kind could not be made; `name` is what its user calls it."""
    if kind not in kinds():
        raise _unknown(name, kind)


def make_source(described: Described) -> Source:
    """The source that was described.

    Raises:
        UsageError: there is no such kind, or its maker refuses the description.
    """
    source = _made(described)
    if not described.names:
        return source
    from headrace.source.naming import named_otherwise  # noqa: PLC0415  # few repos have two names

    return named_otherwise(source, described.names)


def _made(described: Described) -> Source:
    maker = _maker(described)
    try:
        return maker(described)
    except HeadraceError:
        raise
    except Exception as error:  # whatever somebody else's package does
        raise UsageError(
            f"no source of kind {described.kind!r} could be made for {described.name!r}: {error!r}",
            hint="the package that knows this kind fails: tell its makers",
        ) from error


def _maker(described: Described) -> Maker:
    if described.kind in _OWN:
        module, _, name = _OWN[described.kind].partition(":")
        maker: Maker = getattr(import_module(module), name)
        return maker
    for one in _foreign():
        if one.name == described.kind:
            try:
                foreign: Maker = one.load()
            except Exception as error:  # whatever somebody else's package does when it is imported
                raise UsageError(
                    f"the package that knows sources of kind {described.kind!r} cannot be used: {error}",
                    hint=f"it is what {one.value} belongs to: repair or remove it",
                ) from error
            return foreign
    raise _unknown(described.name, described.kind)


def _unknown(name: str, kind: str) -> UsageError:
    return UsageError(
        f"source {name!r} is of kind {kind!r}, which is not known here",
        hint=f"known are: {', '.join(kinds())}; others come with packages to be installed",
    )


def _foreign() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415  # few pulls need more than a hub

    return entry_points(group=GROUP)

"""`load`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from headrace.events import Event
from headrace.facade.client import Client, several
from headrace.settings import Settings, load_settings
from headrace.transfer.dispatch import Dispatcher


def load(
    cls: type,
    repo: str,
    *,
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
    **arguments: Any,
) -> Any:
    """Pull what `cls` needs of a repo, then let it load from the cache: `load(AutoModel, "org/name")`.

    Args:
        cls: a class with `from_pretrained`, of transformers or its kin.
        repo: as for `pull`.
        sources: as for `pull`.
        settings: as for `pull`.
        on_event: as for `pull`.
        arguments: handed to `from_pretrained` as they are.

    Returns:
        What `cls.from_pretrained` returns; for the Auto classes an instance of another class.

    Raises:
        LoadError: the files are verified, and the framework cannot use them.
        HeadraceError: as for `pull`.
    """
    from headrace.load.framework import as_loadable, load_from_cache  # noqa: PLC0415  # a pull needs none of it
    from headrace.load.needed import needed  # noqa: PLC0415

    loadable = as_loadable(cls, arguments)
    settings = settings or load_settings()
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        client = Client(settings, several(sources), dispatcher.emit)
        whole = client.listing(repo)
        manifest = replace(whole, entries=needed(whole.entries, cls, arguments))
        snapshot = client.bring(manifest, client.store(whole, None), force=False)
    return load_from_cache(loadable, snapshot.repo, snapshot.commit, settings.cache, arguments)

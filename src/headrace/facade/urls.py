"""`urls`: where the files of a repo can be had by other tools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.errors import UsageError
from headrace.events import Warned
from headrace.facade.client import Client, several
from headrace.facade.pull import chosen
from headrace.manifest import Entry, Manifest
from headrace.settings import Settings, load_settings
from headrace.settings.sources import SourceSetting
from headrace.source.contract import Addressed, Content
from headrace.transfer.dispatch import Dispatcher, Subscriber


@dataclass(frozen=True)
class Mirror:
    """One URL of a file; `may_have_token` says whether a token of the user's may be sent there."""

    url: str
    may_have_token: bool


@dataclass(frozen=True)
class Located:
    """A file and its mirrors, in the order in which to try them."""

    entry: Entry
    mirrors: tuple[Mirror, ...]


@dataclass(frozen=True)
class Urls:
    """The files that were chosen, of the commit that the trusted source says."""

    manifest: Manifest
    files: tuple[Located, ...]


def urls(
    repo: str,
    *,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    sources: str | Iterable[str] = (),
    settings: Settings | None = None,
    on_event: Subscriber | None = None,
) -> Urls:
    """Say where the files of a repo can be had. Arguments and errors as for `pull`.

    The list of files is the trusted source's. Whether each mirror has them is not asked. URLs carry no token.

    Raises:
        UsageError: no source has URLs.
    """
    settings = settings or load_settings()
    if settings["offline"]:
        raise UsageError("URLs are of no use offline", hint="unset HF_HUB_OFFLINE, or leave --offline out")
    named = several(sources)
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        client = Client(settings, named, dispatcher.emit)
        manifest = chosen(client.listing(repo), several(include), several(exclude), dispatcher.emit)
        addressed: list[tuple[SourceSetting, Addressed]] = []
        for setting in settings.carriers(named):
            source = client.source(setting)
            if isinstance(source, Addressed):
                addressed.append((setting, source))
            else:
                dispatcher.emit(Warned("sources", f"{setting.name}: its files have no URLs; it is left out"))
    if not addressed:
        raise UsageError("no source that is named or in use has URLs", hint="name a hub with --source")
    located = []
    for entry in manifest.entries:
        content = Content(manifest.repo, manifest.commit, entry, manifest.revision)
        mirrors = (Mirror(source.url_of(content), setting.may_have_token) for setting, source in addressed)
        located.append(Located(entry, tuple(mirrors)))
    return Urls(manifest, tuple(located))

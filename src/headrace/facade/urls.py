"""`urls`: where the files of a repo can be had by other tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from headrace.errors import AllSourcesFailed, EntryNotFound, HeadraceError, UsageError
from headrace.events import Warned
from headrace.facade.client import Client, several
from headrace.facade.pull import chosen
from headrace.manifest import Entry, Manifest
from headrace.settings import Settings, load_settings
from headrace.settings.sources import MODELSCOPE, SourceSetting
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

    The list of files is the trusted source's. Hubs are not asked whether they have them; of other kinds, whose URLs
    are found in their own lists, those that lack a file are no mirrors of it. URLs carry no token.

    Raises:
        UsageError: no source has URLs.
        AllSourcesFailed: none has a certain file.
    """
    settings = settings or load_settings()
    if settings["offline"]:
        raise UsageError("URLs are of no use offline", hint="unset HF_HUB_OFFLINE, or leave `offline` out")
    named = several(sources)
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        client = Client(settings, named, dispatcher.emit)
        manifest = chosen(client.listing(repo), several(include), several(exclude), dispatcher.emit)
        addressed: list[_Mirroring] = []
        for setting in settings.carriers(named):
            source = client.source(setting)
            if isinstance(source, Addressed):
                addressed.append(_Mirroring(setting, source))
            else:
                dispatcher.emit(Warned("sources", f"{setting.name}: its files have no URLs; it is left out"))
        if not addressed:
            raise UsageError("no source that is named or in use has URLs", hint="name a hub with `sources`")
        files = tuple(_located(manifest, entry, addressed) for entry in manifest.entries)
        for one in addressed:
            for told in one.told(len(files)):
                dispatcher.emit(Warned("sources", told))
    return Urls(manifest, files)


@dataclass
class _Mirroring:
    """A source that is asked for URLs, and what it said of those that it has not.

    Attributes:
        lacking: files that it lacks.
        failure: why nothing can be had there.
    """

    setting: SourceSetting
    source: Addressed
    lacking: list[EntryNotFound] = field(default_factory=list)
    failure: HeadraceError | None = None

    def mirror(self, content: Content) -> Mirror | None:
        """Its URL of a content, where it has one."""
        if self.failure is not None:
            return None
        try:
            url = self.source.url_of(content)
        except EntryNotFound as error:
            self.lacking.append(error)
            return None
        except HeadraceError as error:
            self.failure = error
            return None
        # What HF_TOKEN holds is nothing to ModelScope, which has a token of its own.
        return Mirror(url, self.setting.may_have_token and self.setting.at.kind != MODELSCOPE)

    def told(self, files: int) -> Iterator[str]:
        """What users should know of it, after all so many files."""
        if self.lacking:
            which = self.lacking[0].message + (", and others" if len(self.lacking) > 1 else "")
            yield f"{self.setting.name}: left out for {len(self.lacking)} of {files} files: {which}"
        if self.failure is not None:
            yield f"{self.setting.name}: left out: {self.failure.message}"


def _located(manifest: Manifest, entry: Entry, sources: Sequence[_Mirroring]) -> Located:
    content = Content(manifest.repo, manifest.commit, entry, manifest.revision)
    found = [mirror for one in sources if (mirror := one.mirror(content)) is not None]
    if not found:
        causes = {one.setting.name: one.failure or one.lacking[-1] for one in sources}
        told = "; ".join(error.message for error in causes.values())
        raise AllSourcesFailed(
            f"nobody has {entry.path!r}: {told}", causes=causes, hint="name one that has it with `sources`"
        )
    return Located(entry, tuple(found))

"""`pull_file`: one file by its URLs, without a repo around it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from headrace.errors import BadManifest, EntryNotFound, UsageError
from headrace.events import Done, Emit, Event, PullStarted, Warned
from headrace.facade.carry import carry_out
from headrace.facade.client import at_home, carriers_of, limits_within_rate, road_of, several
from headrace.manifest import Digest, Entry, Manifest, state_of
from headrace.names import DEFAULT_REVISION, Repo
from headrace.settings import Settings, load_settings
from headrace.source.dialer import Dialer
from headrace.source.file import FileSource
from headrace.source.mirrors import GIVEN, Mirrors
from headrace.store.folder import Folder
from headrace.transfer.dispatch import Dispatcher
from headrace.transfer.pull import Carriers, Pull, Tally, resolve
from headrace.wire import normalized_endpoint, shown

_REPO = Repo("file")  # what a plain file is of, to those who must be told a repo; shown nowhere
KIND = "file"
"""What `PullStarted` calls a pull of one file by URL."""


@dataclass(frozen=True)
class PulledFile:
    """A file that is in place at `path`, verified to be `digest`; `sources` says how many bytes came from whom."""

    path: Path
    digest: Digest
    bytes: int
    network_bytes: int
    reused_bytes: int
    seconds: float
    sources: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FilePreview:
    """What `pull_file` would do: fetch `entry` to `path`, unless something of its size `is_here` already."""

    path: Path
    entry: Entry
    is_here: bool


def pull_file(
    urls: str | Iterable[str],
    *,
    sha256: str | None = None,
    dest: str | Path = ".",
    force: bool = False,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> PulledFile:
    """Get one file from all the URLs it is at, at once, into a folder, verified.

    Args:
        urls: where it is. The first is the most believed one, and gives the file its name.
        sha256: what its bytes hash to, in hex. Without it the digest that a server promises for it is used, or one
            in a list beside the file (`FILE.sha256`, `SHA256SUMS`).
        dest: the folder. A file of that name there that differs is replaced.
        force: fetch what is here already, too.
        settings: as for `pull`.
        on_event: as for `pull`.

    Raises:
        UsageError: no URL of a file, or nobody promises a digest.
        NotFound, AccessDenied, SourceError, IntegrityError, StoreError, Interrupted: see `errors`.
    """
    began, settings = time.monotonic(), settings or load_settings()
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        wanted = _Wanted(urls, sha256, dest, settings, dispatcher.emit)
        manifest = wanted.manifest()
        path, tally = wanted.bring(manifest, force=force)
        (entry,) = manifest.entries
        pulled = PulledFile(
            path,
            entry.digest,
            entry.size,
            tally.network_bytes,
            tally.reused_bytes,
            round(time.monotonic() - began, 3),
            tally.sources,
        )
        dispatcher.emit(_done(entry.path, pulled))
    return pulled


def preview_file(
    urls: str | Iterable[str],
    *,
    sha256: str | None = None,
    dest: str | Path = ".",
    force: bool = False,
    settings: Settings | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> FilePreview:
    """Say what `pull_file` would do, and touch nothing. Arguments and errors as there."""
    settings = settings or load_settings()
    with Dispatcher((on_event,) if on_event else ()) as dispatcher:
        wanted = _Wanted(urls, sha256, dest, settings, dispatcher.emit)
        (entry,) = wanted.manifest().entries
    return FilePreview(wanted.folder / entry.path, entry, not force and wanted.store.holds(entry))


class _Wanted:
    """The URLs, as the sources they come to, and where the file is to rest."""

    def __init__(
        self,
        urls: str | Iterable[str],
        sha256: str | None,
        dest: str | Path,
        settings: Settings,
        emit: Emit,
    ) -> None:
        self.folder = at_home(dest)
        self.store = Folder(self.folder)
        self._settings = settings
        self._emit = emit
        self._digest = _digest(sha256)
        self._limits = limits_within_rate(settings)
        self._dialer = road_of(settings).dialer()
        sources = _sources(several(urls), self._dialer, self._limits.patience_s)
        self._mirrors = Mirrors(
            sources, self._dialer, self._digest, lambda told: emit(Warned("source", told))
        )

    def manifest(self) -> Manifest:
        """The one file; offline it must be here, under the first URL's name."""
        if not self._settings["offline"]:
            return resolve(self._mirrors, _REPO, DEFAULT_REVISION, self._limits, self._emit)
        name = self._mirrors.sources[0].file_name
        try:
            size = (self.folder / name).stat().st_size if name and self._digest else None
        except OSError:
            size = None
        if size is None or self._digest is None:
            raise EntryNotFound(
                f"{name or 'the file'!r} not found in {self.folder}, and offline nothing is fetched",
                hint="pull once without `offline`",
            )
        entry = Entry(name, size, self._digest)
        return Manifest(_REPO, DEFAULT_REVISION, state_of([entry]), (entry,), GIVEN)

    def bring(self, manifest: Manifest, *, force: bool) -> tuple[Path, Tally]:
        """Put the file in place."""
        if force and self._settings["offline"]:
            raise UsageError("force fetches what is here already, and offline fetches nothing")
        (entry,) = manifest.entries
        self._emit(PullStarted(entry.path, KIND, "", "", 1, entry.size, self._mirrors.promise))
        task = Pull(manifest, self.store, self._emit, force=force)
        carry_out(task, self._settings, self._emit, self.folder, self._carriers)
        return self.folder / entry.path, task.tally

    def _carriers(self) -> Carriers:
        return carriers_of(self._settings, self._mirrors.sources, self._dialer, self._limits)


def _digest(sha256: str | None) -> Digest | None:
    if sha256 is None:
        return None
    try:
        return Digest(Digest.SHA256, sha256.strip().lower().removeprefix("sha256:"))
    except BadManifest:
        raise UsageError(
            f"{sha256!r} is no sha256", hint="64 hexadecimal digits, as `sha256sum` prints"
        ) from None


def _sources(urls: Sequence[str], dialer: Dialer, patience_s: float) -> list[FileSource]:
    if not urls:
        raise UsageError("no URL of a file", hint="write at least one: https://HOST/PATH/FILE")
    named: dict[str, str] = {}
    checked = dict.fromkeys(map(_checked, urls))
    crowds = Counter(urlsplit(url).netloc for url in checked)
    for url in checked:
        place = urlsplit(url).netloc
        name = place if crowds[place] == 1 else shown(url).partition("://")[2]
        number = 2
        while name in named:  # they differ in what is not shown
            name, number = f"{shown(url).partition('://')[2]} ({number})", number + 1
        named[name] = url
    return [FileSource(name, url, dialer, patience_s) for name, url in named.items()]


def _checked(url: str) -> str:
    """The URL with its host in normal form, and without a fragment."""
    hint = "write https://HOST/PATH/FILE"
    try:
        parts = urlsplit(url.strip())
        place = normalized_endpoint(urlunsplit((parts.scheme.lower(), parts.netloc, "", "", "")))
    except ValueError:
        raise UsageError("that is no URL", hint=hint) from None
    except UsageError:
        if "@" in url.partition("://")[2].partition("/")[0]:
            hint = "names and passwords in URLs are not sent: others on this machine can read command lines"
        raise UsageError(f"{shown(url)!r} is no http(s) URL of a file", hint=hint) from None
    if not parts.path.strip("/"):
        raise UsageError(f"{shown(url)!r} names no file", hint=hint)
    return place + urlunsplit(("", "", parts.path, parts.query, ""))


def _done(name: str, pulled: PulledFile) -> Done:
    return Done(
        repo=name,
        commit="",
        path=str(pulled.path),
        files=1,
        bytes=pulled.bytes,
        network_bytes=pulled.network_bytes,
        reused_bytes=pulled.reused_bytes,
        seconds=pulled.seconds,
        sources=pulled.sources,
    )

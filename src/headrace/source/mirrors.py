"""Several URLs of one file: what they say of it, who may carry it, and on whose word."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from headrace.errors import AllSourcesFailed, DigestMismatch, HeadraceError, SourceError, UsageError
from headrace.manifest import Digest, Entry, Manifest, state_of
from headrace.names import Repo
from headrace.plan.agreement import Told, agree
from headrace.source.contract import Request, Stream
from headrace.source.file import About, FileSource
from headrace.source.http import Dialer, HttpSession

GIVEN = "--sha256"
"""Where a digest stands that the user gave."""


class Mirrors:
    """URLs that are said to have the same file, the most believed first; see `Source`.

    Attributes:
        sources: those that may carry it; after `manifest` without those that cannot.
        promise: where the digest stands that is believed.
    """

    def __init__(
        self,
        sources: Sequence[FileSource],
        dialer: Dialer,
        wanted: Digest | None,
        warn: Callable[[str], None],
    ) -> None:
        self.name = sources[0].name
        self.sources = tuple(sources)
        self.promise = GIVEN
        self._dialer = dialer
        self._wanted = wanted
        self._warn = warn

    def manifest(self, repo: Repo, revision: str) -> Manifest:
        """The one file as a manifest; `repo` and `revision` only stand in it.

        Raises:
            UsageError: nobody promises a digest, or the file has no name.
            NotFound, AccessDenied, SourceError: none of the URLs leads to a file.
            DigestMismatch: all that answer promise another file.
        """
        answers = self._ask_all()
        told = {name: one for name, one in answers.items() if isinstance(one, About)}
        failures = {name: one for name, one in answers.items() if isinstance(one, HeadraceError)}
        if not told:
            raise _failure(failures)
        if self._wanted is None:
            told = self._with_promise(told)
        agreed = agree(
            {name: Told(one.size, one.digest, f"{one.promise} of {name}") for name, one in told.items()},
            self._wanted,
        )
        left_out = dict(agreed.left_out) | {
            name: error.message for name, error in failures.items() if _is_final(error)
        }
        self.promise = agreed.promise if self._wanted is None else GIVEN
        digest = agreed.digest
        assert digest is not None  # noqa: S101  # wanted, or promised by one of them
        for name, why in left_out.items():
            self._warn(f"{name} is left out: {why}")
        entry = Entry(self._file_name(told), agreed.size, digest)
        self.sources = tuple(one for one in self.sources if one.name not in left_out)
        if not self.sources:
            raise DigestMismatch(
                f"none of the URLs has the file: {'; '.join(f'{name} {why}' for name, why in left_out.items())}",
                hint="check the digest, and that the URLs are of the same version",
            )
        return Manifest(repo, revision, state_of([entry]), (entry,), self.promise)

    def open(
        self, request: Request, session: HttpSession, located: Callable[[], None] = lambda: None
    ) -> Stream:
        """See `Source.open`; each of the sources is asked by itself."""
        return self.sources[0].open(request, session, located)

    def _ask_all(self) -> dict[str, About | HeadraceError]:
        """What each says, in the order of the URLs, all asked at once."""
        inbox: queue.SimpleQueue[tuple[str, About | HeadraceError]] = queue.SimpleQueue()

        def ask(source: FileSource) -> None:
            session = HttpSession(self._dialer)
            try:
                inbox.put((source.name, source.ask(session)))
            except HeadraceError as error:
                inbox.put((source.name, error))
            except Exception as error:  # noqa: BLE001  # the thread's outermost frame: it must answer
                inbox.put((source.name, SourceError(f"{source.name} failed unexpectedly: {error!r}")))
            finally:
                session.close()

        for one in self.sources:
            threading.Thread(target=ask, args=(one,), daemon=True, name="ask").start()
        answers = dict(inbox.get() for _ in self.sources)
        return {one.name: answers[one.name] for one in self.sources}

    def _with_promise(self, told: dict[str, About]) -> dict[str, About]:
        """The same, with a digest that the first who has one promises, if only in a list beside the file.

        Whoever comes later is believed less, however readily it promises.
        """
        session = HttpSession(self._dialer)
        try:
            for name, about in told.items():
                if about.digest is not None:
                    return told
                source = next(one for one in self.sources if one.name == name)
                if (found := source.beside(session)) is not None:
                    return told | {name: replace(about, digest=found[0], promise=found[1])}
        finally:
            session.close()
        raise UsageError(
            f"{', '.join(told)} promises no digest of the file",
            hint="say what it must be with `sha256`, as its maker publishes it",
        )

    def _file_name(self, told: dict[str, About]) -> str:
        """What to call the file: as the first URL does, or its server where the URL's word is none for a file."""
        first = self.sources[0]
        about = told.get(first.name)
        named = about.name if about is not None else None
        if "." in first.file_name or not named:
            named = first.file_name
        if not named:
            path = urlsplit(first.url).path
            raise UsageError(f"{first.name} says no name for the file: its URL ends in {path!r}")
        return named


def _is_final(error: HeadraceError) -> bool:
    return not isinstance(error, SourceError) or error.permanent


def _failure(failures: dict[str, HeadraceError]) -> HeadraceError:
    passing = next((one for one in failures.values() if not _is_final(one)), None)
    if passing is not None:
        return passing
    only = next(iter(failures.values()))
    if all(not isinstance(one, SourceError) for one in failures.values()):
        return only
    told = "; ".join(one.message for one in failures.values())
    told = only.message if len(failures) == 1 else f"none of the URLs leads to the file: {told}"
    failed = AllSourcesFailed(told, causes=failures, hint=only.hint)
    failed.permanent = True
    return failed

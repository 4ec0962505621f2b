"""Every error Headrace raises, split by who must act.

    HeadraceError
    ├── UsageError            the caller: an argument or setting makes no sense
    ├── NotFound              the name is wrong, or the thing is gone
    │   ├── RepoNotFound
    │   ├── RevisionNotFound
    │   └── EntryNotFound
    ├── AccessDenied          the token is missing, wrong or not allowed
    ├── SourceError           a place bytes come from failed; another try or place may do
    │   ├── Unreachable         no connection, no answer at all
    │   │   └── UnknownHost       no such name
    │   ├── Untrusted           TLS cannot be had, or proves nothing
    │   ├── ProxyRefused        the proxy will not carry it
    │   ├── Stalled             connected, then silent for too long
    │   ├── BrokenStream        the answer ended or was reset before its announced end
    │   ├── BadAnswer           an answer that cannot be what was asked (HTML, wrong range or length)
    │   ├── RangeIgnored        asked for a part, got the whole: usable as one whole stream only
    │   ├── Busy                429 or 5xx, with the time it asked us to wait if it did
    │   ├── SourceFull          507: it has no room to bring it for us
    │   └── AllSourcesFailed    nobody could deliver; `causes` says why, source by source
    ├── IntegrityError        bytes or a manifest are not what was promised
    │   ├── BadManifest
    │   └── DigestMismatch
    ├── StoreError            this machine's disk
    │   ├── NoSpace
    │   ├── ReadOnly            it may be used and not written
    │   ├── Locked
    │   └── Corrupt
    ├── LoadError             bytes are fine, tensors are not
    └── Interrupted           the user said stop; what was fetched is kept

`code` is a stable word for programs (JSON output, metrics). Exit codes and HTTP statuses are tables of the
layers that need them (`cli/`, `node/`). Messages say what and where, `hint` says what to do: what is to be said for it
stands in it as Python and `headrace.toml` call it, in backticks (`dest`, `offline`), and `cli/` writes the option there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class HeadraceError(Exception):
    """Base of all errors: a one-line message, and a hint for the person who reads it."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HeadraceError):
    """An argument, file or setting that cannot be used as given."""

    code = "usage"


class NotFound(HeadraceError):
    """The source was asked and says that there is no such thing."""

    code = "not_found"


class RepoNotFound(NotFound):
    """No such repo, or none that this caller may see (hubs do not tell the two apart)."""

    code = "repo_not_found"


class RevisionNotFound(NotFound):
    """The repo exists; the branch, tag or commit does not."""

    code = "revision_not_found"


class EntryNotFound(NotFound):
    """The commit exists; the file in it does not."""

    code = "entry_not_found"


class AccessDenied(HeadraceError):
    """The source knows the repo and refuses it to this caller."""

    code = "access_denied"


class SourceError(HeadraceError):
    """A source failed to deliver.

    Attributes:
        permanent: asking this source again for this content cannot help.
        retry_after_s: seconds the source asked to be left alone, if it did.
    """

    code = "source"
    permanent: bool = False

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Unreachable(SourceError):
    """No connection could be made, or it ended before any answer."""

    code = "unreachable"


class UnknownHost(Unreachable):
    """There is no such name."""

    code = "unknown_host"
    permanent = True


class Untrusted(SourceError):
    """TLS with this host cannot be: its certificate proves nothing, or the two have no version in common."""

    code = "untrusted"
    permanent = True


class ProxyRefused(SourceError):
    """The proxy that the user named will not carry this."""

    code = "proxy"
    permanent = True


class Stalled(SourceError):
    """The connection stands and no byte comes."""

    code = "stalled"


class BrokenStream(SourceError):
    """The body ended or was reset before its announced length."""

    code = "broken_stream"


class BadAnswer(SourceError):
    """An answer that is not the content asked for; the source is of no use for it, while others can deliver."""

    code = "bad_answer"
    permanent = True


class RangeIgnored(SourceError):
    """A range was asked and the whole file was answered."""

    code = "range_ignored"


class Busy(SourceError):
    """The source answers 429 or 5xx."""

    code = "busy"


class SourceFull(SourceError):
    """A mirror would have to fetch the content itself, and has no room for it."""

    code = "source_full"
    permanent = True


class AllSourcesFailed(SourceError):
    """No source could deliver.

    Attributes:
        causes: source name → the last error it gave.
    """

    code = "all_sources_failed"

    def __init__(
        self, message: str, *, causes: Mapping[str, HeadraceError] | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.causes = dict(causes or {})


class IntegrityError(HeadraceError):
    """Something is not what its promise said."""

    code = "integrity"


class BadManifest(IntegrityError):
    """A file list that is impossible or dangerous: nothing of it is used."""

    code = "bad_manifest"


class DigestMismatch(IntegrityError):
    """All bytes came, and they do not hash to the digest they were promised under."""

    code = "digest_mismatch"


class StoreError(HeadraceError):
    """The disk could not keep what it was given."""

    code = "store"


class NoSpace(StoreError):
    """Not enough bytes or quota left; what was fetched is kept and continued later."""

    code = "no_space"


class ReadOnly(StoreError):
    """Something is to be written where this process may only read."""

    code = "read_only"


class Locked(StoreError):
    """Another process holds what this one needs."""

    code = "locked"


class Corrupt(StoreError):
    """A file of ours on disk is damaged beyond use."""

    code = "corrupt"


class LoadError(HeadraceError):
    """The bytes are verified and the framework still cannot load them."""

    code = "load"


class Interrupted(HeadraceError):
    """The user interrupted; everything fetched so far is kept."""

    code = "interrupted"

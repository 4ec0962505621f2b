"""Where things lie on disk: the hub's own cache layout, and the workshop of unfinished downloads in it.

    <root>/                          HF_HUB_CACHE
      models--org--name/
        blobs/<digest hex>           content, under the name hubs give it as ETag
        snapshots/<commit>/<path>    relative symlinks into blobs/
        refs/<revision>              a text file: the commit
      .locks/headrace/               partials, journals, leases, ledger (`hf cache` looks at no other hidden place
                                     without reporting corruption)

Pure path arithmetic; `store/` does the touching. The layout is huggingface_hub's ("manage your cache" in its guides).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from headrace.manifest import Digest
from headrace.names import Repo

WORKSHOP_IN_CACHE = Path(".locks", "headrace")
WORKSHOP_IN_FOLDER = Path(".cache", "headrace")

CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file marks the folder as a cache; backup programs may skip it (https://bford.info/cachedir/).\n"
)


@dataclass(frozen=True)
class HubCacheLayout:
    """Paths of one repo in a hub cache at `root`."""

    root: Path
    repo: Repo

    @cached_property
    def folder(self) -> Path:
        """The repo's folder: `models--org--name`."""
        return self.root / "--".join([self.repo.kind.plural, *self.repo.name.split("/")])

    @property
    def workshop(self) -> Path:
        """The folder of unfinished downloads, shared by all repos of the cache."""
        return self.root / WORKSHOP_IN_CACHE

    @property
    def moved_workshop(self) -> Path:
        """The same of a repo whose folder was moved to another disk: files can be renamed within one only."""
        return self.folder / WORKSHOP_IN_CACHE

    def blob(self, digest: Digest) -> Path:
        """Where content rests."""
        return self.folder / "blobs" / digest.hex

    def client_lock(self, digest: Digest) -> Path:
        """What the hub's own client locks (flock(2)) while it fetches this content."""
        return self.root / ".locks" / self.folder.name / f"{digest.hex}.lock"

    def ref(self, revision: str) -> Path:
        """The text file that remembers which commit a branch or tag meant."""
        return self.folder / "refs" / revision

    def snapshot(self, commit: str) -> Path:
        """The folder that looks like the repo at a commit."""
        return self.folder / "snapshots" / commit

    def link(self, commit: str, path: str) -> Path:
        """The name a file of the repo has in its snapshot."""
        return self.snapshot(commit) / path

    def link_target(self, path: str, digest: Digest) -> str:
        """What the symlink at `link()` says: the blob, relative, so that the cache can be moved whole."""
        return f"{'../' * (2 + path.count('/'))}blobs/{digest.hex}"


@dataclass(frozen=True)
class WorkshopLayout:
    """Names of what belongs to one unfinished blob in a workshop folder."""

    folder: Path
    digest: Digest

    @property
    def partial(self) -> Path:
        """The preallocated file the bytes land in."""
        return self.folder / f"{self.digest.hex}.partial"

    @property
    def journal(self) -> Path:
        """The record of which bytes have landed."""
        return self.folder / f"{self.digest.hex}.journal"

    @property
    def retraction(self) -> Path:
        """What tells onlookers that bytes which had landed are believed no more: another word each time."""
        return self.folder / f"{self.digest.hex}.retraction"

    @property
    def partly(self) -> Path:
        """What tells that the partial may be read for good before it is whole; whoever waits for all of it says so in there."""
        return self.folder / f"{self.digest.hex}.partly"

    def lease(self, generation: int) -> Path:
        """The claim of one process on this blob; each takeover is one generation later."""
        return self.folder / f"{self.digest.hex}.lease.{generation}"

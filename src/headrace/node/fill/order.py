"""An order to the worker: which content to fetch, and by whose rights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.manifest import Digest, Entry
from headrace.names import Repo, RepoKind
from headrace.node.access.caller import ANYBODY, Caller
from headrace.source.contract import Content


@dataclass(frozen=True)
class Order:
    """A content to be fetched.

    Attributes:
        caller: anybody, of a repo for everybody: it may come from wherever. Else it comes from the trusted source alone,
            by this caller's rights, and no other hears of it.
    """

    content: Content
    caller: Caller = ANYBODY

    @property
    def line(self) -> dict[str, Any]:
        """As it goes over the pipe. It holds the token: it is not for logs."""
        content, entry = self.content, self.content.entry
        told = {
            "digest": str(entry.digest),
            "size": entry.size,
            "kind": content.repo.kind.value,
            "repo": content.repo.name,
            "commit": content.commit,
            "path": entry.path,
        }
        return (
            told
            if self.caller.is_anybody
            else {**told, "caller": self.caller.key, "token": self.caller.token}
        )

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Order:
        """Read such a line."""
        entry = Entry(line["path"], line["size"], Digest.parse(line["digest"]))
        content = Content(Repo(line["repo"], RepoKind(line["kind"])), line["commit"], entry)
        return cls(content, Caller(line["caller"], line["token"]) if "caller" in line else ANYBODY)

"""A lock file: which commits, and which files in them, somebody wants again, exactly.

    {
      "headrace_lock": 1,
      "repos": [
        {
          "kind": "model",
          "name": "org/name",
          "revision": "main",
          "commit": "<40 hex digits>",
          "files": [
            {"path": "config.json", "size": 665, "digest": "git-blob-sha1:<hex>"},
            {"path": "model.safetensors", "size": 90868376, "digest": "sha256:<hex>"}
          ]
        }
      ]
    }

JSON in ASCII, a line a file, repos and files sorted: the same content is the same text, and a comparison line by line
says what changed. What is read is checked as any manifest is; what is not known here is refused, not skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from headrace.errors import BadManifest, RepoNotFound, RevisionNotFound, UsageError
from headrace.manifest import Digest, Entry, Manifest
from headrace.names import DEFAULT_REVISION, Repo, RepoKind, check_revision, parse_address, split_revision

LOCK_VERSION = 1

_TOP_KEYS = ("headrace_lock", "repos")
_REPO_KEYS = ("kind", "name", "revision", "commit", "files")
_FILE_KEYS = ("path", "size", "digest")
_NAMED_MOST = 5
_COMMIT_SHOWN = 12


@dataclass(frozen=True)
class Lock:
    """The manifests of a lock file; `name` is what to call it. Each repo and revision is there once."""

    name: str
    manifests: tuple[Manifest, ...]

    @classmethod
    def parse(cls, text: str, name: str) -> Lock:
        """Read what `render` wrote.

        Raises:
            UsageError: this is no lock file, or a newer one; with the line or the key.
            BadManifest: what it lists is impossible or dangerous; with the key.
        """
        top = _mapping(_decoded(text, name), name, name)
        version = top.get("headrace_lock")
        if type(version) is int and version > LOCK_VERSION:
            hint = "write it anew with `headrace lock`, or install a newer headrace"
            raise UsageError(
                f"{name} is of version {version}, and this headrace reads {LOCK_VERSION}", hint=hint
            )
        if version != LOCK_VERSION or type(version) is not int:
            _refuse(f'{name} has no "headrace_lock": {LOCK_VERSION}')
        _check_keys(top, _TOP_KEYS, name)
        listed = _list(top["repos"], f"{name}: repos")
        manifests = tuple(_manifest(one, f"{name}: repos[{at}]", name) for at, one in enumerate(listed))
        for at, one in enumerate(manifests):
            if any((one.repo, one.revision) == (other.repo, other.revision) for other in manifests[:at]):
                _refuse(f"{name}: repos[{at}]: {one.repo.address} at {one.revision!r} is there twice")
        return cls(name, manifests)

    def render(self) -> str:
        """The text of the file: the same for the same content."""
        repos = ",\n".join(map(_rendered, sorted(self.manifests, key=lambda one: (one.repo, one.revision))))
        inside = f"[\n{repos}\n  ]" if repos else "[]"
        return f'{{\n  "headrace_lock": {LOCK_VERSION},\n  "repos": {inside}\n}}\n'

    def manifest(self, address: str) -> Manifest:
        """What is locked of `[datasets/|spaces/]ORG/NAME[@REVISION]`.

        Raises:
            RepoNotFound: the repo is not locked.
            RevisionNotFound: it is, at another revision.
            UsageError: several revisions are locked and none is said; or that is no address.
        """
        repo, _ = parse_address(address)
        _, revision = split_revision(address)
        found = [one for one in self.manifests if one.repo == repo]
        if not found:
            raise RepoNotFound(f"{self.name} does not lock {_kinded(repo)}", hint=self._hint())
        at = " and ".join(f"{one.revision} ({one.commit[:_COMMIT_SHOWN]})" for one in found)
        if revision is not None:
            chosen = [one for one in found if revision in (one.revision, one.commit)]
            if not chosen:
                hint = f"leave the revision out, or write {self.name} anew with `headrace lock {address}`"
                raise RevisionNotFound(f"{self.name} locks {repo} at {at}, not at {revision!r}", hint=hint)
            return replace(chosen[0], revision=revision)
        default = [one for one in found if one.revision == DEFAULT_REVISION]
        chosen = default or found
        if chosen[1:]:
            raise UsageError(f"{self.name} locks {repo} at {at}", hint="say which: REPO@REVISION")
        return chosen[0]

    def _hint(self) -> str:
        names = [_kinded(one.repo) for one in self.manifests]
        more = f" and {len(names) - _NAMED_MOST} more" if len(names) > _NAMED_MOST else ""
        return f"it has {', '.join(names[:_NAMED_MOST])}{more}" if names else "it is empty"


def _kinded(repo: Repo) -> str:
    return f"{repo.kind.value} {repo.name}"


def _rendered(manifest: Manifest) -> str:
    facts = {
        "kind": manifest.repo.kind.value,
        "name": manifest.repo.name,
        "revision": manifest.revision,
        "commit": manifest.commit,
    }
    head = "".join(f"      {_text(key)}: {_text(value)},\n" for key, value in facts.items())
    entries = sorted(manifest.entries, key=lambda entry: entry.path)
    lines = (
        f'        {{"path": {_text(one.path)}, "size": {one.size}, "digest": {_text(str(one.digest))}}}'
        for one in entries
    )
    files = ",\n".join(lines)
    inside = f"[\n{files}\n      ]" if files else "[]"
    return f'    {{\n{head}      "files": {inside}\n    }}'


def _text(value: str) -> str:
    return json.dumps(value).replace("\x7f", "\\u007f")


def _decoded(text: str, name: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        _refuse(f"{name}, line {error.lineno}: {error.msg}")
    except (ValueError, RecursionError) as error:
        _refuse(f"{name}: {str(error)[:80] or 'it is nested too deep'}")


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:40]!r} is there twice")
        found[key] = value
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no value")


def _manifest(raw: Any, where: str, name: str) -> Manifest:
    told = _mapping(raw, where, name)
    _check_keys(told, _REPO_KEYS, where)
    kind, named, revision, commit = (_word(told[key], f"{where}.{key}") for key in _REPO_KEYS[:4])
    if kind not in [one.value for one in RepoKind]:
        _refuse(f"{where}.kind is {kind[:40]!r}, none of {', '.join(one.value for one in RepoKind)}")
    listed = _list(told["files"], f"{where}.files")
    entries = [_entry(one, f"{where}.files[{at}]", name) for at, one in enumerate(listed)]
    with _placed(where):
        return Manifest(
            Repo(named, RepoKind(kind)),
            check_revision(revision),
            commit,
            tuple(sorted(entries, key=lambda entry: entry.path)),
            name,
        )


def _entry(raw: Any, where: str, name: str) -> Entry:
    told = _mapping(raw, where, name)
    _check_keys(told, _FILE_KEYS, where)
    path, digest = _word(told["path"], f"{where}.path"), _word(told["digest"], f"{where}.digest")
    with _placed(where):
        return Entry(path, told["size"], Digest.parse(digest))


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Say where it stands, whatever is refused."""
    try:
        yield
    except (UsageError, BadManifest) as error:
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from None


def _mapping(raw: Any, where: str, name: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        _refuse(f"{where} is no object" if where != name else f"{name} is no lock file")
    return raw


def _list(raw: Any, where: str) -> list[Any]:
    if not isinstance(raw, list):
        _refuse(f"{where} is no list")
    return raw


def _word(raw: Any, where: str) -> str:
    if not isinstance(raw, str):
        _refuse(f"{where} is no text: {str(raw)[:40]!r}")
    return raw


def _check_keys(told: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    if unknown := sorted(set(told) - set(known)):
        _refuse(f"{where} has an unknown key {unknown[0][:40]!r}")
    if lacking := [key for key in known if key not in told]:
        _refuse(f"{where} has no {lacking[0]!r}")


def _refuse(message: str) -> NoReturn:
    raise UsageError(message, hint="it is damaged: write it anew with `headrace lock REPO… > FILE`")

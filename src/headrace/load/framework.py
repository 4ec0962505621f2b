"""Hands a verified snapshot to the framework."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from headrace.errors import HeadraceError, LoadError, UsageError
from headrace.names import Repo

_OURS = frozenset(("revision", "cache_dir", "local_files_only"))
_IS_HERE = "is here and verified, but"
_NAMED = re.compile(r"GLOBAL ([\w.]+)")
"""What a pickle wanted to call, as PyTorch says it when it loads weights only."""


class Loadable(Protocol):
    """A class with the `from_pretrained` of transformers and its kin."""

    def from_pretrained(self, name: str, /, **arguments: Any) -> Any:
        """Build an instance from files in the hub cache."""


def as_loadable(cls: Any, arguments: Mapping[str, Any]) -> Loadable:
    """Make sure that `cls` can be loaded at all, before anything is fetched for it. Raises `UsageError`."""
    if ours := _OURS.intersection(arguments):
        raise UsageError(
            f"{min(ours)!r} is not for from_pretrained here: the files are found already",
            hint="write the revision as REPO@REVISION; the cache is a setting",
        )
    if arguments.get("weights_only") is False:
        raise UsageError(
            "weights_only=False would run whatever code the files hold",
            hint="leave it out; who trusts them pulls them, and loads them without headrace",
        )
    if not isinstance(cls, type) or not callable(getattr(cls, "from_pretrained", None)):
        raise UsageError(
            f"{getattr(cls, '__name__', cls)!r} has no from_pretrained",
            hint="pass a class of transformers, for example transformers.AutoModel",
        )
    loadable: Loadable = cls  # type: ignore[assignment]  # the line above is the proof that mypy cannot follow
    return loadable


def is_of_diffusers(cls: Loadable) -> bool:
    """Whether the library, or somebody who derived from its classes, made this one."""
    ancestors = cls.__mro__ if isinstance(cls, type) else ()
    return any(one.__module__.partition(".")[0] == "diffusers" for one in ancestors)


def load_from_cache(
    cls: Loadable, repo: Repo, commit: str, cache: Path, arguments: dict[str, Any], but: str = _IS_HERE
) -> Any:
    """Let the framework load the repo at this commit from the cache, and from nowhere else.

    `but` are the words between the repo's name and the framework's error: what is known of the files.

    Raises:
        LoadError: it cannot, or files in PyTorch's older format hold more than weights: they would run code.
    """
    own = {"revision": commit, "cache_dir": str(cache), "local_files_only": True}
    with _refused(str(repo), but):
        return cls.from_pretrained(repo.name, **own, **arguments)


def load_from_folder(cls: Loadable, folder: Path, arguments: dict[str, Any]) -> Any:
    """Let the framework load a folder of this disk. Raises `LoadError` as `load_from_cache`."""
    with _refused(str(folder), "cannot be loaded:"):
        return cls.from_pretrained(str(folder), **arguments)


@contextmanager
def _refused(what: str, but: str) -> Iterator[None]:
    """The framework's errors as ours, which name what was to be loaded, and how that is known."""
    try:
        yield
    except HeadraceError:
        raise  # of files that are still on their way
    except ImportError as error:
        raise LoadError(f"cannot load {what}: {error}", hint="pip install 'headrace[torch]'") from error
    except TypeError:
        raise  # an argument the class does not know: the caller's own mistake, and its own message
    except Exception as error:  # frameworks raise whatever the libraries below them do
        if any(isinstance(one, pickle.UnpicklingError) for one in _causes(error)):
            raise _refusal(f"{what} {but}", error) from error
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise LoadError(f"{what} {but} {type(error).__name__}: {first}") from error


def lacks_a_file(error: LoadError) -> bool:
    """Whether the framework did not find a file, or could not open it."""
    return any(isinstance(one, OSError) for one in _causes(error))


def _refusal(known: str, error: Exception) -> LoadError:
    """PyTorch's own words recommend to load it all the same."""
    named = next((found.group(1) for one in _causes(error) if (found := _NAMED.search(str(one)))), None)
    would = f"call {named}" if named else "do more than give tensors"
    return LoadError(
        f"{known} a pickle among its weights would {would}: loading it could run anything, "
        "so it was refused, and nothing of it ran",
        hint="look for the same weights as safetensors, or have them converted where nothing can be lost",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

"""A retraction: word to onlookers that bytes which had landed are believed no more.

The journal says so, too, but it ends with the partial, and who looks in now and then may miss it. The word outlives
both. It is another one each time, and it is written twice: before the first byte is forgotten, and after the last.
In between an onlooker that has read nothing yet must not begin: it could read what is about to be forgotten, and take
the word for that of the time before.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from headrace.errors import StoreError
from headrace.layout import WorkshopLayout
from headrace.store.disk import scratch

_BEGUN = " begun"
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def retraction(layout: WorkshopLayout) -> str:
    """The word as it stands; empty where nothing was retracted lately.

    Raises:
        StoreError: this process may open no more files: that is not to be taken for silence.
    """
    try:
        return layout.retraction.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if error.errno in _OURS:
            raise StoreError(f"cannot read {layout.retraction}: {error.strerror}") from error
        return ""


def is_begun(word: str) -> bool:
    """Whether what it is about may still be forgotten only in part."""
    return word.endswith(_BEGUN)


@contextmanager
def retracting(layout: WorkshopLayout) -> Iterator[Callable[[], None]]:
    """Forget in here what had landed. What fails is begun, and ended by who opens the partial next.

    Where it failed before anything was forgotten, what is yielded ends it: that word, and no other. Both raise
    `OSError`, and that `StoreError`, too.
    """
    fresh = scratch(layout.folder, "text").name

    def end() -> None:
        if retraction(layout) == fresh + _BEGUN:
            _write(layout, fresh)

    _write(layout, fresh + _BEGUN)
    yield end
    _write(layout, fresh)


def end_retraction(layout: WorkshopLayout) -> None:
    """End what a killed holder began: what it wanted to forget stands in the journal, or will be found out again.

    Raises `OSError`.
    """
    word = retraction(layout)
    if is_begun(word):
        _write(layout, word.removesuffix(_BEGUN))


def _write(layout: WorkshopLayout, word: str) -> None:
    new = scratch(layout.folder, "text")
    new.write_text(word, encoding="utf-8")
    new.replace(layout.retraction)

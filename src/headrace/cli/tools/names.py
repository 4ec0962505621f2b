"""Names as other programs' files can carry them."""

from __future__ import annotations

import os
import re
import unicodedata
from urllib.parse import quote

from headrace.cli.words import files, size
from headrace.facade.urls import Urls


def one_line(name: str) -> str:
    """A path for formats of lines: its control characters as `%XX`; mostly the path itself."""
    return "".join(quote(one) if unicodedata.category(one) == "Cc" else one for one in name)


def one_word(name: str) -> str:
    """A path for formats that strip their values: as `one_line`, and spaces at its ends as `%20`."""
    inner = name.strip(" ")
    start = len(name) - len(name.lstrip(" "))
    return "%20" * start + one_line(inner) + "%20" * (len(name) - start - len(inner))


def attribute(name: str) -> str:
    """A path for an attribute of XML: as `one_line`, and `&` as `%26`, which aria2 1.36 would read as `&#38;`.

    Two characters that are none are in no XML (XML 1.0 §2.2): as `%XX`, too.
    """
    return re.sub("[&\ufffe\uffff]", lambda one: quote(one[0]), one_line(name))


def escaped(name: str) -> str:
    """A path for `printf %b`: what does not print is in octal, so that it cannot act on a terminal either."""
    shown = (one if one.isprintable() else _octal(one) for one in name.replace("\\", "\\\\"))
    return "".join(shown)


def quoted(text: str) -> str:
    """The text as one word of a POSIX shell, always in quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def headline(urls: Urls) -> str:
    """What a file is about, in a line that can be a comment."""
    manifest = urls.manifest
    sum_of = f"{files(len(manifest.entries))}, {size(manifest.total_bytes)}"
    return f"{manifest.repo.address} at {manifest.commit}: {sum_of}"


def _octal(character: str) -> str:
    return "".join(f"\\0{byte:03o}" for byte in os.fsencode(character))

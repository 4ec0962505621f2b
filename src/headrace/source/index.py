"""Directory indexes, as web servers make them: of nginx (HTML and JSON), Apache and Python's http.server.

An index tells names, and some tell sizes; Apache's are rounded and not used.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import unescape
from urllib.parse import unquote, urljoin, urlsplit

_TITLES = ("index of", "directory listing for")
# A tag and the text behind it. `html.parser` fails at some pages, and takes minutes for some small ones.
_TAG = re.compile(r"<(/?[A-Za-z][A-Za-z0-9]{0,9})(?=[\s/>])([^<>]*)>([^<]*)")
_HREF = re.compile(r"""(?<!\S)href\s{0,9}=\s{0,9}(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_EXACT = re.compile(r"\s+[0-9]{2}-[A-Z][a-z]{2}-[0-9]{4} [0-9]{2}:[0-9]{2}\s+([0-9]{1,16})\s*")


@dataclass(frozen=True)
class Indexed:
    """One line of an index: a folder, or a file with its size in bytes where that is told exactly."""

    name: str
    is_folder: bool
    size: int | None = None


def parse_index(url: str, content_type: str, text: str) -> list[Indexed] | None:
    """What is in the folder at `url`, which ends with a slash; None where the answer is no index."""
    if content_type.startswith("application/json"):
        return _of_json(text)
    if not content_type.startswith("text/html"):
        return None
    return _of_html(url, text)


def _of_json(text: str) -> list[Indexed] | None:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        return None
    found = []
    for one in rows:
        name, kind, size = one.get("name"), one.get("type"), one.get("size")
        if not isinstance(name, str) or kind not in ("file", "directory"):
            return None
        if _is_name(name):
            found.append(Indexed(name, kind == "directory", size if type(size) is int else None))
    return found


def _of_html(url: str, text: str) -> list[Indexed] | None:
    """The links to what is right below the folder, and what stands behind them; None where the title is no index's."""
    found: list[Indexed] = []
    is_index, is_behind = False, False
    for match in _TAG.finditer(text):
        tag, attributes, behind = match[1].lower(), match[2], match[3]
        if tag == "title" and behind.strip().lower().startswith(_TITLES):
            is_index = True
        elif tag == "a":
            linked = _linked(url, attributes)
            is_behind = linked is not None
            found += [linked] if linked is not None else []
        elif tag == "/a" and is_behind and not found[-1].is_folder and (exact := _EXACT.fullmatch(behind)):
            found[-1] = Indexed(found[-1].name, is_folder=False, size=int(exact[1]))
    return found if is_index else None


def _linked(url: str, attributes: str) -> Indexed | None:
    """What is right below the folder; not the way up, nor ways to sort the list."""
    written = _HREF.search(attributes)
    href = unescape(next((one for one in written.groups() if one is not None), "")) if written else ""
    try:
        target = urlsplit(urljoin(url, href))
    except ValueError:
        return None
    here = urlsplit(url)
    if (target.scheme, target.netloc) != (here.scheme, here.netloc) or href.startswith(("?", "#")):
        return None
    if not target.path.startswith(here.path):
        return None
    rest = target.path[len(here.path) :]
    name = unquote(rest.removesuffix("/"))
    return Indexed(name, rest.endswith("/")) if _is_name(name) else None


def _is_name(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half a character, as JSON can write it
        return False
    return bool(name) and "/" not in name and "\0" not in name and name not in (".", "..")

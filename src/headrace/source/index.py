"""Directory indexes, as web servers make them: of nginx (HTML and JSON), Apache and Python's http.server.

An index tells names, and some tell sizes; Apache's are rounded and not used.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

_TITLES = ("index of", "directory listing for")
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
    page = _Page(url)
    page.feed(text)
    page.close()
    return page.found if page.is_index else None


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


class _Page(HTMLParser):
    """Reads an HTML index: its links to what is right below it, and what stands behind them."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.found: list[Indexed] = []
        self.is_index = False
        self._url = url
        self._inside = ""
        self._behind: Indexed | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        if tag == "a":
            self._behind = self._linked(dict(attrs).get("href") or "")
            if self._behind is not None:
                self.found.append(self._behind)

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - html.parser's signature
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "title" and data.strip().lower().startswith(_TITLES):
            self.is_index = True
        if self._inside == "" and self._behind is not None and data.strip():
            exact = _EXACT.fullmatch(data)
            if exact is not None and not self._behind.is_folder:
                self.found[-1] = Indexed(self._behind.name, is_folder=False, size=int(exact[1]))
            self._behind = None

    def _linked(self, href: str) -> Indexed | None:
        """What is right below the folder; not the way up, nor ways to sort the list."""
        try:
            target = urlsplit(urljoin(self._url, href))
        except ValueError:
            return None
        here = urlsplit(self._url)
        if (target.scheme, target.netloc) != (here.scheme, here.netloc) or href.startswith(("?", "#")):
            return None
        if not target.path.startswith(here.path):
            return None
        rest = target.path[len(here.path) :]
        name = unquote(rest.removesuffix("/"))
        return Indexed(name, rest.endswith("/")) if _is_name(name) else None


def _is_name(name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name and name not in (".", "..")

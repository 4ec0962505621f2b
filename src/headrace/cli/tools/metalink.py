"""Metalink 4 (RFC 5854): sizes, digests and mirrors of files, as aria2 and others read them."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from headrace.cli.tools.names import attribute, headline
from headrace.facade.urls import Urls
from headrace.manifest import Digest

# Two hyphens may not stand in a comment (XML 1.0 §2.5), and aria2's options begin with two.
_ABOUT = (
    "       for aria2, with `headrace config export aria2` as its configuration, or in it at least the lines",
    "       continue=true, auto-file-renaming=false and allow-overwrite=true: it could not go on otherwise -->",
)


def metalink(urls: Urls, dest: str) -> str:
    """The document; `dest` precedes all names, which are relative (RFC 5854 §4.1.2.1)."""
    lines = (
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink">',
        "  <generator>headrace</generator>",
        f"  <!-- {headline(urls).replace('--', '- -')}",
        *_ABOUT,
        *_files(urls, dest),
        "</metalink>",
    )
    return "\n".join(lines) + "\n"


def _files(urls: Urls, dest: str) -> Iterator[str]:
    for one in urls.files:
        name = attribute(f"{dest}/{one.entry.path}" if dest else one.entry.path)
        yield f"  <file name={quoteattr(name)}>"
        yield f"    <size>{one.entry.size}</size>"
        if one.entry.digest.algorithm == Digest.SHA256:
            yield f'    <hash type="sha-256">{one.entry.digest.hex}</hash>'
        for priority, mirror in enumerate(one.mirrors, 1):
            yield f'    <url priority="{priority}">{escape(mirror.url)}</url>'
        yield "  </file>"

"""What a repo's README says of it in its head, as far as hubs show it: kinds of tasks, libraries, tags, licences.

The head is YAML between two lines of `---`. Read here are `key: value`, `key: [a, b]` and lists of `- value`, which is
how such heads are written; what is nested deeper is passed over.
"""

from __future__ import annotations

import re
from typing import Any

HEAD_BYTES = 64 * 1024
"""What is read of a README."""

_FIELD = re.compile(r"([A-Za-z_][\w-]*):(?:\s+(.*))?")
_ITEM = re.compile(r"\s*-\s+([^:]+)")


def head_of(readme: str) -> dict[str, str | list[str]]:
    """The fields of a README's head; none where it has none."""
    lines = readme.replace("\r\n", "\n").split("\n")
    if lines[0].strip() != "---" or "---" not in (line.strip() for line in lines[1:]):
        return {}
    found: dict[str, str | list[str]] = {}
    name = ""
    for line in lines[1:]:
        if line.strip() == "---":
            break
        field, item = _FIELD.fullmatch(line), _ITEM.fullmatch(line)
        if field is not None:
            name, value = field[1], _plain(field[2] or "")
            is_list = value.startswith("[") and value.endswith("]")
            found[name] = [_plain(one) for one in value[1:-1].split(",")] if is_list else value
        elif item is not None and name:
            listed = found[name]
            found[name] = [*(listed if isinstance(listed, list) else ()), _plain(item[1])]
    return {name: value for name, value in found.items() if value}


def facts_of(head: dict[str, str | list[str]]) -> dict[str, Any]:
    """What a hub tells of a repo with this head."""
    told: dict[str, Any] = {
        name: head[name]
        for name in ("pipeline_tag", "library_name", "sdk")
        if isinstance(head.get(name), str)
    }
    tags = [head[name] for name in ("library_name", "pipeline_tag") if isinstance(head.get(name), str)]
    tags += _listed(head, "tags") + _listed(head, "language")
    tags += [f"license:{one}" for one in _listed(head, "license")]
    told["tags"] = list(dict.fromkeys(tags))
    if head:
        told["cardData"] = head
    return told


def _listed(head: dict[str, str | list[str]], name: str) -> list[Any]:
    value = head.get(name, [])
    return value if isinstance(value, list) else [value]


def _plain(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text

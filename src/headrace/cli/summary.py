"""What a pull came to, said when it has ended well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.cli.explain import remark, repairs, retries, uselessness
from headrace.cli.talk import say
from headrace.cli.words import duration, files, rate, safe, size
from headrace.events import Done, Explained

_NAME_MOST = 24


def summarise(done: Done, told: Explained | None, earlier: int) -> None:
    """A line or two; a table where several sources had a part in it. `earlier` bytes were here before."""
    say(
        f"{safe(done.repo)}: {files(done.files)}, {size(done.bytes)}, all verified, in {duration(done.seconds)}"
    )
    records = told.sources if told is not None else {}
    used = {name: record for name, record in records.items() if record["bytes"]}
    if told is not None and len(used) > 1:
        for line in [*_table(used), *_sums(told)]:
            say(f"  {line}")
    elif done.network_bytes:
        mended = repairs(told) if told is not None else ""
        carried = ", ".join(
            f"{size(count)} from {safe(name)}" for name, count in done.sources.items() if count
        )
        say(
            f"  {carried}, {rate(done.network_bytes / max(done.seconds, 0.001))}{', ' if mended else ''}{mended}"
        )
    for name, record in records.items():
        if reason := uselessness(record):
            say(f"  {safe(name)} was not used: {safe(reason)}")
    if earlier:
        say(f"  {size(earlier)} did not have to be fetched")


def _table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    width = min(_NAME_MOST, max(len(safe(name)) for name in rows))
    lines = []
    for name, record in rows.items():
        figures = f"{size(record['bytes']):>9}  {100 * record['share']:3.0f} %  {rate(record['rate']):>11}"
        lines.append(f"{_cut(safe(name), width):{width}}  {figures}  {remark(record)}".rstrip())
    return lines


def _sums(told: Explained) -> list[str]:
    said = [retries(told.retries)] if told.retries else []
    said += [repairs(told)] if told.repairs else []
    if told.refetched_bytes:
        said.append(f"{size(told.refetched_bytes)} fetched again")
    if told.best:
        said.append(f"about {duration(told.saved_s)} saved against {safe(told.best)} alone")
    return [", ".join(said)] if said else []


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."

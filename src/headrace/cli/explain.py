"""Why each source was used or not, in words: for `--explain`, and in short for the summary of a pull."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.cli.words import duration, rate, safe, size
from headrace.events import Explained

_NOTHING_TO_FETCH = "everything was here already: no source was asked"
_FAST_S = 0.0005  # below, a wait for a first byte is no wait


def explanation(told: Explained) -> list[str]:
    """A line for each source, safe for a terminal."""
    if not told.sources:
        return [_NOTHING_TO_FETCH]
    lines = [f"{name}: {why(record, told)}" for name, record in told.sources.items()]
    lines += [repair(one) for one in told.repairs]
    if told.best:
        lines.append(
            f"alone, at the rate it showed, {told.best} would have taken about {duration(told.saved_s)} longer"
        )
    return [safe(line) for line in lines]


def why(record: Mapping[str, Any], told: Explained) -> str:
    """Why a source was used or not: sentences after its name."""
    if not record["bytes"]:
        return _why_not(record, told)
    lanes = "1 connection" if record["lanes_most"] == 1 else f"up to {record['lanes_most']} connections"
    first = record["first_byte_s"]
    said = [
        f"used, for {size(record['bytes'])} ({_share(record)})"
        f", {rate(record['rate'])} in the {duration(record['work_s'])} it was at work, {lanes}"
        + (f", {first * 1000:.0f} ms to the first byte" if first >= _FAST_S else "")
    ]
    if record["lied_about"]:
        again = size(record["refetched_bytes"])
        said.append(
            f"gave wrong bytes of {record['lied_about']!r}: {again} were fetched again, from others first"
        )
    elif record["refetched_bytes"]:
        said.append(f"{size(record['refetched_bytes'])} of it were in doubt and fetched again")
    if record["reasons"]:
        said.append(f"left out where it was of no use: {'; '.join(record['reasons'])}")
    if record["retries"]:
        said.append(f"failed {_times(record['retries'])}, last: {record['trouble']}")
    if record["segments_given_away"]:
        said.append(f"others took over from it {_times(record['segments_given_away'])}")
    return "; ".join(said)


def repair(record: Mapping[str, Any]) -> str:
    """Which blocks of a file were wrong, whose they were and who gave others."""
    blocks = "block was" if record["wrong"] == 1 else "blocks were"
    before = _named(record["gave"])
    return (
        f"{record['path']}: {record['wrong']:,} of {record['blocks']:,} {blocks} wrong, from {before}"
        f"; fetched again from {_named(record['mended'])}"
    )


def repairs(told: Explained) -> str:
    """`3 blocks repaired`; empty where none were."""
    count = sum(one["wrong"] for one in told.repairs)
    return f"{count:,} {'block' if count == 1 else 'blocks'} repaired" if count else ""


def _named(sources: Mapping[str, int]) -> str:
    return ", ".join(name or "an earlier run" for name in sources)


def remark(record: Mapping[str, Any]) -> str:
    """What there is to remark of a source that was used, in a few words."""
    said = ["gave wrong bytes"] if record["lied_about"] else []
    if record["reasons"]:
        said.append("left out of some files")
    if record["retries"]:
        said.append(retries(record["retries"]))
    return ", ".join(said)


def uselessness(record: Mapping[str, Any]) -> str:
    """Why a source could not be used, as it said itself; empty where it was used, or would have been of use."""
    if record["bytes"]:
        return ""
    return next(iter(record["reasons"]), "") or str(record["trouble"])


def retries(count: int) -> str:
    """`1 retry`, `3 retries`."""
    return "1 retry" if count == 1 else f"{count:,} retries"


def _why_not(record: Mapping[str, Any], told: Explained) -> str:
    if record["reasons"]:
        return f"not used: {'; '.join(record['reasons'])}"
    if record["trouble"]:
        return f"not used: failed {_times(record['retries'])}, last: {record['trouble']}"
    if record["answers"] or record["segments_given_away"]:
        return "not used: it was asked, and others were done before it had sent anything"
    others = any(other["bytes"] for other in told.sources.values())
    return "not asked: the others had taken all there was to fetch" if others else "not asked"


def _share(record: Mapping[str, Any]) -> str:
    return f"{100 * record['share']:.0f} %"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"

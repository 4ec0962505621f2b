"""How numbers and other people's text are written for a person to read."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_LONGEST_S = 100 * 3600  # beyond that a guess is no information


def safe(text: str) -> str:
    """The text with everything escaped that could act on a terminal instead of standing on it.

    File names and messages come from other people's servers: control characters, escape sequences, newlines,
    marks that turn the direction of writing.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def size(count: float) -> str:
    """Bytes as a person says them: `3.1 GiB`."""
    amount, unit = _scaled(count)
    return f"{_short(amount, unit)} {unit}"


def part(done: float, whole: float, between: str = "/") -> str:
    """Some of the bytes of something, in one unit: `1.4/3.1 GiB`."""
    amount, unit = _scaled(whole)
    return f"{_short(amount * done / whole if whole else 0, unit)}{between}{_short(amount, unit)} {unit}"


def rate(per_second: float) -> str:
    """A speed: `112 MiB/s`."""
    return f"{size(per_second)}/s"


def clock(seconds: float | None) -> str:
    """Time left: `0:42`, `1:02:03`; dashes where there is no telling."""
    if seconds is None or seconds > _LONGEST_S:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """Time taken: `0.8 s`, `42 s`, `3 min 5 s`, `1 h 2 min`."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - below ten, tenths tell
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def files(count: int) -> str:
    """`1 file`, `12 files`."""
    return f"{count:,} file" if count == 1 else f"{count:,} files"


def percent(done: float, whole: float) -> int:
    """How far, rounded down and never 100: that is for what is verified and in place."""
    return min(99, int(100 * done / whole)) if whole else 99


def _scaled(count: float) -> tuple[float, str]:
    """The amount in the unit that leaves at most three digits before the point."""
    amount = float(count)
    for unit in _UNITS[:-1]:
        if amount < 999.5:  # noqa: PLR2004 - would be rounded to four digits
            return amount, unit
        amount /= 1024
    return amount, _UNITS[-1]


def _short(amount: float, unit: str) -> str:
    return f"{amount:.0f}" if unit == _UNITS[0] or amount >= 99.95 else f"{amount:.1f}"  # noqa: PLR2004

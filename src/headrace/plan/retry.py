"""How long to leave a place alone after it failed.

Full jitter (M. Brooker, "Exponential backoff and jitter", AWS Architecture Blog 2015): a uniform share of an
exponentially growing pause keeps many clients from coming back in step.
"""

from __future__ import annotations

FIRST_PAUSE_S = 0.25


def pause_s(failures: int, *, chance: float, most_s: float, asked_s: float | None = None) -> float:
    """Seconds to wait after the `failures`-th failure in a row, `chance` being uniform in [0, 1).

    A time the server asked for is kept to, with up to a tenth on top so that its clients spread out; a server
    that asks for no time at all gets the pause it would have got unasked.
    """
    own = min(most_s, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16)) * chance
    return own if asked_s is None else max(own, asked_s * (1 + chance / 10))

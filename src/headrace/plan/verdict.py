"""What was measured of a source, and what to think of it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.manifest import Digest, Entry, Manifest

RUNGS = (1, 2, 4, 8, 16)
"""How many connections are tried, one number after the other."""

_MORE = 1.1  # a rung that brings less than this much more than the best before is the last
_FALLEN = 0.7  # connections that together bring less than this share of the best were too many
_SLOW = 0.1  # of the best source's rate: still of use where others fail
_SKEW_TOLD_S = 5.0
_SKEW_BAD_S = 300.0  # signed URLs are good for minutes, by the clock of who made them
_DAY_S = 24 * 3600.0
_HOUR_S = 3600.0
_MINUTE_S = 60.0


class Grade(enum.Enum):
    """How good a source is for pulls of what was asked."""

    GOOD = "good"
    USABLE = "usable"
    UNUSABLE = "unusable"
    UNKNOWN = "unknown"

    @property
    def rank(self) -> int:
        """The lower the better."""
        return list(Grade).index(self)


class Age(enum.Enum):
    """How a source's commit of a revision stands to the trusted source's.

    `ALIKE` is another commit, or none that is one, with all that the trusted source has: which is all that counts.
    """

    SAME = "same"
    ALIKE = "alike"
    BEHIND = "behind"
    OTHER = "other"
    UNKNOWN = "unknown"


_HAS = {Age.SAME: "has the trusted source's commit", Age.ALIKE: "has the trusted source's files"}


@dataclass(frozen=True)
class Past:
    """A commit that a branch has been at; `at` is its time in seconds since 1970, where that is told."""

    commit: str
    at: float | None = None


@dataclass(frozen=True)
class Freshness:
    """`commits` and `seconds` say how far a source is behind, where the trusted source tells."""

    age: Age = Age.UNKNOWN
    commits: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        if self.age is not Age.BEHIND:
            return (
                "has another commit than the trusted source"
                if self.age is Age.OTHER
                else self.age.name.lower()
            )
        told = "1 commit" if self.commits == 1 else f"{self.commits} commits"
        return f"is behind by {told}" + (f", {_long(self.seconds)}" if self.seconds is not None else "")


def has_all(own: Manifest, trusted: Manifest) -> bool:
    """Whether a source lists all that the trusted one does: by digest, small files of another kind of digest by name."""
    digests = {(one.digest, one.size) for one in own.entries}
    names = {(one.path, one.size, one.digest.algorithm) for one in own.entries}

    def has(entry: Entry) -> bool:
        if (entry.digest, entry.size) in digests:
            return True
        return (
            entry.digest.algorithm == Digest.GIT_BLOB_SHA1
            and (entry.path, entry.size, Digest.SHA256) in names
        )

    return all(map(has, trusted.entries))


def freshness(own: str | None, trusted: str | None, history: Sequence[Past]) -> Freshness:
    """How a source's commit stands to the trusted one; `history` is the trusted source's, newest first."""
    if own is None or trusted is None:
        return Freshness()
    if own == trusted:
        return Freshness(Age.SAME, 0, 0.0)
    commits = [one.commit for one in history]
    if own not in commits or trusted not in commits or commits.index(own) < commits.index(trusted):
        return Freshness(Age.OTHER)
    new, old = history[commits.index(trusted)], history[commits.index(own)]
    apart_s = max(0.0, new.at - old.at) if new.at is not None and old.at is not None else None
    return Freshness(Age.BEHIND, commits.index(own) - commits.index(trusted), apart_s)


@dataclass(frozen=True)
class Rung:
    """What so many connections came to: bytes a second together, and in words what refused them, if anything did."""

    connections: int
    rate: float
    refusal: str = ""


@dataclass(frozen=True)
class Facts:
    """What was measured of one address of a source; None is what could not be.

    Attributes:
        source, url: its name, and where it is.
        host, address: which host gave the bytes, and the one of its addresses that this is about.
        has_repo: whether the source has the repo and the revision.
        commit: what the revision is there.
        has_file: whether it gives a file of the trusted source's commit.
        connect_s: until a connection stood, TLS included.
        first_byte_s: from then on until the first byte of a file came.
        ranges: whether it gives parts of a file.
        redirects_to: the host it leads to for files, where that is another.
        skew_s: how far its clock is ahead of this machine's.
        rungs: what several numbers of connections came to.
        failure: in words, why it cannot be used.
    """

    source: str
    url: str
    host: str = ""
    address: str = ""
    has_repo: bool | None = None
    commit: str | None = None
    freshness: Freshness = field(default_factory=Freshness)
    has_file: bool | None = None
    connect_s: float | None = None
    first_byte_s: float | None = None
    ranges: bool | None = None
    redirects_to: str | None = None
    skew_s: float | None = None
    rungs: tuple[Rung, ...] = ()
    failure: str = ""

    @property
    def rate_one(self) -> float | None:
        """Bytes a second over one connection."""
        return next((one.rate for one in self.rungs if one.connections == 1 and not one.refusal), None)

    @property
    def best(self) -> Rung | None:
        """The number of connections that brought most."""
        return max((one for one in self.rungs if one.rate), key=lambda one: one.rate, default=None)

    @property
    def borne(self) -> int | None:
        """The most connections that were neither refused nor brought less than fewer did."""
        borne, most = None, 0.0
        for one in self.rungs:
            if one.refusal or not one.rate or one.rate < _FALLEN * most:
                break
            borne, most = one.connections, max(most, one.rate)
        return borne


@dataclass(frozen=True)
class Probed:
    """What was measured, and the verdict with its reason in words."""

    facts: Facts
    grade: Grade
    reason: str


def next_rung(climbed: Sequence[Rung], most: int) -> int | None:
    """How many connections to try next, at most `most`; None where more would bring nothing or are not borne."""
    allowed = [one for one in RUNGS if one <= most] or [1]
    if not climbed:
        return allowed[0]
    last, before = climbed[-1], max((one.rate for one in climbed[:-1]), default=0.0)
    if last.refusal or last.rate < _MORE * before or len(climbed) == len(allowed):
        return None
    return allowed[len(climbed)]


def judge(facts: Sequence[Facts]) -> tuple[Probed, ...]:
    """Verdicts on all that were measured together, the best first."""
    best = max((one.best.rate for one in facts if one.best), default=0.0)
    probed = [Probed(one, *_verdict(one, best)) for one in facts]
    return tuple(sorted(probed, key=lambda one: (one.grade.rank, -(one.facts.best or Rung(0, 0.0)).rate)))


def _verdict(facts: Facts, best_rate: float) -> tuple[Grade, str]:
    if facts.failure:
        return Grade.UNUSABLE, facts.failure
    if facts.best is None:
        if facts.rungs:
            return Grade.UNUSABLE, facts.rungs[-1].refusal or "no byte came"
        return Grade.UNKNOWN, "was not measured"
    if facts.has_file is False:
        late = f" and {facts.freshness}" if facts.freshness.age is not Age.UNKNOWN else ""
        return Grade.UNUSABLE, f"does not have the trusted source's commit{late}"
    flaws = _flaws(facts, best_rate)
    return (Grade.USABLE, "; ".join(flaws)) if flaws else (Grade.GOOD, _praise(facts))


def _flaws(facts: Facts, best_rate: float) -> list[str]:
    flaws = []
    if facts.ranges is False:
        flaws.append("gives files only as a whole: one connection, and no resuming")
    if facts.freshness.age in (Age.BEHIND, Age.OTHER):
        flaws.append(str(facts.freshness))
    if facts.best is not None and facts.best.rate < _SLOW * best_rate:
        flaws.append(f"brings {100 * facts.best.rate / best_rate:.0f} % of what the best one does")
    if facts.rungs and facts.rungs[-1].refusal and len(facts.rungs) <= 2:  # noqa: PLR2004  # one rung was borne
        flaws.append(f"{facts.rungs[-1].connections} connections are too many: {facts.rungs[-1].refusal}")
    if facts.skew_s is not None and abs(facts.skew_s) > _SKEW_BAD_S:
        flaws.append(_clock(facts.skew_s))
    return flaws


def _praise(facts: Facts) -> str:
    told = [_HAS.get(facts.freshness.age, "gives the file")]
    if facts.redirects_to is not None:
        told.append(f"files come from {facts.redirects_to}")
    if facts.rungs[-1].refusal:
        told.append(f"{facts.rungs[-1].connections} connections are too many: {facts.rungs[-1].refusal}")
    if facts.skew_s is not None and abs(facts.skew_s) > _SKEW_TOLD_S:
        told.append(_clock(facts.skew_s))
    return "; ".join(told)


def _clock(skew_s: float) -> str:
    return f"its clock is {_long(abs(skew_s))} {'ahead' if skew_s > 0 else 'behind'}"


def _long(seconds: float) -> str:
    for unit, name in ((_DAY_S, "day"), (_HOUR_S, "hour"), (_MINUTE_S, "minute")):
        if seconds >= unit:
            count = round(seconds / unit)
            return f"{count} {name}" + ("" if count == 1 else "s")
    return f"{seconds:.0f} s"

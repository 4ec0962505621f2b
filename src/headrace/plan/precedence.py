"""Which blob an idle lane serves: people in equal parts, one person's blobs one after the other.

Of one person's, every other lane goes where somebody waits, be it in the last blob of all: who opens a model of many
files reads the head of each before anything else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from headrace.plan.assignment import Assignment
from headrace.plan.blob import BlobPlan


def in_turn(wanting: Sequence[BlobPlan], assignments: Collection[Assignment], *, fair: bool) -> BlobPlan:
    """The one of these blobs, in the order they were added, that gets the next lane."""
    if fair:
        return min(wanting, key=lambda one: one.assigned)
    if 2 * sum(one.wished for one in assignments) > len(assignments):
        return wanting[0]
    return next((one for one in wanting if one.is_wished), wanting[0])

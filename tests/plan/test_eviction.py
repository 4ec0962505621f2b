"""How much has to go, and what can never stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.plan.eviction import Care, Usage, excess, floor_of, is_over, why_not

GIB, MIB = 1024**3, 1024**2
SIZES = st.integers(0, 10**6)


@pytest.mark.parametrize(
    ("taken", "goes"),
    [(0, 0), (899, 0), (900, 0), (901, 101), (1000, 200), (1500, 700)],
)
def test_between_the_marks_nothing_goes_and_above_them_down_to_the_lower(taken: int, goes: int) -> None:
    usage = Usage(blobs=taken - taken // 3, arriving=taken // 3, free=10**9)
    assert excess(Care(quota=1000, free_space=0), usage) == goes
    assert is_over(Care(quota=1000), usage) == (taken > 1000)
    assert not excess(Care(quota=0, free_space=0), usage)


@pytest.mark.parametrize(("disk", "floor"), [(10**12, GIB), (50 * MIB, MIB), (0, 0)])
def test_so_much_stays_free_unless_somebody_says_otherwise(disk: int, floor: int) -> None:
    assert floor_of(Care(), disk) == floor
    assert floor_of(Care(free_space=7), disk) == 7


def test_what_comes_next_counts_as_taken_from_the_disk() -> None:
    care = Care(free_space=400)
    assert not excess(care, Usage(free=400))
    assert not excess(care, Usage(free=900), coming=500)
    assert excess(care, Usage(free=900), coming=501) == 101
    assert excess(care, Usage(free=100)) == 400


@given(SIZES, SIZES, SIZES, SIZES)
def test_what_goes_is_enough_and_once_it_went_nothing_more_goes(
    quota: int, floor: int, blobs: int, free: int
) -> None:
    care, usage = Care(quota, floor), Usage(blobs=blobs, free=free)
    goes = excess(care, usage)
    after = Usage(blobs=max(0, blobs - goes), free=free + goes)
    assert not excess(care, after)
    assert not is_over(care, after)


def test_a_file_that_cannot_be_kept_whatever_goes_is_told_why() -> None:
    care = Care(quota=1000, free_space=0)
    assert why_not(care, Usage(blobs=1000, free=10**6), 1000, 1000) is None
    assert "1001 bytes" in (why_not(care, Usage(free=10**6), 1001, 1001) or "")
    assert why_not(care, Usage(blobs=700, pinned=700, free=10**6), 301, 301)
    assert why_not(care, Usage(blobs=700, pinned=700, free=10**6), 300, 300) is None


def test_a_disk_has_room_for_what_fits_when_all_else_has_gone() -> None:
    care, size = Care(free_space=100 * MIB), 200 * MIB
    assert why_not(care, Usage(blobs=200 * MIB, free=100 * MIB), size, size) is None
    assert why_not(care, Usage(blobs=200 * MIB, pinned=1, free=100 * MIB), size, size)
    assert why_not(care, Usage(blobs=100 * MIB, left=100 * MIB, free=100 * MIB), size, size) is None
    assert why_not(care, Usage(free=60 * MIB), MIB, MIB) is None  # small ones may have some of the floor
    assert why_not(care, Usage(free=50 * MIB), MIB, MIB)

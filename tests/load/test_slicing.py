"""The bytes an index reaches, compared with what torch reads."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.load.slicing import part_of
from headrace.ranges import Range

shapes = st.lists(st.integers(0, 5), max_size=4)
one_index = st.one_of(
    st.integers(-6, 6),
    st.slices(6).filter(lambda one: one.step is None or one.step > 0),
    st.just(...),
)
indices = st.lists(one_index, max_size=4).filter(lambda index: index.count(...) <= 1)


@given(shapes, indices, st.integers(1, 8))
def test_it_is_just_between_the_first_and_the_last_that_torch_reads(
    shape: list[int], index: list[Any], width: int
) -> None:
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    size = whole.numel() * width
    part = part_of(shape, size, tuple(index))
    try:
        read = whole[tuple(index)]
    except (IndexError, TypeError):
        assert part == Range(0, size)
        return
    if not read.numel():
        assert part.start == part.stop or not whole.numel()
    else:
        assert part == Range(int(read.min()) * width, (int(read.max()) + 1) * width)


def test_what_it_does_not_know_is_everything() -> None:
    for index in (None, [0], torch.tensor([1]), True, (0, None), (0, [1])):
        assert part_of([4, 4], 32, index) == Range(0, 32)
    assert part_of([4, 3], 6, 0) == Range(0, 6)  # half a byte each
    assert part_of([4, 4], 32, slice(1, 3)) == Range(8, 24)

"""Reading ahead is for files that are cold, on media where several readers get more than one, and in the order of use."""

from __future__ import annotations

import pytest

from headrace.plan.ahead import PIECE_BYTES, Facts, bytes_ahead, natural, order_of_use, pays
from headrace.ranges import Range

GB = 10**9
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts(is_far=True, cold_bytes=2 * GB, free_bytes=16 * GB), 2 * GB),
        (Facts(is_far=False, cold_bytes=2 * GB, free_bytes=16 * GB), 0),
        (Facts(is_far=True, cold_bytes=0, free_bytes=16 * GB), 0),
        (Facts(is_far=True, cold_bytes=32 * MIB, free_bytes=16 * GB), 0),
        (Facts(is_far=True, cold_bytes=2 * GB, free_bytes=2 * GB), GB),
        (Facts(is_far=True, cold_bytes=2 * GB, free_bytes=0), 0),
    ],
    ids=[
        "cold",
        "a disk of this machine",
        "warm",
        "small",
        "larger than half of what is free",
        "nobody knows what is free",
    ],
)
def test_how_much_is_read_ahead(facts: Facts, expected: int) -> None:
    assert bytes_ahead(facts) == expected


@pytest.mark.parametrize(
    ("one", "several", "expected"),
    [
        (64e6, 600e6, True),  # a network: streams are slow, and do not hinder each other
        (700e6, 830e6, False),  # a disk that one stream keeps busy
        (150e6, 20e6, False),  # one that turns
        (6e9, 11e9, False),  # memory
    ],
)
def test_whether_it_pays(one: float, several: float, *, expected: bool) -> None:
    assert pays(one, several) is expected


def test_names_are_ordered_as_people_count() -> None:
    names = ["model.layers.10.up", "model.layers.2.up", "lm_head", "model.layers.2.down", "1", "model.norm"]
    assert sorted(names, key=natural) == [
        "1",
        "lm_head",
        "model.layers.2.down",
        "model.layers.2.up",
        "model.layers.10.up",
        "model.norm",
    ]


def test_pieces_come_in_the_order_of_use_each_once_and_only_cold_ones() -> None:
    first = {"layers.10": Range(0, 2 * PIECE_BYTES), "layers.2": Range(2 * PIECE_BYTES, 3 * PIECE_BYTES + 5)}
    second = {
        "layers.1": Range(8, PIECE_BYTES + 9),
        "layers.2.bias": Range(PIECE_BYTES + 9, PIECE_BYTES + 11),
    }
    cold = [frozenset({0, 2, 3}), frozenset({0, 1})]
    assert order_of_use([first, second], cold) == [(1, 0), (1, 1), (0, 2), (0, 3), (0, 0)]

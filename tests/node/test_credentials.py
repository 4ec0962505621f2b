"""What is read of `Authorization`: the node's own is taken out, whatever it comes in; what is left is the source's."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.node.access.credentials import Credentials

MINE, HUBS = "hrn_abc-DEF_123", "hf_secret"


def basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "token", "left"),
    [
        ("", "", ""),
        (f"Bearer {MINE}", MINE, ""),
        (f"bearer   {MINE}", MINE, ""),
        (f"Bearer {MINE}:{HUBS}", MINE, f"Bearer {HUBS}"),
        (f"Bearer {HUBS}:{MINE}", MINE, f"Bearer {HUBS}"),
        (f"Bearer {MINE}:", MINE, ""),
        (f"Bearer {MINE}:any-form", MINE, "Bearer any-form"),
        (f"Bearer {HUBS}", "", f"Bearer {HUBS}"),
        (basic(f"x:{MINE}"), MINE, ""),
        (basic(f"{MINE}:"), MINE, ""),
        (basic(f"{HUBS}:{MINE}"), MINE, f"Bearer {HUBS}"),
        (basic(f"x:{MINE}:{HUBS}"), MINE, f"Bearer {HUBS}"),
        (basic("user:password"), "", basic("user:password")),
        ("Basic no base64", "", "Basic no base64"),
        (f"Token  {MINE}", MINE, ""),
        (f"Digest username={MINE}", "", ""),
        ("Bearer hra_admin", "hra_admin", ""),
        (MINE, "", ""),
    ],
)
def test_both_parts(header: str, token: str, left: str) -> None:
    told = Credentials.of(header)
    assert (told.token, told.authorization) == (token, left)


def test_a_header_of_its_own_counts_first() -> None:
    told = Credentials.of(f"Bearer {HUBS}", MINE)
    assert (told.token, told.authorization) == (MINE, f"Bearer {HUBS}")
    told = Credentials.of(f"Bearer hrn_other:{HUBS}", MINE)
    assert (told.token, told.authorization) == (MINE, f"Bearer {HUBS}")


def test_secrets_are_not_in_what_is_printed() -> None:
    assert "hrn_" not in repr(Credentials.of(f"Bearer {MINE}:{HUBS}"))
    assert "hf_" not in repr(Credentials.of(f"Bearer {MINE}:{HUBS}"))


@given(st.text(), st.text(), st.sampled_from(["Bearer", "Basic", "basic", "Odd", ""]))
def test_whatever_is_left_has_nothing_of_the_nodes(before: str, behind: str, scheme: str) -> None:
    for header in (f"{scheme} {before}{MINE}{behind}", basic(f"{before}{MINE}{behind}")):
        left = Credentials.of(header).authorization
        assert MINE not in left
        assert b64encode(MINE.encode()).decode()[:-4] not in left

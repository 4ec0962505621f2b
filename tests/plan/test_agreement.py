"""What several URLs of one file agree on."""

from __future__ import annotations

import pytest

from headrace.manifest import Digest
from headrace.plan.agreement import Told, agree

A, B = Digest(Digest.SHA256, "a" * 64), Digest(Digest.SHA256, "b" * 64)
GIT = Digest(Digest.GIT_BLOB_SHA1, "c" * 40)


@pytest.mark.parametrize(
    ("told", "wanted", "size", "digest", "left_out"),
    [
        ([Told(5)], None, 5, None, ""),
        ([Told(5), Told(6), Told(6)], A, 6, A, "0"),
        ([Told(5), Told(6)], A, 5, A, "1"),
        ([Told(5), Told(6), Told(6, A)], A, 6, A, "0"),
        ([Told(5), Told(5), Told(6, A)], A, 6, A, "01"),
        ([Told(5, A), Told(6), Told(6)], None, 5, A, "12"),
        ([Told(5), Told(6, A)], None, 6, A, "0"),
        ([Told(5, A), Told(5, B)], None, 5, A, "1"),
        ([Told(5, B), Told(5, A)], A, 5, A, "0"),
        ([Told(5, GIT), Told(5)], A, 5, A, ""),
        ([Told(5, GIT), Told(5, A)], None, 5, GIT, ""),
        ([Told(5, B)], A, 5, A, "0"),
    ],
    ids=range(12),
)
def test_agreement(
    told: list[Told], wanted: Digest | None, size: int, digest: Digest | None, left_out: str
) -> None:
    agreed = agree({str(number): one for number, one in enumerate(told)}, wanted)
    assert (agreed.size, agreed.digest, "".join(sorted(agreed.left_out))) == (size, digest, left_out)

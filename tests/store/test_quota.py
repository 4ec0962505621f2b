"""What a quota leaves, from answers such as the kernel gives."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.store.quota import Quota, quota_of, quotas

GIB = 1024**3


def answering(valid: int = 5, **fields: int) -> Any:
    def ask(kind: int, source: bytes, number: int, answer: Any) -> bool:
        assert (kind, source, number) == (0, b"/dev/sda1", 1000)
        answer.valid = valid
        for name, value in fields.items():
            setattr(answer, name, value)
        return True

    return ask


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"bytes_hard": 10 * GIB // 1024, "bytes_used": 4 * GIB}, (6 * GIB, None)),
        ({"bytes_hard": 1, "bytes_used": 4 * GIB}, (0, None)),
        ({"files_hard": 10, "files_used": 3}, (None, 7)),
        ({"bytes_soft": 1, "bytes_used": GIB}, None),
        ({"bytes_hard": 1, "valid": 0}, None),
        ({}, None),
    ],
)
def test_hard_limits_count(fields: dict[str, int], left: tuple[int | None, int | None] | None) -> None:
    found = quota_of("user 1000", 0, "/dev/sda1", 1000, answering(**fields))
    assert found == (left and Quota("user 1000", *left))


def test_what_has_no_device_or_no_quota_binds_nobody(tmp_path: Any) -> None:
    assert quotas(tmp_path, "tmpfs") == []
    assert quotas(tmp_path, "/dev/nothing") == []

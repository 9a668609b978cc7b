"""From figures to grades."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from stepca_pki.health.verdict import Finding, Grade, healthy, judge_disk, judge_expiry

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "grade"),
    [
        (-100, 100, Grade.ok),
        (-1000, 29, Grade.warning),
        (-1000, 31, Grade.ok),
        (-1, 1, Grade.ok),
        (-9, 1, Grade.warning),
        (-9, -1, Grade.failed),
        (1, 9, Grade.failed),
    ],
)
def test_expiry(start: int, end: int, grade: Grade):
    found = judge_expiry("x", NOW + timedelta(days=start), NOW + timedelta(days=end), NOW, fix="renew")

    assert found.grade is grade
    assert (found.fix is None) == (grade is Grade.ok)


@pytest.mark.parametrize(("free", "grade"), [(1, Grade.failed), (500 * 2**20, Grade.warning), (2 * 2**30, Grade.ok)])
def test_disk(free: int, grade: Grade):
    assert judge_disk("/", free).grade is grade


def test_a_warning_is_for_people_and_a_failure_for_machines():
    assert healthy([Finding("a", Grade.ok, ""), Finding("b", Grade.warning, "")])
    assert not healthy([Finding("a", Grade.ok, ""), Finding("b", Grade.failed, "")])

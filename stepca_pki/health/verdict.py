"""From what the probes saw to a grade. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

WARN_BEFORE = timedelta(days=30)
MIN_FREE_BYTES = 100 * 1024 * 1024
WARN_FREE_BYTES = 1024 * 1024 * 1024


class Grade(StrEnum):
    ok = "ok"
    warning = "warning"
    failed = "failed"


@dataclass(frozen=True)
class Finding:
    """One line of `pki health`: what was probed, its grade, the figure, and what to do."""

    probe: str
    grade: Grade
    figure: str
    fix: str | None = None


def judge_expiry(what: str, not_before: datetime, not_after: datetime, now: datetime, *, fix: str) -> Finding:
    """Grade a validity. Short-lived certificates warn in the last fifth of their life instead of 30 days before."""
    if now < not_before:
        return Finding(what, Grade.failed, f"not valid before {not_before:%Y-%m-%d %H:%M} UTC", "check the clock")
    left = not_after - now
    if left < timedelta(0):
        return Finding(what, Grade.failed, f"expired on {not_after:%Y-%m-%d %H:%M} UTC", fix)
    figure = f"until {not_after:%Y-%m-%d %H:%M} UTC, {_left(left)} left"
    if left < min(WARN_BEFORE, (not_after - not_before) / 5):
        return Finding(what, Grade.warning, figure, fix)
    return Finding(what, Grade.ok, figure)


def _left(left: timedelta) -> str:
    hours = int(left.total_seconds() // 3600)
    return f"{left.days} days" if left.days >= 2 else f"{hours} h"


def judge_disk(folder: str, free_bytes: int) -> Finding:
    """Grade the free space where the CA writes: without it nothing can be issued on record."""
    figure = f"{free_bytes / 1024**3:.1f} GiB free on {folder}"
    if free_bytes < MIN_FREE_BYTES:
        return Finding("disk", Grade.failed, figure, "free space now: step-ca cannot record what it issues")
    grade = Grade.warning if free_bytes < WARN_FREE_BYTES else Grade.ok
    return Finding("disk", grade, figure, "free space" if grade is Grade.warning else None)


def healthy(findings: Sequence[Finding]) -> bool:
    """Warnings are for people; only a failed probe makes the authority unhealthy."""
    return all(finding.grade is not Grade.failed for finding in findings)

"""Locks, and the one place that starts programs."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from stepca_pki.commands import run
from stepca_pki.errors import CommandFailed, LockHeld
from stepca_pki.locks import exclusive

SECOND = timedelta(seconds=20)


def test_the_second_is_told_who_holds_the_lock(tmp_path: Path):
    code = "import sys; from pathlib import Path; from stepca_pki.locks import exclusive\nwith exclusive(Path(sys.argv[1])): pass"
    with exclusive(tmp_path / "lock"):
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "lock"], capture_output=True, text=True, check=False
        )

    assert done.returncode != 0
    assert f"process {os.getpid()}" in done.stderr


def test_a_lock_is_free_again(tmp_path: Path):
    with exclusive(tmp_path / "lock"):
        pass
    with exclusive(tmp_path / "lock"):
        pass


def test_a_held_lock_is_waited_for_in_vain(tmp_path: Path):
    held, wanted = exclusive(tmp_path / "lock"), exclusive(tmp_path / "lock", wait=timedelta(milliseconds=50))
    with held, pytest.raises(LockHeld), wanted:
        pass


def test_a_program_has_a_chosen_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "x")

    seen = run(["env"], timeout=SECOND, extra_environment={"OURS": "1"}).stdout

    assert "OURS=1" in seen
    assert "SECRET_OF_THE_SHELL" not in seen


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["/nonexistent"], "not found"),
        (["/etc/passwd"], "cannot be started"),
        (["sh", "-c", "echo reason >&2; exit 3"], "code 3: reason"),
        (["sleep", "9"], "no end after"),
    ],
)
def test_each_failure_has_its_words(argv: list[str], words: str):
    with pytest.raises(CommandFailed, match=words):
        run(argv, timeout=timedelta(seconds=0.2))


def test_an_argument_is_never_a_shell_word():
    assert run(["printf", "%s", "$(id); `id`"], timeout=SECOND).stdout == "$(id); `id`"

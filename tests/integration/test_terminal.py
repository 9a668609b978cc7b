"""A person at a terminal: questions, progress, colours."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stepca_pki.home import Home
from stepca_pki.runtime.control import stop


def at_a_terminal(words: list[str], answers: str, **environment: str) -> tuple[int, str]:
    """Run `pki` on a pseudo-terminal, type *answers*, and return the exit code and what was shown."""
    ours, theirs = pty.openpty()
    chosen = {**os.environ, "TERM": "xterm", **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "stepca_pki", *words], stdin=theirs, stdout=theirs, stderr=theirs, env=chosen
    )
    os.close(theirs)
    os.write(ours, answers.encode())
    shown, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 0.1)
        if ready:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
        elif process.poll() is not None:
            break
    code = process.wait(timeout=30)
    os.close(ours)
    return code, shown.decode(errors="replace")


def test_init_asks_the_questions_that_matter(tmp_path: Path, free_port: Callable[[], int]):
    home = Home(tmp_path / "ca")
    port = free_port()

    try:
        code, shown = at_a_terminal(
            ["init", "--home", str(home.path)], f"Typed CA\nTyped\n127.0.0.1:{port}\nca.example 127.0.0.1\n\ny\n"
        )
    finally:
        stop(home)

    assert code == 0, shown
    assert "name: Typed CA" in home.config.read_text()
    assert "Next:" in shown


def test_a_no_makes_nothing(tmp_path: Path):
    code, shown = at_a_terminal(["init", "--home", str(tmp_path / "ca")], "\n" * 5 + "n\n")

    assert code != 0, shown
    assert not (tmp_path / "ca").exists()


def test_a_dry_run_shows_the_plan_and_makes_nothing(tmp_path: Path):
    code, shown = at_a_terminal(["init", "--yes", "--dry-run", "--home", str(tmp_path / "ca")], "")

    assert code == 0, shown
    assert "generate the root key" in shown
    assert not (tmp_path / "ca").exists()


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal_only_and_never_with_no_color(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
):
    monkeypatch.delenv("NO_COLOR")
    key, certificate = tmp_path / "key", tmp_path / "crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc",
         "-subj", "/CN=x", "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip

    _, shown = at_a_terminal(["cert", "show", str(certificate)], "", **environment)

    assert ("\x1b[31m" in shown) == coloured

"""The command itself: help that fits a screen, loads nothing, and has examples."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.main import get_command

from stepca_pki.cli.app import app
from stepca_pki.cli.main import COMMANDS

HEAVY = ("cryptography", "pydantic", "pkcs11", "yaml", "requests", "joserfc", "jinja2")


def pki(*words: str, options: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-m", "stepca_pki", *words]
    chosen = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=chosen, check=False)


def leaves() -> list[tuple[str, ...]]:
    root = get_command(app)
    found: list[tuple[str, ...]] = []
    for name in COMMANDS:
        command = root.get_command(None, name)  # type: ignore[attr-defined]
        found += [(name, sub) for sub in command.commands] if COMMANDS[name][3] else [(name,)]
    return found


def test_help_fits_a_screen():
    lines = pki("--help").stdout.splitlines()

    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_help_loads_nothing_heavy():
    loaded = pki("--help", options=("-X", "importtime")).stderr

    assert [] == [name for name in HEAVY if f" {name}\n" in loaded]


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_every_command_has_an_example(words: tuple[str, ...]):
    root = get_command(app)
    command = root.get_command(None, words[0])  # type: ignore[attr-defined]
    if len(words) == 2:
        command = command.commands[words[1]]

    assert "Example" in command.help
    assert f"pki {' '.join(words)}" in command.help


def test_the_version():
    assert pki("--version").stdout.startswith("pki ")


@pytest.mark.parametrize("words", [("nonsense",), ("init", "--nonsense"), ("cert", "nonsense"), ("cert", "show")])
def test_wrong_use_ends_with_2_and_no_traceback(words: tuple[str, ...]):
    done = pki(*words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_completion(shell: str):
    script = pki("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout

    assert "pki" in script


def test_completion_knows_the_commands():
    done = pki(_PKI_COMPLETE="complete_bash", COMP_WORDS="pki pro", COMP_CWORD="1")

    assert "provisioner" in done.stdout.split()


def test_nobody_there_to_answer_is_told(tmp_path: object):
    done = subprocess.run(
        [sys.executable, "-m", "stepca_pki", "init", "--home", f"{tmp_path}/x"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "--yes" in done.stderr

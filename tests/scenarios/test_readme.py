"""README is true to the letter: its commands are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from stepca_pki.config.model import Authority
from stepca_pki.home import Home
from stepca_pki.runtime.control import stop

ROOT = Path(__file__).parents[2]


def test_ten_minutes_to_your_own_authority(tmp_path: Path, free_port: Callable[[], int]):
    """Every shell block, in order, by a person with an empty home folder. Only the port is a free one."""
    text = (ROOT / "README.md").read_text()
    script = "set -eux\n" + "".join(re.findall(r"```sh\n(.*?)```", text, re.S)).replace("8443", str(free_port()))
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": cache,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    finally:
        stop(Home(tmp_path / "authority"))

    assert 0 == done.returncode, done.stderr
    assert "trusted (roots:" in done.stdout
    assert "nothing to do" in done.stdout
    assert (tmp_path / "recipe" / "site.conf").is_file()


def test_the_two_commands_exist():
    text = (ROOT / "Makefile").read_text()

    assert re.search(r"^demo: setup", text, re.M)
    assert re.search(r"^test: setup", text, re.M)


def test_every_page_and_room_that_is_named_exists():
    text = (ROOT / "README.md").read_text()
    for page in re.findall(r"\]\(((?:docs|examples)[^)]*)\)", text):
        assert (ROOT / page).exists(), page
    rooms = text.partition("    stepca_pki/\n")[2]
    for line in rooms.splitlines():
        if line.startswith("      "):
            for word in line[:37].split():
                if word.endswith((".py", "/")):
                    assert (ROOT / "stepca_pki" / word).exists(), word


def test_every_room_is_on_the_map():
    text = (ROOT / "README.md").read_text()
    rooms = {path.name for path in (ROOT / "stepca_pki").iterdir() if path.is_dir() and not path.name.startswith("__")}

    assert not {room for room in rooms - {"templates"} if f"{room}/" not in text}


def test_the_reference_names_every_key():
    text = (ROOT / "docs" / "pki.yaml.md").read_text()
    for section in ("root", "intermediate", "server"):
        for field in Authority.model_fields[section].annotation.model_fields:  # type: ignore[union-attr]
            assert f"`{section}.{field}" in text, field
    for field in Authority.model_fields:
        assert f"`{field}" in text, field

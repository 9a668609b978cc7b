"""What all tests share: real tokens, homes, a free port, and a check that nothing is left running."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepca_pki.config.edit import new_file
from stepca_pki.config.model import TokenRef
from stepca_pki.home import Home
from stepca_pki.hsm.modules import find_module
from stepca_pki.hsm.token import init_token
from stepca_pki.runtime.control import stop

PIN, SO_PIN = "1234-user", "5678-officer"

Pki = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the caller's shell may steer a test."""
    monkeypatch.delenv("PKI_HOME", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a port of loopback that was free a moment ago."""

    def take() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return take


@pytest.fixture
def module() -> Path:
    """The PKCS#11 module under test; PKI_TEST_MODULE puts another one under the suite."""
    return find_module(os.environ.get("PKI_TEST_MODULE", "softhsm2"))


@pytest.fixture
def module_environment(tmp_path: Path) -> dict[str, str]:
    """A fresh, empty token store for the modules that keep keys in files."""
    folder = tmp_path / "store"
    (folder / "tokens").mkdir(parents=True)
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    return {"SOFTHSM2_CONF": str(conf), "KRYOPTIC_CONF": str(folder / "token.sql")}


@pytest.fixture
def token_ref(tmp_path: Path, module: Path, module_environment: dict[str, str]) -> TokenRef:
    """An initialised token, with its PINs in files of mode 0600."""
    ref = a_token_ref(tmp_path, module, module_environment, "under test")
    init_token(ref, PIN, SO_PIN)
    return ref


def a_token_ref(folder: Path, module: Path, environment: dict[str, str], label: str) -> TokenRef:
    """Name a token that need not exist yet."""
    for name, pin in (("pin", PIN), ("so-pin", SO_PIN)):
        path = folder / name
        path.write_text(pin + "\n")
        path.chmod(0o600)
    return TokenRef(module=str(module), label=label, pin_source=str(folder / "pin"), environment=environment)


@pytest.fixture
def home(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Home]:
    """A home that has only its pki.yaml; whatever runs there at the end is stopped."""
    at = Home(tmp_path / "authority")
    at.path.mkdir()
    at.config.write_text(new_file(name="Test CA", address=f"127.0.0.1:{free_port()}"))
    yield at
    stop(at)


@pytest.fixture
def pki(home: Home) -> Pki:
    """Run the real command on the home; any exit code is returned."""

    def run(
        *arguments: str | Path, timeout: float = 120, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "stepca_pki", *map(str, arguments)]
        chosen = {**os.environ, "PKI_HOME": str(home.path), **(environment or {})}
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout, env=chosen, stdin=subprocess.DEVNULL, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run

"""`pki apply` killed anywhere, and run again: the same end, no second key, nothing half-written.

strace delivers SIGKILL at a chosen system call: really between two of them, in pki itself and in the process
that holds the HSM. PKI_TEST_KILL_STRIDE=1 tries every single call (minutes); CI takes a sample of them and every
step boundary.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from stepca_pki.apply import plan_now
from stepca_pki.ceremony.register import Register
from stepca_pki.config.load import load
from stepca_pki.config.tokens import token_of
from stepca_pki.home import Home
from stepca_pki.hsm.token import open_token

STRIDE = int(os.environ.get("PKI_TEST_KILL_STRIDE", "7"))
WRITING = "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,fsync,fdatasync,fchmod,ftruncate"


def killed_apply(home: Home, *strace: str) -> bool:
    """Run apply under strace; return whether it was killed (or its HSM process was) before the end."""
    command = [
        "strace",
        "-qqq",
        "-o",
        "/dev/null",
        *strace,
        sys.executable,
        "-m",
        "stepca_pki",
        "apply",
        "--home",
        str(home.path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode != 0


def finish(home: Home) -> None:
    """Run apply undisturbed, and look at everything that it must not have spoilt."""
    done = subprocess.run(
        [sys.executable, "-m", "stepca_pki", "apply", "--home", str(home.path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert not plan_now(home)[0]
    authority = load(home.config)
    for role, path in (("root", home.root_certificate), ("intermediate", home.intermediate_certificate)):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        with open_token(token_of(home, authority, role)) as token:  # type: ignore[arg-type]
            assert 1 == len(token.keys())
            key = token.keys()[0]
            assert token.key(key.label, key.id).public_key() == certificate.public_key()
    assert 2 == len(Register(home.register).entries())
    assert 2 == len(list((home.register / "certs").glob("*.pem")))
    subprocess.run(
        ["openssl", "verify", "-CAfile", home.root_certificate, home.intermediate_certificate],
        check=True,
        capture_output=True,
    )


def another(home: Home, folder: Path) -> Home:
    """A fresh home with the same declaration."""
    fresh = Home(folder / "again")
    shutil.rmtree(fresh.path, ignore_errors=True)
    fresh.path.mkdir(parents=True)
    shutil.copy(home.config, fresh.config)
    return fresh


@pytest.mark.timeout(900)
def test_killed_at_every_step_it_finishes_the_next_time(home: Home, tmp_path: Path):
    """The journal is opened before and after each step: that is where each run is killed."""
    number = 0
    while True:
        number += 1
        fresh = another(home, tmp_path)
        journal = fresh.state / "applied.jsonl"
        if not killed_apply(fresh, "-P", str(journal), "-e", f"inject=openat:signal=KILL:when={number}"):
            break
        finish(fresh)
    assert number > 40


@pytest.mark.timeout(900)
def test_killed_between_system_calls_it_finishes_the_next_time(home: Home, tmp_path: Path):
    number, kills = 1, 0
    while True:
        fresh = another(home, tmp_path)
        if not killed_apply(fresh, "-e", f"trace={WRITING}", "-e", f"inject={WRITING}:signal=KILL:when={number}"):
            break
        finish(fresh)
        kills, number = kills + 1, number + STRIDE
    assert kills > 5


@pytest.mark.timeout(900)
def test_when_the_hsm_process_is_killed_it_finishes_the_next_time(home: Home, tmp_path: Path):
    """SoftHSM2 locks its files (fcntl) round every change of an object: it dies at these calls, pki never makes them."""
    number, kills = 1, 0
    while True:
        fresh = another(home, tmp_path)
        if not killed_apply(fresh, "-f", "-e", "trace=fcntl", "-e", f"inject=fcntl:signal=KILL:when={number}"):
            break
        finish(fresh)
        kills, number = kills + 1, number + 16 * STRIDE
    assert kills > 5


def test_killed_again_and_again_it_still_comes_to_the_end(home: Home):
    runs = 0
    while killed_apply(home, "-e", f"trace={WRITING}", "-e", f"inject={WRITING}:signal=KILL:when=12"):
        runs += 1
        assert runs < 50
    assert runs > 1
    finish(home)

"""Which step-ca is used: only one that answers, can do PKCS#11, and is the one that was built."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepca_pki.errors import PkiError, StepCaError
from stepca_pki.stepca import binary


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def a_program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


VERSION = 'echo "Smallstep CA/0.30.2 (linux/amd64)"'


@pytest.mark.usefixtures("cache")
def test_another_program_is_refused(tmp_path: Path):
    with pytest.raises(StepCaError, match="does not answer like step-ca"):
        binary.examine(a_program(tmp_path / "step-ca", "echo hello"))


@pytest.mark.usefixtures("cache")
def test_a_build_without_pkcs11_is_known_as_such(tmp_path: Path):
    words = "unsupported kms type 'pkcs11': step-ca is compiled without cgo or PKCS#11 support"
    script = f'case $1 in version) {VERSION};; *) echo "{words}" >&2; exit 2;; esac'

    found = binary.examine(a_program(tmp_path / "step-ca", script))

    assert (found.version, found.has_pkcs11) == ("0.30.2", False)


@pytest.mark.usefixtures("cache")
def test_what_was_found_out_is_remembered_until_the_file_changes(tmp_path: Path):
    path = a_program(tmp_path / "step-ca", f"case $1 in version) {VERSION};; *) echo PKCS#11 >&2; exit 2;; esac")
    binary.examine(path)

    a_program(path, "echo changed")

    with pytest.raises(StepCaError):
        binary.examine(path)


@pytest.mark.usefixtures("cache")
def test_a_swapped_binary_in_the_cache_is_refused():
    path = a_program(binary.cached_binary(), VERSION)
    path.with_name("step-ca.sha256").write_text("0" * 64 + "  step-ca\n")

    with pytest.raises(PkiError, match="not the binary that was built there"):
        binary.examine(path)

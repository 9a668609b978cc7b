"""What a machine lacks, and the command that brings it."""

from __future__ import annotations

import shutil

import pytest

from stepca_pki import doctor
from stepca_pki.errors import PkiError


def test_on_an_empty_machine_every_lack_has_its_command(monkeypatch: pytest.MonkeyPatch):
    def missing(*_: object, **__: object) -> None:
        raise PkiError("not here")

    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(doctor, "find_module", missing)
    monkeypatch.setattr(doctor, "find_step_ca", missing)

    lacks = [item for item in doctor.examine_machine() if item.detail is None]

    assert any(item.required for item in lacks)
    assert all(item.remedy for item in lacks)
    assert any("pki stepca install" in str(item.remedy) for item in lacks)


@pytest.mark.parametrize(("manager", "words"), [("apt-get", "apt-get install"), ("apk", "apk add")])
def test_the_command_is_that_of_this_machine(monkeypatch: pytest.MonkeyPatch, manager: str, words: str):
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}" if name == manager else None)

    assert doctor.install_command({"apt-get": "softhsm2", "apk": "softhsm"}).startswith(words)

"""Bad disks, bad homes, odd names: on real parts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import PIN, SO_PIN, Pki
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stepca_pki.apply import apply, plan_now
from stepca_pki.config.edit import new_file
from stepca_pki.home import Home
from stepca_pki.runtime import control


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB, made for this test."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k,mode=755", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def declare(folder: Path, free_port: Callable[[], int]) -> Home:
    at = Home(folder)
    at.path.mkdir(exist_ok=True)
    at.config.write_text(new_file(name="Test CA", address=f"127.0.0.1:{free_port()}"))
    return at


def test_a_full_disk_is_told_and_apply_finishes_when_there_is_room(
    small_disk: Path, free_port: Callable[[], int], pki: Pki
):
    """Every amount of room ends in a clear error or in success; afterwards the work is finished."""
    at = declare(small_disk / "ca", free_port)
    filler = small_disk / "filler"
    for left in (0, 4096, 20480, 40960, 61440, 81920, 102400):
        filler.unlink(missing_ok=True)
        fill(filler, small_disk, left)
        done = pki("apply", environment={"PKI_HOME": str(at.path)})
        assert done.returncode in (0, 1)
        if done.returncode:
            assert "pki: error: " in done.stderr
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    done = pki("apply", environment={"PKI_HOME": str(at.path)})

    assert 0 == done.returncode, done.stderr
    assert not plan_now(at)[0]


def fill(path: Path, disk: Path, left: int) -> None:
    free = shutil.disk_usage(disk).free
    path.write_bytes(b"x" * max(0, free - left))


def test_a_read_only_home_is_told(tmp_path: Path, free_port: Callable[[], int], pki: Pki):
    at = declare(tmp_path / "ca", free_port)
    subprocess.run(["mount", "--bind", at.path, at.path], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", at.path], check=True)
    try:
        done = pki("apply", environment={"PKI_HOME": str(at.path)})
    finally:
        subprocess.run(["umount", at.path], check=True)

    assert 1 == done.returncode
    assert "Read-only file system" in done.stderr
    assert "fix: mount the file system writable" in done.stderr


def test_a_full_token_is_told(home: Home, pki: Pki):
    """SoftHSM2's token is full when its disk is: its folder is a file system of its own."""
    home.tokens.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k,mode=700", "tmpfs", home.tokens], check=True)
    try:
        done = pki("apply")
        assert 1 == done.returncode
        assert "pki: error: " in done.stderr
        assert "fix: " in done.stderr
        subprocess.run(["mount", "-o", "remount,size=4m", home.tokens], check=True)
        assert 0 == pki("apply").returncode
    finally:
        subprocess.run(["umount", home.tokens], check=True)


def test_the_home_of_another_user_keeps_its_owner(home: Home):
    """root runs the command; the files belong to the owner of the home."""
    os.chown(home.path, 4242, 4242)
    apply(home)

    assert {4242} == {
        path.stat().st_uid for path in (home.ca_json, home.root_certificate, home.canary_key, home.secrets)
    }


FOLDERS = (
    st.text(st.sampled_from("aZ0 +%;&?üñ\"'\\,.~$"), min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda text: text.strip("."))
)
NAMES = st.text(st.sampled_from("aZ0 +%;&=#?üñ/\"'\\,.~$"), min_size=1, max_size=12).map(str.strip).filter(bool)
PINS = (
    st.text(st.sampled_from("aZ09 +%;&=#?ü/\"'\\,.~$"), min_size=4, max_size=16)
    .map(str.strip)
    .filter(lambda text: len(text) > 3)
)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
    phases=[Phase.generate],
)
@given(folder=FOLDERS, label=NAMES, pin=PINS)
def test_odd_labels_pins_and_paths_reach_a_real_step_ca(
    tmp_path: Path, free_port: Callable[[], int], module: Path, folder: str, label: str, pin: str
):
    """Spaces, '+', '%', ';', umlauts: through rendering and step-ca's own parser to a signature."""
    from stepca_pki.config.model import TokenRef
    from stepca_pki.hsm.token import init_token

    place = tmp_path / folder
    shutil.rmtree(place, ignore_errors=True)
    store = place / "tokens of mine"
    store.mkdir(parents=True)
    conf, pin_file = place / "softhsm2.conf", place / "pin + file"
    conf.write_text(f"directories.tokendir = {store}\nobjectstore.backend = file\nlog.level = ERROR\n")
    pin_file.write_text(pin)
    pin_file.chmod(0o600)
    ref = TokenRef(module=str(module), label=label, pin_source=str(pin_file), environment={"SOFTHSM2_CONF": str(conf)})
    init_token(ref, pin, SO_PIN)
    at = declare(place / "home", free_port)
    token = ref.model_dump_json(exclude_defaults=True, exclude_none=True)
    at.config.write_text(at.config.read_text().replace("intermediate:\n", f"intermediate:\n  token: {token}\n", 1))
    try:
        apply(at)
        control.start_detached(at)  # ready only after a verified canary
    finally:
        control.stop(at)


@pytest.mark.parametrize("character", ["#", "="])
def test_a_home_that_softhsm2_cannot_name_is_refused(
    tmp_path: Path, free_port: Callable[[], int], pki: Pki, character: str
):
    at = declare(tmp_path / f"a{character}b", free_port)
    done = pki("apply", environment={"PKI_HOME": str(at.path)})

    assert 2 == done.returncode
    assert f"cannot name a path with '{character}'" in done.stderr


def test_pins_of_the_fixtures_differ():
    assert PIN != SO_PIN

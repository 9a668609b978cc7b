"""A whole authority on a real token: init, plan, apply, and what OpenSSL says of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Pki
from cryptography import x509

from stepca_pki.apply import apply, plan_now
from stepca_pki.ceremony.register import Register
from stepca_pki.config.load import load
from stepca_pki.errors import Irreversible, LockHeld, PkiError, Waiting
from stepca_pki.home import Home
from stepca_pki.locks import exclusive

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


def openssl(*words: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout + done.stderr


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def assert_is_root(found: x509.Certificate) -> None:
    constraints = found.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = found.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca) == (True, True)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (
        True,
        True,
        True,
        False,
    )
    assert found.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    found.verify_directly_issued_by(found)


def assert_is_intermediate(found: x509.Certificate, root: x509.Certificate) -> None:
    constraints = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert root.not_valid_before_utc <= found.not_valid_before_utc
    assert found.not_valid_after_utc <= root.not_valid_after_utc
    assert found.serial_number.bit_length() > 64
    found.verify_directly_issued_by(root)


def test_apply_makes_what_is_declared_and_a_second_run_does_nothing(home: Home):
    apply(home)
    root, intermediate = certificate(home.root_certificate), certificate(home.intermediate_certificate)

    assert_is_root(root)
    assert_is_intermediate(intermediate, root)
    assert "OK" in openssl("verify", "-x509_strict", "-CAfile", home.root_certificate, home.intermediate_certificate)
    assert "verify OK" in openssl("crl", "-in", home.root_crl, "-CAfile", home.root_certificate, "-noout")
    assert not plan_now(home)[0]
    assert not apply(home)


def test_gnutls_and_openssl_strictly_accept_the_chain(home: Home, tmp_path: Path):
    apply(home)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(home.intermediate_certificate.read_bytes() + home.root_certificate.read_bytes())
    done = subprocess.run(
        ["certtool", "--verify-chain", "--infile", chain], capture_output=True, text=True, check=False
    )

    assert "Chain verification output: Verified." in done.stdout


def test_openssl_alone_can_take_the_register_over(home: Home):
    apply(home)
    serial = f"{certificate(home.intermediate_certificate).serial_number:X}".zfill(32)

    # `openssl ca -status` ends with 1 when all is well: only its words count.
    done = subprocess.run(
        ["openssl", "ca", "-config", "openssl.cnf", "-status", serial],
        capture_output=True,
        text=True,
        check=False,
        cwd=home.register,
    )

    assert f"{serial}=Valid (V)" in done.stdout + done.stderr
    assert 2 == len(Register(home.register).entries())


def test_the_modes_of_all_files_are_right(home: Home):
    apply(home)

    for path in home.path.rglob("*"):
        if path.is_relative_to(home.secrets) or path.is_relative_to(home.state):
            assert not path.stat().st_mode & 0o077, path
    assert 0o644 == home.root_certificate.stat().st_mode & 0o777
    assert not list(home.path.rglob("*.pki-tmp"))


def test_no_pin_is_anywhere_but_in_its_file(home: Home):
    apply(home)
    secrets = {path.read_text().strip() for path in home.secrets.glob("*.*pin")}

    assert 4 == len(secrets)
    for path in home.path.rglob("*"):
        if path.is_file() and path.parent not in (home.secrets,):
            text = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in text], path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_loaded_rendered_and_applied(
    path: Path, home: Home, module: Path, module_environment: dict[str, str], tmp_path: Path
):
    """Where an example names hardware, a SoftHSM2 token stands in: same label or serial rule, same keys."""
    from conftest import PIN, SO_PIN, a_token_ref

    from stepca_pki.hsm.token import init_token

    text = path.read_text()
    authority = load(path)
    for role in ("root", "intermediate"):
        token = getattr(authority, role).token
        if token is not None:
            init_token(a_token_ref(tmp_path, module, module_environment, f"stand-in-{role}"), PIN, SO_PIN)
    home.config.write_text(_with_stand_ins(text, authority, module, module_environment, tmp_path))

    if authority.root.is_here:
        apply(home)
        assert not plan_now(home)[0]
        assert json.loads(home.ca_json.read_text())["authority"]["provisioners"]
    else:
        with pytest.raises(Waiting):
            apply(home)
        assert home.intermediate_csr.is_file()


def _with_stand_ins(text: str, authority: Any, module: Path, environment: dict[str, str], folder: Path) -> str:
    import yaml

    declared = yaml.safe_load(text)
    for role in ("root", "intermediate"):
        if getattr(authority, role).token is not None:
            declared[role]["token"] = {
                "module": str(module),
                "label": f"stand-in-{role}",
                "pin_source": str(folder / "pin"),
                "environment": dict(environment),
            }
    return yaml.safe_dump(declared, sort_keys=False)


def test_an_example_of_every_kind_is_there():
    assert {"embedded", "offline-root", "postgresql", "constrained", "hardware-tokens"} <= {
        path.stem for path in EXAMPLES
    }


@pytest.mark.parametrize("kind", ["RSA-2048", "P-521"])
def test_other_key_types_work_end_to_end(home: Home, kind: str):
    text = home.config.read_text().replace("type: P-384", f"type: {kind}").replace("type: P-256", f"type: {kind}")
    home.config.write_text(text)
    apply(home)

    assert "OK" in openssl("verify", "-CAfile", home.root_certificate, home.intermediate_certificate)


def test_another_subject_of_an_existing_root_is_refused(home: Home):
    apply(home)
    before = home.root_certificate.read_bytes()
    home.config.write_text(home.config.read_text().replace("name: Test CA", "name: Other CA"))

    with pytest.raises(Irreversible, match="rollover"):
        apply(home)
    assert before == home.root_certificate.read_bytes()


def test_other_constraints_are_signed_for_the_same_key(home: Home):
    apply(home)
    before = certificate(home.intermediate_certificate)
    constraints = '  name_constraints: {permitted_dns: [localhost], permitted_ip: ["127.0.0.1/32"]}\n'
    home.config.write_text(home.config.read_text().replace("  lifetime: 5y\n", f"  lifetime: 5y\n{constraints}"))
    apply(home)
    after = certificate(home.intermediate_certificate)

    assert before.public_key() == after.public_key()
    assert after.extensions.get_extension_for_class(x509.NameConstraints).critical
    assert not plan_now(home)[0]


def test_a_removed_certificate_comes_back_from_the_register(home: Home):
    apply(home)
    root, intermediate = home.root_certificate.read_bytes(), home.intermediate_certificate.read_bytes()
    home.root_certificate.unlink()
    home.intermediate_certificate.unlink()
    apply(home)

    assert (root, intermediate) == (home.root_certificate.read_bytes(), home.intermediate_certificate.read_bytes())
    assert 2 == len(Register(home.register).entries())


def test_a_half_written_certificate_is_kept_aside_and_restored(home: Home):
    apply(home)
    whole = home.intermediate_certificate.read_bytes()
    home.intermediate_certificate.write_bytes(whole[:200])
    apply(home)

    assert whole == home.intermediate_certificate.read_bytes()
    assert [path.read_bytes() for path in home.intermediate_certificate.parent.glob("*.broken-*")] == [whole[:200]]


def test_a_swapped_certificate_is_refused_with_the_way_back(home: Home, tmp_path: Path):
    apply(home)
    ours = home.intermediate_certificate.read_bytes()
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/CN=Test CA Intermediate",
            "-keyout", tmp_path / "k", "-out", home.intermediate_certificate)  # fmt: skip

    with pytest.raises(PkiError, match="restores ours from the register"):
        apply(home)
    home.intermediate_certificate.unlink()
    apply(home)
    assert ours == home.intermediate_certificate.read_bytes()


def test_two_runs_at_once_are_told_who_holds_the_lock(home: Home):
    apply(home)

    with exclusive(home.lock), pytest.raises(LockHeld, match=f"process {os.getpid()}"):
        apply(home)


def test_a_link_in_the_way_is_not_followed(home: Home, tmp_path: Path, pki: Pki):
    apply(home)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    home.ca_json.unlink()
    home.ca_json.symlink_to(victim)
    done = pki("apply")

    assert 1 == done.returncode
    assert "symbolic link" in done.stderr
    assert "precious" == victim.read_text()


def test_a_ca_json_edited_by_hand_is_shown_and_written_anew(home: Home, pki: Pki):
    apply(home)
    ours = home.ca_json.read_text()
    home.ca_json.write_text(ours.replace('"json"', '"text"'))
    shown = pki("plan", "--check")

    assert 5 == shown.returncode
    assert '-    "format": "text"' in shown.stdout
    assert 0 == pki("apply").returncode
    assert ours == home.ca_json.read_text()


def test_an_offline_root_waits_and_takes_the_answer(home: Home, pki: Pki, tmp_path: Path):
    """The root's machine signs with its own home; its answer is carried over as files."""
    home.config.write_text(home.config.read_text().replace("location: here", "location: offline"))
    waiting = pki("apply")
    assert 3 == waiting.returncode
    assert "wait for the offline root" in waiting.stderr

    from stepca_pki.ceremony.signing import sign_intermediate
    from stepca_pki.ceremony.steps import intermediate_profile
    from stepca_pki.config.tokens import token_of
    from stepca_pki.hsm.token import open_token

    other = Home(tmp_path / "airgap")
    other.path.mkdir()
    other.config.write_text(home.config.read_text().replace("location: offline", "location: here"))
    apply(other)
    authority = load(other.config)
    with open_token(token_of(other, authority, "root")) as token:
        from datetime import UTC, datetime

        csr = x509.load_pem_x509_csr(home.intermediate_csr.read_bytes())
        root = certificate(other.root_certificate)
        signed = sign_intermediate(
            Register(other.register),
            intermediate_profile(authority),
            csr,
            root,
            token.key("root", "01"),
            datetime.now(UTC),
        )
    from cryptography.hazmat.primitives.serialization import Encoding

    home.root_certificate.write_bytes(other.root_certificate.read_bytes())
    home.intermediate_certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    home.root_crl.write_bytes(other.root_crl.read_bytes())

    assert 0 == pki("apply").returncode
    assert not plan_now(home)[0]

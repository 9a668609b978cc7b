"""The HSM room on a real token."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from tests_shared import a_name

from stepca_pki.config.model import Key, TokenRef
from stepca_pki.errors import (
    FileRefused,
    HsmError,
    KeyExists,
    KeyNotFound,
    ModuleUnusable,
    PinRefused,
    TokenAmbiguous,
    TokenNotFound,
)
from stepca_pki.hsm.check import check_token, serves
from stepca_pki.hsm.modules import find_module
from stepca_pki.hsm.token import init_token, list_tokens, open_token
from stepca_pki.values import KeyType
from stepca_pki.x509.build import hash_for

PIN, SO_PIN = "1234-user", "5678-officer"


def a_key(kind: KeyType | str = "P-256", **fields: object) -> Key:
    return Key.model_validate({"type": kind, "label": "test", "id": "0a", **fields})


@pytest.mark.parametrize("kind", list(KeyType))
def test_every_key_type_signs_through_cryptographys_builders(token_ref: TokenRef, kind: KeyType):
    now = datetime.now(UTC)
    with open_token(token_ref) as token:
        made = token.generate(a_key(kind))
        key = token.key("test", "0a")
        csr = x509.CertificateSigningRequestBuilder().subject_name(a_name("x")).sign(key, hash_for(key))
        certificate = (
            x509.CertificateBuilder(a_name("x"), a_name("x"), key.public_key(), 1)
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hash_for(key))
        )
        crl = x509.CertificateRevocationListBuilder(a_name("x"), now, now + timedelta(days=1)).sign(key, hash_for(key))

    assert (True, False, True) == (made.sensitive, made.extractable, made.local)
    assert kind is made.type
    assert csr.is_signature_valid
    certificate.verify_directly_issued_by(certificate)
    assert crl.is_signature_valid(certificate.public_key())  # type: ignore[arg-type]


def test_an_rsa_key_signs_pss(token_ref: TokenRef):
    with open_token(token_ref) as token:
        token.generate(a_key("RSA-2048"))
        key = token.key("test", "0a")
        assert isinstance(key, rsa.RSAPrivateKey)
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        signature = key.sign(b"data", scheme, hashes.SHA256())

    key.public_key().verify(signature, b"data", scheme, hashes.SHA256())


def test_the_private_key_never_leaves(token_ref: TokenRef):
    with open_token(token_ref) as token:
        token.generate(a_key())
        key = token.key("test", "0a")
        with pytest.raises(UnsupportedAlgorithm):
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )


def test_only_a_key_declared_for_backup_is_extractable(token_ref: TokenRef):
    with open_token(token_ref) as token:
        assert token.generate(a_key(backup=True)).extractable is True


@pytest.mark.parametrize("other", [{"id": "0b"}, {"label": "other"}])
def test_a_taken_label_or_id_is_never_overwritten(token_ref: TokenRef, other: dict[str, str]):
    with open_token(token_ref) as token:
        before = token.generate(a_key())
        with pytest.raises(KeyExists):
            token.generate(a_key(**other))
        assert (before,) == token.keys()


def test_two_keys_of_one_id_are_refused(token_ref: TokenRef):
    """step-ca would take the first that it finds."""
    with open_token(token_ref) as token:
        token.generate(a_key())
        token.client.call("generate", type="P-256", bits=256, label="second", id="0a", extractable=False)
        with pytest.raises(TokenAmbiguous):
            token.key("test", "0a")


def test_a_missing_key_is_named(token_ref: TokenRef):
    with open_token(token_ref) as token, pytest.raises(KeyNotFound, match="'absent' with id 0f"):
        token.key("absent", "0f")


def test_a_lone_public_half_can_be_removed_and_a_pair_cannot(token_ref: TokenRef):
    with open_token(token_ref) as token:
        token.generate(a_key())
        with pytest.raises(KeyExists):
            token.remove_half_key("test", "0a")
        assert token.keys()[0].has_public


def test_a_wrong_pin_is_tried_once_and_not_repeated_in_the_message(token_ref: TokenRef):
    with pytest.raises(PinRefused) as caught:
        open_token(token_ref, "wrong-pin-99")

    assert "wrong-pin-99" not in str(caught.value)
    with open_token(token_ref) as token:
        assert not token.info.pin_locked


def test_eight_threads_share_one_token(token_ref: TokenRef):
    with open_token(token_ref) as token:
        token.generate(a_key())
        key = token.key("test", "0a")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        public = key.public_key()

        def sign(number: int) -> tuple[bytes, bytes]:
            data = str(number).encode()
            return data, key.sign(data, ec.ECDSA(hashes.SHA256()))

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(sign, range(200)))

    for data, signature in results:
        public.verify(signature, data, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("label", ["plain", "two words", "ünï-cødé", "a+b%c;d&e"])
def test_odd_labels_are_found_again(tmp_path: Path, module: Path, module_environment: dict[str, str], label: str):
    ref = TokenRef(module=str(module), label=label, pin_source="env:X", environment=module_environment)
    init_token(ref, PIN, SO_PIN)

    with open_token(ref, PIN) as token:
        assert label == token.info.label


def test_two_tokens_of_one_label_are_refused_with_their_serials(
    token_ref: TokenRef, module_environment: dict[str, str]
):
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", "under test", "--pin", PIN, "--so-pin", SO_PIN],
        env={**os.environ, **module_environment},
        check=True,
        capture_output=True,
    )
    with pytest.raises(TokenAmbiguous, match="2 tokens answer to 'under test': serials"):
        open_token(token_ref)


def test_an_absent_token_is_told_with_those_that_are_there(token_ref: TokenRef):
    with pytest.raises(TokenNotFound, match="'under test'"):
        open_token(token_ref.model_copy(update={"label": "absent"}))


def test_a_token_in_use_is_never_initialised_again(token_ref: TokenRef):
    with open_token(token_ref) as token:
        token.generate(a_key())
    init_token(token_ref, "other-pin", SO_PIN)

    with open_token(token_ref) as token:
        assert 1 == len(token.keys())


def test_a_token_whose_pin_was_not_set_is_finished(token_ref: TokenRef, module_environment: dict[str, str]):
    """A kill between C_InitToken and C_InitPIN leaves such a token."""
    from stepca_pki.hsm.client import Client

    ref = token_ref.model_copy(update={"label": "half"})
    with Client(find_module(ref.module), module_environment) as client:
        free = next(entry for entry in client.call("tokens") if not entry["initialised"])
        client.call("init_token", slot=free["slot"], so_pin=SO_PIN, label="half")
    init_token(ref, PIN, SO_PIN)

    with open_token(ref) as token:
        assert "half" == token.info.label


def test_a_missing_module_is_an_error():
    with pytest.raises(ModuleUnusable, match="no such"):
        find_module("/nowhere/module.so")


def test_an_unknown_module_name_lists_the_known_ones():
    with pytest.raises(ModuleUnusable, match="softhsm2"):
        find_module("luna")


@pytest.mark.parametrize("what", ["text", "library"])
def test_what_is_not_a_module_is_refused(tmp_path: Path, what: str, compile_library: Callable[[str, str], Path]):
    path = tmp_path / "not-a-module.so"
    if what == "text":
        path.write_text("hello")
    else:
        path = compile_library("plain", "int nothing(void) { return 0; }")

    with pytest.raises(ModuleUnusable, match="cannot be loaded as a PKCS#11 module"):
        list_tokens(path, {})


def test_a_module_that_hangs_is_given_up(compile_library: Callable[[str, str], Path]):
    path = compile_library(
        "hang", "#include <unistd.h>\nunsigned long C_GetFunctionList(void **p) { for (;;) pause(); }"
    )

    with pytest.raises(ModuleUnusable, match="no answer"):
        list_tokens(path, {}, timeout=timedelta(seconds=1))


def test_a_module_that_crashes_is_reported(compile_library: Callable[[str, str], Path]):
    path = compile_library("crash", "#include <stdlib.h>\nunsigned long C_GetFunctionList(void **p) { abort(); }")

    with pytest.raises(ModuleUnusable, match="SIGABRT"):
        list_tokens(path, {})


def test_a_killed_worker_is_reported(token_ref: TokenRef):
    with open_token(token_ref) as token:
        os.kill(token.client.pid, signal.SIGKILL)
        with pytest.raises(ModuleUnusable, match="SIGKILL"):
            token.keys()


def test_a_removed_token_folder_is_an_error(token_ref: TokenRef, tmp_path: Path):
    with open_token(token_ref) as token:
        token.generate(a_key())
        shutil.rmtree(tmp_path / "store" / "tokens")
        with pytest.raises(HsmError):
            token.generate(a_key(label="more", id="0c"))


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [("1234\n", 0o644, "open to others"), ("", 0o600, "one line"), ("a\nb\n", 0o600, "one line")],
)
def test_a_pin_file_that_is_not_safe_is_refused(
    token_ref: TokenRef, tmp_path: Path, content: str, mode: int, words: str
):
    path = tmp_path / "bad"
    path.write_text(content)
    path.chmod(mode)

    with pytest.raises(FileRefused, match=words):
        open_token(token_ref.model_copy(update={"pin_source": str(path)}))


def test_a_pin_file_behind_a_link_is_refused(token_ref: TokenRef, tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "pin")

    with pytest.raises(FileRefused, match="symbolic link"):
        open_token(token_ref.model_copy(update={"pin_source": str(tmp_path / "link")}))


def test_check_proves_every_capability_and_leaves_nothing(token_ref: TokenRef):
    verdicts = check_token(token_ref, None, "intermediate", (KeyType.P256, KeyType.RSA2048))

    assert serves(verdicts)
    assert ["login", "key P-256", "key RSA-2048", "sessions", "clean"] == [verdict.capability for verdict in verdicts]
    with open_token(token_ref) as token:
        assert () == token.keys()

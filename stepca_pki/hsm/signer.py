"""Keys on a token as cryptography's own private key classes, so that all of its builders work on them.

Hashing is done here, the signature on the token, and each signature is verified before it is returned: a module
that signs wrongly is found before anything is issued.
"""

from __future__ import annotations

from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from stepca_pki.errors import HsmError, KeyNotFound
from stepca_pki.hsm.client import Client
from stepca_pki.hsm.token import KeyInfo

_NEVER = "the private key never leaves its token"


def signer_for(client: Client, key: KeyInfo) -> TokenEcKey | TokenRsaKey:
    """Return the signer for *key*. Raises KeyNotFound if the public half is missing: step-ca needs it too."""
    if key.spki is None:
        raise KeyNotFound(
            f"the public half of '{key.label}' (id {key.id}) is not on the token", fix="restore the public key object"
        )
    public = serialization.load_der_public_key(key.spki)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return TokenEcKey(client, key, public)
    if isinstance(public, rsa.RSAPublicKey):
        return TokenRsaKey(client, key, public)
    raise HsmError(f"'{key.label}' is neither ECDSA nor RSA")


def _digest(data: Any, algorithm: Any) -> tuple[bytes, hashes.HashAlgorithm]:
    if isinstance(algorithm, utils.Prehashed):
        return bytes(data), algorithm._algorithm
    state = hashes.Hash(algorithm)
    state.update(data)
    return state.finalize(), algorithm


class TokenEcKey(ec.EllipticCurvePrivateKey):
    """An ECDSA key on a token."""

    def __init__(self, client: Client, key: KeyInfo, public: ec.EllipticCurvePublicKey) -> None:
        self._client, self._key, self._public = client, key, public

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return the DER ECDSA-Sig-Value. PKCS#11 gives r and s side by side, each half of the answer."""
        if not isinstance(signature_algorithm, ec.ECDSA):
            raise UnsupportedAlgorithm("only ECDSA")
        digest, algorithm = _digest(data, signature_algorithm.algorithm)
        raw = bytes.fromhex(
            self._client.call("sign", label=self._key.label, id=self._key.id, mechanism="ECDSA", data=digest.hex())
        )
        half = len(raw) // 2
        signature = utils.encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))
        try:
            self._public.verify(signature, digest, ec.ECDSA(utils.Prehashed(algorithm)))
        except InvalidSignature:
            raise _wrong_signature(self._key) from None
        return signature

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        raise UnsupportedAlgorithm("a CA key signs only")

    def private_numbers(self) -> NoReturn:
        raise UnsupportedAlgorithm(_NEVER)

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> NoReturn:
        raise UnsupportedAlgorithm(_NEVER)

    def __copy__(self) -> TokenEcKey:
        return self

    def __deepcopy__(self, memo: Any) -> TokenEcKey:
        return self


class TokenRsaKey(rsa.RSAPrivateKey):
    """An RSA key on a token."""

    def __init__(self, client: Client, key: KeyInfo, public: rsa.RSAPublicKey) -> None:
        self._client, self._key, self._public = client, key, public

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def sign(self, data: Any, padding: padding.AsymmetricPadding, algorithm: Any) -> bytes:
        digest, hashed = _digest(data, algorithm)
        signature = self._sign(digest, padding, hashed)
        try:
            self._public.verify(signature, digest, padding, utils.Prehashed(hashed))
        except InvalidSignature:
            raise _wrong_signature(self._key) from None
        return signature

    def _sign(self, digest: bytes, scheme: padding.AsymmetricPadding, algorithm: hashes.HashAlgorithm) -> bytes:
        names = {"label": self._key.label, "id": self._key.id}
        if isinstance(scheme, padding.PKCS1v15):
            info = _digest_info(digest, algorithm).hex()
            return bytes.fromhex(self._client.call("sign", mechanism="RSA_PKCS", data=info, **names))
        if isinstance(scheme, padding.PSS):
            salt = _salt_bytes(scheme, algorithm, self._public)
            hash_name = {"hash": algorithm.name, "salt_bytes": salt}
            return bytes.fromhex(self._client.call("sign_pss", digest=digest.hex(), **hash_name, **names))
        raise UnsupportedAlgorithm("only PKCS#1 v1.5 and PSS")

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> NoReturn:
        raise UnsupportedAlgorithm("a CA key signs only")

    def private_numbers(self) -> NoReturn:
        raise UnsupportedAlgorithm(_NEVER)

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> NoReturn:
        raise UnsupportedAlgorithm(_NEVER)

    def __copy__(self) -> TokenRsaKey:
        return self

    def __deepcopy__(self, memo: Any) -> TokenRsaKey:
        return self


def _digest_info(digest: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    """DigestInfo (RFC 8017 section 9.2), written by asn1crypto: not every module has SHA256_RSA_PKCS."""
    from asn1crypto.algos import DigestAlgorithm, DigestInfo

    named = DigestAlgorithm({"algorithm": algorithm.name})
    return bytes(DigestInfo({"digest_algorithm": named, "digest": digest}).dump())


def _salt_bytes(scheme: padding.PSS, algorithm: hashes.HashAlgorithm, public: rsa.RSAPublicKey) -> int:
    length = scheme._salt_length
    if isinstance(length, int):
        return length
    if length is padding.PSS.MAX_LENGTH:
        return padding.calculate_max_pss_salt_length(public, algorithm)
    return algorithm.digest_size


def _wrong_signature(key: KeyInfo) -> HsmError:
    return HsmError(
        f"the token's signature with '{key.label}' does not verify under its own public key",
        fix="the module or the token is faulty: use neither",
    )

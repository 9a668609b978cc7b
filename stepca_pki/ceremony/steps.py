"""The steps of a plan that sign with a CA key, or prepare it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import singledispatchmethod
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from stepca_pki import files
from stepca_pki.ceremony.register import MAX_CERTIFICATE_BYTES, Register
from stepca_pki.ceremony.signing import issue_crl, sign_intermediate, sign_root
from stepca_pki.config.model import Authority, Subject
from stepca_pki.config.tokens import Role
from stepca_pki.home import Home
from stepca_pki.plan.steps import IssueRootCrl, RequestIntermediate, SignIntermediate, SignRoot, Step
from stepca_pki.x509.build import PrivateKey, make_csr
from stepca_pki.x509.names import SubjectParts, name_of
from stepca_pki.x509.profiles import Constraints, IntermediateProfile, RootProfile


class Signatures:
    """Performs signing steps. *key* gives the private key of a role, which stays on its token."""

    def __init__(
        self, authority: Authority, home: Home, key: Callable[[Role], PrivateKey], now: Callable[[], datetime]
    ) -> None:
        self.authority, self.home, self.key, self.now = authority, home, key, now
        self.register = Register(home.register)

    @singledispatchmethod
    def perform(self, step: Step) -> None:
        raise NotImplementedError(type(step).__name__)

    @perform.register
    def _(self, step: SignRoot) -> None:
        root = self.authority.root
        profile = RootProfile(_name(self.authority.root_subject), root.lifetime, root.path_length)
        certificate = sign_root(self.register, profile, self.key("root"), self.now())
        files.write_atomic(step.path, certificate.public_bytes(Encoding.PEM))

    @perform.register
    def _(self, step: RequestIntermediate) -> None:
        csr = make_csr(_name(self.authority.intermediate_subject), self.key("intermediate"))
        files.write_atomic(step.path, csr.public_bytes(Encoding.PEM))

    @perform.register
    def _(self, step: SignIntermediate) -> None:
        csr = x509.load_pem_x509_csr(files.read_bounded(self.home.intermediate_csr, MAX_CERTIFICATE_BYTES))
        profile = intermediate_profile(self.authority)
        root = self._certificate(self.home.root_certificate)
        certificate = sign_intermediate(self.register, profile, csr, root, self.key("root"), self.now())
        files.write_atomic(step.path, certificate.public_bytes(Encoding.PEM))

    @perform.register
    def _(self, step: IssueRootCrl) -> None:
        root = self._certificate(self.home.root_certificate)
        crl = issue_crl(self.register, root, self.key("root"), self.now(), self.authority.root.crl.lifetime)
        files.write_atomic(step.path, crl.public_bytes(Encoding.PEM))

    def _certificate(self, path: Path) -> x509.Certificate:
        return x509.load_pem_x509_certificate(files.read_bounded(path, MAX_CERTIFICATE_BYTES))


def intermediate_profile(authority: Authority) -> IntermediateProfile:
    """Return the declared intermediate as the root signs it."""
    declared = authority.intermediate.name_constraints
    return IntermediateProfile(
        subject=_name(authority.intermediate_subject),
        lifetime=authority.intermediate.lifetime,
        path_length=0,
        constraints=None if declared is None else Constraints(**dict(declared)),
        crl_url=authority.root.crl.url,
        issuer_url=authority.root.certificate_url,
    )


def _name(subject: Subject) -> x509.Name:
    return name_of(SubjectParts(**subject.model_dump()))

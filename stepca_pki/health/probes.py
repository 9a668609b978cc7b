"""The probes: alive, answering, able to sign, certificates and CRL in date, provisioners, clock, disk.

Each probe answers for itself: one that fails never keeps another from looking.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from cryptography import x509

from stepca_pki.config.model import Authority
from stepca_pki.errors import PkiError
from stepca_pki.files import read_bounded
from stepca_pki.health.verdict import Finding, Grade, judge_disk, judge_expiry
from stepca_pki.home import Home
from stepca_pki.runtime.preflight import check_clock
from stepca_pki.runtime.state import read_state
from stepca_pki.stepca.api import Api
from stepca_pki.stepca.canary import certificate_at, issue_canary
from stepca_pki.x509.chain import check_ca_chain

MAX_CRL_BYTES = 16 * 1024 * 1024
SLOW_SECONDS = 2.0


def probe_all(home: Home, authority: Authority) -> tuple[Finding, ...]:
    """Run every probe and return one finding or more of each."""
    now = datetime.now(UTC)
    with Api.local(home, authority) as api:
        probes: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
            ("alive", lambda: _alive(home)),
            ("answering", lambda: _answering(api)),
            ("able to sign", lambda: _signing(home, api)),
            ("provisioners", lambda: _provisioners(authority, api)),
            ("chain", lambda: _chain(home, now)),
            ("root", lambda: _expiry(home, "root", now)),
            ("intermediate", lambda: _expiry(home, "intermediate", now)),
            ("root CRL", lambda: _crl(home, now)),
            ("clock", lambda: _clock(home, now)),
            ("disk", lambda: iter([judge_disk(str(home.path), shutil.disk_usage(home.path).free)])),
        ]
        return tuple(finding for name, probe in probes for finding in _safely(name, probe))


def _safely(name: str, probe: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(probe())
    except PkiError as error:
        return [Finding(name, Grade.failed, error.problem, error.fix)]
    except OSError as error:
        return [Finding(name, Grade.failed, str(error))]


def _alive(home: Home) -> Iterator[Finding]:
    state = read_state(home)
    if state is None or state.step_ca is None or not state.step_ca.alive:
        yield Finding("alive", Grade.failed, "no step-ca process", "pki up")
    elif not state.alive:
        figure = f"step-ca is process {state.step_ca.pid}, but nobody supervises it"
        yield Finding("alive", Grade.warning, figure, "pki down, then pki up")
    else:
        yield Finding("alive", Grade.ok, f"step-ca is process {state.step_ca.pid}, {state.restarts} restarts")


def _answering(api: Api) -> Iterator[Finding]:
    started = time.monotonic()
    api.health()
    yield Finding("answering", Grade.ok, f"{api.base_url} in {(time.monotonic() - started) * 1000:.0f} ms")


def _signing(home: Home, api: Api) -> Iterator[Finding]:
    canary = issue_canary(home, api)
    grade = Grade.warning if canary.seconds > SLOW_SECONDS else Grade.ok
    figure = f"probe leaf issued through the HSM in {canary.seconds * 1000:.0f} ms and verified"
    yield Finding("able to sign", grade, figure, "the HSM is slow: see its load" if grade is Grade.warning else None)


def _provisioners(authority: Authority, api: Api) -> Iterator[Finding]:
    """Compare: step-ca drops and disables provisioners in silence."""
    found = {item.name: item.fault for item in api.provisioners()}
    missing = [f"'{item.name}' is missing" for item in authority.provisioners if item.name not in found]
    disabled = [f"'{name}' is disabled: {fault}" for name, fault in found.items() if fault]
    if missing or disabled:
        yield Finding(
            "provisioners", Grade.failed, "; ".join([*missing, *disabled]), "correct its cause, then 'pki reload'"
        )
    else:
        yield Finding("provisioners", Grade.ok, f"{len(authority.provisioners)} declared, all active")


def _chain(home: Home, now: datetime) -> Iterator[Finding]:
    check_ca_chain(certificate_at(home.root_certificate), certificate_at(home.intermediate_certificate), now)
    yield Finding("chain", Grade.ok, "the root signed the intermediate, and both may issue")


def _expiry(home: Home, role: str, now: datetime) -> Iterator[Finding]:
    path = home.root_certificate if role == "root" else home.intermediate_certificate
    certificate = certificate_at(path)
    fix = "plan the rollover of the root" if role == "root" else "pki apply signs a new one where the root is here"
    yield judge_expiry(role, certificate.not_valid_before_utc, certificate.not_valid_after_utc, now, fix=fix)


def _crl(home: Home, now: datetime) -> Iterator[Finding]:
    if not home.root_crl.exists():
        yield Finding("root CRL", Grade.warning, f"{home.root_crl} is missing", "pki apply, or a ceremony")
        return
    try:
        crl = x509.load_pem_x509_crl(read_bounded(home.root_crl, MAX_CRL_BYTES))
        end = crl.next_update_utc
    except ValueError:
        yield Finding("root CRL", Grade.failed, f"{home.root_crl} cannot be read", "pki apply, or a ceremony")
        return
    if end is not None:
        yield judge_expiry("root CRL", crl.last_update_utc, end, now, fix="pki apply, or a ceremony")


def _clock(home: Home, now: datetime) -> Iterator[Finding]:
    check_clock(home, now)
    yield Finding("clock", Grade.ok, f"{now:%Y-%m-%d %H:%M:%S} UTC, not behind what was seen before")

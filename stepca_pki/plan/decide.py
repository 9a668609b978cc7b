"""Which steps bring the world to the declaration. Pure: a dry run prints exactly what would be run.

Order: folders, secrets, tokens with their keys, root, CSR, intermediate, CRL, canary key, ca.json, the running process.
What cannot be changed in place is refused here, before the first step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from stepca_pki.config.model import Authority, Subject
from stepca_pki.config.tokens import Role, is_embedded, key_of, token_of
from stepca_pki.errors import Irreversible, PkiError, UsageError
from stepca_pki.files import FOLDER, SECRET_FOLDER
from stepca_pki.home import Home
from stepca_pki.plan.reload import reload_kind
from stepca_pki.plan.seen import Broken, Seen, SeenCertificate, SeenKey, SeenToken
from stepca_pki.plan.steps import (
    AwaitCeremony,
    GenerateKey,
    InitToken,
    IssueRootCrl,
    MakeFolder,
    MakeSecret,
    MakeTokenKey,
    MoveAside,
    Plan,
    RemoveHalfKey,
    RequestIntermediate,
    SignIntermediate,
    SignRoot,
    Step,
    TellStepCa,
    WriteCaJson,
    WriteFile,
)
from stepca_pki.render.ca_json import Facts, ca_json_text, render_ca_json

RENEW_BEFORE = timedelta(days=30)


def make_plan(authority: Authority, home: Home, seen: Seen) -> Plan:
    """Return the steps that are needed now. Raises Irreversible, or another PkiError with the way out."""
    refuse_what_cannot_change(authority, home, seen)
    _refuse_absent_files(authority, home, seen)
    steps = [
        *_folders(authority, home, seen),
        *_secrets(authority, home, seen),
        *_token_and_key("root", authority, home, seen),
        *_token_and_key("intermediate", authority, home, seen),
        *_root(authority, home, seen),
        *_intermediate(authority, home, seen),
        *_root_crl(authority, home, seen),
    ]
    if any(isinstance(step, AwaitCeremony) for step in steps):
        return Plan(tuple(steps))
    return Plan((*steps, *_configuration(authority, home, seen, bool(steps))))


def needs_root_token(authority: Authority, seen: Seen) -> bool:
    """Whether the plan may have to sign with the root: only then is its token asked, and its PIN needed."""
    if not authority.root.is_here:
        return False
    root, intermediate = seen.root, seen.intermediate
    if not isinstance(root, SeenCertificate) or not isinstance(intermediate, SeenCertificate):
        return True
    return (
        _resign_reason(authority, root, intermediate, seen.now) is not None or _crl_reason(authority, seen) is not None
    )


# --- what cannot be changed in place ---------------------------------------------------------------


def refuse_what_cannot_change(authority: Authority, home: Home, seen: Seen) -> None:
    """Compare what exists with the declaration. Raises Irreversible where only a rollover would help."""
    root, intermediate = seen.root, seen.intermediate
    if isinstance(root, SeenCertificate):
        _refuse_root_changes(authority, root)
    if isinstance(intermediate, SeenCertificate):
        _refuse_other("intermediate", "subject", intermediate.subject, subject_text(authority.intermediate_subject))
        _refuse_other("intermediate", "key type", intermediate.key_type, authority.intermediate.key.type)
        _refuse_foreign(authority, home, seen, intermediate)


def _refuse_root_changes(authority: Authority, root: SeenCertificate) -> None:
    _refuse_other("root", "subject", root.subject, subject_text(authority.root_subject))
    _refuse_other("root", "path length", root.path_length, authority.root.path_length)
    if authority.root.is_here:
        _refuse_other("root", "key type", root.key_type, authority.root.key.type)
        _refuse_other("root", "lifetime in days", _days(root), authority.root.lifetime.days)


def _days(certificate: SeenCertificate) -> int:
    return round((certificate.not_after - certificate.not_before) / timedelta(days=1))


def _refuse_other(what: str, field: str, actual: object, declared: object) -> None:
    if actual != declared:
        raise Irreversible(
            f"the {what} exists with {field} {actual}, and pki.yaml declares {declared}; "
            "that cannot be changed in an existing certificate",
            fix=f"put the {field} back in pki.yaml; a different {what} is a new key and certificate with an "
            "overlap (a rollover), or a new authority in another home",
        )


def _refuse_foreign(authority: Authority, home: Home, seen: Seen, intermediate: SeenCertificate) -> None:
    path = home.intermediate_certificate
    remedy = f"move {path} away and run 'pki apply': it restores ours from the register"
    if isinstance(seen.root, SeenCertificate) and not intermediate.signed_by_root:
        raise PkiError(f"{path} was not signed by {home.root_certificate}", fix=remedy)
    key = _key_on("intermediate", seen, authority.intermediate.key.label)
    if key is not None and key.spki is not None and key.spki != intermediate.spki:
        raise PkiError(f"{path} is for another key than the one on the token", fix=remedy)


def subject_text(subject: Subject) -> str:
    """Return a subject as one comparable line: the declared parts in the order of pki.yaml."""
    return ", ".join(f"{name}={value}" for name, value in subject.model_dump(exclude_none=True).items())


# --- folders and secrets ---------------------------------------------------------------------------


def _folders(authority: Authority, home: Home, seen: Seen) -> Iterator[Step]:
    wanted = {
        home.root_certificate.parent: FOLDER,
        home.root_crl.parent: FOLDER,
        home.requests: FOLDER,
        home.ca_json.parent: FOLDER,
        home.rendered_templates: FOLDER,
        home.register: FOLDER,
        home.secrets: SECRET_FOLDER,
        home.state: SECRET_FOLDER,
        home.database: SECRET_FOLDER,
    }
    if roles := _embedded_roles(authority):
        wanted |= {home.tokens: SECRET_FOLDER, **{home.token_store(role): SECRET_FOLDER for role in roles}}
    for path, mode in wanted.items():
        if path not in seen.folders or seen.folders[path] & ~mode & 0o077:
            yield MakeFolder(path, mode)


def _embedded_roles(authority: Authority) -> list[Role]:
    roles: list[Role] = ["root", "intermediate"] if authority.root.is_here else ["intermediate"]
    return [role for role in roles if is_embedded(authority, role)]


def _secrets(authority: Authority, home: Home, seen: Seen) -> Iterator[Step]:
    """The embedded default has its own PINs and softhsm2.conf; a declared token brings its own."""
    for role in _embedded_roles(authority):
        ref = token_of(home, authority, role)
        for source, purpose in (
            (ref.so_pin_source, f"the SO-PIN of the {role}"),
            (ref.pin_source, f"the PIN of the {role}"),
        ):
            if source is not None and Path(source) not in seen.secrets:
                _refuse_lost_pin(role, Path(source), seen)
                yield MakeSecret(Path(source), purpose)
        yield from _changed(home.softhsm2_conf(role), softhsm2_conf(home.token_store(role)), seen)


def _refuse_lost_pin(role: Role, path: Path, seen: Seen) -> None:
    token = seen.tokens.get(role)
    if token is not None and token.ready:
        raise PkiError(f"{path} is missing, and the token of the {role} is in use", fix="restore that file from backup")


def softhsm2_conf(tokens: Path) -> str:
    """Return SoftHSM2's configuration: tokens in one folder, unremovable slots, no log of its own."""
    for character in "#=":
        if character in str(tokens):
            problem = f"{tokens}: SoftHSM2's configuration cannot name a path with '{character}'"
            raise UsageError(problem, fix="choose another home")
    folder = f"directories.tokendir = {tokens}\n"
    return f"{folder}objectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"


def _changed(path: Path, text: str, seen: Seen, mode: int = 0o644) -> Iterator[Step]:
    if seen.files.get(path) != text:
        yield WriteFile(path, text, seen.files.get(path), mode)


# --- tokens and keys -------------------------------------------------------------------------------


def _token_and_key(role: Role, authority: Authority, home: Home, seen: Seen) -> Iterator[Step]:
    token = seen.tokens.get(role)
    if token is None:  # not asked: nothing of it is needed
        return
    if not token.ready:
        yield _init_token(role, authority, home, seen, token)
    yield from _key(role, authority, home, seen, token)


def _init_token(role: Role, authority: Authority, home: Home, seen: Seen, token: SeenToken) -> Step:
    ref = token_of(home, authority, role)
    certificate = seen.root if role == "root" else seen.intermediate
    if certificate is not None:
        raise PkiError(
            f"the {role} has a certificate, but its token {_token_name(ref.label, ref.serial)} is not there",
            fix="attach the HSM or restore its backup; without the key a new one is needed (a rollover)",
        )
    if not is_embedded(authority, role) and ref.so_pin_source is None:
        state = "is not initialised" if token.exists else "does not exist"
        raise UsageError(
            f"the token {_token_name(ref.label, ref.serial)} of the {role} {state}",
            fix="initialise it with 'pki hsm init', or declare so_pin_source so that 'pki apply' may do it",
        )
    if ref.label is None:
        raise UsageError(f"the token of the {role} is named by serial and is not initialised", fix="run 'pki hsm init'")
    return InitToken(role, ref.label)


def _token_name(label: str | None, serial: str | None) -> str:
    return f"'{label}'" if label is not None else f"with serial {serial}"


def _key(role: Role, authority: Authority, home: Home, seen: Seen, token: SeenToken) -> Iterator[Step]:
    wanted = key_of(authority, role)
    found = _key_on(role, seen, wanted.label)
    yield from _remains(role, authority, token)
    if found is not None and found.id == wanted.id and found.is_whole:
        if found.type != wanted.type:
            kind = found.type or "of another kind"
            raise Irreversible(
                f"the {role} key '{wanted.label}' is {kind}, and pki.yaml declares {wanted.type}",
                fix=f"declare {found.type}, or give the new key another label and id (a rollover)",
            )
        return
    _refuse_lost_key(role, home, seen)
    if taken := _taken(token, wanted.label, wanted.id):
        raise PkiError(
            f"the token of the {role} has a key '{taken.label}' (id {taken.id}), so '{wanted.label}' (id {wanted.id}) "
            "would not be found as exactly one",
            fix="declare the label and id of the existing key, or ones that are free",
        )
    yield GenerateKey(role, wanted.type.value, wanted.label, wanted.id, wanted.backup)


def _remains(role: Role, authority: Authority, token: SeenToken) -> Iterator[Step]:
    """What a generation left that was cut off. On a token that is not ours alone only our own key's is touched."""
    wanted = key_of(authority, role)
    for key in token.keys:
        ours = (key.label, key.id) == (wanted.label, wanted.id)
        if not key.is_whole and (ours or (key.torn and is_embedded(authority, role))):
            yield RemoveHalfKey(role, key.label, key.id)


def _taken(token: SeenToken, label: str, key_id: str) -> SeenKey | None:
    whole = (key for key in token.keys if key.is_whole or (key.label, key.id) != (label, key_id))
    return next((key for key in whole if key.label == label or key.id == key_id), None)


def _key_on(role: Role, seen: Seen, label: str) -> SeenKey | None:
    token = seen.tokens.get(role)
    keys = token.keys if token is not None else ()
    return next((key for key in keys if key.label == label), None)


def _refuse_lost_key(role: Role, home: Home, seen: Seen) -> None:
    certificate = seen.root if role == "root" else seen.intermediate
    if isinstance(certificate, SeenCertificate):
        path = home.root_certificate if role == "root" else home.intermediate_certificate
        raise PkiError(
            f"the {role} has a certificate ({path}), but its key is not on the token",
            fix="restore the key from backup; a new key is never made for an existing certificate",
        )


# --- certificates ----------------------------------------------------------------------------------


def _root(authority: Authority, home: Home, seen: Seen) -> Iterator[Step]:
    if isinstance(seen.root, SeenCertificate) or not authority.root.is_here:
        return
    if isinstance(seen.root, Broken):
        yield MoveAside(home.root_certificate, seen.root.reason)
    yield SignRoot(home.root_certificate, subject_text(authority.root_subject), "there is none")


def _intermediate(authority: Authority, home: Home, seen: Seen) -> Iterator[Step]:
    reason = _intermediate_reason(authority, seen)
    if reason is None:
        return
    if isinstance(seen.intermediate, Broken):
        yield MoveAside(home.intermediate_certificate, seen.intermediate.reason)
    subject = subject_text(authority.intermediate_subject)
    key = _key_on("intermediate", seen, authority.intermediate.key.label)
    if seen.csr_spki is None or key is None or seen.csr_spki != key.spki:
        yield RequestIntermediate(home.intermediate_csr, subject)
    if authority.root.is_here:
        yield SignIntermediate(home.intermediate_certificate, subject, reason)
    else:
        yield AwaitCeremony(
            home.intermediate_csr, (home.root_certificate, home.intermediate_certificate, home.root_crl)
        )


def _intermediate_reason(authority: Authority, seen: Seen) -> str | None:
    if not isinstance(seen.root, SeenCertificate):
        return "there is no root yet"
    if not isinstance(seen.intermediate, SeenCertificate):
        return "there is none"
    return _resign_reason(authority, seen.root, seen.intermediate, seen.now)


def _resign_reason(
    authority: Authority, root: SeenCertificate, intermediate: SeenCertificate, now: datetime
) -> str | None:
    """Why the same key needs a new certificate, if it does."""
    if now >= intermediate.not_after:
        return f"the present one expired on {intermediate.not_after:%Y-%m-%d %H:%M} UTC"
    lifetime = intermediate.not_after - intermediate.not_before
    if now >= intermediate.not_after - min(RENEW_BEFORE, lifetime / 5) and intermediate.not_after < root.not_after:
        return f"the present one expires on {intermediate.not_after:%Y-%m-%d %H:%M} UTC"
    if dict(intermediate.profile) != wanted_profile(authority):
        return "its name constraints or URLs are declared differently now"
    if intermediate.not_after < root.not_after and abs(lifetime - authority.intermediate.lifetime) > timedelta(hours=1):
        return "its lifetime is declared differently now"
    return None


def wanted_profile(authority: Authority) -> dict[str, Any]:
    """Return what is declared of the intermediate beyond subject, key and lifetime, in comparable form."""
    constraints = authority.intermediate.name_constraints
    names = {} if constraints is None else {name: sorted(values) for name, values in constraints if values}
    urls = {"crl_url": authority.root.crl.url, "issuer_url": authority.root.certificate_url}
    return {**names, **{name: url for name, url in urls.items() if url is not None}}


def _root_crl(authority: Authority, home: Home, seen: Seen) -> Iterator[Step]:
    reason = _crl_reason(authority, seen)
    if reason is not None and authority.root.is_here:
        yield IssueRootCrl(home.root_crl, reason)


def _crl_reason(authority: Authority, seen: Seen) -> str | None:
    due = seen.crl_next_update
    if due is None:
        return "there is none"
    if seen.now >= due - authority.root.crl.lifetime / 6:
        return f"the present one is to be replaced by {due:%Y-%m-%d %H:%M} UTC"
    return None


# --- step-ca ---------------------------------------------------------------------------------------


def _configuration(authority: Authority, home: Home, seen: Seen, something_changed: bool) -> Iterator[Step]:
    before = seen.files.get(home.ca_json)
    missing = [
        MakeTokenKey(home.provisioner_key(item.name), f"that signs tokens for the provisioner '{item.name}'")
        for item in authority.provisioners
        if item.makes_key and item.name not in seen.material.keys
    ]
    if seen.canary_key is None:
        missing.insert(0, MakeTokenKey(home.canary_key, "by which health probes ask for a leaf"))
    yield from missing
    text = None
    if not missing and not _absent_files(authority, seen) and seen.canary_key is not None:
        facts = Facts(seen.modules["intermediate"], seen.canary_key, seen.material)
        text = ca_json_text(render_ca_json(authority, home, facts))
    if text is None or text != before:
        yield WriteCaJson(home.ca_json, text, before)
    if seen.running_ca_json is not None:
        yield from _tell(
            json.loads(seen.running_ca_json), None if text is None else json.loads(text), something_changed
        )


def _absent_files(authority: Authority, seen: Seen) -> list[tuple[str, str]]:
    """Return (provisioner, path) of each file that a provisioner needs and that is not there."""
    named = [(item.name, path) for item in authority.provisioners for path in item.files()]
    return [(name, path) for name, path in named if path not in seen.material.texts]


def _refuse_absent_files(authority: Authority, home: Home, seen: Seen) -> None:
    for name, path in _absent_files(authority, seen):
        if home.path / path != home.root_certificate:  # which the plan is going to make
            raise UsageError(
                f"the provisioner '{name}' names {home.path / path}, which is not there",
                fix="put the file there, or name another one in pki.yaml",
            )


def _tell(running: dict[str, Any], planned: dict[str, Any] | None, something_changed: bool) -> Iterator[Step]:
    kind = "restart" if planned is None else reload_kind(running, planned)
    if kind == "none" and something_changed:
        yield TellStepCa("restart", "keys or certificates change")
    elif kind != "none":
        yield TellStepCa(kind, "its configuration changes")

"""The planner: values in, steps out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stepca_pki.config.model import Authority
from stepca_pki.errors import Irreversible, PkiError, UsageError
from stepca_pki.home import Home
from stepca_pki.plan.decide import make_plan, needs_root_token, softhsm2_conf, subject_text, wanted_profile
from stepca_pki.plan.seen import Broken, Seen, SeenCertificate, SeenKey, SeenToken
from stepca_pki.plan.steps import GenerateKey, InitToken, IssueRootCrl, MakeSecret, Step
from stepca_pki.render.ca_json import Facts, ca_json_text, render_ca_json
from stepca_pki.values import KeyType

HOME = Home(Path("/home/ca"))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
CANARY = {"use": "sig", "kty": "EC", "kid": "k", "crv": "P-256", "alg": "ES256", "x": "x", "y": "y"}
NOTHING = Seen(now=NOW, modules={"root": MODULE, "intermediate": MODULE})

CONFS = {HOME.softhsm2_conf(role): softhsm2_conf(HOME.token_store(role)) for role in ("root", "intermediate")}


def an_authority(**fields: Any) -> Authority:
    return Authority.model_validate({"name": "Example", "provisioners": [{"type": "acme", "name": "acme"}], **fields})


def a_key(label: str, key_id: str, kind: KeyType, **fields: Any) -> SeenKey:
    return SeenKey(
        **{
            "label": label,
            "id": key_id,
            "type": kind,
            "has_private": True,
            "has_public": True,
            "spki": label.encode(),
            **fields,
        }
    )


ROOT_KEY = a_key("root", "01", KeyType.P384)
INTERMEDIATE_KEY = a_key("intermediate", "02", KeyType.P256)


def everything(authority: Authority | None = None) -> Seen:
    """The state in which nothing is left to do."""
    authority = authority or an_authority()
    root = SeenCertificate(
        subject=subject_text(authority.root_subject),
        key_type=authority.root.key.type,
        spki=b"root",
        path_length=authority.root.path_length,
        not_before=NOW,
        not_after=NOW + authority.root.lifetime,
        signed_by_root=True,
    )
    intermediate = SeenCertificate(
        subject=subject_text(authority.intermediate_subject),
        key_type=authority.intermediate.key.type,
        spki=b"intermediate",
        path_length=0,
        not_before=NOW,
        not_after=NOW + authority.intermediate.lifetime,
        signed_by_root=True,
        profile=wanted_profile(authority),
    )
    folders = dict.fromkeys(
        (
            HOME.root_certificate.parent,
            HOME.root_crl.parent,
            HOME.requests,
            HOME.ca_json.parent,
            HOME.register,
            HOME.secrets,
            HOME.state,
            HOME.database,
            HOME.tokens,
            HOME.token_store("root"),
            HOME.token_store("intermediate"),
            HOME.rendered_templates,
        ),
        0o700,
    )
    text = ca_json_text(render_ca_json(authority, HOME, Facts(MODULE, CANARY)))
    return replace(
        NOTHING,
        folders=folders,
        files={**CONFS, HOME.ca_json: text},
        secrets=frozenset(
            HOME.secrets / f"{role}.{kind}" for role in ("root", "intermediate") for kind in ("pin", "so-pin")
        ),
        tokens={"intermediate": SeenToken(True, True, (INTERMEDIATE_KEY,))},
        root=root,
        intermediate=intermediate,
        csr_spki=b"intermediate",
        crl_next_update=NOW + authority.root.crl.lifetime,
        canary_key=CANARY,
    )


def kinds(authority: Authority, seen: Seen) -> list[str]:
    return [type(step).__name__ for step in make_plan(authority, HOME, seen).steps]


def with_tokens(seen: Seen, **tokens: SeenToken) -> Seen:
    return replace(seen, tokens=tokens)


def test_an_empty_home_gets_everything_in_order():
    seen = with_tokens(NOTHING, root=SeenToken(False, False), intermediate=SeenToken(False, False))

    names = [name for name in kinds(an_authority(), seen) if name not in ("MakeFolder", "MakeSecret", "WriteFile")]

    assert [
        "InitToken",
        "GenerateKey",
        "InitToken",
        "GenerateKey",
        "SignRoot",
        "RequestIntermediate",
        "SignIntermediate",
        "IssueRootCrl",
        "MakeTokenKey",
        "WriteCaJson",
    ] == names


def test_a_finished_home_needs_nothing():
    assert [] == kinds(an_authority(), everything())


def test_a_finished_home_does_not_ask_the_token_of_the_root():
    assert not needs_root_token(an_authority(), everything())


@pytest.mark.parametrize("done", range(1, 11))
def test_whatever_a_cut_off_run_left_the_rest_is_planned(done: int):
    """Each prefix of the work plans exactly the steps that remain."""
    full = everything()
    none, root_only = SeenToken(False, False), SeenToken(True, True)
    stages: list[tuple[dict[str, Any], str]] = [
        ({"tokens": {"root": none, "intermediate": none}}, "InitToken"),
        ({"tokens": {"root": root_only, "intermediate": none}}, "GenerateKey"),
        ({"tokens": {"root": SeenToken(True, True, (ROOT_KEY,)), "intermediate": none}}, "InitToken"),
        ({"tokens": {"root": SeenToken(True, True, (ROOT_KEY,)), "intermediate": root_only}}, "GenerateKey"),
        (
            {"tokens": {"root": SeenToken(True, True, (ROOT_KEY,)), "intermediate": full.tokens["intermediate"]}},
            "SignRoot",
        ),
        ({"root": full.root}, "RequestIntermediate"),
        ({"csr_spki": b"intermediate"}, "SignIntermediate"),
        ({"intermediate": full.intermediate}, "IssueRootCrl"),
        ({"crl_next_update": full.crl_next_update}, "MakeTokenKey"),
        ({"canary_key": CANARY}, "WriteCaJson"),
    ]
    seen = replace(
        full,
        root=None,
        intermediate=None,
        csr_spki=None,
        crl_next_update=None,
        canary_key=None,
        files=CONFS,
    )
    for change, _ in stages[:done]:
        seen = replace(seen, **change)

    assert stages[done - 1][1] == kinds(an_authority(), seen)[0]


def test_a_lone_public_half_is_removed_before_the_key_is_made_anew():
    half = a_key("intermediate", "02", KeyType.P256, has_private=False)
    seen = replace(
        everything(),
        intermediate=None,
        csr_spki=None,
        tokens={"root": SeenToken(True, True, (ROOT_KEY,)), "intermediate": SeenToken(True, True, (half,))},
    )

    assert ["RemoveHalfKey", "GenerateKey"] == kinds(an_authority(), seen)[:2]


def test_another_key_with_the_same_id_is_never_touched():
    other = a_key("somebody else's", "02", KeyType.P256)
    seen = replace(
        everything(),
        intermediate=None,
        tokens={"root": SeenToken(True, True, (ROOT_KEY,)), "intermediate": SeenToken(True, True, (other,))},
    )

    with pytest.raises(PkiError, match="would not be found as exactly one"):
        make_plan(an_authority(), HOME, seen)


def test_no_key_is_made_for_a_certificate_that_exists():
    seen = replace(everything(), tokens={"intermediate": SeenToken(True, True)})

    with pytest.raises(PkiError, match="its key is not on the token"):
        make_plan(an_authority(), HOME, seen)


def test_a_missing_token_is_not_made_anew_when_its_certificate_exists():
    seen = replace(everything(), tokens={"intermediate": SeenToken(False, False)})

    with pytest.raises(PkiError, match="is not there"):
        make_plan(an_authority(), HOME, seen)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"root": {"subject": {"common_name": "Other"}}}, "the root exists with subject"),
        ({"root": {"key": {"type": "RSA-4096", "label": "root", "id": "01"}}}, "the root exists with key type P-384"),
        ({"root": {"path_length": 2}}, "path length"),
        ({"root": {"lifetime": "20y"}}, "lifetime"),
        ({"intermediate": {"subject": {"common_name": "Other"}}}, "the intermediate exists with subject"),
        ({"intermediate": {"key": {"type": "P-384", "label": "intermediate", "id": "02"}}}, "key type"),
    ],
)
def test_what_cannot_be_changed_in_place_is_refused(declared: dict[str, Any], words: str):
    with pytest.raises(Irreversible, match=words):
        make_plan(an_authority(**declared), HOME, everything())


def test_other_name_constraints_make_a_new_certificate_for_the_same_key():
    authority = an_authority(intermediate={"name_constraints": {"permitted_dns": ["int.example"]}})
    seen = replace(everything(), tokens={**everything().tokens, "root": SeenToken(True, True, (ROOT_KEY,))})

    assert needs_root_token(authority, seen)
    assert ["SignIntermediate"] == kinds(authority, seen)


def test_an_expired_intermediate_is_signed_again():
    seen = everything()
    assert isinstance(seen.intermediate, SeenCertificate)
    past = replace(seen.intermediate, not_before=NOW - timedelta(days=1826), not_after=NOW - timedelta(days=1))
    seen = replace(seen, intermediate=past, tokens={**seen.tokens, "root": SeenToken(True, True, (ROOT_KEY,))})

    assert ["SignIntermediate"] == kinds(an_authority(), seen)


def test_a_swapped_intermediate_is_refused_with_the_way_back():
    seen = everything()
    assert isinstance(seen.intermediate, SeenCertificate)

    with pytest.raises(PkiError, match="restores ours from the register"):
        make_plan(an_authority(), HOME, replace(seen, intermediate=replace(seen.intermediate, spki=b"foreign")))


def test_a_broken_intermediate_is_kept_aside_and_restored():
    seen = replace(
        everything(),
        intermediate=Broken("half a file"),
        tokens={**everything().tokens, "root": SeenToken(True, True, (ROOT_KEY,))},
    )

    assert ["MoveAside", "SignIntermediate"] == kinds(an_authority(), seen)


def test_an_offline_root_makes_the_plan_wait_after_the_csr():
    authority = an_authority(root={"location": "offline"})
    seen = replace(everything(), root=None, intermediate=None, csr_spki=None, canary_key=None)

    assert ["RequestIntermediate", "AwaitCeremony"] == kinds(authority, seen)


def test_a_crl_close_to_its_end_is_issued_again():
    seen = replace(
        everything(),
        crl_next_update=NOW + timedelta(days=3),
        tokens={**everything().tokens, "root": SeenToken(True, True, (ROOT_KEY,))},
    )

    assert ["IssueRootCrl"] == kinds(an_authority(), seen)


def test_a_ca_json_edited_by_hand_is_shown_as_a_diff():
    seen = everything()
    edited = seen.files[HOME.ca_json].replace('"json"', '"text"')
    plan = make_plan(an_authority(), HOME, replace(seen, files={**seen.files, HOME.ca_json: edited}))

    assert ["WriteCaJson"] == [type(step).__name__ for step in plan.steps]
    assert '-    "format": "text"' in plan.steps[0].diff()


def test_a_new_provisioner_reloads_a_running_ca():
    running = everything().files[HOME.ca_json]
    authority = an_authority(provisioners=[{"type": "acme", "name": "acme"}, {"type": "acme", "name": "second"}])

    assert ["WriteCaJson", "TellStepCa"] == kinds(authority, replace(everything(), running_ca_json=running))
    assert "reload" == make_plan(authority, HOME, replace(everything(), running_ca_json=running)).steps[-1].kind  # type: ignore[attr-defined]


def test_another_address_restarts_a_running_ca():
    running = everything().files[HOME.ca_json]
    plan = make_plan(
        an_authority(server={"address": "127.0.0.1:9443"}), HOME, replace(everything(), running_ca_json=running)
    )

    assert "restart" == plan.steps[-1].kind  # type: ignore[attr-defined]


def test_a_lost_pin_file_of_a_token_in_use_is_not_made_anew():
    seen = replace(everything(), secrets=frozenset())

    with pytest.raises(PkiError, match="restore that file from backup"):
        make_plan(an_authority(), HOME, seen)


def test_a_declared_token_that_is_not_initialised_is_not_touched_without_its_so_pin():
    authority = an_authority(intermediate={"token": {"module": str(MODULE), "label": "hsm", "pin_source": "prompt"}})
    seen = replace(
        everything(),
        intermediate=None,
        tokens={"root": SeenToken(True, True, (ROOT_KEY,)), "intermediate": SeenToken(True, False)},
    )

    with pytest.raises(UsageError, match="pki hsm init"):
        make_plan(authority, HOME, seen)


def test_every_step_says_itself_and_what_cannot_be_undone_says_so():
    seen = with_tokens(NOTHING, root=SeenToken(False, False), intermediate=SeenToken(False, False))
    steps = make_plan(an_authority(), HOME, seen).steps

    assert all(step.describe() for step in steps)
    assert {InitToken, GenerateKey, IssueRootCrl} <= {type(step) for step in steps if step.irreversible}
    assert not any(step.irreversible for step in steps if isinstance(step, MakeSecret))
    assert all(isinstance(step, Step) for step in steps)


def test_a_pin_never_enters_the_plan():
    seen = with_tokens(NOTHING, root=SeenToken(False, False), intermediate=SeenToken(False, False))

    assert all(not hasattr(step, "pin") for step in make_plan(an_authority(), HOME, seen).steps)


def test_the_canary_cannot_ask_for_a_name():
    rendered = json.loads(everything().files[HOME.ca_json])
    canary = rendered["authority"]["provisioners"][-1]

    assert "pki-canary" == canary["name"]
    assert "sans" not in json.loads(canary["options"]["x509"]["template"])
    assert "d" not in canary["key"]
    assert "encryptedKey" not in canary

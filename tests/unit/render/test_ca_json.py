"""Rendering ca.json: values in, data out."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stepca_pki.config.model import Authority, TokenRef
from stepca_pki.home import Home
from stepca_pki.render.ca_json import Facts, key_uri, kms_uri, render_ca_json

HOME = Home(Path("/home/ca"))
FACTS = Facts(Path("/usr/lib/softhsm/libsofthsm2.so"), {"kty": "EC", "kid": "k"})

# The keys that step-ca knows (authority/config/config.go): it ignores any other without a word.
KNOWN = {
    "root", "federatedRoots", "crt", "key", "kms", "address", "insecureAddress", "metricsAddress", "dnsNames",
    "commonName", "logger", "db", "authority", "crl", "ssh", "templates", "tls", "password",
}  # fmt: skip


def an_authority(**fields: object) -> Authority:
    return Authority.model_validate({"name": "Example", **fields})


def test_only_keys_that_step_ca_knows_are_rendered():
    full = an_authority(
        server={
            "insecure_address": "127.0.0.1:8080",
            "metrics_address": "127.0.0.1:9100",
            "crl": {"url": "http://ca.example/crl"},
        }
    )

    assert set(render_ca_json(full, HOME, FACTS)) <= KNOWN


def test_every_path_is_absolute():
    rendered = render_ca_json(an_authority(), HOME, FACTS)

    assert all(path.startswith("/") for path in (*rendered["root"], rendered["crt"], rendered["db"]["dataSource"]))


def test_the_kms_uri_names_the_pin_file_and_limits_the_sessions():
    uri = render_ca_json(an_authority(), HOME, FACTS)["kms"]["uri"]

    assert uri == (
        "pkcs11:module-path=/usr/lib/softhsm/libsofthsm2.so;token=pki-intermediate;max-sessions=16"
        "?pin-source=/home/ca/secrets/intermediate.pin"
    )


@given(label=st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=32))
def test_any_label_survives_its_uri(label: str):
    uri = kms_uri(TokenRef.model_construct(label=label, serial=None, pin_source="/p", max_sessions=8), Path("/m.so"))
    path, _, _ = uri.removeprefix("pkcs11:").partition("?")
    attributes = dict(part.split("=", 1) for part in path.split(";"))

    assert label == unquote(attributes["token"])
    assert not set("+&# ") & set(path)


def test_a_key_is_named_by_plain_hex_and_label():
    assert "pkcs11:id=02;object=intermediate" == key_uri(an_authority().intermediate.key)


def test_a_postgresql_password_stays_in_its_own_file():
    database = {
        "type": "postgresql",
        "url": "postgresql://ca@db.example/ca?sslmode=verify-full",
        "password_file": "secrets/db",
    }
    rendered = render_ca_json(an_authority(server={"database": database}), HOME, FACTS)["db"]

    assert "postgresql://ca@db.example/ca?sslmode=verify-full&passfile=/home/ca/secrets/db" == rendered["dataSource"]


def test_claims_are_written_in_the_units_of_go():
    claims = {"default_tls": "2d", "max_tls": "90d", "renewal": False}
    rendered = render_ca_json(an_authority(claims=claims), HOME, FACTS)["authority"]["claims"]

    assert {"defaultTLSCertDuration": "48h0m0s", "maxTLSCertDuration": "2160h0m0s", "disableRenewal": True} == rendered


def test_a_declared_crl_is_named_in_leaves_and_in_the_list_itself():
    authority = an_authority(
        provisioners=[{"type": "acme", "name": "acme"}],
        server={"insecure_address": ":8080", "crl": {"url": "http://ca.example/crl", "lifetime": "12h"}},
    )
    rendered = render_ca_json(authority, HOME, FACTS)

    assert "http://ca.example/crl" == rendered["crl"]["idpURL"]
    assert (
        '"crlDistributionPoints": ["http://ca.example/crl"]'
        in rendered["authority"]["provisioners"][0]["options"]["x509"]["template"]
    )


@pytest.mark.parametrize("url", ["http://x/{{.Insecure}}", 'http://x/"}', "http://x/ y", "ftp://x/", "http://"])
def test_a_url_cannot_break_out_of_the_template(url: str):
    with pytest.raises(ValidationError):
        an_authority(server={"insecure_address": ":8080", "crl": {"url": url}})

"""Reading pki.yaml: every fault at once, with its place; and nothing that could hurt the reader."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from stepca_pki.config.load import MAX_BYTES, load, load_text
from stepca_pki.errors import ConfigError, FileRefused
from stepca_pki.values import KeyType

FILE = Path("pki.yaml")


def faults(text: str) -> dict[str, str]:
    """Each fault's place and its words."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, FILE)
    return {fault.where: f"{fault.line}: {fault.problem} | {fault.fix}" for fault in caught.value.faults}


def test_the_least_file_is_a_name():
    authority = load_text("name: X\n", FILE)

    assert KeyType.P384 is authority.root.key.type
    assert timedelta(days=3650) == authority.root.lifetime


def test_all_faults_are_told_at_once_with_their_lines():
    text = """\
name: X
nmae: y
root:
  lifetime: 1y
  key: {type: Ed25519, label: a, id: "01"}
server:
  addres: 1
  dns_names: [yes, ca.other]
intermediate:
  name_constraints:
    permitted_dns: [int.example]
claims:
  default_tls: 48h
provisioners:
  - type: acme
    name: acme
    challenge: [x]
  - type: acm
    name: ACME
"""
    found = faults(text)

    assert {
        "nmae", "root.key.type", "server.addres", "server.dns_names[0]", "server.dns_names[1]", "intermediate.lifetime",
        "claims.default_tls", "provisioners[0].challenge", "provisioners[1]", "provisioners[1].name",
    } == set(found)  # fmt: skip
    assert found["nmae"].startswith("2: ")
    assert "did you mean 'name'?" in found["nmae"]
    assert found["provisioners[0].challenge"].startswith("17: ")
    assert "quotes" in found["server.dns_names[0]"]
    assert "EdDSA" in found["root.key.type"]


def test_the_message_of_a_fault_names_file_line_field_and_fix():
    with pytest.raises(ConfigError) as caught:
        load_text("name: X\nserver:\n  address: nowhere\n", FILE)

    first, second = str(caught.value).splitlines()
    assert first.startswith("pki.yaml:3: server.address: ")
    assert second.startswith("  fix: ")
    assert 2 == caught.value.exit_code


@pytest.mark.parametrize(
    ("claims", "place"),
    [
        ("min_tls: 48h", "claims.min_tls"),
        ("default_tls: 48h", "claims.default_tls"),
        ("default_tls: 1m", "claims.default_tls"),
        ("max_tls: 1h", "claims.max_tls"),
        ("{max_tls: 6y, default_tls: 1h}", "claims.max_tls"),
        ("{min_user_ssh: 2h, max_user_ssh: 1h}", "claims.min_user_ssh"),
    ],
)
def test_claims_that_contradict_each_other_are_refused(claims: str, place: str):
    text = f"name: X\nclaims: {claims}\n" if claims.startswith("{") else f"name: X\nclaims:\n  {claims}\n"

    assert place in faults(text)


def test_claims_of_a_provisioner_are_judged_with_what_they_inherit():
    text = "name: X\nclaims: {max_tls: 48h}\nprovisioners:\n  - {type: acme, name: a, claims: {default_tls: 36h}}\n"

    assert load_text(text, FILE).provisioners[0].claims.default_tls == timedelta(hours=36)


@pytest.mark.parametrize("text", ["90d", "5y", "24h", "1h30m", "2w"])
def test_durations_as_people_write_them(text: str):
    assert load_text(f"name: X\nroot: {{lifetime: 20y, crl: {{lifetime: {text}}}}}\n", FILE)


@pytest.mark.parametrize("text", ["90", "-1d", "1.5h", "0s", "5 y", "1000y", "24:00", "1e3h"])
def test_what_is_no_duration_is_refused(text: str):
    assert "root.lifetime" in faults(f"name: X\nroot:\n  lifetime: {text}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [1]\nb: *x\n", "anchors"),
        ("a: !!python/object/apply:os.system [id]\n", "tag"),
        ("name: X\nname: Y\n", "stands here again"),
        ("name: X\n---\nname: Y\n", "second document"),
        ("[" * 1000 + "]" * 1000, "nested deeper"),
        ("- a\n- b\n", "not a mapping"),
        ("", "not a mapping"),
        ("name: [\n", "not YAML"),
        ("name: X\n\tx: 1\n", "not YAML"),
        ("name: \x00\n", "not YAML"),
        ("<<: {name: X}\n", "unknown"),
    ],
)
def test_yaml_that_is_not_ours_is_refused(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        load_text(text, FILE)


def test_a_yaml_bomb_is_refused_at_its_first_anchor():
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
    )

    with pytest.raises(ConfigError, match="anchors"):
        load_text(bomb, FILE)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path):
    path = tmp_path / "pki.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))

    with pytest.raises(FileRefused, match="larger"):
        load(path)


def test_a_file_that_is_not_text_is_refused_with_its_line(tmp_path: Path):
    path = tmp_path / "pki.yaml"
    path.write_bytes(b"name: X\n# \xff\n")

    with pytest.raises(ConfigError, match=r"pki\.yaml:2"):
        load(path)


@pytest.mark.parametrize(
    ("section", "place"),
    [
        ("intermediate: {lifetime: 20y}", "intermediate.lifetime"),
        ("provisioners: [{type: acme, name: pki-canary}]", "provisioners[0].name"),
        ("provisioners: [{type: acme, name: ../x}]", "provisioners[0].name"),
        ('provisioners: [{type: acme, name: "a\\nb"}]', "provisioners[0].name"),
        ("server: {address: ':8443', metrics_address: ':8443'}", "server.metrics_address"),
        ("server: {crl: {url: http://x/crl}}", "server.crl.url"),
        ("server: {dns_names: []}", "server.dns_names"),
        ("server: {dns_names: [ca.münchen.example]}", "server.dns_names[0]"),
        ("root: {path_length: 0}", "root.path_length"),
        ("root: {key: {type: RSA-1024, label: r, id: '01'}}", "root.key.type"),
        ("root: {key: {type: P-256, label: r, id: 'zz'}}", "root.key.id"),
        ("root: {location: offline, token: {label: x, pin_source: prompt}}", "root.token"),
        ("intermediate: {token: {label: x, pin_source: prompt}}", "intermediate.token.pin_source"),
        ("intermediate: {token: {label: x, serial: y, pin_source: p}}", "intermediate.token"),
        ("intermediate: {name_constraints: {}}", "intermediate.name_constraints"),
        (
            "intermediate: {name_constraints: {permitted_ip: [10.0.0.1/8]}}",
            "intermediate.name_constraints.permitted_ip[0]",
        ),
        ("server: {database: {type: mysql}}", "server.database"),
        ("server: {database: {type: postgresql, url: 'postgresql://u:secret@h/d'}}", "server.database"),
        ("version: 2", "version"),
        ('organisation: "a\\u202eb"', "organisation"),
    ],
)
def test_contradictions_and_bad_values_name_their_place(section: str, place: str):
    assert place in faults(f"name: X\n{section}\n")


def test_a_password_in_a_url_is_refused_without_being_repeated():
    with pytest.raises(ConfigError) as caught:
        load_text("name: X\nserver: {database: {type: postgresql, url: 'postgresql://u:hunter2@h/d'}}\n", FILE)

    assert "hunter2" not in str(caught.value)


def test_two_keys_of_one_token_need_names_of_their_own():
    token = "token: {label: t, pin_source: p}"
    text = f"name: X\nroot: {{{token}}}\nintermediate: {{{token}, key: {{type: P-256, label: root, id: '01'}}}}\n"

    assert {"intermediate.key.label", "intermediate.key.id"} == set(faults(text))

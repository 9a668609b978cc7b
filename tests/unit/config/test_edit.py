"""Edits of pki.yaml keep everything that was not to be changed."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
import yaml

from stepca_pki.config.edit import add_provisioner, new_file, remove_provisioner
from stepca_pki.config.load import load_text
from stepca_pki.errors import ConfigError, UsageError

ENTRY = {"type": "acme", "name": "new", "challenges": ["http-01"], "claims": {"max_tls": "48h"}}

COMMENTED = """\
# head
name: Example  # its name

provisioners:
  # for servers
  - type: acme
    name: servers   # odd   spacing
    challenges: [http-01]
  # for the lab
  - name: lab
    type: acme
    claims:
      max_tls: 12h  # short
      default_tls: 12h

# how long
claims:
  max_tls: 24h
"""


def names(text: str) -> list[str]:
    return [item.name for item in load_text(text, Path("pki.yaml")).provisioners]


def test_adding_touches_no_line_that_was_there():
    changed = add_provisioner(COMMENTED, ENTRY)
    difference = list(difflib.ndiff(COMMENTED.splitlines(), changed.splitlines()))

    assert not [line for line in difference if line.startswith("- ")]
    assert ["servers", "lab", "new"] == names(changed)
    assert changed.index("name: new") < changed.index("# how long")


def test_adding_and_removing_gives_the_same_file():
    assert COMMENTED == remove_provisioner(add_provisioner(COMMENTED, ENTRY), "new")


def test_removing_keeps_the_comments_of_the_others():
    changed = remove_provisioner(COMMENTED, "lab")

    assert "# for servers" in changed
    assert "name: servers   # odd   spacing" in changed
    assert ["servers"] == names(changed)


@pytest.mark.parametrize(
    "text",
    [
        "name: X\n",
        "name: X\nprovisioners: []\n",
        "name: X\nprovisioners: []  # none yet\nclaims: {max_tls: 24h}\n",
        "name: X\nprovisioners: [{type: acme, name: one}]\n",
        "name: X\nprovisioners:\n- {type: acme, name: one}\n",
        "name: X\nprovisioners:\n    - type: acme\n      name: one\nclaims: {max_tls: 24h}\n",
    ],
)
def test_adding_and_removing_works_in_every_layout(text: str):
    added = add_provisioner(text, ENTRY)

    assert [*names(text), "new"] == names(added)
    assert names(text) == names(remove_provisioner(added, "new"))


def test_the_last_one_can_be_removed():
    assert [] == names(remove_provisioner("name: X\nprovisioners:\n  - type: acme\n    name: one\n", "one"))


def test_a_taken_name_is_refused():
    with pytest.raises(UsageError, match="already"):
        add_provisioner(COMMENTED, {"type": "acme", "name": "LAB"})


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="servers, lab"):
        remove_provisioner(COMMENTED, "x")


def test_an_entry_that_is_not_allowed_is_refused():
    with pytest.raises(ConfigError, match="colour"):
        add_provisioner(COMMENTED, {"type": "acme", "name": "x", "colour": "red"})


def test_the_first_file_means_what_was_asked():
    text = new_file(
        name='Ünï "x": #', organisation="yes", permitted_dns=["int.example"], dns_names=["ca.int.example", "10.0.0.1"]
    )
    authority = load_text(text, Path("pki.yaml"))

    assert 'Ünï "x": #' == authority.name
    assert "yes" == authority.organisation
    assert authority.intermediate.name_constraints is not None
    assert ("10.0.0.1/32",) == authority.intermediate.name_constraints.permitted_ip
    assert "#" in yaml.safe_load(text)["name"]


def test_the_first_file_refuses_what_is_not_allowed():
    with pytest.raises(ConfigError, match="address"):
        new_file(name="X", address="nowhere")

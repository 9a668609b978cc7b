"""What a running step-ca may be told by SIGHUP, and what wants a restart."""

from __future__ import annotations

import pytest

from stepca_pki.plan.reload import reload_kind


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "none"),
        ({"authority": {"provisioners": []}}, "reload"),
        ({"dnsNames": ["x"], "logger": {}}, "reload"),
        ({"db": {"type": "postgresql"}}, "restart"),
        ({"authority": {}, "address": ":1"}, "restart"),
        ({"kms": {}}, "restart"),
        ({"insecureAddress": ":80"}, "restart"),
        ({"unknown": 1}, "restart"),
    ],
)
def test_each_change(change: dict[str, object], kind: str):
    running = {"address": ":2", "db": {}, "kms": {"uri": "x"}, "authority": {"a": 1}}

    assert reload_kind(running, {**running, **change}) == kind


def test_a_key_that_goes_away_is_a_change():
    assert reload_kind({"metricsAddress": ":1"}, {}) == "restart"

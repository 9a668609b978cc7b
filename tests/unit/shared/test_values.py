"""Values that people write."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepca_pki.values import format_duration, go_duration, parse_duration, parse_host, shortened, split_address


@pytest.mark.parametrize(
    ("text", "hours"), [("90d", 2160), ("24h", 24), ("5y", 43800), ("1h30m", 1.5), ("1w", 168), ("90s", 0.025)]
)
def test_durations_as_people_write_them(text: str, hours: float):
    assert parse_duration(text) == timedelta(hours=hours)


@pytest.mark.parametrize(
    "text", ["", "0s", "1", "d", "1.5h", "-1h", "1 h", "101y", "1h ", 5, None, "9" * 30 + "h", "١h"]
)
def test_what_is_no_duration_is_refused(text: object):
    with pytest.raises(ValueError, match=r"duration|must be"):
        parse_duration(text)


@given(st.integers(min_value=1, max_value=100 * 365 * 86400))
def test_every_duration_comes_back(seconds: int):
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_go_has_no_days():
    assert go_duration(timedelta(days=90)) == "2160h0m0s"


@pytest.mark.parametrize(
    ("text", "pair"), [("127.0.0.1:8443", ("127.0.0.1", 8443)), (":443", ("", 443)), ("[::1]:80", ("::1", 80))]
)
def test_addresses(text: str, pair: tuple[str, int]):
    assert split_address(text) == pair


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:65536", "::1:80", "[::1]", "a b:1", "host:٣"])
def test_what_is_no_address_is_refused(text: str):
    with pytest.raises(ValueError, match=r"is not|needs brackets"):
        split_address(text)


@pytest.mark.parametrize("text", ["a..b", "-a.example", "bücher.example", "a b", "x" * 64, "*.example", "", 5])
def test_what_is_no_host_is_refused(text: object):
    with pytest.raises(ValueError, match=r"is not|must be text"):
        parse_host(text)


def test_hosts_are_lower_case_and_addresses_short():
    assert parse_host("CA.Example") == "ca.example"
    assert parse_host("0:0:0:0:0:0:0:1") == "::1"


@given(st.text(st.characters(codec="utf-8")))
def test_what_is_shortened_fits_and_is_a_beginning(text: str):
    short = shortened(text)

    assert len(short.encode()) <= 64
    assert text.startswith(short)

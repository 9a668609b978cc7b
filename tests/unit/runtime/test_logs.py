"""One-time tokens never reach our log."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stepca_pki.runtime.logs import LogFile, without_secrets

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ3d3cifQ.c2lnbmF0dXJl"


def test_a_token_field_is_emptied_and_the_rest_kept():
    line = json.dumps({"ott": TOKEN, "path": "/sign", "status": 201})

    kept = json.loads(without_secrets(line))

    assert (kept["path"], kept["status"]) == ("/sign", 201)
    assert TOKEN not in str(kept)


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_token_in_any_text_is_replaced(before: str, after: str):
    assert TOKEN not in without_secrets(f"{before} {TOKEN} {after}")


@given(st.dictionaries(st.sampled_from(["a", "Token", "OTT", "authorization", "msg"]), st.just(TOKEN)))
def test_a_token_under_any_name_is_replaced(fields: dict[str, str]):
    assert TOKEN not in without_secrets(json.dumps(fields))


def test_the_file_is_for_its_owner_alone(tmp_path: Path):
    log = LogFile(tmp_path / "log")
    log.write(f'{{"ott":"{TOKEN}"}}\n')
    log.close()

    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    assert "removed" in (tmp_path / "log").read_text()

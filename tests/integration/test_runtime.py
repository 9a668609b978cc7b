"""step-ca under supervision, on a real token: start, serve, reload, crash, and every refused start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Pki

from stepca_pki.apply import apply, plan_now
from stepca_pki.config.load import load
from stepca_pki.errors import StepCaError
from stepca_pki.home import Home
from stepca_pki.runtime import control
from stepca_pki.runtime.state import read_state
from stepca_pki.stepca.api import Api
from stepca_pki.stepca.canary import issue_canary
from stepca_pki.stepca.ott import mint


@pytest.fixture
def made(home: Home) -> Home:
    """A home with everything but a running CA."""
    apply(home)
    return home


@pytest.fixture
def served(made: Home) -> Home:
    """A running CA."""
    control.start_detached(made)
    return made


def eventually(wanted: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def canary(home: Home) -> None:
    with Api.local(home, load(home.config)) as api:
        issue_canary(home, api)


def step_ca_pid(home: Home) -> int:
    state = read_state(home)
    assert state is not None
    assert state.step_ca is not None
    return state.step_ca.pid


def test_up_is_ready_when_a_leaf_was_signed_and_down_ends_everything(made: Home, pki: Pki):
    up = pki("up", "--detach")
    assert 0 == up.returncode, up.stderr
    assert "ready" in up.stdout
    pid = step_ca_pid(made)
    canary(made)

    assert "running" not in pki("up", "--detach").stdout
    assert 2 == pki("up", "--detach").returncode
    assert 0 == pki("status").returncode
    assert "stopped" in pki("down").stdout
    assert not Path(f"/proc/{pid}").exists()
    assert 4 == pki("status").returncode


def test_health_has_a_line_and_a_figure_for_each_probe(served: Home, pki: Pki):
    value = json.loads(pki("health", "--output", "json").stdout)

    assert value["healthy"]
    probes = {probe["probe"]: probe for probe in value["probes"]}
    assert {
        "alive",
        "answering",
        "able to sign",
        "root",
        "intermediate",
        "root CRL",
        "disk",
        "clock",
        "chain",
        "provisioners",
    } == set(probes)
    assert "ms" in probes["able to sign"]["figure"]


def test_health_of_a_stopped_ca_exits_with_4_and_still_judges_the_rest(made: Home, pki: Pki):
    done = pki("health", "--output", "json")

    assert 4 == done.returncode
    grades = {probe["probe"]: probe["grade"] for probe in json.loads(done.stdout)["probes"]}
    assert ("failed", "failed", "ok") == (grades["alive"], grades["able to sign"], grades["root"])


def test_a_killed_step_ca_is_started_again(served: Home):
    first = step_ca_pid(served)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: (state := read_state(served)) is not None and state.phase == "ready" and state.restarts == 1)

    assert first != step_ca_pid(served)
    canary(served)


def test_a_killed_supervisor_takes_step_ca_with_it_and_up_works_again(served: Home, pki: Pki):
    state = read_state(served)
    assert state is not None
    assert state.step_ca is not None
    os.kill(state.supervisor.pid, signal.SIGKILL)
    eventually(lambda: not state.supervisor.alive and not state.step_ca.alive)  # type: ignore[union-attr]

    assert 4 == pki("status").returncode
    assert 0 == pki("up", "--detach").returncode


def test_a_new_provisioner_reaches_the_running_ca_without_a_restart(served: Home, pki: Pki):
    before = step_ca_pid(served)
    text = served.config.read_text()
    done = pki("provisioner", "add", "acme", "second", "--challenge", "http-01", "--default-tls", "1h")
    assert 0 == done.returncode, done.stderr

    with Api.local(served, load(served.config)) as api:
        assert {"acme", "second", "pki-canary"} == {item.name for item in api.provisioners()}
    assert before == step_ca_pid(served)
    assert 0 == pki("provisioner", "remove", "second").returncode
    assert text == served.config.read_text()


def test_another_address_restarts_it(served: Home, free_port: Callable[[], int], pki: Pki):
    before = step_ca_pid(served)
    old = load(served.config).server.address
    served.config.write_text(served.config.read_text().replace(old, f"127.0.0.1:{free_port()}"))
    assert 0 == pki("apply").returncode

    assert before != step_ca_pid(served)
    canary(served)


def test_reload_and_restart_keep_it_serving(served: Home, pki: Pki):
    assert 0 == pki("reload").returncode
    assert 0 == pki("restart").returncode
    canary(served)


def test_one_time_tokens_never_reach_the_log(served: Home):
    """step-ca writes them whole into its request log, also those that it refuses."""
    jwk = json.loads(served.canary_key.read_text())
    with Api.local(served, load(served.config)) as api:
        ott = mint(
            jwk, issuer="pki-canary", audience=api.audience("/1.0/sign"), subject="x", sans=["x"], now=datetime.now(UTC)
        )
        with pytest.raises(StepCaError):
            api.sign("not a csr", ott)
        with pytest.raises(StepCaError):
            api.sign("not a csr", ott[:-4] + "AAAA")
    control.stop(served)
    text = served.log.read_text()

    assert "/1.0/sign" in text
    assert ott[:60] not in text
    assert "eyJ" not in text


def test_the_canary_key_cannot_get_a_name(served: Home):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding
    from tests_shared import a_name

    key = ec.generate_private_key(ec.SECP256R1())
    sans = x509.SubjectAlternativeName([x509.DNSName("bank.example")])
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(a_name("bank.example"))
        .add_extension(sans, False)
        .sign(key, hashes.SHA256())
    )
    jwk = json.loads(served.canary_key.read_text())
    with Api.local(served, load(served.config)) as api:
        ott = mint(
            jwk,
            issuer="pki-canary",
            audience=api.audience("/1.0/sign"),
            subject="bank.example",
            sans=["bank.example"],
            now=datetime.now(UTC),
        )
        leaf = x509.load_pem_x509_certificate(api.sign(csr.public_bytes(Encoding.PEM).decode(), ott)[0].encode())

    assert leaf.subject == a_name("pki canary")
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_a_one_time_token_works_once(served: Home):
    from tests_shared import a_csr

    jwk = json.loads(served.canary_key.read_text())
    with Api.local(served, load(served.config)) as api:
        ott = mint(
            jwk, issuer="pki-canary", audience=api.audience("/1.0/sign"), subject="x", sans=["x"], now=datetime.now(UTC)
        )
        api.sign(a_csr("x"), ott)
        with pytest.raises(StepCaError, match="401"):
            api.sign(a_csr("x"), ott)


# --- starts that are refused ------------------------------------------------------------------------


def refused(pki: Pki, *words: str, code: int = 1) -> str:
    done = pki("up", "--detach")
    assert code == done.returncode, done.stderr + done.stdout
    for word in (*words, "fix: "):
        assert word in done.stderr
    return done.stderr


def test_a_taken_port_is_refused_with_its_holder(made: Home, pki: Pki):
    """With Badger step-ca would hang on it without a word."""
    host, _, port = load(made.config).server.address.rpartition(":")
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen()
        refused(pki, "the port is taken by", f"process {os.getpid()}")
    assert 0 == pki("up", "--detach").returncode


def test_a_wrong_pin_is_refused_after_one_try(made: Home, pki: Pki):
    pin = made.secrets / "intermediate.pin"
    right = pin.read_text()
    pin.write_text("wrong\n")
    text = refused(pki, "refused the PIN")
    assert "wrong" not in text.replace("wrong PIN", "")
    pin.write_text(right)
    assert 0 == pki("up", "--detach").returncode


def test_a_pin_file_open_to_others_is_refused(made: Home, pki: Pki):
    (made.secrets / "intermediate.pin").chmod(0o644)
    refused(pki, "open to others", "chmod 600")


def test_a_missing_module_is_refused(made: Home, pki: Pki):
    text = made.config.read_text() + "\n"
    made.config.write_text(
        text.replace(
            "intermediate:\n",
            "intermediate:\n  token: {module: /nowhere/hsm.so, label: x, pin_source: secrets/intermediate.pin}\n",
        )
    )

    assert 1 == pki("apply").returncode
    refused(pki, "/nowhere/hsm.so")


def test_a_ca_json_edited_by_hand_is_refused(made: Home, pki: Pki):
    made.ca_json.write_text(made.ca_json.read_text().replace("acme", "acne"))
    refused(pki, "is not what pki.yaml declares")
    assert 0 == pki("apply").returncode
    assert 0 == pki("up", "--detach").returncode


def test_a_swapped_intermediate_is_refused(made: Home, pki: Pki, tmp_path: Path, free_port: Callable[[], int]):
    other = Home(tmp_path / "other")
    other.path.mkdir()
    other.config.write_text(made.config.read_text())
    apply(other)
    made.intermediate_certificate.write_bytes(other.intermediate_certificate.read_bytes())
    refused(pki, "was not signed by the root")


def test_an_expired_intermediate_is_refused_and_apply_heals_it(made: Home, pki: Pki):
    """step-ca itself would start with it and serve."""
    from dataclasses import replace

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from stepca_pki.ceremony.steps import intermediate_profile
    from stepca_pki.config.tokens import token_of
    from stepca_pki.hsm.token import open_token
    from stepca_pki.x509.build import build_intermediate

    authority = load(made.config)
    root = x509.load_pem_x509_certificate(made.root_certificate.read_bytes())
    ours = x509.load_pem_x509_certificate(made.intermediate_certificate.read_bytes())
    profile = replace(intermediate_profile(authority), lifetime=timedelta(seconds=1))
    with open_token(token_of(made, authority, "root")) as token:
        short = build_intermediate(
            profile,
            ours.public_key(),
            root,
            token.key("root", "01"),
            serial=ours.serial_number,
            now=root.not_valid_before_utc,
        )  # type: ignore[arg-type]
    made.intermediate_certificate.write_bytes(short.public_bytes(Encoding.PEM))
    time.sleep(2)

    refused(pki, "expired on")
    assert 0 == pki("apply").returncode
    assert 0 == pki("up", "--detach").returncode


def test_a_clock_that_jumped_back_is_refused(made: Home, pki: Pki):
    ahead = datetime.now(UTC) + timedelta(days=2)
    (made.state / "last-seen").write_text(ahead.isoformat() + "\n")
    refused(pki, "the clock says", "set the clock")


def test_a_clock_set_back_by_a_day_is_refused_through_the_real_clock(served: Home, pki: Pki):
    control.stop(served)
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    done = pki("up", "--detach", environment={"LD_PRELOAD": str(library), "FAKETIME": "-1d"})

    assert 1 == done.returncode
    assert "the clock says" in done.stderr


def test_a_database_in_use_is_refused(served: Home, tmp_path: Path, free_port: Callable[[], int]):
    from stepca_pki.runtime.preflight import check_database

    with pytest.raises(StepCaError, match="has the database"):
        check_database(served, load(served.config))


def test_a_step_ca_without_pkcs11_is_refused(made: Home, pki: Pki, tmp_path: Path):
    stub = tmp_path / "step-ca"
    stub.write_text(
        '#!/bin/sh\n[ "$1" = version ] && { echo "Smallstep CA/0.30.2 (linux/amd64)"; exit 0; }\n'
        "echo \"unsupported kms type 'pkcs11': step-ca is compiled without cgo or PKCS#11 support\" >&2\nexit 2\n"
    )
    stub.chmod(0o755)
    done = pki("up", "--detach", environment={"PKI_STEP_CA": str(stub)})

    assert 1 == done.returncode
    assert "built without PKCS#11 support" in done.stderr
    assert "pki stepca install" in done.stderr


def test_a_token_folder_that_vanishes_is_noticed_and_heals_when_it_is_back(served: Home, pki: Pki, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.move(served.tokens, moved)
    control.stop(served)
    refused(pki, "fix: ")
    plan = pki("plan")
    assert 1 == plan.returncode
    assert "its token 'pki-intermediate' is not there" in plan.stderr
    shutil.move(moved, served.tokens)
    assert 0 == pki("up", "--detach").returncode


def test_two_supervisors_of_one_home_are_refused(served: Home, pki: Pki):
    done = pki("up", timeout=30)

    assert 1 == done.returncode
    assert "supervised already" in done.stderr


def test_a_start_that_fails_leaves_nothing_running(made: Home, pki: Pki, tmp_path: Path):
    """step-ca that ends at once: its own reason is shown."""
    stub = tmp_path / "step-ca"
    stub.write_text(
        '#!/bin/sh\n[ "$1" = version ] && { echo "Smallstep CA/0.30.2 (linux/amd64)"; exit 0; }\n'
        'grep -q absent.so "$1" && { echo "error initializing PKCS#11" >&2; exit 2; }\necho "the moon is full" >&2\nexit 2\n'
    )
    stub.chmod(0o755)
    done = pki("up", "--detach", environment={"PKI_STEP_CA": str(stub)})

    assert 1 == done.returncode
    assert "the moon is full" in done.stderr
    assert control.running(made) is None


def test_plan_says_nothing_to_do_while_it_runs(served: Home):
    assert not plan_now(served)[0]

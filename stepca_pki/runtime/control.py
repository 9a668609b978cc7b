"""Starting, stopping and steering the supervisor from another process."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from stepca_pki.errors import FileRefused, PkiError, StepCaError, UsageError
from stepca_pki.files import read_bounded
from stepca_pki.home import Home
from stepca_pki.hsm.client import discard
from stepca_pki.runtime.state import Supervised, read_state

START_TIMEOUT = timedelta(seconds=60)
STOP_TIMEOUT = timedelta(seconds=30)
CHANGE_TIMEOUT = timedelta(seconds=90)
MAX_CA_JSON_BYTES = 16 * 1024 * 1024


def running(home: Home) -> Supervised | None:
    """Return the living supervisor of *home*, None if there is none."""
    state = read_state(home)
    return state if state is not None and state.alive else None


def running_ca_json(home: Home) -> str | None:
    """Return the configuration that the running step-ca took."""
    try:
        return read_bounded(home.state / "ca.json.running", MAX_CA_JSON_BYTES).decode()
    except FileRefused:
        return None


def start_detached(home: Home) -> Supervised:
    """Start the supervisor in the background and return when step-ca is ready. Raises what the start raised.

    A fork of this process, so that nothing has to be loaded twice. The child's verdict comes over a pipe.
    """
    if (already := running(home)) is not None:
        raise UsageError(f"it runs already (process {already.supervisor.pid})", fix="'pki status' shows it")
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _become_daemon(home, writing)  # never returns
    os.close(writing)
    discard()  # the daemon has it now
    verdict = _read_verdict(reading)
    os.waitpid(child, 0)  # the first child ends at once; its own child is the daemon
    if verdict is None:
        raise StepCaError("the supervisor ended before it said anything", fix="'pki up' in the foreground shows why")
    if verdict["error"] is not None:
        failure = StepCaError(verdict["error"])
        failure.exit_code = int(verdict["code"])
        raise failure
    state = running(home)
    if state is None:
        raise StepCaError("step-ca was ready, and is gone again", fix="see 'pki logs'")
    return state


def _read_verdict(descriptor: int) -> dict[str, str] | None:
    with os.fdopen(descriptor, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], START_TIMEOUT.total_seconds())
        data = pipe.read() if ready else b""
    value = json.loads(data) if data else None
    return value if isinstance(value, dict) else None


def _become_daemon(home: Home, writing: int) -> None:
    """Second fork, own session, streams to a file: daemon(7)."""
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    code = 1
    try:
        os.chdir("/")
        _redirect(home.state / "supervisor.log")
        code = _supervise(home, writing)
    finally:
        os._exit(code)


def _redirect(path: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)


def _supervise(home: Home, writing: int) -> int:
    from stepca_pki.runtime.supervisor import Supervisor

    def verdict(error: PkiError | None) -> None:
        nonlocal writing
        if writing >= 0:
            value = {"error": None if error is None else str(error), "code": 0 if error is None else error.exit_code}
            with suppress(OSError):
                os.write(writing, json.dumps(value).encode())
            os.close(writing)
            writing = -1

    try:
        Supervisor(home, _say).run(on_ready=lambda: verdict(None))
    except PkiError as error:
        _say(str(error))
        verdict(error)
        return error.exit_code
    except Exception as error:  # a defect of ours must reach the one who waits
        verdict(PkiError(f"unexpected {type(error).__name__}: {error}"))
        return 1
    return 0


def _say(message: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {message}", file=sys.stderr, flush=True)


def stop(home: Home) -> bool:
    """Stop the supervisor and its step-ca; return whether anything ran. An orphan step-ca is ended too."""
    state = read_state(home)
    if state is None:
        return False
    was_running = state.alive or (state.step_ca is not None and state.step_ca.alive)
    state.supervisor.send(signal.SIGTERM)
    if not state.supervisor.wait_gone(STOP_TIMEOUT):
        raise StepCaError(f"process {state.supervisor.pid} does not end", fix=f"kill -9 {state.supervisor.pid}")
    latest = state.step_ca
    if latest is not None and latest.alive:
        latest.send(signal.SIGTERM)
        if not latest.wait_gone(STOP_TIMEOUT):
            latest.send(signal.SIGKILL)
    return was_running


def reload(home: Home) -> str:
    """Make the running step-ca take ca.json anew, and return what it had to say. Raises StepCaError."""
    return _change(home, signal.SIGHUP)


def restart(home: Home) -> str:
    """Stop and start step-ca under the running supervisor. Raises StepCaError."""
    return _change(home, signal.SIGUSR1)


def _change(home: Home, number: signal.Signals) -> str:
    state = _wait(home, lambda found: found.phase == "ready")
    state.supervisor.send(number)
    generation = state.generation
    done = _wait(home, lambda found: found.generation > generation)
    if " failed: " in done.message:
        raise StepCaError(done.message, fix="the CA runs with its earlier configuration if it could; see 'pki status'")
    return done.message


def _wait(home: Home, wanted: Callable[[Supervised], bool]) -> Supervised:
    deadline = time.monotonic() + CHANGE_TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        state = running(home)
        if state is None:
            raise UsageError("it does not run", fix="start it with 'pki up'")
        if wanted(state):
            return state
        time.sleep(0.01)
    raise StepCaError(f"no answer from the supervisor within {CHANGE_TIMEOUT.seconds} s", fix="see 'pki logs'")

"""The foreground supervisor: starts step-ca, proves that it signs, and starts it again when it dies.

One thread pumps step-ca's log; the main one waits for events. A start that fails is ended and its reason told;
a wrong PIN is never tried again.
"""

from __future__ import annotations

import gc
import os
import queue
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

from stepca_pki import commands
from stepca_pki.config.load import load
from stepca_pki.config.model import Authority
from stepca_pki.config.tokens import token_of
from stepca_pki.errors import PinRefused, PkiError, StepCaError
from stepca_pki.files import SECRET, SECRET_FOLDER, ensure_folder, read_bounded, write_atomic
from stepca_pki.home import Home
from stepca_pki.hsm.client import discard
from stepca_pki.locks import exclusive
from stepca_pki.observe import MAX_GENERATED_BYTES
from stepca_pki.plan.reload import reload_kind
from stepca_pki.runtime import preflight
from stepca_pki.runtime.logs import LogFile
from stepca_pki.runtime.processes import identify, this_process
from stepca_pki.runtime.state import Supervised, read_state, replace, write_state
from stepca_pki.stepca.api import Api, Unreachable
from stepca_pki.stepca.binary import find_step_ca
from stepca_pki.stepca.canary import issue_canary

READY_TIMEOUT = timedelta(seconds=30)
STOP_TIMEOUT = timedelta(seconds=15)
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=1)
STABLE = timedelta(minutes=5)
"""After this long in service, a crash counts as the first again."""
CLOCK_PERIOD = timedelta(minutes=10)
KEPT_LINES = 12

Say = Callable[[str], None]


@dataclass(frozen=True)
class Event:
    """Something to react to: *kind* is exit, stop, reload or restart; *process* whose exit it was."""

    kind: str
    process: int = 0


class Supervisor:
    """Runs the step-ca of one home until it is told to stop."""

    def __init__(self, home: Home, say: Say) -> None:
        self.home, self.say = home, say
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reload_marks: list[str] = []
        self._state = Supervised(this_process(), None, "starting", time.time())

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Supervise until SIGTERM or SIGINT. Raises if the first start fails, or a PIN is refused later."""
        gc.enable()
        ensure_folder(self.home.state, SECRET_FOLDER)
        with exclusive(self.home.state / "supervisor.lock", refusal="this authority's step-ca is supervised already"):
            self._log = LogFile(self.home.log)
            self._catch_signals()
            try:
                self._end_orphan()
                self._start()
                discard()
                on_ready()
                self._serve()
            finally:
                self._stop()
                self._log.close()
                with suppress(OSError):
                    self.home.supervisor_pid.unlink()

    # --- events

    def _catch_signals(self) -> None:
        kinds = {signal.SIGTERM: "stop", signal.SIGINT: "stop", signal.SIGHUP: "reload", signal.SIGUSR1: "restart"}

        def note(number: int, _frame: FrameType | None) -> None:
            self._events.put(Event(kinds[signal.Signals(number)]))

        for number in kinds:
            signal.signal(number, note)

    def _serve(self) -> None:
        failures = 0
        while True:
            try:
                event = self._events.get(timeout=CLOCK_PERIOD.total_seconds())
            except queue.Empty:
                self._remember_clock()
                continue
            if event.kind == "stop":
                self.say("stopping")
                return
            if event.kind in ("reload", "restart"):
                self._change(event.kind)
            elif self._process is not None and event.process == self._process.pid:
                failures = 0 if time.time() - self._state.since > STABLE.total_seconds() else failures
                failures = self._revive(failures + 1)
                if failures < 0:
                    return

    def _remember_clock(self) -> None:
        with suppress(PkiError):  # a full disk must not end the CA
            preflight.remember_clock(self.home)

    def _revive(self, failures: int) -> int:
        """Start step-ca again after a crash; return the count of failures so far, negative to stop."""
        while True:
            code = None if self._process is None else self._process.wait()
            pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE).total_seconds() * random.uniform(0.8, 1.2)  # noqa: S311
            self.say(f"step-ca ended (code {code}): {self._reason()}; starting it again in {pause:.1f} s")
            self._tell(phase="waiting", step_ca=None, restarts=self._state.restarts + 1, message=self._reason())
            if self._told_to_stop(pause):
                return -1
            try:
                self._start()
            except PinRefused:
                raise  # never again by itself: HSMs lock
            except PkiError as error:
                self.say(str(error))
                failures += 1
                continue
            return failures

    def _told_to_stop(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            with suppress(queue.Empty):
                if self._events.get(timeout=rest).kind == "stop":
                    return True
        return False

    # --- start and stop

    def _start(self) -> None:
        """Check, start, and wait for a verified canary. On failure nothing is left running."""
        authority = load(self.home.config)
        binary = find_step_ca()
        preflight.check_all(self.home, authority)
        self._last_lines.clear()
        text = read_bounded(self.home.ca_json, MAX_GENERATED_BYTES)
        self._process = _spawn(self.home, authority, binary.path)
        self._tell(phase="starting", step_ca=identify(self._process.pid), since=time.time(), message="")
        self._pump = threading.Thread(target=self._pump_log, args=(self._process,), daemon=True)
        self._pump.start()
        try:
            disabled = self._await_ready(authority)
        except BaseException:
            self._stop()
            raise
        write_atomic(self.home.state / "ca.json.running", text, SECRET)
        self._remember_clock()
        self._tell(phase="ready", since=time.time(), message=disabled)

    def _await_ready(self, authority: Authority) -> str:
        """Return once a probe leaf is issued and verified; the answer says which provisioners are disabled."""
        deadline = time.monotonic() + READY_TIMEOUT.total_seconds()
        with Api.local(self.home, authority) as api:
            while True:
                if self._process is None or self._process.poll() is not None:
                    raise StepCaError(f"step-ca did not start: {self._reason()}", fix="correct that, then 'pki up'")
                try:
                    issue_canary(self.home, api)
                    return self._disabled(authority, api)
                except Unreachable:
                    if time.monotonic() > deadline:
                        raise StepCaError(
                            f"step-ca did not answer within {READY_TIMEOUT.seconds} s: {self._reason()}",
                            fix="see 'pki logs'",
                        ) from None
                    time.sleep(0.005)

    def _disabled(self, authority: Authority, api: Api) -> str:
        """Say which provisioners step-ca dropped or disabled: it does so in silence."""
        found = {item.name: item.fault for item in api.provisioners()}
        missing = [f"'{item.name}' is missing" for item in authority.provisioners if item.name not in found]
        disabled = [f"'{name}' is disabled: {fault}" for name, fault in found.items() if fault]
        faults = "; ".join([*missing, *disabled])
        if faults:
            self.say(f"warning: provisioner {faults}")
        return faults

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=STOP_TIMEOUT.total_seconds())
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._pump is not None:
            self._pump.join(timeout=2)

    def _end_orphan(self) -> None:
        """A step-ca that outlived a killed supervisor of this home is ended before a new one starts."""
        old = read_state(self.home)
        if old is None or old.step_ca is None or not old.step_ca.alive:
            return
        self.say(f"ending the step-ca (process {old.step_ca.pid}) that an earlier pki left behind")
        old.step_ca.send(signal.SIGTERM)
        if not old.step_ca.wait_gone(STOP_TIMEOUT):
            old.step_ca.send(signal.SIGKILL)
            old.step_ca.wait_gone(STOP_TIMEOUT)

    # --- reload

    def _change(self, kind: str) -> None:
        """Take pki.yaml's ca.json anew; whatever happens, the outcome is on record."""
        try:
            self._reload() if kind == "reload" else self._restart()
            message = self._state.message
        except PkiError as error:
            self.say(str(error))
            message = f"{kind} failed: {error}"
        self._tell(generation=self._state.generation + 1, message=message)

    def _reload(self) -> None:
        import json

        authority = load(self.home.config)
        preflight.check_reload(self.home, authority)
        text = read_bounded(self.home.ca_json, MAX_GENERATED_BYTES)
        running = read_bounded(self.home.state / "ca.json.running", MAX_GENERATED_BYTES)
        if self._process is None or reload_kind(json.loads(running), json.loads(text)) == "restart":
            self._restart()
            return
        seen = len(self._reload_marks)
        self._process.send_signal(signal.SIGHUP)
        if not self._reloaded(seen):
            self.say("step-ca refused the reload; restarting it")
            self._restart()
            return
        disabled = self._await_ready(authority)
        write_atomic(self.home.state / "ca.json.running", text, SECRET)
        self._tell(message=disabled)

    def _reloaded(self, seen: int) -> bool:
        """step-ca has no success signal but the line that it serves again."""
        deadline = time.monotonic() + READY_TIMEOUT.total_seconds()
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            if len(self._reload_marks) > seen:
                return self._reload_marks[-1] == "ok"
            time.sleep(0.005)
        return False

    def _restart(self) -> None:
        authority = load(self.home.config)
        preflight.check_reload(self.home, authority)  # refuse before the old one is stopped
        self._stop()
        self._start()

    # --- the log

    def _pump_log(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is not None:
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                self._log.write(line)
                if not line.startswith("{"):
                    self._last_lines.append(line)
                if "Serving HTTPS on" in line:
                    self._reload_marks.append("ok")
                elif "error reloading" in line or "Reload failed" in line:
                    self._reload_marks.append("failed")
        self._events.put(Event("exit", process.pid))

    def _reason(self) -> str:
        if self._pump is not None and (self._process is None or self._process.poll() is not None):
            self._pump.join(timeout=2)  # its last words may still be on their way
        lines = [line for line in self._last_lines if line and "badger" not in line.lower()]
        return (lines[-1] if lines else "it said nothing")[:500]

    def _tell(self, **changes: object) -> None:
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]
        with suppress(PkiError):  # on a full disk the CA goes on, and status is older than it should be
            write_state(self.home, self._state)


def _spawn(home: Home, authority: Authority, binary: os.PathLike[str]) -> subprocess.Popen[bytes]:
    """Start step-ca. If we are killed, the kernel ends it too (PR_SET_PDEATHSIG, by setpriv)."""
    setpriv = shutil.which("setpriv")
    argv = [*([setpriv, "--pdeathsig", "TERM"] if setpriv else []), str(binary), *_flags(authority), str(home.ca_json)]
    module_environment = token_of(home, authority, "intermediate").environment
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=commands.environment({"STEPPATH": str(home.path), "NO_COLOR": "1", **module_environment}),
        cwd=home.path,
        start_new_session=True,
    )


def _flags(authority: Authority) -> list[str]:
    server = authority.server
    ports = {"--acme-http-port": server.acme_http_port, "--acme-tls-port": server.acme_tls_port}
    flags = [f"{flag}={port}" for flag, port in ports.items() if port is not None]
    if flags:
        flags.insert(0, "--insecure")  # step-ca allows other ports only so; it changes nothing else
    return [*flags, *([f"--resolver={server.resolver}"] if server.resolver else [])]

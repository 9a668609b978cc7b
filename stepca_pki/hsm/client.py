"""Our end of the worker: starts it, asks it, and turns its troubles into errors that name the module."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stepca_pki import commands, errors
from stepca_pki.hsm.worker import receive, send

CALL_TIMEOUT = timedelta(seconds=60)
"""A smart card may take 30 s for an RSA-4096 key; longer than this a call is taken for hung."""

_KINDS = {
    "ModuleUnusable": errors.ModuleUnusable,
    "TokenNotFound": errors.TokenNotFound,
    "TokenAmbiguous": errors.TokenAmbiguous,
    "KeyNotFound": errors.KeyNotFound,
    "KeyExists": errors.KeyExists,
    "HsmError": errors.HsmError,
}

# PKCS#11 return values that people meet: what is wrong and what to do. The PIN is tried once, never again.
_MEANINGS: dict[str, tuple[type[errors.HsmError], str, str]] = {
    "PinIncorrect": (
        errors.PinRefused,
        "the token refused the PIN",
        "correct the PIN before the next try: tokens lock after a few",
    ),
    "PinLocked": (
        errors.PinRefused,
        "the PIN is locked",
        "unblock it with the SO-PIN (vendor's tool, or pkcs11-tool --init-pin)",
    ),
    "PinExpired": (errors.PinRefused, "the PIN has expired", "set a new PIN with the vendor's tool"),
    "PinInvalid": (errors.PinRefused, "the token does not allow this PIN", "choose another one"),
    "PinLenRange": (errors.PinRefused, "the PIN is too short or too long for this token", "choose another one"),
    "PinTooWeak": (errors.PinRefused, "the PIN is too weak for this token", "choose another one"),
    "UserPinNotInitialized": (errors.PinRefused, "the token has no user PIN yet", "run 'pki hsm init'"),
    "TokenNotPresent": (errors.TokenNotFound, "the token was removed", "attach it"),
    "TokenNotRecognised": (errors.TokenNotFound, "the token is not recognised", "check reader and token"),
    "DeviceRemoved": (
        errors.TokenNotFound,
        "the token was removed while in use",
        "attach it, then run the command again",
    ),
    "DeviceMemory": (
        errors.HsmError,
        "the token is full",
        "remove keys that are no longer needed, or use another token",
    ),
    "DeviceError": (errors.HsmError, "the token reported a device error", "check it with the vendor's tool"),
    "TokenWriteProtected": (errors.HsmError, "the token is write-protected", "lift the protection"),
    "SessionCount": (
        errors.HsmError,
        "the token has no session left",
        "end other programs that use it, or lower max_sessions",
    ),
    "MechanismInvalid": (
        errors.HsmError,
        "the token does not have this mechanism",
        "choose another key type; see 'pki hsm check'",
    ),
    "KeySizeRange": (errors.HsmError, "the token does not make keys of this size", "choose another key type"),
    "DomainParamsInvalid": (errors.HsmError, "the token does not know this curve", "choose another key type"),
    "FunctionNotSupported": (errors.HsmError, "the module does not support this", "see 'pki hsm check'"),
    "GeneralError": (
        errors.HsmError,
        "the module reported a general error",
        "check that its storage is there, whole and writable",
    ),
}


class Client:
    """One worker process for one module. Calls from several threads are served one after another."""

    def __init__(self, module: Path, environment: Mapping[str, str], timeout: timedelta = CALL_TIMEOUT) -> None:
        self.module, self._timeout, self._lock = module, timeout, threading.Lock()
        self._process, self._connection = _IDLE.pop() if _IDLE else _start()
        try:
            self.call("load", module=str(module), environment=dict(environment))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker. A session that it had is closed by the module, or by its death."""
        self._connection.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, operation: str, **arguments: Any) -> Any:
        """Return the answer to one request. Raises HsmError; its text never holds an argument."""
        with self._lock:
            self._connection.settimeout(self._timeout.total_seconds())
            try:
                send(self._connection, {"operation": operation, **arguments})
                answer = receive(self._connection)
            except TimeoutError:
                self._process.kill()
                raise errors.ModuleUnusable(
                    f"{self.module}: no answer to '{operation}' within {self._timeout.total_seconds():.0f} s",
                    fix="the module or its device hangs: check it with the vendor's tool",
                ) from None
            except (OSError, ValueError):
                answer = None
        if answer is None:
            raise self._death(operation)
        if "result" in answer:
            return answer["result"]
        raise self._refusal(answer)

    def _death(self, operation: str) -> errors.HsmError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        code = self._process.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended (code {code})"
        return errors.ModuleUnusable(
            f"{self.module}: the process that used it {how} during '{operation}'",
            fix="the module crashed: check its version and configuration with the vendor's tool",
        )

    def _refusal(self, answer: Mapping[str, Any]) -> errors.HsmError:
        if "refusal" in answer:
            kind = _KINDS.get(str(answer["refusal"]), errors.HsmError)
            return kind(str(answer["problem"]), fix=answer.get("fix"))
        name = str(answer.get("error"))
        if name in _MEANINGS:
            kind, problem, fix = _MEANINGS[name]
            return kind(f"{self.module.name}: {problem}", fix=fix)
        return errors.HsmError(f"{self.module}: {answer.get('problem')}")


_Worker = tuple["subprocess.Popen[bytes]", socket.socket]
_IDLE: list[_Worker] = []


def prestart(count: int) -> None:
    """Start workers that will be needed, so that they load while we do. They end when we do."""
    _IDLE.extend(_start() for _ in range(count - len(_IDLE)))


def discard_idle() -> None:
    """Let go of idle workers: they end as soon as nobody has their connection."""
    while _IDLE:
        _, connection = _IDLE.pop()
        connection.close()


def _start() -> _Worker:
    """Start a worker with a chosen environment; what a module prints in it goes nowhere."""
    ours, theirs = socket.socketpair()
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "stepca_pki.hsm.worker", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=commands.environment({"PYTHONPATH": path}),
            start_new_session=True,  # Ctrl-C is for the parent, which ends the worker in order
        )
    return process, ours

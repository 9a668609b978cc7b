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
from stepca_pki.hsm.worker import END, FORK, NO_CHILD, ask_nurse, receive, send

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
        self._nursery = _nursery()
        self.pid, self._connection = self._nursery.worker()
        self._ended: int | None = None
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
        self._end()

    def _end(self) -> int:
        """Return the worker's return code; it is waited for once, and killed if it does not end."""
        if self._ended is None:
            self._ended = self._nursery.end(self.pid)
        return self._ended

    def call(self, operation: str, **arguments: Any) -> Any:
        """Return the answer to one request. Raises HsmError; its text never holds an argument."""
        with self._lock:
            self._connection.settimeout(self._timeout.total_seconds())
            try:
                send(self._connection, {"operation": operation, **arguments})
                answer = receive(self._connection)
            except TimeoutError:
                os.kill(self.pid, signal.SIGKILL)  # nobody has waited for it, so the number is still its own
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
        code = self._end()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended (code {code})"
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


class _Nursery:
    """The process that has python-pkcs11 loaded and forks workers: its start is paid once a command."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        package = Path(__file__).resolve().parents[2]
        path = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stepca_pki.hsm.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what a module prints goes nowhere
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=commands.environment({"PYTHONPATH": path}),
                start_new_session=True,  # Ctrl-C is for the parent, which ends the worker in order
            )

    @property
    def alive(self) -> bool:
        """Whether it still holds its end. Asked of the socket: after a fork it is no child of ours."""
        try:
            return self._control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def worker(self) -> tuple[int, socket.socket]:
        """Return the process id of a new worker, and our end of its socket."""
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            try:
                return ask_nurse(self._control, FORK, descriptor=theirs.fileno()), ours
            except OSError:
                ours.close()
                raise errors.HsmError(
                    "no process for a PKCS#11 module can be started", fix="run the command again; check memory limits"
                ) from None

    def end(self, pid: int) -> int:
        """Return how a worker ended (subprocess's returncode); one whose socket is closed ends by itself."""
        with self._lock, contextlib.suppress(OSError):
            return ask_nurse(self._control, END, pid)
        return NO_CHILD

    def close(self) -> None:
        """Let go of it: it ends when nobody has its socket."""
        self._control.close()


_NURSERIES: list[_Nursery] = []
_NURSERIES_LOCK = threading.Lock()


def _nursery() -> _Nursery:
    with _NURSERIES_LOCK:
        while _NURSERIES and not _NURSERIES[0].alive:
            _NURSERIES.pop().close()
        if not _NURSERIES:
            _NURSERIES.append(_Nursery())
        return _NURSERIES[0]


def prestart() -> None:
    """Start the parent of workers now, so that it loads while we do. It ends when we do."""
    _nursery()


def discard() -> None:
    """Let go of the parent of workers, for one who will not need it for long, or who has given it to a fork."""
    with _NURSERIES_LOCK:
        while _NURSERIES:
            _NURSERIES.pop().close()

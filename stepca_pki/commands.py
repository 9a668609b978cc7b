"""The one place that starts other programs: argument lists, a timeout, a chosen environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from stepca_pki.errors import CommandFailed

# What a child may see of our environment. Never a secret: those travel by file or pipe.
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "XDG_CACHE_HOME", "SSL_CERT_FILE")
MAX_QUOTED_BYTES = 4000


@dataclass(frozen=True)
class Completed:
    """How a program ended: exit code, and both streams as text."""

    code: int
    stdout: str
    stderr: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child: a short list of ours, then *extra*."""
    chosen = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"LANG": "C.UTF-8", **chosen, **(extra or {})}


def run(
    argv: Sequence[str | Path],
    *,
    timeout: timedelta,
    extra_environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    folder: Path | None = None,
    check: bool = True,
) -> Completed:
    """Run *argv* to its end and return its outcome; both streams are drained together.

    With *check*, an exit code other than 0 raises. Raises CommandFailed, which quotes the end of stderr.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            timeout=timeout.total_seconds(),
            env=environment(extra_environment),
            cwd=folder,
            check=False,
        )
    except FileNotFoundError:
        raise CommandFailed(f"{words[0]}: not found", fix="pki doctor names the command that installs it") from None
    except OSError as error:
        raise CommandFailed(f"{words[0]}: cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{words[0]}: no end after {timeout.total_seconds():.0f} s, killed") from None
    outcome = Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if check and outcome.code != 0:
        said = (outcome.stderr or outcome.stdout).strip()[-MAX_QUOTED_BYTES:]
        raise CommandFailed(f"{words[0]}: ended with code {outcome.code}: {said}")
    return outcome

"""The root of the command. Each noun or verb is a module of this package, imported only when it is used."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from stepca_pki.version import STEP_CA_VERSION, VERSION

# name → (group of the help screen, one line of help, module, whether it is a group of commands).
# The order is the order of the work.
COMMANDS: dict[str, tuple[str, str, str, bool]] = {
    "init": ("Set up", "Make a new authority: declare it, make its keys, start it.", "init", False),
    "plan": ("Set up", "Show what 'apply' would do.", "plan", False),
    "apply": ("Set up", "Do exactly what 'plan' shows.", "plan", False),
    "config": ("Set up", "Check, show and describe pki.yaml.", "config", True),
    "provisioner": ("Set up", "Ways to a certificate: add, list, show, remove.", "provisioner", True),
    "render": ("Set up", "Print what is generated from pki.yaml.", "render", True),
    "up": ("Run", "Check everything, start step-ca, watch it.", "runtime", False),
    "down": ("Run", "Stop it.", "runtime", False),
    "restart": ("Run", "Stop and start it.", "runtime", False),
    "reload": ("Run", "Make a running CA take its configuration anew.", "runtime", False),
    "status": ("Run", "One look: what runs, since when, until when.", "runtime", False),
    "logs": ("Run", "Print the CA's log, without its secrets.", "runtime", False),
    "health": ("Run", "Probe it, a real signature included.", "health", False),
    "enrol": ("Use", "Recipes that bring certificates to servers.", "enrol", True),
    "trust": ("Use", "Put the root into trust stores.", "trust", True),
    "bootstrap": ("Use", "Get to know a CA by its address and fingerprint.", "client", False),
    "token": ("Use", "Mint a one-time token for a client elsewhere.", "client", False),
    "cert": ("Use", "Issue, renew, revoke and explain certificates.", "cert", True),
    "hsm": ("Machinery", "PKCS#11 modules, tokens and keys.", "hsm", True),
    "stepca": ("Machinery", "Find or build step-ca.", "stepca", True),
    "doctor": ("Machinery", "Say what this machine lacks, and what brings it.", "doctor", False),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command and end the process; here, and only here, an error becomes words and an exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words == ["--version"]:  # before anything heavy is imported
        print(f"pki {VERSION} (for step-ca {STEP_CA_VERSION})")
        raise SystemExit
    gc.disable()  # a command ends soon, and collecting while modules load costs a tenth of it; `up` turns it on
    # No third party's pydantic plugin runs inside this process, and none has to be looked for.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from stepca_pki.cli.app import run

    code = run(words)
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # taking the interpreter apart would cost as much as loading it, and frees what is freed anyhow

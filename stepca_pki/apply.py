"""Run a plan: the only writer. Steps under a lock; each outcome is on record before the next step starts."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import singledispatchmethod
from itertools import groupby
from pathlib import Path
from typing import Any

from stepca_pki import files
from stepca_pki.config.load import MAX_BYTES, load, load_text
from stepca_pki.config.model import Authority
from stepca_pki.config.tokens import Role, is_embedded, key_of, token_of
from stepca_pki.errors import FileRefused, PkiError, Waiting
from stepca_pki.home import Home
from stepca_pki.hsm.embedded import init_embedded_token
from stepca_pki.hsm.token import Token, init_token, open_token
from stepca_pki.locks import exclusive
from stepca_pki.observe import Pins, observe, render_now
from stepca_pki.plan.decide import make_plan
from stepca_pki.plan.seen import Seen
from stepca_pki.plan.steps import (
    AwaitCeremony,
    GenerateKey,
    InitToken,
    IssueRootCrl,
    MakeFolder,
    MakeSecret,
    MakeTokenKey,
    MoveAside,
    Plan,
    RemoveHalfKey,
    RequestIntermediate,
    SignIntermediate,
    SignRoot,
    Step,
    TellStepCa,
    TokenStep,
    WriteCaJson,
    WriteFile,
)
from stepca_pki.runtime import control

PIN_BYTES = 18  # 24 characters of base64url, 144 bits

Report = Callable[[Step, float | None], None]
"""Called with None when a step begins, and with the seconds that it took when it is done."""


@dataclass
class World:
    """The edges that steps act on: one home, its tokens (opened once a run), its register, the clock."""

    authority: Authority
    home: Home
    seen: Seen
    pins: Pins
    stack: ExitStack
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _tokens: dict[Role, Token] = field(default_factory=dict)

    def token(self, role: Role) -> Token:
        if role not in self._tokens:
            ref = token_of(self.home, self.authority, role)
            self._tokens[role] = self.stack.enter_context(open_token(ref, self.pins(ref.pin_source)))
        return self._tokens[role]


def plan_now(home: Home, authority: Authority | None = None, *, pins: Pins | None = None) -> tuple[Plan, World]:
    """Observe and decide. Nothing is written. The world has what a following run needs."""
    authority = authority or load(home.config)
    pins = pins or Pins()
    seen = observe(authority, home, pins=pins)
    running = control.running(home)
    if running is not None:
        seen = replace(seen, running_ca_json=control.running_ca_json(home))
    return make_plan(authority, home, seen), World(authority, home, seen, pins, ExitStack())


def apply(home: Home, *, report: Report | None = None, wait: timedelta = timedelta(0)) -> Plan:
    """Bring the world to the declaration, and return the plan that was run. Raises Waiting for a ceremony."""
    with _locked(home, wait):
        plan, world = plan_now(home)
        run(plan, world, report=report)
    return plan


def apply_shown(shown: Plan, home: Home, *, report: Report | None = None, wait: timedelta = timedelta(0)) -> None:
    """Run exactly the plan that was shown; refuse if the world has moved on since."""
    with _locked(home, wait):
        plan, world = plan_now(home)
        if plan != shown:
            raise PkiError("the authority changed since the plan was shown, so nothing was done", fix="run it again")
        run(plan, world, report=report)


def apply_change(
    home: Home, old_text: str, new_text: str, *, report: Report | None = None, wait: timedelta = timedelta(0)
) -> Plan:
    """Replace pki.yaml by *new_text* and apply it; if the plan is refused, pki.yaml stays as it was.

    Refused too if pki.yaml is not *old_text* any more: somebody else's edit is never lost.
    """
    with _locked(home, wait):
        if files.read_bounded(home.config, MAX_BYTES).decode(errors="replace") != old_text:
            raise PkiError(f"{home.config} was changed meanwhile, so nothing was done", fix="run the command again")
        plan, world = plan_change(home, new_text)
        files.write_atomic(home.config, new_text, home.config.stat().st_mode & 0o777)
        run(plan, world, report=report)
    return plan


def plan_change(home: Home, new_text: str) -> tuple[Plan, World]:
    """Return what apply_change would do."""
    return plan_now(home, load_text(new_text, home.config))


def run(plan: Plan, world: World, *, report: Report | None = None) -> None:
    """Act; decide nothing. Stops at a step that waits for somebody else."""
    journal = world.home.state / "applied.jsonl"

    def do(step: Step) -> None:
        started = time.monotonic()
        _record(journal, step, "begin", world.now())
        if report is not None:
            report(step, None)
        _Performer(world).perform(step)
        _record(journal, step, "done", world.now())
        if report is not None:
            report(step, time.monotonic() - started)

    with world.stack:
        for lanes in _lanes(plan, world.authority):
            if len(lanes) == 1:
                for step in lanes[0]:
                    do(step)
            else:
                _side_by_side(lanes, do)


Lane = list[Step]


def _lanes(plan: Plan, authority: Authority) -> Iterator[list[Lane]]:
    """Split the plan into stretches, each of one lane or of several that do not touch each other's things.

    Only the embedded tokens have lanes of their own: each is in files of its own, while devices may share more than
    we know.
    """
    for on_tokens, stretch in groupby(plan.steps, key=lambda step: isinstance(step, TokenStep)):
        steps = list(stretch)
        roles = list(dict.fromkeys(step.role for step in steps if isinstance(step, TokenStep)))
        if on_tokens and all(is_embedded(authority, role) for role in roles):
            yield [[step for step in steps if isinstance(step, TokenStep) and step.role == role] for role in roles]
        else:
            yield [steps]


def _side_by_side(lanes: list[Lane], do: Callable[[Step], None]) -> None:
    """Run each lane in order, all at once. A lane that fails ends there; the others come to their end first."""

    def run_lane(lane: Lane) -> None:
        for step in lane:
            do(step)

    with ThreadPoolExecutor(len(lanes)) as pool:
        running = [pool.submit(run_lane, lane) for lane in lanes]
    for one in running:
        one.result()


@contextmanager
def _locked(home: Home, wait: timedelta) -> Iterator[None]:
    if not home.path.is_dir():
        raise FileRefused(home.path, "is not a folder", fix="run 'pki init'")
    files.ensure_folder(home.state, files.SECRET_FOLDER)
    with exclusive(home.lock, wait=wait):
        yield


def _record(journal: Path, step: Step, event: str, now: datetime) -> None:
    """Append one line and sync it. For people who ask what happened; healing never depends on it."""
    line = json.dumps({"time": now.isoformat(timespec="milliseconds"), "event": event, "step": step.describe()})
    try:
        descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(line.encode() + b"\n")
    except OSError as error:
        raise FileRefused(journal, error.strerror or str(error), fix="free space, or correct the mode") from None


class _Performer:
    """How each kind of step is done. Every method may be cut off and run again."""

    def __init__(self, world: World) -> None:
        self.world = world

    @singledispatchmethod
    def perform(self, step: Step) -> None:
        raise NotImplementedError(type(step).__name__)

    @perform.register
    def _(self, step: MakeFolder) -> None:
        files.ensure_folder(step.path, step.mode)

    @perform.register
    def _(self, step: MakeSecret) -> None:
        files.write_new(step.path, secrets.token_urlsafe(PIN_BYTES) + "\n", files.SECRET)

    @perform.register
    def _(self, step: WriteFile) -> None:
        files.write_atomic(step.path, step.text, step.mode)

    @perform.register
    def _(self, step: MoveAside) -> None:
        target = step.path.with_name(f"{step.path.name}.broken-{self.world.now():%Y%m%dT%H%M%S}")
        try:
            os.link(step.path, target, follow_symlinks=False)  # never replaces an earlier one
            step.path.unlink()
        except OSError as error:
            raise FileRefused(step.path, error.strerror or str(error)) from None

    @perform.register
    def _(self, step: InitToken) -> None:
        ref, pins = token_of(self.world.home, self.world.authority, step.role), self.world.pins
        pin, so_pin = pins(ref.pin_source), pins(ref.so_pin_source or "prompt")
        if is_embedded(self.world.authority, step.role):
            init_embedded_token(ref, self.world.home.token_store(step.role), pin, so_pin)
        else:
            init_token(ref, pin, so_pin)

    @perform.register
    def _(self, step: RemoveHalfKey) -> None:
        self.world.token(step.role).remove_half_key(step.label, step.id)

    @perform.register
    def _(self, step: GenerateKey) -> None:
        self.world.token(step.role).generate(key_of(self.world.authority, step.role))

    @perform.register
    def _(self, step: SignRoot | RequestIntermediate | SignIntermediate | IssueRootCrl) -> None:
        from stepca_pki.ceremony.steps import (
            Signatures,  # with all of cryptography: only now, tokens were made meanwhile
        )

        world = self.world
        Signatures(world.authority, world.home, self._key, world.now).perform(step)

    @perform.register
    def _(self, step: AwaitCeremony) -> None:
        raise Waiting(
            step.describe(), fix="carry the CSR to the root's machine; when its answer is in place, run 'pki apply'"
        )

    @perform.register
    def _(self, step: MakeTokenKey) -> None:
        from joserfc.jwk import ECKey

        if step.path.exists():  # made by a run that was cut off right after
            return
        key = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, auto_kid=True)
        files.write_new(step.path, json.dumps(key.as_dict(private=True)) + "\n", files.SECRET)

    @perform.register
    def _(self, step: WriteCaJson) -> None:
        files.write_atomic(step.path, step.text or self._ca_json())

    @perform.register
    def _(self, step: TellStepCa) -> None:
        if step.kind == "reload":
            control.reload(self.world.home)
        else:
            control.restart(self.world.home)

    def _key(self, role: Role) -> Any:
        wanted = key_of(self.world.authority, role)
        return self.world.token(role).key(wanted.label, wanted.id)

    def _ca_json(self) -> str:
        text = render_now(self.world.authority, self.world.home)
        if text is None:  # the plan made the key first
            raise FileRefused(self.world.home.canary_key, "is gone again", fix="run 'pki apply' once more")
        return text

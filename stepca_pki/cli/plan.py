"""`pki plan` and `pki apply`: show the steps; run the same steps."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepca_pki.cli.context import HomeOption, Output, OutputOption, begin, emit, existing_home, new_app, note
from stepca_pki.errors import ChangesPending

if TYPE_CHECKING:
    from stepca_pki.plan.steps import Plan, Step

app = new_app()

WaitOption = Annotated[int, typer.Option("--wait", help="Seconds to wait for another pki to end.", min=0, max=3600)]


@app.command("plan")
def plan(
    home: HomeOption = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 5 if there is anything to do.")] = False,
    output: OutputOption = Output.text,
) -> None:
    """Show what 'apply' would do, and change nothing.

    \b
    Examples:
      pki plan
      pki plan --check && echo "nothing to do"
    """
    from stepca_pki.hsm.client import prestart

    prestart()
    from stepca_pki.apply import plan_now

    planned, _ = plan_now(existing_home(home))
    emit(output, plan_value(planned), lambda: plan_text(planned))
    if check and planned:
        raise ChangesPending(f"{len(planned.steps)} steps to do", fix="run 'pki apply'")


@app.command("apply")
def apply(home: HomeOption = None, wait: WaitOption = 0, output: OutputOption = Output.text) -> None:
    """Do exactly what 'plan' shows. A second run does nothing.

    It may be cut off at any time; running it again finishes the work.

    \b
    Examples:
      pki apply
      pki apply --wait 30
    """
    from stepca_pki.hsm.client import prestart

    prestart()
    from stepca_pki.apply import apply as apply_now

    done = apply_now(existing_home(home), report=tell, wait=timedelta(seconds=wait))
    emit(output, plan_value(done), lambda: "done" if done else "nothing to do: the authority is as declared")


def tell(step: Step, seconds: float | None) -> None:
    """Say on standard error that a step begins (on a terminal), and that it is done."""
    if seconds is None:
        begin(f"  {step.describe()}")
        return
    took = f" ({seconds:.1f} s)" if seconds >= 1 else ""
    note(f"  {step.describe()}{took}")


def plan_value(planned: Plan) -> dict[str, Any]:
    return {
        "steps": [
            {
                "kind": type(step).__name__,
                "description": step.describe(),
                "irreversible": step.irreversible,
                "diff": step.diff() or None,
            }
            for step in planned.steps
        ]
    }


def plan_text(planned: Plan) -> str:
    if not planned:
        return "nothing to do: the authority is as declared"
    lines = []
    for number, step in enumerate(planned.steps, 1):
        lines.append(f"{number:3}. {step.describe()}{'  [cannot be undone]' if step.irreversible else ''}")
        lines += [f"       {line}" for line in step.diff().splitlines()]
    return "\n".join(lines)

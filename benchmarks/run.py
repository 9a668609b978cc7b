"""Measure what we claim: each figure beside the raw part it is compared with, in the same run.

`make bench` prints the table and, with ARGS=--write, puts it into benchmarks/README.md. Pairs are run alternately
(ours, the other's, ours, …), so that a busy moment of the machine hits both; the medians are compared. Exit code 1 if
a claim does not hold.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stepca_pki.config.load import load_text
from stepca_pki.home import Home
from stepca_pki.hsm.modules import find_module
from stepca_pki.observe import observe
from stepca_pki.plan.decide import make_plan
from stepca_pki.render.ca_json import Facts, render_ca_json
from stepca_pki.runtime.control import stop
from stepca_pki.stepca.binary import find_step_ca

HERE = Path(__file__).parent
PKI = Path(sys.executable).with_name("pki")
Timed = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One line of the table. Times in milliseconds."""

    what: str
    ours: float
    against: str
    other: float
    claim: str
    holds: bool
    figure: str


def median_pair(ours: Timed, other: Timed, runs: int) -> tuple[float, float]:
    """Run both alternately, once each to warm up and then *runs* times; return their medians in milliseconds."""
    ours(), other()
    pairs = [(ours(), other()) for _ in range(runs)]
    return (1000 * statistics.median(a for a, _ in pairs), 1000 * statistics.median(b for _, b in pairs))


def timed(words: list[str], environment: dict[str, str] | None = None) -> float:
    """Return how long the command took, in seconds."""
    before = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=120)
    return time.perf_counter() - before


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_up(folder: Path, runs: int) -> list[Row]:
    """`pki --version` and `pki status` over an interpreter that does nothing."""
    home = folder / "status"
    timed([str(PKI), "init", "--yes", "--home", str(home), "--address", f"127.0.0.1:{free_port()}"])
    rows = []
    try:
        for words, limit in ((["--version"], 60), (["status", "--home", str(home)], 150)):
            ours, bare = median_pair(
                lambda words=words: timed([str(PKI), *words]),  # type: ignore[misc]
                lambda: timed([sys.executable, "-c", "pass"]),
                runs,
            )
            over = ours - bare
            claim = f"at most {limit} ms over it"
            rows.append(
                Row(f"`pki {words[0]}`", ours, "`python -c pass`", bare, claim, over <= limit, f"+{over:.0f} ms")
            )
    finally:
        stop(Home(home))
    return rows


def init(folder: Path, runs: int) -> list[Row]:
    """`pki init --yes` against the same by hand: pkcs11-tool, openssl, step-ca and a poll."""
    step_ca, module = find_step_ca().path, find_module("softhsm2")

    def ours() -> float:
        home = Path(tempfile.mkdtemp(dir=folder)) / "home"
        address = f"127.0.0.1:{free_port()}"
        took = timed([str(PKI), "init", "--yes", "--home", str(home), "--address", address])
        stop(Home(home))
        return took

    def by_hand() -> float:
        home = Path(tempfile.mkdtemp(dir=folder))
        words = [str(HERE / "by_hand.sh"), str(home), str(free_port()), str(step_ca), str(module)]
        took = timed(words)
        os.kill(int((home / "pid").read_text()), signal.SIGTERM)
        return took

    mine, hand = median_pair(ours, by_hand, runs)
    ratio = mine / hand
    return [Row("`pki init --yes`", mine, "`by_hand.sh`", hand, "at most 1.5 ×", ratio <= 1.5, f"{ratio:.2f} ×")]


def provisioners(folder: Path, runs: int) -> list[Row]:
    """Load, plan (which renders ca.json and its diff) and render 1,000 provisioners, and 100."""
    home = Home(folder / "many")
    timed([str(PKI), "init", "--yes", "--no-start", "--home", str(home.path)])
    text = home.config.read_text()
    seen = observe(load_text(text, home.config), home)
    facts = Facts(seen.modules["intermediate"], seen.canary_key or {})

    def run(count: int) -> float:
        names = "".join(f"  - {{type: acme, name: acme-{number:05}}}\n" for number in range(count))
        more = text.replace("provisioners:\n", f"provisioners:\n{names}")
        before = time.perf_counter()
        authority = load_text(more, home.config)
        plan = make_plan(authority, home, seen)
        rendered = render_ca_json(authority, home, facts)
        took = time.perf_counter() - before
        assert plan.steps
        assert len(rendered["authority"]["provisioners"]) == count + 2
        return took

    large, small = median_pair(lambda: run(1000), lambda: run(100), runs)
    ratio = large / small
    holds = large < 1000 and ratio < 15
    return [Row("1,000 provisioners", large, "100 of them", small, "under 1 s and linear", holds, f"{ratio:.1f} ×")]


def table(rows: list[Row]) -> str:
    lines = ["| what | ms | against | ms | claim | measured | holds |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        holds = "yes" if row.holds else "**no**"
        figures = f"{row.ours:.0f} | {row.against} | {row.other:.0f}"
        lines.append(f"| {row.what} | {figures} | {row.claim} | {row.figure} | {holds} |")
    return "\n".join(lines)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the claims; print a table.")
    parser.add_argument("--runs", type=int, default=15, help="runs of each side; medians are compared")
    parser.add_argument("--write", action="store_true", help="also put the table into benchmarks/README.md")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pki-bench-"))
    try:
        rows = [row for measure in (start_up, init, provisioners) for row in measure(folder, chosen.runs)]
    finally:
        shutil.rmtree(folder)
    print(table(rows))
    if chosen.write:
        readme = HERE / "README.md"
        head, mark, _ = readme.read_text().partition("<!-- measured -->\n")
        readme.write_text(f"{head}{mark}{machine()}; medians of {chosen.runs} paired runs.\n\n{table(rows)}\n")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

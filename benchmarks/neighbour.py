#!/usr/bin/env python
"""Two threads beside a neighbour: how much longer a layer takes while something else computes on one of its cores.

Ours and the built-in one, each in a process of its own, under both of OpenMP's ways to wait (OMP_WAIT_POLICY).

    python benchmarks/neighbour.py [--json FILE] [--rounds 20]

Exit code 1 if ours takes more than three times as long as alone: with half of the machine taken, twice is fair.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from tools.arguments import Parser
from tools.clock import ROUNDS, Spread, take_turns
from tools.contestants import CONTESTANTS, WORKS, Case, Problem
from tools.processes import alone
from tools.tables import terminal_table

CASES = (Case(256, 256, 2, 35, 32), Case(512, 512, 2, 35, 64, cell="lstm"))
POLICIES = ("active", "passive")
FAIR = 3.0


def milliseconds(name: str, case: Case, work: str, rounds: int) -> float:
    """The median time of a call."""
    contestant = CONTESTANTS[name](Problem.draw(case))
    samples = take_turns({name: partial(contestant.time, work)}, rounds)[name]
    contestant.close()
    return 1e3 * Spread.of(samples).median


def compute(core: int) -> None:
    """Be the neighbour."""
    os.sched_setaffinity(0, {core})
    while True:
        pass


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """A process that computes on the last core, if `busy`."""
    if not busy:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=compute, args=(max(os.sched_getaffinity(0)),))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def measure(rounds: int) -> list[dict[str, Any]]:
    """All rows: milliseconds alone and beside the neighbour."""
    rows = []
    for policy in POLICIES:
        os.environ["OMP_WAIT_POLICY"] = policy  # for the processes that are started
        for case in CASES:
            for work in WORKS:
                row: dict[str, Any] = {"policy": policy, "case": asdict(case), "work": work}
                for name in ("deeprnn", "gluon"):
                    for busy in (False, True):
                        with neighbour(busy):
                            row[f"{name} {'beside' if busy else 'alone'}"] = alone(
                                milliseconds, name, case, work, rounds, threads=2
                            )
                rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for a terminal."""
    lines = [["wait", "case", "work", "ours alone, ms", "beside", "built-in alone, ms", "beside"]]
    for row in rows:
        case = Case(**row["case"])
        times = [f"{row[f'{name} {when}']:.2f}" for name in ("deeprnn", "gluon") for when in ("alone", "beside")]
        lines.append([row["policy"], f"{case.cell} {case.name}", row["work"], *times])
    return terminal_table(lines)


def main() -> int:
    """Measure, print and record."""
    parser = Parser(
        prog="neighbour.py", description=__doc__.splitlines()[0], done="nobody was held up", failed="ours was held up"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the record here.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="Samples of each time.")
    args = parser.parse_args()
    rows = measure(args.rounds)
    print(table(rows))
    if args.json:
        write_json_atomic(args.json, {"date": date.today().isoformat(), "machine": machine(), "rows": rows})
    return int(any(row["deeprnn beside"] > FAIR * row["deeprnn alone"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())

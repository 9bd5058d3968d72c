#!/usr/bin/env python
"""How fast the layers are, beside the built-in ones and PyTorch's, and beside what this machine could do at best."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Optional

# Before MXNet is imported, and for PyTorch's process too: left alone, the one takes half of the cores, the other all.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The tools lie at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.arguments import Parser
from deeprnn._util.checks import check_activation, check_size
from deeprnn._util.files import check_folders, write_json_atomic, write_text_atomic
from deeprnn._util.machine import machine
from deeprnn.models.language_model import CELLS
from deeprnn.nn.cells import ACTIVATIONS
from tools import bench, bench_report, comparison, growth
from tools.bench import CONTESTANTS, GRID, QUICK, ROUNDS, WORKS, Case

ALL = (*WORKS, "cost", "profile", "language-model")


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        prog="bench.py",
        description=__doc__,
        epilog="Exit code 0: measured; 1: two contestants are not the same function; 2: an argument that cannot be. "
        "Run it on a machine that does nothing else. All take as many threads as OMP_NUM_THREADS says, or else one.",
    )
    parser.add_argument("--cell", choices=CELLS, default="rnn", help="the recurrent cell (default %(default)s)")
    parser.add_argument(
        "--activation", choices=ACTIVATIONS, default="tanh", help="the non-linearity of an rnn (default %(default)s)"
    )
    parser.add_argument(
        "--cells-of-grid",
        nargs="+",
        metavar="C,H,L,T,N",
        type=sizes,
        default=GRID,
        help=f"cases: input size, hidden size, layers, steps, sequences (default: the grid of {len(GRID)})",
    )
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=tuple(CONTESTANTS),
        default=tuple(CONTESTANTS),
        help="who takes part (default: all); the first is compared with the others",
    )
    parser.add_argument(
        "--work",
        nargs="+",
        choices=ALL,
        help="what is measured (default: all); cost is the first call and the peak of memory in training, each "
        "contestant in a process of its own; profile is the time of each operator, where gluon is faster",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        help=f"samples of each time (default %(default)s), fewer once they have taken {bench.SECONDS:g} s",
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"a first look: {len(QUICK)} small cases, by default their times alone"
    )
    parser.add_argument(
        "--growth", action="store_true", help="instead: how time and memory grow with steps, layers, units, sequences"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the record there, again after each case; where one of the same settings, machine and code is "
        "there already, what it lacks, or has of a busy machine, is measured and added",
    )
    parser.add_argument("--afresh", action="store_true", help="replace the record in --json instead of adding to it")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the ratios (or the growth) there")
    parser.add_argument(
        "--table",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="measure nothing: print the tables of these records, and draw them where --picture says",
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="README.md",
        help="with --table: put short ones there instead, between <!-- bench:rnn --> and <!-- /bench:rnn --> "
        "(or growth:rnn)",
    )
    return parser


def sizes(text: str) -> tuple[int, int, int, int, int]:
    """The five sizes of a case."""
    try:
        inputs, hidden, layers, length, batch = (check_size("size", int(part)) for part in text.split(","))
    except ValueError as error:
        message = f"expected five sizes of at least 1, as 256,256,2,35,32; got {text}"
        raise argparse.ArgumentTypeError(message) from error
    return inputs, hidden, layers, length, batch


def check(args: argparse.Namespace) -> None:
    """What argparse does not look at."""
    check_activation(args.cell, args.activation)
    check_size("--rounds", args.rounds)
    if args.into and not args.table:
        raise ValueError("--into needs --table with the records whose tables go there")
    check_folders(args.json, args.picture)


def say(text: str) -> None:
    """To whoever waits."""
    print(text, file=sys.stderr, flush=True)


def read(path: Path) -> dict[str, Any]:
    """A record of an earlier measurement."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text at all
        raise ValueError(f"{path} is not a record of bench.py: {error}") from error
    if not isinstance(record, dict) or not {"machine", "cell"} <= record.keys() or not {"cases", "points"} & {*record}:
        raise ValueError(f"{path} is not a record of bench.py: name a file that --json has written")
    return record


def taken_up(args: argparse.Namespace, settings: Mapping[str, Any], parts: str) -> dict[str, Any]:
    """The record in ``--json`` as far as it goes, or a new one whose list of `parts` is empty."""
    if args.json and args.json.exists() and not args.afresh:
        record = read(args.json)
        here, there = ({**of.get("machine", {}), **of} for of in (settings, record))
        other = [name for name in here if name != "machine" and there.get(name) != here[name]]
        if other or parts not in record:
            what = ", ".join(f"{name} {there.get(name)}, here {here[name]}" for name in other) or "another study"
            raise ValueError(f"{args.json} holds other measurements ({what}): name another file, or add --afresh")
        return record
    return {"date": date.today().isoformat(), **settings, parts: []}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure case by case what the record lacks, say how it goes, and keep what there is."""
    contestants = bench.installed(args.contestants)
    missing = [name for name in args.contestants if name not in contestants]
    if missing:
        say(f"not installed, so without it: {', '.join(missing)}")
    settings = {"machine": machine(), "cell": args.cell, "activation": args.activation, "rounds": args.rounds}
    record = taken_up(args, settings, "cases")
    wanted = args.work or (WORKS if args.quick else ALL)
    grid = QUICK if args.quick else args.cells_of_grid
    if {*wanted} == {"language-model"}:
        grid = ()
    for number, shape in enumerate(grid, 1):
        case = replace(Case(*shape), cell=args.cell, activation=args.activation)
        say(f"{number} of {len(grid)}: {case.name}")
        begun = time.perf_counter()
        kept: dict[str, Any] = next((each for each in record["cases"] if each["name"] == case.name), {})
        known = bool(kept)
        complete(kept, case, contestants, wanted, args.rounds)
        if not known:
            record["cases"].append(kept)
        keep(args, record)
        ratios = [
            f"{work} {kept[work]['ratios']['gluon']['median']:.2f} of gluon"
            for work in WORKS
            if "gluon" in kept.get(work, {}).get("ratios", ())
        ]
        say(f"    {', '.join([*ratios, f'{time.perf_counter() - begun:.0f} s'])}")
    if "language-model" in wanted and "language_model" not in record:
        say("the language model")
        record["language_model"] = comparison.language_model_speed(args.cell, rounds=args.rounds)
        keep(args, record)
    return record


def complete(kept: dict[str, Any], case: Case, contestants: Sequence[str], wanted: Sequence[str], rounds: int) -> None:
    """Add to what is kept of a case what is not yet there, and again what was measured on a busy machine."""
    lacking = [
        work
        for work in WORKS
        if work in wanted
        and (work not in kept or bench.busy(kept[work]) or not {*contestants} <= kept[work]["seconds"].keys())
    ]
    if lacking or not kept:
        kept.update(bench.measure(case, contestants, lacking, rounds))
    costless = [name for name in contestants if name not in kept.get("cost", ())]
    if "cost" in wanted and costless:
        kept["cost"] = {**kept.get("cost", {}), **bench.cost(case, costless)}
    for work in WORKS if "profile" in wanted else ():
        slower = kept.get(work, {}).get("ratios", {}).get("gluon", {}).get("median", 0) > 1
        if slower and work not in kept.get("profile", {}):
            kept["profile"] = {**kept.get("profile", {}), work: bench.profile(case, work)}


def grow(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the points of the growth study that the record lacks, or at which the machine was busy."""
    record = taken_up(args, {"machine": machine(), "cell": args.cell}, "points")
    record["points"] = [each for each in record["points"] if not any(growth.busy(each, work) for work in WORKS)]
    done = {each["name"] for each in record["points"]}
    cases = growth.points(args.cell)
    for number, case in enumerate(cases, 1):
        say(f"{number} of {len(cases)}: {case.name}")
        if case.name not in done:
            record["points"].append(growth.point(case))
            keep(args, record)
    return record


def keep(args: argparse.Namespace, record: dict[str, Any]) -> None:
    """Write what there is."""
    if "points" in record:
        record["verdicts"] = growth.verdicts(record)
    else:
        record["summary"] = bench_report.summary(record["cases"])
    if args.json:
        write_json_atomic(args.json, record)


def show(args: argparse.Namespace, records: Sequence[Mapping[str, Any]]) -> None:
    """Tables and picture of records of one kind."""
    grown = [record for record in records if "points" in record]
    raced = [record for record in records if "points" not in record]
    if args.into:
        text = args.into.read_text(encoding="utf-8")
        for record in raced:
            mark = f"bench:{record['cell']}" if record["cases"] else "bench:language-model"
            text = bench_report.fill(text, mark, bench_report.brief(record))
        for record in grown:
            text = bench_report.fill(text, f"growth:{record['cell']}", growth.brief(record))
        write_text_atomic(args.into, text)
    else:
        tables = [*map(bench_report.table, raced), *map(growth.table, grown)]
        print("\n".join(tables), end="")
    if args.picture:
        if (raced and grown) or len(grown) > 1:
            raise ValueError("--picture draws one record of --growth, or any number of others")
        if grown:
            growth.picture(grown[0], args.picture)
        else:
            bench_report.picture(raced, args.picture)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Parse, measure, show."""
    command = parser()
    args = command.parse_args(argv)

    def work() -> int:
        check(args)
        if args.table:
            show(args, [read(path) for path in args.table])
        else:
            show(args, [grow(args) if args.growth else run(args)])
        return 0

    return command.call(work)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python
"""Measure the speed of the layers, of the built-in ones and of PyTorch's, and the limit of this machine."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Optional

# Before MXNet is imported, and for PyTorch's process too: by default the one takes half of the cores, the other all.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.checks import check_activation, check_size
from deeprnn._util.files import check_folders, write_json_atomic, write_text_atomic
from deeprnn._util.machine import machine
from deeprnn.models.language_model import CELLS
from deeprnn.nn.cells import ACTIVATIONS
from tools import bench, bench_report, book_loop, growth, lengths, profiling, usage
from tools.arguments import Parser
from tools.bench import GRIDS, PROCESSES, QUICK
from tools.clock import ROUNDS, SECONDS
from tools.contestants import CONTESTANTS, WORKS, Case, installed
from tools.native import native_status
from tools.processes import alone, check_threads, using
from tools.records import read_record
from tools.tables import fill

DEFAULT = (*WORKS, "cost", "profile", "language-model")
OF_A_CASE = (*WORKS, "cost", "profile", "scaling")
ALL = (*DEFAULT, "scaling", "usage", "lengths")


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        prog="bench.py",
        description=__doc__,
        epilog="Run it on a machine that does nothing else.",
        done="measured",
        failed="two contestants are not the same function",
    )
    parser.add_argument("--cell", choices=CELLS, default="rnn", help="The recurrent cell.")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="tanh", help="The non-linearity of an rnn.")
    parser.add_argument(
        "--grid",
        choices=tuple(GRIDS),
        default="main",
        help="Cases: the main ones, or odd sizes for which nothing is tuned.",
    )
    parser.add_argument(
        "--cells-of-grid",
        nargs="+",
        metavar="C,H,L,T,N",
        type=sizes,
        help="Cases of your own instead: input size, hidden size, layers, steps, sequences.",
    )
    parser.add_argument("--quick", action="store_true", help=f"Measure {len(QUICK)} small cases, their times alone.")
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=tuple(CONTESTANTS),
        default=tuple(CONTESTANTS),
        metavar="NAME",
        help=f"Implementations, of {', '.join(CONTESTANTS)}; the first is compared with the others. (default: all)",
    )
    parser.add_argument(
        "--work",
        nargs="+",
        choices=ALL,
        metavar="WORK",
        help="What is measured: inference, training, language-model, and these. cost: the first call and peak memory "
        "in training. profile: the time of each operator, where gluon is faster. scaling: --threads over one thread. "
        "usage: the ways to use a layer, eager and hybridized, by itself and in a model. "
        f"lengths: {lengths.COUNT} lengths in random order. "
        f"(default: {' '.join(DEFAULT)})",
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"Samples of each time, fewer once they have taken {SECONDS:g} s."
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="K",
        help=f"New processes for each case, of which the fastest counts. (default: {PROCESSES}, with --quick 1)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="Threads of each process, on as many cores. (default: OMP_NUM_THREADS, or 1, on all cores)",
    )
    parser.add_argument(
        "--growth",
        action="store_true",
        help="Instead, measure how time and memory grow with steps, layers, units and sequences.",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="Write the record to this file, again after each case. A record of the same settings, machine and code "
        "that is there already is completed: what it lacks is measured, and what was measured on a busy machine.",
    )
    parser.add_argument("--afresh", action="store_true", help="Replace the record in --json.")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="Draw the ratios, or the growth.")
    parser.add_argument(
        "--table",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="Measure nothing: print the tables of these records, and draw them in --picture.",
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FILE.md",
        help="With --table: put short tables into this page, between <!-- bench:rnn --> and <!-- /bench:rnn --> "
        "(bench:rnn:odd, usage:rnn, lengths:rnn, growth:rnn).",
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
    """Check what argparse does not."""
    check_activation(args.cell, args.activation)
    check_size("--rounds", args.rounds)
    if args.processes is not None:
        check_size("--processes", args.processes)
    if args.threads is not None:
        check_threads(args.threads)
    if "scaling" in (args.work or ()) and (args.threads or 1) < 2:
        raise ValueError("--work scaling compares --threads with one thread: give 2 or more")
    if args.into and not args.table:
        raise ValueError("--into needs --table with the records whose tables go there")
    check_folders(args.json, args.picture)


def say(text: str) -> None:
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


def read(path: Path) -> dict[str, Any]:
    """A record of an earlier measurement."""
    return read_record(
        path, "bench.py", lambda record: {"machine", "cell"} <= record.keys() and bool({"cases", "points"} & {*record})
    )


def begun(args: argparse.Namespace, settings: Mapping[str, Any], parts: str) -> dict[str, Any]:
    """The record in ``--json`` to complete, or a new one whose list of `parts` is empty."""
    if args.json and args.json.exists() and not args.afresh:
        record = read(args.json)
        here, there = ({**of.get("machine", {}), **of} for of in (settings, record))
        other = [name for name in here if name != "machine" and there.get(name) != here[name]]
        if other or parts not in record:
            what = ", ".join(f"{name} {there.get(name)}, here {here[name]}" for name in other) or "another study"
            raise ValueError(f"{args.json} holds other measurements ({what}): name another file, or add --afresh")
        return record
    return {"date": date.today().isoformat(), **settings, parts: []}


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Settings that must be equal for two records to be merged."""
    return {"machine": machine(), "native": native_status(), "cell": args.cell}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure what the record lacks, report progress, and write the record after each part."""
    contestants = installed(args.contestants)
    missing = [name for name in args.contestants if name not in contestants]
    if missing:
        say(f"not installed, so without it: {', '.join(missing)}")
    processes = args.processes or (1 if args.quick else PROCESSES)
    settings = {**settings_of(args), "processes": processes}
    settings |= {name: getattr(args, name) for name in ("activation", "rounds", "grid")}
    record = begun(args, settings, "cases")
    wanted = args.work or (WORKS if args.quick else DEFAULT)
    grid: Sequence[tuple[int, int, int, int, int]] = args.cells_of_grid or (QUICK if args.quick else GRIDS[args.grid])
    if not {*wanted} & {*OF_A_CASE}:
        grid = ()
    for number, shape in enumerate(grid, 1):
        case = replace(Case(*shape), cell=args.cell, activation=args.activation)
        say(f"{number} of {len(grid)}: {case.name}")
        begin = time.perf_counter()
        kept: dict[str, Any] = next((each for each in record["cases"] if each["name"] == case.name), {})
        known = bool(kept)
        complete(kept, case, contestants, wanted, args.rounds, processes, args.threads)
        if not known:
            record["cases"].append(kept)
        keep(args, record)
        ratios = [
            f"{work} {kept[work]['ratios']['gluon']['median']:.2f} of gluon"
            for work in WORKS
            if "gluon" in kept.get(work, {}).get("ratios", ())
        ]
        say(f"    {', '.join([*ratios, f'{time.perf_counter() - begin:.0f} s'])}")
    if "usage" in wanted:
        use(args, record, processes)
    if "lengths" in wanted:
        vary(args, record, processes)
    if "language-model" in wanted and "language_model" not in record:
        say("the language model")
        record["language_model"] = alone(
            partial(book_loop.language_model_speed, args.cell, rounds=args.rounds), threads=args.threads
        )
        keep(args, record)
    return record


def complete(
    kept: dict[str, Any],
    case: Case,
    contestants: Sequence[str],
    wanted: Sequence[str],
    rounds: int,
    processes: int,
    threads: Optional[int],
) -> None:
    """Add what the record of a case lacks, and measure again what was measured on a busy machine."""
    lacking = [
        work
        for work in WORKS
        if work in wanted
        and (work not in kept or bench.busy(kept[work]) or not {*contestants} <= kept[work]["seconds"].keys())
    ]
    if lacking or not kept:
        kept.update(bench.fastest(case, contestants, lacking, rounds, processes=processes, threads=threads))
    costless = [name for name in contestants if name not in kept.get("cost", ())]
    if "cost" in wanted and costless:
        kept["cost"] = {**kept.get("cost", {}), **bench.cost(case, costless, threads)}
    for work in WORKS if "profile" in wanted else ():
        slower = kept.get(work, {}).get("ratios", {}).get("gluon", {}).get("median", 0) > 1
        if slower and work not in kept.get("profile", {}):
            kept["profile"] = {**kept.get("profile", {}), work: profiling.profile(case, work)}
    if "scaling" in wanted and "scaling" not in kept:
        kept["scaling"] = bench.scaling(case, threads or 1, rounds=rounds, processes=processes)


def use(args: argparse.Namespace, record: dict[str, Any], processes: int) -> None:
    """Measure the ways to use a layer that the record lacks."""
    kept = record.setdefault("usage", [])
    done = {each["name"] for each in kept}
    groups = usage.groups(args.cell, smallest=args.quick)
    for number, uses in enumerate(groups, 1):
        lacking = [each for each in uses if each.name not in done]
        if lacking:
            say(f"use {number} of {len(groups)}: {lacking[0].place}, {lacking[0].mode}")
            kept += usage.measure_group(lacking, args.rounds, processes, args.threads)
            keep(args, record)


def vary(args: argparse.Namespace, record: dict[str, Any], processes: int) -> None:
    """Measure changing lengths, as far as the record lacks them."""
    kept = record.setdefault("lengths", [])
    done = {(each["mode"], each["batch_size"]) for each in kept}
    for mode in usage.MODES:
        for batch_size in lengths.BATCH_SIZES:
            if (mode, batch_size) not in done:
                say(f"lengths: {mode}, batch {batch_size}")
                case = replace(lengths.CASE, cell=args.cell)
                options = {"processes": processes, "threads": args.threads}
                kept.append(lengths.measure_lengths(mode, batch_size, case=case, **options))
                keep(args, record)


def grow(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the points of the growth study that the record lacks, or at which the machine was busy."""
    record = begun(args, settings_of(args), "points")
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
    """Write the record as far as it goes."""
    if "points" in record:
        record["verdicts"] = growth.verdicts(record)
    else:
        record["summary"] = bench_report.summary(record["cases"])
    if args.json:
        write_json_atomic(args.json, record)


def show(args: argparse.Namespace, records: Sequence[Mapping[str, Any]]) -> None:
    """Print or insert the tables of records, and draw them."""
    grown = [record for record in records if "points" in record]
    raced = [record for record in records if "points" not in record]
    if args.into:
        text = args.into.read_text(encoding="utf-8")
        for record in raced:
            for mark, section in bench_report.sections(record).items():
                text = fill(text, mark, section)
        for record in grown:
            text = fill(text, f"growth:{record['cell']}", growth.brief(record))
        write_text_atomic(args.into, text)
    else:
        print("\n".join([*map(bench_report.report, raced), *map(growth.report, grown)]), end="")
    if args.picture:
        if (raced and grown) or len(grown) > 1:
            raise ValueError("--picture draws one record of --growth, or any number of others")
        figure = growth.picture(grown[0]) if grown else bench_report.picture(raced)
        figure.savefig(args.picture, dpi=150)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Parse, measure, show."""
    command = parser()
    args = command.parse_args(argv)

    def work() -> int:
        check(args)
        if args.table:
            show(args, [read(path) for path in args.table])
        else:
            with using(args.threads):
                record = grow(args) if args.growth else run(args)
            show(args, [record])
        return 0

    return command.call(work)


if __name__ == "__main__":
    sys.exit(main())

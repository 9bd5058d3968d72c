#!/usr/bin/env python
"""How fast the layers are, beside the built-in ones and PyTorch's, and beside what this machine could do at best."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NoReturn, Optional

from deeprnn import bench, comparison
from deeprnn.bench import CONTESTANTS, GRID, QUICK, ROUNDS, WORKS, Case
from deeprnn.cells import ACTIVATIONS
from deeprnn.checks import check_size
from deeprnn.files import write_json_atomic
from deeprnn.language_model import CELLS
from deeprnn.machine import machine

ALL = (*WORKS, "cost", "language-model")


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(
        prog="bench.py",
        description=__doc__,
        epilog="Exit code 0: measured; 1: two contestants are not the same function; 2: an argument that cannot be. "
        "Run it on a machine that does nothing else.",
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
        default=ALL,
        help="what is measured (default: all); cost is the first call and the peak of memory in training, each "
        "contestant in a process of its own",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of each time (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="three small cases, for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record there, again after each case")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the ratios there")
    parser.add_argument(
        "--table", nargs="+", type=Path, metavar="FILE", help="measure nothing: print the tables of these records"
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


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure case by case, say how it goes, and keep what there is."""
    if args.cell != "rnn" and args.activation != "tanh":
        raise ValueError(f"--activation {args.activation} is for --cell rnn; {args.cell} has its own")
    check_size("--rounds", args.rounds)
    for path in (args.json, args.picture):
        if path and not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.parent} for {path}: make it first")
    contestants = bench.installed(args.contestants)
    missing = [name for name in args.contestants if name not in contestants]
    if missing:
        print(f"not installed, so without it: {', '.join(missing)}", file=sys.stderr)
    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "cell": args.cell,
        "activation": args.activation,
        "rounds": args.rounds,
        "cases": [],
    }
    works = [work for work in WORKS if work in args.work]
    grid = QUICK if args.quick else args.cells_of_grid
    for number, shape in enumerate(grid, 1):
        case = replace(Case(*shape), cell=args.cell, activation=args.activation)
        print(f"{number} of {len(grid)}: {case.name}", file=sys.stderr, flush=True)
        measured = bench.measure(case, contestants, works, args.rounds)
        if "cost" in args.work:
            measured["cost"] = bench.cost(case, contestants)
        record["cases"].append(measured)
        record["summary"] = bench.summary(record["cases"])
        if args.json:
            write_json_atomic(args.json, record)
    if "language-model" in args.work:
        print("the language model", file=sys.stderr, flush=True)
        record["language_model"] = comparison.language_model_speed(args.cell, rounds=args.rounds)
        if args.json:
            write_json_atomic(args.json, record)
    return record


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Parse, measure, show."""
    command = parser()
    args = command.parse_args(argv)
    try:
        if args.table:
            records = [json.loads(path.read_text(encoding="utf-8")) for path in args.table]
            print("\n".join(bench.table(record) for record in records), end="")
            return 0
        record = run(args)
        print(bench.table(record), end="")
        if args.picture:
            bench.picture(record, args.picture)
        return 0
    except (ValueError, TypeError, OSError) as error:
        command.error(str(error))
    except RuntimeError as error:
        command.exit(1, f"{command.prog}: {error}\n")
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

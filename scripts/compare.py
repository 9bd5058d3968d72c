#!/usr/bin/env python
"""One beside the other. `layers`: ours and the built-in ones, same weights; `depth`: recipes, at many depths."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

# The tools lie at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.arguments import Parser
from deeprnn._util.checks import check_activation, check_choice, check_size
from deeprnn._util.files import check_folders, write_json_atomic, write_text_atomic
from deeprnn.cli.options import presets
from deeprnn.config import flag, spelled
from deeprnn.models.language_model import CELLS
from deeprnn.nn.cells import ACTIVATIONS
from deeprnn.nn.stack import LAYOUTS
from tools import comparison, study
from tools.bench import ROUNDS, Case
from tools.page import page


def parser() -> Parser:
    """The commands and their flags."""
    parser = Parser(prog="compare.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    layers = commands.add_parser(
        "layers",
        help="DeepRNN, DeepGRU or DeepLSTM and the built-in layer, side by side",
        description="Whether the two are the same function, how fast they are, and their losses from the same start. "
        "Exit code 0: the same function; 1: not; 2: an argument that cannot be.",
    )
    layers.add_argument("--layers", type=int, default=2, help="recurrent layers (default %(default)s)")
    layers.add_argument(
        "--hidden-size", type=int, default=256, help="units in each layer and direction (default %(default)s)"
    )
    layers.add_argument("--input-size", type=int, default=256, help="inputs at each step (default %(default)s)")
    layers.add_argument("--seq-len", type=int, default=35, help="steps (default %(default)s)")
    layers.add_argument("--batch-size", type=int, default=32, help="sequences (default %(default)s)")
    layers.add_argument("--cell", choices=CELLS, default="rnn", help="the recurrent cell (default %(default)s)")
    layers.add_argument(
        "--activation", choices=ACTIVATIONS, default="tanh", help="the non-linearity of an rnn (default %(default)s)"
    )
    layers.add_argument("--bidirectional", action="store_true", help="a second cell in each layer, from the end")
    layers.add_argument(
        "--layout", choices=LAYOUTS, default="TNC", help="order of steps, sequences and features (default %(default)s)"
    )
    layers.add_argument(
        "--steps", type=int, default=10, help="Trainer steps after which the weights are compared (default %(default)s)"
    )
    layers.add_argument("--rounds", type=int, default=ROUNDS, help="samples of each time (default %(default)s)")
    layers.add_argument("--seed", type=int, default=0, help="of weights and inputs (default %(default)s)")
    layers.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    layers.add_argument("--picture", type=Path, metavar="FILE.png", help="draw them there")
    layers.set_defaults(run=compare_layers)

    depth = commands.add_parser(
        "depth",
        help="recipes at several depths and seeds: which of them make depth pay",
        description="Trains each recipe at each depth with each seed, a process of one thread each, and writes what "
        "came of it as JSON and as one page of HTML. The same command goes on after a stop. "
        "Exit code 0: all runs are over, some perhaps diverged; 1: a run failed; 2: an argument that cannot be.",
    )
    depth.add_argument("--layers", default="1,2,4,8,16", metavar="L,L,...", help="depths (default %(default)s)")
    depth.add_argument("--recipes", default="book", metavar="NAME,...", help="presets (default %(default)s)")
    depth.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each, seeds 0 to N - 1 (default 3)")
    depth.add_argument("--corpus", metavar="NAME|FILE", help="the text (default: that of the first recipe, for all)")
    depth.add_argument("--max-chars", type=int, metavar="N", help="its first N characters only (default: as above)")
    depth.add_argument("--split", metavar="A,B,C", help="shares for training, validation, test (default: as above)")
    depth.add_argument(
        "--epochs", metavar="N|NAME=N,...", help="for all recipes, or by recipe (default: each one's own)"
    )
    depth.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of `deeprnn train`, for all runs, as hidden_size=128; may be given more than once",
    )
    depth.add_argument(
        "--diagnose",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look at signal and gradient of each layer at times, for the page's pictures",
    )
    depth.add_argument(
        "--perplexity",
        type=float,
        default=1.17,
        metavar="P",
        help="of the training text; epochs and seconds to it are counted (default %(default)s)",
    )
    depth.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side (default: one a core)")
    depth.add_argument("--out", type=Path, default=Path("runs/depth"), metavar="FOLDER", help="(default %(default)s)")
    depth.add_argument(
        "--report-only", action="store_true", help="train and write nothing more: report the runs that are over"
    )
    depth.add_argument(
        "--sample-length",
        type=int,
        default=10_000,
        metavar="N",
        help="symbols in a text; 0: none (default 10000)",
    )
    depth.add_argument(
        "--samples",
        choices=("show", "none"),
        default="show",
        help="none: measure the texts, and leave them out of JSON and page, as of a text that may not be quoted",
    )
    depth.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    depth.add_argument("--html", type=Path, metavar="FILE", help="write the page there")
    depth.set_defaults(run=compare_depth)
    return parser


def compare_layers(args: argparse.Namespace) -> int:
    """The command `layers`."""
    check_activation(args.cell, args.activation)
    for name in ("layers", "hidden_size", "input_size", "seq_len", "batch_size", "steps", "rounds", "seed"):
        check_size(flag(name), getattr(args, name), minimum=0 if name in ("steps", "seed") else 1)
    case = Case(
        args.input_size,
        args.hidden_size,
        args.layers,
        args.seq_len,
        args.batch_size,
        args.cell,
        args.activation,
        args.bidirectional,
        args.layout,
    )
    check_folders(args.json, args.picture)
    record = comparison.compare_layers(case, trainer_steps=args.steps, rounds=args.rounds, seed=args.seed)
    print(comparison.table(record), end="")
    if args.json:
        write_json_atomic(args.json, record)
    if args.picture:
        comparison.picture(record, args.picture)
    return 0 if record["same"] else 1


def compare_depth(args: argparse.Namespace) -> int:
    """The command `depth`."""
    recipes = [check_choice("--recipes", name, presets()) for name in args.recipes.split(",")]
    layers = [check_size("--layers", whole("--layers", count)) for count in args.layers.split(",")]
    for name, values in (("--recipes", recipes), ("--layers", layers)):
        if len(set(values)) < len(values):
            raise ValueError(f"{name} has one of them twice: {', '.join(map(str, values))}")
    for name in ("seeds", "jobs"):
        check_size(flag(name), getattr(args, name))
    check_size("--sample-length", args.sample_length, minimum=0)
    if not args.perplexity > 1:
        raise ValueError(f"--perplexity must be above 1, got {args.perplexity:g}")
    check_folders(args.json, args.html)
    given = {name: getattr(args, name) for name in ("corpus", "max_chars", "split")}
    flags = spelled({name: value for name, value in given.items() if value is not None})
    for option in args.set:
        name, sign, value = option.partition("=")
        if not (name and sign):
            raise ValueError(f"--set must be NAME=VALUE, as hidden_size=128; got {option!r}")
        flags += spelled({name: value})
    flags += ["--diagnose"] if args.diagnose else []
    runs = study.plan(recipes, layers, args.seeds, args.out, flags, epochs_of(args.epochs, recipes))

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever stops this stops the runs, too
    if not args.report_only:
        try:
            study.train_all(runs, args.jobs)
            if args.sample_length:
                study.write_all(runs, args.sample_length, args.jobs)
        except KeyboardInterrupt:
            over = sum(run.over for run in runs)
            print(f"interrupted; {over} of {len(runs)} runs are over; go on with the same command", file=sys.stderr)
            raise
    if not any(run.over for run in runs):
        raise RuntimeError(f"there is nothing to report yet: no run in {args.out} is over")
    record = study.record(
        runs, args.perplexity, args.sample_length, samples=args.samples == "show", command=command(args)
    )
    if args.json:
        write_json_atomic(args.json, record)
    if args.html:
        write_text_atomic(args.html, page(record))
    print(study.table(record), end="")
    return 0


def epochs_of(given: Optional[str], recipes: Sequence[str]) -> dict[str, int]:
    """``"50"`` or ``"book=250,deep=50"``, by recipe."""
    if given is None:
        return {}
    if "=" not in given:
        given = ",".join(f"{recipe}={given}" for recipe in recipes)
    epochs = {}
    for part in given.split(","):
        name, _, count = part.partition("=")
        epochs[check_choice("--epochs", name, recipes)] = check_size("--epochs", whole("--epochs", count))
    return epochs


def whole(name: str, text: str) -> int:
    """The whole number that is written there."""
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{name} must be whole numbers, got {text!r}") from error


def command(args: argparse.Namespace) -> str:
    """What to type for the same study anywhere: without the places of this machine."""
    options: list[str] = []
    for name, value in vars(args).items():
        if name in ("command", "run", "out", "json", "html", "jobs", "report_only") or value in (None, []):
            continue
        if name == "corpus":
            value = Path(value).name
        if isinstance(value, bool):
            options.append(flag(name) if value else flag(f"no_{name}"))
        else:
            for each in value if isinstance(value, list) else [value]:
                options += [flag(name), str(each)]
    return shlex.join(["python", "scripts/compare.py", args.command, *options, "--html", "depth.html"])


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Parse, compare, show."""
    commands = parser()
    args = commands.parse_args(argv)
    return commands.call(lambda: args.run(args))


if __name__ == "__main__":
    sys.exit(main())

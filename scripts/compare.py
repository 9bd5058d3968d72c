#!/usr/bin/env python
"""Compare this package's layer with the built-in one (`layers`), or recipes at many depths (`depth`)."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.checks import check_activation, check_choice, check_size
from deeprnn._util.files import check_folders, write_json_atomic, write_text_atomic
from deeprnn.config import flag, read_value
from deeprnn.models.language_model import CELLS
from deeprnn.nn.cells import ACTIVATIONS
from deeprnn.nn.stack import LAYOUTS
from tools import comparison, comparison_report, study, study_record
from tools.arguments import Parser
from tools.clock import ROUNDS
from tools.contestants import Case
from tools.page import page
from tools.progress import Steps
from tools.records import read_record
from tools.study import Recipe

OUT = Path("runs/depth")


def parser() -> Parser:
    """The commands and their flags."""
    parser = Parser(prog="compare.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser, metavar="COMMAND")
    layers = commands.add_parser(
        "layers",
        help="Compare DeepRNN, DeepGRU or DeepLSTM with the built-in layer.",
        description="Whether the two are the same function, how fast each is, and their losses from the same weights.",
        done="the same function",
        failed="not the same function",
    )
    layers.add_argument("--layers", type=int, default=2, help="Recurrent layers.")
    layers.add_argument("--hidden-size", type=int, default=256, help="Units in each layer and direction.")
    layers.add_argument("--input-size", type=int, default=256, help="Inputs at each step.")
    layers.add_argument("--seq-len", type=int, default=35, help="Steps.")
    layers.add_argument("--batch-size", type=int, default=32, help="Sequences.")
    layers.add_argument("--cell", choices=CELLS, default="rnn", help="The recurrent cell.")
    layers.add_argument("--activation", choices=ACTIVATIONS, default="tanh", help="The non-linearity of an rnn.")
    layers.add_argument("--bidirectional", action="store_true", help="Read the sequences from both ends.")
    layers.add_argument("--layout", choices=LAYOUTS, default="TNC", help="Order of steps, sequences and features.")
    layers.add_argument("--steps", type=int, default=10, help="Trainer steps after which the weights are compared.")
    layers.add_argument("--rounds", type=int, default=ROUNDS, help="Samples of each time.")
    layers.add_argument("--seed", type=int, default=0, help="Seed of weights and inputs.")
    layers.add_argument("--json", type=Path, metavar="FILE", help="Write all numbers to this file.")
    layers.add_argument("--picture", type=Path, metavar="FILE.png", help="Draw them in this file.")
    layers.set_defaults(run=compare_layers)

    depth = commands.add_parser(
        "depth",
        help="Train recipes at several depths and seeds, to see with which depth pays.",
        description="Trains each recipe at each depth with each seed, a process of one thread each, and writes the "
        "results as JSON and as a page of HTML. The same command continues a study that was stopped.",
        done="all runs are over, some perhaps diverged",
        failed="a run failed",
    )
    depth.add_argument("--layers", default="1,2,4,8,16", metavar="L,L,...", help="Depths.")
    depth.add_argument(
        "--recipes", default="book", metavar="NAME|FILE,...", help="Presets, and YAML files such as mine.yaml."
    )
    depth.add_argument("--seeds", type=int, default=3, metavar="N", help="Runs of each, with seeds 0 to N - 1.")
    depth.add_argument("--corpus", metavar="NAME|FILE", help="The text. (default: that of the first recipe, for all)")
    depth.add_argument(
        "--max-chars", type=int, metavar="N", help="Its first N characters only. (default: as the first recipe)"
    )
    depth.add_argument(
        "--split", metavar="A,B,C", help="Shares for training, validation and test. (default: 0.8,0.1,0.1)"
    )
    depth.add_argument(
        "--epochs", metavar="N|NAME=N,...", help="For all recipes, or by recipe. (default: each recipe's own)"
    )
    depth.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="An option of `deeprnn train` for all runs, as hidden_size=128; may be repeated.",
    )
    depth.add_argument(
        "--diagnose",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Measure signal and gradient of each layer after each epoch, for the page. (default: yes)",
    )
    depth.add_argument(
        "--perplexity",
        type=float,
        default=1.17,
        metavar="P",
        help="Count epochs and seconds until the training perplexity is this or less.",
    )
    depth.add_argument("--jobs", type=int, default=os.cpu_count(), help="Runs side by side. (default: one a core)")
    depth.add_argument("--report-only", action="store_true", help="Train nothing: report the runs that are over.")
    depth.add_argument(
        "--sample-length", type=int, default=0, metavar="N", help="Have each network write texts of N symbols; 0: none."
    )
    depth.add_argument(
        "--samples",
        choices=("show", "none"),
        default="show",
        help="With none, texts are measured but not quoted in JSON and page, for a corpus that may not be quoted.",
    )
    depth.add_argument(
        "--page",
        nargs="+",
        type=Path,
        metavar="FILE.json",
        help="Train nothing: make the page of these records, and write it to --out. Needs no text.",
    )
    depth.add_argument(
        "--out", type=Path, metavar="PATH", help=f"Folder of the runs (default: {OUT}); with --page, the page."
    )
    depth.add_argument("--json", type=Path, metavar="FILE", help="Write all numbers to this file.")
    depth.add_argument("--html", type=Path, metavar="FILE", help="Write the page to this file.")
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
    with Steps(comparison.steps()) as steps:
        record = comparison.compare_layers(
            case, trainer_steps=args.steps, rounds=args.rounds, seed=args.seed, progress=steps.begin
        )
    print(comparison_report.report(record), end="")
    if args.json:
        write_json_atomic(args.json, record)
    if args.picture:
        comparison_report.picture(record).savefig(args.picture, dpi=150)
    return 0 if record["same"] else 1


def compare_depth(args: argparse.Namespace) -> int:
    """The command `depth`."""
    if args.page:
        return page_again(args)
    recipes = args.recipes.split(",")
    names = [Recipe.of(recipe).name for recipe in recipes]
    out = args.out or OUT
    layers = [check_size("--layers", whole("--layers", count)) for count in args.layers.split(",")]
    for name, values in (("--recipes", names), ("--layers", layers)):
        if len(set(values)) < len(values):
            raise ValueError(f"{name} has one of them twice: {', '.join(map(str, values))}")
    for name in ("seeds", "jobs"):
        check_size(flag(name), getattr(args, name))
    check_size("--sample-length", args.sample_length, minimum=0)
    if not args.perplexity > 1:
        raise ValueError(f"--perplexity must be above 1, got {args.perplexity:g}")
    check_folders(args.json, args.html)
    given = {name: getattr(args, name) for name in ("corpus", "max_chars", "split")}
    options = {name: value for name, value in given.items() if value is not None}
    for option in args.set:
        name, sign, value = option.partition("=")
        if not (name and sign):
            raise ValueError(f"--set must be NAME=VALUE, as hidden_size=128; got {option!r}")
        options[name.replace("-", "_")] = read_value(value)
    if args.diagnose:
        options["diagnose"] = True
    runs = study.plan(recipes, layers, args.seeds, out, options, epochs_of(args.epochs, names))

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it stops the runs, too
    if not args.report_only:
        try:
            study.train_all(runs, args.jobs)
            if args.sample_length:
                study.write_all(runs, args.sample_length, args.jobs)
        except KeyboardInterrupt:
            over = sum(run.over for run in runs)
            print(f"interrupted; {over} of {len(runs)} runs are over; the same command continues", file=sys.stderr)
            raise
    if not any(run.over for run in runs):
        raise RuntimeError(f"there is nothing to report yet: no run in {out} is over")
    record = study_record.record(
        runs, args.perplexity, args.sample_length, samples=args.samples == "show", command=command(args)
    )
    if args.json:
        write_json_atomic(args.json, record)
    if args.html:
        write_text_atomic(args.html, page(record))
    print(study_record.report(record), end="")
    return 0


def page_again(args: argparse.Namespace) -> int:
    """Make the page of records that `depth --json` has written."""
    target = args.html or args.out
    if target is None:
        raise ValueError("--page needs --out, the file of the page")
    check_folders(target)
    write_text_atomic(target, page(*map(read, args.page)))
    return 0


def read(path: Path) -> dict[str, Any]:
    """A record of an earlier study."""
    return read_record(
        path, "compare.py depth", lambda record: {"corpus", "groups", "runs", "settings"} <= record.keys()
    )


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
    """The whole number that a text spells."""
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{name} must be whole numbers, got {text!r}") from error


def command(args: argparse.Namespace) -> str:
    """The command of the same study on any machine: without paths of this one."""
    options: list[str] = []
    for name, value in vars(args).items():
        if name in ("command", "run", "out", "json", "html", "page", "jobs", "report_only") or value in (None, []):
            continue
        if name == "corpus":
            value = Path(value).name
        if name == "recipes":
            value = ",".join(Path(recipe).name for recipe in value.split(","))
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

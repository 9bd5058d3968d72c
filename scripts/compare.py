#!/usr/bin/env python
"""Ours beside others'. `layers`: the deep layers and the built-in ones, with the same weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Optional

from deeprnn import comparison
from deeprnn.bench import ROUNDS, Case
from deeprnn.cells import ACTIVATIONS
from deeprnn.checks import check_size
from deeprnn.config import flag
from deeprnn.files import write_json_atomic
from deeprnn.language_model import CELLS
from deeprnn.stack import LAYOUTS


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
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
    return parser


def compare_layers(args: argparse.Namespace) -> int:
    """The command `layers`."""
    if args.cell != "rnn" and args.activation != "tanh":
        raise ValueError(f"--activation {args.activation} is for --cell rnn; {args.cell} has its own")
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
    for path in (args.json, args.picture):
        if path and not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.parent} for {path}: make it first")
    record = comparison.compare_layers(case, trainer_steps=args.steps, rounds=args.rounds, seed=args.seed)
    print(comparison.table(record), end="")
    if args.json:
        write_json_atomic(args.json, record)
    if args.picture:
        comparison.picture(record, args.picture)
    return 0 if record["same"] else 1


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Parse, compare, show."""
    commands = parser()
    args = commands.parse_args(argv)
    try:
        return int(args.run(args))
    except (ValueError, TypeError, OSError) as error:
        commands.error(str(error))
    except RuntimeError as error:
        commands.exit(1, f"{commands.prog}: {error}\n")
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

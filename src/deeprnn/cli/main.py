"""From flags to the commands: every command parses, builds, calls.

    train       configuration -> text -> ids -> batches -> network -> fit -> checkpoints -> summary
    generate    run -> network -> text
    evaluate    run -> network -> loss

What is wrong with the arguments is told in one line before any work begins, exit code 2; a failure at work gives 1,
Ctrl-C 130. mxnet is loaded after the arguments have been found right, so that help and mistakes are told at once.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Callable, Optional

from jsonargparse import ArgumentError

from .console import failed
from .evaluate import build_evaluate
from .generate import build_generate
from .options import command_line, told
from .train import build_train

__all__ = ["main"]

Work = Callable[[], int]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line `argv`, by default the process's own; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a text may hold what the terminal cannot show
    try:
        try:
            work = build(argv)
        except (ValueError, TypeError, OSError) as error:
            return failed(error, 2)
        return work()
    except KeyboardInterrupt:
        return failed("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us is gone: nothing to flush to
        return 1


def build(argv: Optional[Sequence[str]]) -> Work:
    """Everything that can go wrong by the user's mistake; what comes back does the work, and returns the exit code."""
    parser = command_line()
    try:
        given = parser.parse_args(argv, defaults=False)
    except ArgumentError as error:
        raise ValueError(told(error)) from error
    builders = {"train": build_train, "generate": build_generate, "evaluate": build_evaluate}
    return builders[given.command](given[given.command])

"""Terminal output: lines, the progress of a training, one-line errors, commands to copy."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from ..train.progress import EpochReport, StepReport

__all__ = ["Nowhere", "ProgressLine", "argument", "command", "failed", "log", "one_line", "show", "silence"]


def show(text: str) -> None:
    """Print lines above the progress line."""
    with tqdm.external_write_mode():
        print(text, flush=True)


def log(text: str) -> None:
    """Print lines above the progress line of a training, which goes on even if they cannot be written."""
    try:
        show(text)
    except (OSError, ValueError) as error:  # the terminal or the reader is gone, the disk is full, the stream is closed
        silence()
        with contextlib.suppress(OSError, ValueError):
            print(f"standard output cannot be written ({one_line(error)}); training goes on", file=sys.stderr)


def silence() -> None:
    """Discard standard output: a stream that cannot be written would fail again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def failed(error: object, code: int) -> int:
    """Print an error in one line to standard error; returns the exit code."""
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed
        print("deeprnn: error:", one_line(error), file=sys.stderr)
    return code


def one_line(error: object) -> str:
    """The message of an error in one line."""
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return " ".join(line.strip() for line in text.splitlines())


def command(*arguments: str) -> str:
    """A command line that runs this program in the current environment, for example ``deeprnn generate runs/a``."""
    environment = Path(sys.executable).parent
    if shutil.which("deeprnn") == str(environment / "deeprnn"):
        program = ["deeprnn"]
    else:
        inside = Path.cwd() in environment.parents
        program = [os.path.relpath(sys.executable) if inside else sys.executable, "-m", "deeprnn"]
    return shlex.join([*program, *arguments])


def argument(path: object) -> str:
    """A path as an argument: one with a dash in front would be taken for a flag."""
    return f"./{path}" if str(path).startswith("-") else str(path)


class Nowhere(io.TextIOBase):
    """A stream that discards what is written to it."""

    def write(self, text: str) -> int:
        return len(text)


class ProgressLine:
    """Progress of a training: a line per epoch, and within an epoch a live line.

    If standard error is not a terminal, a plain line every ten seconds replaces the live one.

    Parameters
    ----------
    epochs, updates
        Epochs of the run, and updates of an epoch.
    epochs_done
        Epochs that a resumed run has done before.
    """

    def __init__(self, epochs: int, updates: int, epochs_done: int) -> None:
        self.epochs = epochs
        self.epochs_done = epochs_done
        self._bar = tqdm(
            total=epochs * updates,
            initial=epochs_done * updates,
            disable=not sys.stderr.isatty(),
            leave=False,
            bar_format="{desc} |{bar}| {percentage:.0f} %",
        )
        self.report_every = 10.0 if self._bar.disable else 1.0  # seconds

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def step(self, report: StepReport) -> None:
        """Show the progress within an epoch."""
        line = (
            f"epoch {report.epoch}/{report.epochs}  running train {report.loss:.4f} nats, "
            f"perplexity {report.perplexity:.4g}  {report.tokens_per_second:,.0f} tokens/s, "
            f"{tqdm.format_interval(report.seconds_left)} left"
        )
        if self._bar.disable:
            log(line)
        else:
            self._bar.n = report.step
            self._bar.set_description_str(line)

    def epoch(self, report: EpochReport) -> None:
        """Show the results of an epoch."""
        self.epochs_done = report.epoch
        line = f"epoch {report.epoch}/{self.epochs}"
        for part, loss, perplexity in (
            ("running train", report.train_loss, report.train_perplexity),
            ("valid", report.valid_loss, report.valid_perplexity),
        ):
            if loss is not None:
                line += f"  {part} {loss:.4f} nats, perplexity {perplexity:.4g}"
        log(f"{line}  {report.tokens_per_second:,.0f} tokens/s, {report.seconds:.1f} s")

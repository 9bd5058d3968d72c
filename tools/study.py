"""Does depth pay? Recipes at several depths and seeds, trained side by side, and what came of it.

    plan -> train (a process and a folder for each run) -> write texts -> record    (`page` shows the record)

A run that is over is not done again, one that was stopped goes on from its last epoch, so the same command goes on with
a study that was stopped. One that diverged is a result.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from jsonargparse import ArgumentError

from deeprnn._util.files import write_text_atomic
from deeprnn._util.machine import machine
from deeprnn.cli.options import command_line, read_options, resolve, told
from deeprnn.cli.runs import holds_a_run
from deeprnn.config import RunConfig, flag, spelled
from deeprnn.train.reports import read_metrics

from .repetition import WINDOW, copied, repeated

__all__ = ["WAYS", "Run", "plan", "record", "spread", "table", "train_all", "write_all"]

PROGRAM = (sys.executable, "-W", "ignore", "-m", "deeprnn")

WAYS: dict[str, tuple[str, ...]] = {
    "greedy": ("--greedy",),
    "greedy, with a penalty": ("--greedy", "--repetition-penalty=0.3"),
    "drawn": (),
    "drawn, with a penalty": ("--repetition-penalty=0.3",),
}
"""How texts are written, as flags of `generate`."""

SHOWN = (5, 10, 25, 50, 100, 150, 200, 250)
"""Epochs whose perplexity is given in the record, besides the last."""

TEXT_OPTIONS = ("corpus", "max_chars", "split", "unit")
"""What makes the text: the same for all recipes, or their perplexities are not to be compared."""

SHOW_ONLY = {"out", "threads", "ctx", "tensorboard", "diagnose"}
SHOW_ONLY |= {f"sample_{what}" for what in ("every", "length", "prefix", "greedy")}
"""Options that do not change what a run learns."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes
    ----------
    recipe : str
        A preset.
    config : RunConfig
        What the flags come to; its `out` is the run's folder.
    flags : tuple of str
        Of `deeprnn train`.
    """

    recipe: str
    config: RunConfig
    flags: tuple[str, ...]

    @classmethod
    def of(cls, recipe: str, flags: Sequence[str]) -> Run:
        """The run that ``deeprnn train --preset recipe`` with these flags, among them ``--out``, would be.

        Raises
        ------
        ValueError, TypeError
            As `deeprnn train` would tell, before any work.
        """
        whole = (f"--preset={recipe}", *flags)
        try:
            config = resolve(command_line().parse_args(["train", *whole], defaults=False)["train"])
        except ArgumentError as error:
            raise ValueError(told(error)) from error
        return cls(recipe, config, whole)

    @property
    def layers(self) -> int:
        return self.config.model.layers

    @property
    def seed(self) -> int:
        return self.config.train.seed

    @property
    def folder(self) -> Path:
        return Path(self.config.out or "")

    @property
    def log(self) -> Path:
        """What the training said."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def over(self) -> bool:
        return (self.folder / "summary.json").exists() or self.diverged is not None

    @property
    def diverged(self) -> Optional[str]:
        """Where and how, in a line; None if it did not."""
        note = self.folder / "diverged.txt"
        return note.read_text(encoding="utf-8") if note.exists() else None

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Of the epochs that are over."""
        return _rows(self.folder / "metrics.jsonl")

    @property
    def summary(self) -> dict[str, Any]:
        """What it came to in the end; empty before, and where it diverged."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def cost(self) -> float:
        """About in proportion to its seconds: an update of one layer costs half of one of three."""
        return (1 + self.layers) * self.config.train.epochs

    def __str__(self) -> str:
        return f"{self.recipe}, {_layers(self.layers)}, seed {self.seed}"


def _rows(path: Path) -> list[dict[str, Any]]:
    """Of a file with a line for each epoch; none where there is no such file yet."""
    return read_metrics(path) if path.exists() else []


def _layers(layers: int) -> str:
    return f"{layers} layer{'s' if layers > 1 else ''}"


def plan(
    recipes: Sequence[str],
    layers: Sequence[int],
    seeds: int,
    out: Path,
    flags: Sequence[str] = (),
    epochs: Optional[Mapping[str, int]] = None,
) -> list[Run]:
    """All runs of a study, in the order in which they begin: each depth once before a second seed, deep ones first.

    Parameters
    ----------
    recipes
        Presets. All read the text that the first one reads, unless the flags say another.
    layers
        Depths.
    seeds
        How many: 0, 1, 2, ...
    out
        Folder of the runs' folders, ``<recipe>-<layers>-<seed>``.
    flags
        Of `deeprnn train`, for all runs.
    epochs
        By recipe, where it is not the preset's own.

    Raises
    ------
    ValueError, TypeError
        For wrong flags, and where a folder holds a run of other options.
    """
    first = Run.of(recipes[0], [*flags, f"--out={out}"]).config.to_mapping()
    text = spelled({name: first[name] for name in TEXT_OPTIONS})
    text += ["--sample-every=0", "--sample-prefix="]  # a preset's own prefix may not be in this text
    runs = []
    for seed in range(seeds):
        for count in sorted(layers, reverse=True):
            for recipe in recipes:
                own = [f"--epochs={epochs[recipe]}"] if epochs and recipe in epochs else []
                own += [f"--layers={count}", f"--seed={seed}", f"--out={out / f'{recipe}-{count}-{seed}'}"]
                runs.append(Run.of(recipe, [*text, *flags, *own]))
    for run in runs:
        _check_folder(run)
    return runs


def _check_folder(run: Run) -> None:
    """A run that began otherwise is none of this study."""
    path = run.folder / "config.yaml"
    if not path.exists() or not (run.over or holds_a_run(run.folder)):
        return
    wanted, begun = run.config.to_mapping(), RunConfig.from_mapping(read_options(path)).to_mapping()
    for name, value in wanted.items():
        if name not in SHOW_ONLY and begun[name] != value:
            raise ValueError(
                f"the run in {run.folder} has {flag(name)} {begun[name]}, and this study {value}: "
                "choose another --out, or remove that folder"
            )


# Train, and write texts.


class Command(NamedTuple):
    """A command of deeprnn, and the files that its output and its errors are added to."""

    arguments: Sequence[str]
    output: Path
    errors: Path


def side_by_side(commands: Sequence[Command], jobs: int) -> Iterator[tuple[int, int]]:
    """Run commands as processes of one thread, `jobs` at a time; index and exit code of each as it ends.

    All that run are stopped if the iteration ends before its time, as by Ctrl-C.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    running: dict[int, subprocess.Popen[bytes]] = {}
    waiting = list(range(len(commands)))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                index = waiting.pop(0)
                arguments, *files = commands[index]
                with ExitStack() as stack:
                    output, errors = (stack.enter_context(open(file, "ab")) for file in files)
                    running[index] = subprocess.Popen(
                        [*PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment
                    )
            ended = [index for index, process in running.items() if process.poll() is not None]
            for index in ended:
                yield index, running.pop(index).returncode
            if not ended:
                time.sleep(0.05)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def train_all(runs: Sequence[Run], jobs: int, say: Say = print) -> None:
    """Train what is not over yet; say what each run came to, and the time left.

    Raises
    ------
    ValueError
        If a training finds its arguments wrong.
    RuntimeError
        If a training fails by anything but divergence.
    """
    todo = [run for run in runs if not run.over]
    done, cost_left, began = len(runs) - len(todo), sum(run.cost for run in todo), time.monotonic()
    cost_done = 0.0
    if done:
        say(f"{done} of {len(runs)} runs are over already")
    for run in todo:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
    commands = [
        Command(["train", *run.flags, *(["--resume"] if holds_a_run(run.folder) else [])], run.log, run.log)
        for run in todo
    ]
    for index, code in side_by_side(commands, jobs):
        run = todo[index]
        if code:
            _failed(run, code)
        done, cost_done, cost_left = done + 1, cost_done + run.cost, cost_left - run.cost
        left = (time.monotonic() - began) * cost_left / cost_done
        say(f"{done}/{len(runs)}  {run}: {_came_to(run)}" + (f"; {_clock(left)} left" if cost_left else ""))


def _failed(run: Run, code: int) -> None:
    """Note a divergence; raise anything else."""
    lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = lines[-1].removeprefix("deeprnn: error: ") if lines else f"exit code {code}"
    if code == 1 and re.match(r"the [\w ]+ is -?(nan|inf) (at|after) step", said):
        run.folder.mkdir(exist_ok=True)
        write_text_atomic(run.folder / "diverged.txt", said)
    elif code == 2:
        raise ValueError(said)
    else:
        raise RuntimeError(f"{run}: {said} (exit code {code}; see {run.log})")


def _came_to(run: Run) -> str:
    if run.diverged is not None:
        return f"diverged, {run.diverged}"
    last = run.metrics[-1]
    parts = (("train", "perplexity"), ("valid", "validation"))
    values = [f"{name} {last[f'{part}_perplexity']:.4g}" for part, name in parts if last[f"{part}_perplexity"]]
    return f"{', '.join(values)} after {last['epoch']} epochs"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


def write_all(runs: Sequence[Run], length: int, jobs: int, say: Say = print) -> None:
    """For each recipe and depth, texts of `length` symbols by the first seed's network, one for each of `WAYS`."""
    todo = [
        (run, way)
        for run in _first_seeds(runs)
        if run.over and run.diverged is None
        for way in WAYS
        if not _text_file(run, way, length).exists()
    ]
    parts = [_text_file(run, way, length).with_suffix(".part") for run, way in todo]
    for part in parts:
        part.unlink(missing_ok=True)
    commands = [
        Command(["generate", str(run.folder), f"--length={length}", "--seed=0", *WAYS[way]], part, run.log)
        for (run, way), part in zip(todo, parts)
    ]
    for count, (index, code) in enumerate(side_by_side(commands, jobs), start=1):
        run, way = todo[index]
        if code:
            raise RuntimeError(f"{run}: no text could be written (exit code {code}; see {run.log})")
        os.replace(parts[index], _text_file(run, way, length))
        say(f"text {count}/{len(todo)}  {run}: {way}")


def _first_seeds(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.seed == 0]


def _text_file(run: Run, way: str, length: int) -> Path:
    return run.folder / f"{re.sub('[^a-z]+', '-', way)}-{length}.txt"


# The record.


def record(
    runs: Sequence[Run], perplexity: float, text_length: int, *, samples: bool = True, command: str = ""
) -> dict[str, Any]:
    """What the runs that are over came to.

    Parameters
    ----------
    runs
        Of `plan`.
    perplexity
        Of the training text; how many epochs and seconds it takes to get there is counted.
    text_length
        Of the texts of `write_all`.
    samples
        Whether the record holds the texts themselves, besides their measures.
    command
        That makes this record again.

    Returns
    -------
    dict
        JSON, None for what is not finite. ``runs``: of each the perplexities over the epochs; ``groups``: for each
        recipe and depth median, low and high over the seeds, a run that diverged counting as infinite.
    """
    from deeprnn.data.text import decode, load_corpus  # here, so that mistakes are told before gluonnlp is loaded

    data = runs[0].config.data
    corpus = load_corpus(data.corpus, max_chars=data.max_chars, split=data.split, unit=data.unit, unknown=data.unknown)
    training = decode(corpus.vocab, corpus.train, data.unit)
    over = [run for run in runs if run.over]
    groups: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in sorted(over, key=lambda run: (runs[0].recipe != run.recipe, run.recipe, run.layers, run.seed)):
        groups[run.recipe, run.layers].append(run)
    results = {run.folder: _result(run) for run in over}
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "threads_per_run": 1,
        "command": command,
        "corpus": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "unit": data.unit,
            "symbols": {part: len(getattr(corpus, part)) for part in ("train", "valid", "test")},
            "vocabulary": len(corpus.vocab),
            "characters": len(training[:text_length]),
            "repeated": repeated(training[:text_length]),
        },
        "window": WINDOW,
        "perplexity": perplexity,
        "planned": len(runs),
        "settings": {run.recipe: _settings(run) for run in runs},
        "runs": [results[run.folder] for group in groups.values() for run in group],
        "groups": [
            _group(group, [results[run.folder] for run in group], perplexity, text_length, training, samples)
            for group in groups.values()
        ],
    }


def _settings(run: Run) -> dict[str, Any]:
    varied = {"layers", "seed", "corpus"}
    return {name: value for name, value in run.config.to_mapping().items() if name not in SHOW_ONLY | varied}


def _result(run: Run) -> dict[str, Any]:
    """One run, epoch by epoch; of one that diverged, what came before."""
    rows, summary = run.metrics, run.summary
    return {
        "recipe": run.recipe,
        "layers": run.layers,
        "seed": run.seed,
        "diverged": run.diverged,
        "parameters": summary.get("parameters"),
        "seconds": sum(row["seconds"] for row in rows),
        "seconds_by_epoch": [row["seconds"] for row in rows],
        "train": [row["train_perplexity"] for row in rows],
        "valid": [row["valid_perplexity"] for row in rows],
        "best_epoch": summary.get("best_epoch"),
        "test_loss": summary.get("test_loss"),
        "test_perplexity": summary.get("test_perplexity"),
    }


def _group(
    runs: Sequence[Run],
    results: Sequence[Mapping[str, Any]],
    perplexity: float,
    text_length: int,
    training: str,
    samples: bool,
) -> dict[str, Any]:
    """One recipe and depth, over its seeds."""
    first, epochs = runs[0], runs[0].config.train.epochs
    whole = [result for result in results if result["diverged"] is None]
    shown = sorted({epoch for epoch in SHOWN if epoch < epochs} | {epochs})
    reached = [_reached(result, perplexity) for result in results]
    return {
        "recipe": first.recipe,
        "layers": first.layers,
        "parameters": next((result["parameters"] for result in whole), None),
        "epochs": epochs,
        "seeds": [run.seed for run in runs],
        "diverged": len(results) - len(whole),
        "train_at": {str(epoch): spread([_at(result["train"], epoch) for result in results]) for epoch in shown},
        "epochs_to": spread([epoch for epoch, _ in reached]),
        "seconds_to": spread([seconds for _, seconds in reached]),
        "seconds": spread([result["seconds"] for result in whole or results]),
        "train": spread([_last(result, "train") for result in results]),
        "valid": spread([_at(result["valid"], result["best_epoch"]) for result in results]),
        "test": spread([result["test_perplexity"] for result in results]),
        "test_loss": spread([result["test_loss"] for result in results]),
        "diagnosis": _diagnosis(first),
        "texts": [
            _text(way, file, training, samples)
            for way in WAYS
            if first.seed == 0 and (file := _text_file(first, way, text_length)).exists()
        ],
    }


def _at(values: Sequence[Optional[float]], epoch: Optional[int]) -> Optional[float]:
    return values[epoch - 1] if epoch and epoch <= len(values) else None


def _last(result: Mapping[str, Any], part: str) -> Optional[float]:
    return None if result["diverged"] is not None else _at(result[part], len(result[part]))


def _reached(result: Mapping[str, Any], perplexity: float) -> tuple[Optional[int], Optional[float]]:
    """Epochs, and seconds of training, until the perplexity of the training text is this or lower."""
    for epoch, (value, seconds) in enumerate(zip(result["train"], accumulate(result["seconds_by_epoch"])), start=1):
        if value is not None and value <= perplexity:
            return epoch, seconds
    return None, None


def spread(values: Sequence[Optional[float]]) -> dict[str, Optional[float]]:
    """Median, lowest and highest; None stands for infinity, which is worse than all."""
    known = [math.inf if value is None else value for value in values]
    found = {"median": statistics.median(known), "low": min(known), "high": max(known)}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _diagnosis(run: Run) -> list[dict[str, Any]]:
    """Of the run's own diagnoses (`deeprnn train --diagnose`), the gradient of each layer, and the sentences."""
    return [
        {
            "epoch": row["epoch"],
            "gradient": [layer["gradient"] for layer in sorted(row["layers"], key=lambda layer: layer["number"])],
            "sentences": row["sentences"],
        }
        for row in _rows(run.folder / "diagnosis.jsonl")
    ]


def _text(way: str, file: Path, training: str, samples: bool) -> dict[str, Any]:
    text = file.read_bytes().decode("utf-8", "replace").removesuffix("\n")
    share, longest = copied(text, training)
    measures = {"way": way, "characters": len(text), "repeated": repeated(text), "copied": share, "longest": longest}
    return {**measures, "text": text} if samples else measures


def table(record: Mapping[str, Any]) -> str:
    """A record for a terminal."""
    named = f"to {record['perplexity']:g}"
    lines = [
        f"{'recipe':12}{'layers':>6}{'parameters':>12}  {named:16}{'seconds':>8}  perplexity: median [range over seeds]"
    ]
    for group in record["groups"]:
        epochs, seconds = group["epochs_to"]["median"], group["seconds_to"]["median"]
        reached = "never" if epochs is None else f"{epochs:g} epochs"
        taken = "" if seconds is None else f"{seconds:.3g}"
        values = [f"{part} {_in_words(group[part])}" for part in ("train", "valid", "test") if group[part]["low"]]
        values += [f"{group['diverged']} diverged"] if group["diverged"] else []
        count = "" if group["parameters"] is None else f"{group['parameters']:,}"
        lines.append(f"{group['recipe']:12}{group['layers']:6}{count:>12}  {reached:16}{taken:>8}  {'; '.join(values)}")
    return "\n".join(lines) + "\n"


def _in_words(spread: Mapping[str, Optional[float]]) -> str:
    median, low, high = ("infinite" if spread[name] is None else f"{spread[name]:.4g}" for name in spread)
    return f"{median} [{low}, {high}]"

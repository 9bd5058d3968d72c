"""A study of depth: recipes at several depths and seeds, trained side by side.

    plan -> train_all (a process and a folder for each run) -> write_all (texts) -> study_record.record -> page

A run that is over is not repeated, and a run that was stopped continues after its last epoch: the same command resumes
a study that was stopped. A run that diverged is a result, too.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, NamedTuple, Optional

from deeprnn.config import RunConfig, flag, presets, read_options, resolve, spelled
from deeprnn.train.reports import read_metrics
from deeprnn.train.storage import holds_checkpoints

from .jobs import Command, side_by_side
from .wording import duration, layer_count

__all__ = ["SHOW_ONLY", "WAYS", "Recipe", "StudyRun", "plan", "text_file", "train_all", "write_all"]

WAYS: dict[str, tuple[str, ...]] = {
    "greedy": ("--greedy",),
    "greedy, with a penalty": ("--greedy", "--repetition-penalty=0.3"),
    "drawn": (),
    "drawn, with a penalty": ("--repetition-penalty=0.3",),
}
"""Ways of generating texts, as flags of `deeprnn generate`."""

TEXT_OPTIONS = ("corpus", "encoding", "max_chars", "unit")
"""Options that select the text: the same for all recipes, so that their perplexities can be compared."""

HELD_OUT = {"split": "0.8,0.1,0.1", "unknown": True}
"""The split unless the options have another one: that of a recipe may hold nothing out."""

SHOW_ONLY = {"out", "threads", "ctx", "tensorboard", "diagnose"}
SHOW_ONLY |= {f"sample_{what}" for what in ("every", "length", "prefix", "greedy")}
"""Options that do not change what a run learns."""

STATE = "state.json"
"""In a run's folder: how a training ended that did not finish, ``{"state": "diverged", "reason": ...}``."""

Say = Callable[[str], None]


class Recipe(NamedTuple):
    """A preset, or a YAML file of options."""

    name: str
    source: dict[str, str]
    """The option of `deeprnn train` that names it, ``preset`` or ``config``."""

    @classmethod
    def of(cls, text: str) -> Recipe:
        """The preset of this name, or the file at this path.

        Raises
        ------
        ValueError
            If there is neither.
        """
        if text in presets():
            return cls(text, {"preset": text})
        path = Path(text)
        if path.suffix in (".yaml", ".yml") or path.is_file():
            if not path.is_file():
                raise ValueError(f"--recipes: there is no file {text}")
            return cls(path.stem, {"config": text})
        raise ValueError(f"--recipes must be one of {', '.join(map(repr, presets()))}, or a YAML file, got {text!r}")


@dataclass(frozen=True)
class StudyRun:
    """One training of a study.

    Attributes
    ----------
    recipe : str
        Its name.
    config : RunConfig
        All its options; `config.out` is its folder.
    options : dict
        What is given to `deeprnn train`.
    """

    recipe: str
    config: RunConfig
    options: dict[str, Any]

    @classmethod
    def of(cls, recipe: Recipe, options: Mapping[str, Any]) -> StudyRun:
        """The run of ``deeprnn train`` with the recipe and these options, ``out`` among them.

        Raises
        ------
        ValueError, TypeError
            For options that `deeprnn train` would refuse.
        """
        whole = {**recipe.source, **options, "out": str(options["out"])}
        return cls(recipe.name, resolve(whole), whole)

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
        """The output of the training, for people to read."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def begun(self) -> bool:
        """Whether it can be resumed."""
        return holds_checkpoints(self.folder / "checkpoints")

    @property
    def over(self) -> bool:
        return (self.folder / "summary.json").exists() or self.diverged is not None

    @property
    def diverged(self) -> Optional[str]:
        """Where and how the run diverged; None if it did not."""
        path = self.folder / STATE
        state = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return str(state.get("reason")) if state.get("state") == "diverged" else None

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Of the epochs that are over."""
        path = self.folder / "metrics.jsonl"
        return read_metrics(path) if path.exists() else []

    @property
    def summary(self) -> dict[str, Any]:
        """What the training measured at its end; empty before, and where it diverged."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def cost(self) -> float:
        """Roughly proportional to the run's time: an update of one layer takes half as long as one of three."""
        return (1 + self.layers) * self.config.train.epochs

    def __str__(self) -> str:
        return f"{self.recipe}, {layer_count(self.layers)}, seed {self.seed}"


def plan(
    recipes: Sequence[str],
    layers: Sequence[int],
    seeds: int,
    out: Path,
    options: Mapping[str, Any] = MappingProxyType({}),
    epochs: Optional[Mapping[str, int]] = None,
) -> list[StudyRun]:
    """All runs of a study, in the order in which they begin: each depth once before a second seed, deep ones first.

    Parameters
    ----------
    recipes
        Presets and YAML files. All read the text that the first one reads, unless the options name another. A tenth of
        it is held out for validation and a tenth for test, unless the options have another ``split``.
    layers
        Depths.
    seeds
        How many: 0, 1, 2, ...
    out
        Folder of the runs' folders, ``<recipe>-<layers>-<seed>``.
    options
        Of `deeprnn train`, for all runs.
    epochs
        By the recipe's name, where it is not the recipe's own number.

    Raises
    ------
    ValueError, TypeError
        For invalid options, and if a folder holds a run with other options.
    """
    found = [Recipe.of(recipe) for recipe in recipes]
    if len({recipe.name for recipe in found}) < len(found):
        raise ValueError(f"--recipes has one of them twice: {', '.join(recipe.name for recipe in found)}")
    runs = []
    common = {**_text(found[0], out, options), **options}
    for seed in range(seeds):
        for count in sorted(layers, reverse=True):
            for recipe in found:
                own = {"epochs": epochs[recipe.name]} if epochs and recipe.name in epochs else {}
                own |= {"layers": count, "seed": seed}
                runs.append(StudyRun.of(recipe, {**common, **own, "out": out / f"{recipe.name}-{count}-{seed}"}))
    for run in runs:
        _check_folder(run)
    return runs


def _text(first: Recipe, out: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for the text of all runs: the one of the first recipe, cut as `HELD_OUT` has it."""
    resolved = StudyRun.of(first, {**options, "out": out}).config.to_mapping()
    text = {name: resolved[name] for name in TEXT_OPTIONS}
    text |= {"unknown": resolved["unknown"]} if "split" in options else HELD_OUT
    # A recipe's own prefix may contain symbols that are not in this text.
    return {**text, "sample_every": 0, "sample_prefix": ""}


def _check_folder(run: StudyRun) -> None:
    """Refuse a folder with a run that began with other options."""
    path = run.folder / "config.yaml"
    if not path.exists() or not (run.over or run.begun):
        return
    wanted, begun = run.config.to_mapping(), RunConfig.from_mapping(read_options(path)).to_mapping()
    for name, value in wanted.items():
        if name not in SHOW_ONLY and begun[name] != value:
            raise ValueError(
                f"the run in {run.folder} has {flag(name)} {begun[name]}, and this study {value}: "
                "choose another --out, or remove that folder"
            )


# Train, and write texts.


def train_all(runs: Sequence[StudyRun], jobs: int, say: Say = print) -> None:
    """Train the runs that are not over yet; report the result of each, and the time left.

    Raises
    ------
    ValueError
        If a training reports invalid arguments.
    RuntimeError
        If a training fails for any reason but divergence.
    """
    todo = [run for run in runs if not run.over]
    done, cost_left, began = len(runs) - len(todo), sum(run.cost for run in todo), time.monotonic()
    cost_done = 0.0
    if done:
        say(f"{done} of {len(runs)} runs are over already")
    for run in todo:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
    commands = [
        Command(["train", *spelled(run.options), *(["--resume"] if run.begun else [])], run.log, run.log)
        for run in todo
    ]
    for index, code in side_by_side(commands, jobs):
        run = todo[index]
        if code and run.diverged is None:
            raise (ValueError if code == 2 else RuntimeError)(f"{run}: {_ended(run, code)}")
        done, cost_done, cost_left = done + 1, cost_done + run.cost, cost_left - run.cost
        left = (time.monotonic() - began) * cost_left / cost_done
        say(f"{done}/{len(runs)}  {run}: {_result(run)}" + (f"; {duration(left)} left" if cost_left else ""))


def _ended(run: StudyRun, code: int) -> str:
    """The last line of the log as it is, the exit code, and the path of the log."""
    lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"{lines[-1] if lines else 'no output'} (exit code {code}; see {run.log})"


def _result(run: StudyRun) -> str:
    if run.diverged is not None:
        return f"diverged, {run.diverged}"
    last = run.metrics[-1]
    parts = (("train", "perplexity"), ("valid", "validation"))
    values = [f"{name} {last[f'{part}_perplexity']:.4g}" for part, name in parts if last[f"{part}_perplexity"]]
    return f"{', '.join(values)} after {last['epoch']} epoch{'s' if last['epoch'] > 1 else ''}"


def write_all(runs: Sequence[StudyRun], length: int, jobs: int, say: Say = print) -> None:
    """For each recipe and depth, texts of `length` symbols by the first seed's network, one for each of `WAYS`.

    Raises
    ------
    RuntimeError
        If a text could not be written.
    """
    todo = [
        (run, way)
        for run in runs
        if run.seed == 0 and run.over and run.diverged is None
        for way in WAYS
        if not text_file(run, way, length).exists()
    ]
    parts = [text_file(run, way, length).with_suffix(".part") for run, way in todo]
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
        os.replace(parts[index], text_file(run, way, length))
        say(f"text {count}/{len(todo)}  {run}: {way}")


def text_file(run: StudyRun, way: str, length: int) -> Path:
    """The file of a generated text."""
    return run.folder / f"{re.sub('[^a-z]+', '-', way)}-{length}.txt"

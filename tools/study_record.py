"""Results of a study of depth, as JSON and as text for a terminal."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any, Optional

from deeprnn._util.machine import machine
from deeprnn.train.reports import read_metrics

from .repetition import WINDOW, copied, repeated
from .study import SHOW_ONLY, WAYS, StudyRun, text_file
from .tables import terminal_table

__all__ = ["epochs_until", "record", "report", "spread"]

SHOWN = (5, 10, 25, 50, 100, 150, 200, 250)
"""Epochs whose perplexity is in the record, besides the last one."""


def record(
    runs: Sequence[StudyRun], perplexity: float, text_length: int, *, samples: bool = True, command: str = ""
) -> dict[str, Any]:
    """The record of the runs that are over.

    Parameters
    ----------
    runs
        From `plan`.
    perplexity
        Perplexity of the training text up to which epochs and seconds are counted.
    text_length
        Length of the texts of `write_all`.
    samples
        Whether the record has the texts themselves, besides their measures.
    command
        Command that makes this record again.

    Returns
    -------
    dict
        JSON, None for what is not finite. ``runs``: of each the perplexities over the epochs; ``groups``: for each
        recipe and depth median, low and high over the seeds, a run that diverged counting as infinite.
    """
    # Here, so that invalid arguments are reported before gluonnlp is loaded.
    from deeprnn.data.text import decode, load_corpus

    data = runs[0].config.data
    corpus = load_corpus(**data.text_options)
    training = decode(corpus.vocab, corpus.train, data.unit)
    over = [run for run in runs if run.over]
    groups: dict[tuple[str, int], list[StudyRun]] = defaultdict(list)
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


def _settings(run: StudyRun) -> dict[str, Any]:
    varied = {"layers", "seed", "corpus"}
    return {name: value for name, value in run.config.to_mapping().items() if name not in SHOW_ONLY | varied}


def _result(run: StudyRun) -> dict[str, Any]:
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
    runs: Sequence[StudyRun],
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
    reached = [epochs_until(result, perplexity) for result in results]
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
            if first.seed == 0 and (file := text_file(first, way, text_length)).exists()
        ],
    }


def _at(values: Sequence[Optional[float]], epoch: Optional[int]) -> Optional[float]:
    return values[epoch - 1] if epoch and epoch <= len(values) else None


def _last(result: Mapping[str, Any], part: str) -> Optional[float]:
    return None if result["diverged"] is not None else _at(result[part], len(result[part]))


def epochs_until(result: Mapping[str, Any], perplexity: float) -> tuple[Optional[int], Optional[float]]:
    """Epochs, and seconds of training, until the perplexity of the training text is this or lower."""
    for epoch, (value, seconds) in enumerate(zip(result["train"], accumulate(result["seconds_by_epoch"])), start=1):
        if value is not None and value <= perplexity:
            return epoch, seconds
    return None, None


def spread(values: Sequence[Optional[float]]) -> dict[str, Optional[float]]:
    """Median, lowest and highest; None means infinity, which is worse than all."""
    known = [math.inf if value is None else value for value in values]
    found = {"median": statistics.median(known), "low": min(known), "high": max(known)}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _diagnosis(run: StudyRun) -> list[dict[str, Any]]:
    """From the run's own diagnoses (`deeprnn train --diagnose`) the gradient of each layer, and the sentences."""
    path = run.folder / "diagnosis.jsonl"
    return [
        {
            "epoch": row["epoch"],
            "gradient": [layer["gradient"] for layer in sorted(row["layers"], key=lambda layer: layer["number"])],
            "sentences": row["sentences"],
        }
        for row in (read_metrics(path) if path.exists() else [])
    ]


def _text(way: str, file: Path, training: str, samples: bool) -> dict[str, Any]:
    text = file.read_bytes().decode("utf-8", "replace").removesuffix("\n")
    share, longest = copied(text, training)
    measures = {"way": way, "characters": len(text), "repeated": repeated(text), "copied": share, "longest": longest}
    return {**measures, "text": text} if samples else measures


def report(record: Mapping[str, Any]) -> str:
    """A record for a terminal."""
    goal = f"{record['perplexity']:g}"
    parts = [part for part in ("train", "valid", "test") if any(group[part]["low"] for group in record["groups"])]
    heads = ["recipe", "layers", "parameters", *(f"{part} perplexity" for part in parts), f"epochs to {goal}"]
    rows = [[*heads, f"seconds to {goal}", "diverged"]]
    for group in record["groups"]:
        epochs, seconds = group["epochs_to"]["median"], group["seconds_to"]["median"]
        rows.append(
            [
                group["recipe"],
                str(group["layers"]),
                "" if group["parameters"] is None else f"{group['parameters']:,}",
                *(_with_range(group[part]) for part in parts),
                "never" if epochs is None else f"{epochs:g}",
                "never" if seconds is None else f"{seconds:.3g}",
                f"{group['diverged']} of {len(group['seeds'])}",
            ]
        )
    return f"{terminal_table(rows)}\nPerplexities are medians over the seeds, with the lowest and the highest.\n"


def _with_range(spread: Mapping[str, Optional[float]]) -> str:
    median, low, high = ("infinite" if spread[name] is None else f"{spread[name]:.4g}" for name in spread)
    return median if low == high else f"{median} [{low}, {high}]"

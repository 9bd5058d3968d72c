#!/usr/bin/env python
"""The tables of docs/depth.md, from the records in benchmarks/.

python benchmarks/depth_tables.py        writes docs/depth.md anew; a test holds that nothing would change
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from changes import report as perplexities

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_text_atomic
from tools import study_record
from tools.arguments import Parser
from tools.tables import fill, markdown_table

RECORDS = Path(__file__).parent
PAGE = RECORDS.parent / "docs" / "depth.md"


def read(name: str) -> Any:
    """A record."""
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def machine(record: Mapping[str, Any]) -> str:
    """What it was measured on."""
    it = record["machine"]
    return (
        f"{it['processor']}, {it['instruction_set']}, mxnet {it['mxnet']}, numpy {it['numpy']}, Python {it['python']}; "
        f"one thread a run; {record['date']}"
    )


def number(value: Optional[float], digits: int = 4) -> str:
    """A perplexity or a loss; None is one that was never reached."""
    return "-" if value is None else f"{value:.{digits}g}"


def spread(of: Mapping[str, Optional[float]], digits: int = 4) -> str:
    """A median, and the range over the seeds."""
    return f"{number(of['median'], digits)} ({number(of['low'], digits)} to {number(of['high'], digits)})"


def changes() -> str:
    """Each change alone, all but one, and all."""
    record = read("changes")
    return f"{perplexities(record)}\n\n({machine(record)})"


def lyrics() -> str:
    """The training text."""
    record = read("depth_lyrics")
    rows = [["layers", "parameters", "epochs to 1.17", "seconds to 1.17", "perplexity at epoch 10", "at epoch 50"]]
    for group in record["groups"]:
        if group["recipe"] == "deep":
            rows.append(
                [
                    str(group["layers"]),
                    f"{group['parameters']:,}",
                    number(group["epochs_to"]["median"]),
                    number(group["seconds_to"]["median"], 3),
                    spread(group["train_at"]["10"]),
                    spread(group["train_at"]["50"]),
                ]
            )
    return f"{markdown_table(rows)}\n\n({machine(record)})"


def cells() -> str:
    """The training text, by the gated cells."""
    rows = [["cell", "layers", "parameters", "epochs to 1.17", "perplexity at epoch 10", "at epoch 25"]]
    for cell in ("gru", "lstm"):
        record = read(f"depth_{cell}")
        for group in record["groups"]:
            at = [number(group["train_at"][epoch]["median"]) for epoch in ("10", "25")]
            reached = number(group["epochs_to"]["median"])
            rows.append([cell, str(group["layers"]), f"{group['parameters']:,}", reached, *at])
    return f"{markdown_table(rows)}\n\n({machine(record)})"


def repetition() -> str:
    """How much the texts of the networks of `lyrics` repeat."""
    record = read("depth_lyrics")
    rows = [["layers", "decoding", "repeats itself", "copied from the text", "longest copied run"]]
    for group in record["groups"]:
        for text in group["texts"] if group["recipe"] == "deep" else []:
            shares = [f"{text[name]:.1%}" for name in ("repeated", "copied")]
            rows.append([str(group["layers"]), text["way"], *shares, f"{text['longest']} characters"])
    return markdown_table(rows)


def heldout() -> str:
    """Networks of 128 units, of unequal size."""
    record = read("depth_tinyshakespeare")
    rows = [["layers", "parameters", "epochs", "seconds", "test loss, nats per character: median (three seeds)"]]
    for group in record["groups"]:
        cells = [str(group["layers"]), f"{group['parameters']:,}", str(group["epochs"])]
        rows.append([*cells, f"{group['seconds']['median']:.0f}", spread(group["test_loss"])])
    return f"{markdown_table(rows)}\n\n({machine(record)})"


def budget() -> str:
    """Networks of 120,000 parameters."""
    record = read("budget")
    rows = [["network", "units", "parameters", "learning rate", "epochs", "seconds", "test loss: median (seeds)"]]
    for name, runs in record["finals"].items():
        it = runs[0]
        seconds = statistics.median(run["seconds"] for run in runs)
        sizes = [str(it["hidden_size"]), f"{it['parameters']:,}", str(it["lr"]), str(it["epochs"]), f"{seconds:.0f}"]
        rows.append([name, *sizes, spread(study_record.spread([run["test_loss"] for run in runs]))])
    return f"{markdown_table(rows)}\n\n({machine(record)})"


def trials() -> str:
    """Every trial of the budget study, by validation loss."""
    record = read("budget")
    found = {name: [run] for name, run in record["stacks"].items()}
    found.update(record["trials"])  # those of the stack that went on hold its first run
    rows = [["network", "units", "learning rate", "validation loss"]]
    for name, runs in found.items():
        rows += [[name, str(run["hidden_size"]), str(run["lr"]), number(run["valid_loss"], 5)] for run in runs]
    return markdown_table(rows)


TABLES = {table.__name__: table for table in (changes, lyrics, cells, repetition, heldout, budget, trials)}


def filled(text: str) -> str:
    """The page with its tables as the records have them."""
    for name, table in TABLES.items():
        text = fill(text, f"depth:{name}", table())
    return text


if __name__ == "__main__":
    Parser(description=__doc__.splitlines()[0]).parse_args()
    write_text_atomic(PAGE, filled(PAGE.read_text(encoding="utf-8")))

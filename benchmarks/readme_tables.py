#!/usr/bin/env python
"""The short tables of the README in both languages and of some pages in docs/, from the records in benchmarks/.

python benchmarks/readme_tables.py        writes these pages anew; a test holds that nothing would change
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_text_atomic
from tools.arguments import Parser
from tools.bench_report import summary
from tools.tables import fill, markdown_table

RECORDS = Path(__file__).parent
PROJECT = RECORDS.parent

LAYERS = {"rnn": "DeepRNN", "gru": "DeepGRU", "lstm": "DeepLSTM"}

MODEL = (
    "Training a language model of 2 x 256 units takes {} of the time of the book's own training loop, and {} "
    "with one-hot input, as the book has it."
)
MODEL_ZH = "训练一个 2 x 256 的语言模型，用时是书中训练循环的 {}；若与书中一样用 one-hot 输入，则是 {}。"
SPEED = {
    "en": ["time, geometric mean (worst) of {} shapes", "inference", "training", MODEL, ", busy in {}"],
    "zh": ["用时之比，{} 种形状的几何平均（最差）", "推理", "训练", MODEL_ZH, "，{} 种不稳定"],
}
DEPTH = {
    "en": ["layers", "the book's recipe, epoch 250", "this recipe, epoch 50", "held-out loss, 3 epochs"],
    "zh": ["层数", "书中的方案，第 250 周期", "本项目的方案，第 50 周期", "留出文本的损失，3 个周期"],
}
BOOK = {"en": ["layers", "three seeds at 250", "to"], "zh": ["层数", "第 250 周期的三个种子", "至"]}


def read(name: str) -> Any:
    """A record."""
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def speed(language: str) -> str:
    """One row a kind of layer, time over that of the others; and a sentence on training a language model."""
    title, inference, training, model, busy = SPEED[language]
    works = {"inference": inference, "training": training}
    columns = [(work, peer) for work in works for peer in ("gluon", "pytorch")]
    names = {"gluon": "gluon.rnn", "pytorch": "PyTorch"}
    rows = [["", *(f"{works[work]} / {names[peer]}" for work, peer in columns)]]
    for cell, name in LAYERS.items():
        cases = read(cell)["cases"]
        rows[0][0] = title.format(len(cases) - 1)  # the one step is not in the mean
        means = summary(cases)
        rows.append([name, *(_mean(means[work]["ratios"].get(peer), busy) for work, peer in columns)])
    ratios = read("language_model")["language_model"]["ratios"]  # with an embedding, with one-hot vectors
    shares = [f"{1 / ratio['median']:.2f}" for ratio in ratios.values()]
    return f"{markdown_table(rows)}\n\n{model.format(*shares)}"


def _mean(of: Optional[Mapping[str, Any]], busy: str) -> str:
    if of is None or of["mean"] is None:
        return ""
    noisy = busy.format(len(of["busy"])) if of["busy"] else ""
    return f"{of['mean']:.2f} ({of['worst']['ratio']:.2f}){noisy}"


def depth(language: str) -> str:
    """Perplexity of the training text under two recipes, and the loss on held-out text, by layers."""
    book = read("book")["median"]
    lyrics = {group["layers"]: group["train_at"]["50"] for group in read("depth_lyrics")["groups"]}
    heldout = {group["layers"]: group["test_loss"] for group in read("depth_tinyshakespeare")["groups"]}
    rows = [DEPTH[language]]
    for layers in lyrics:
        before = f"{book[str(layers)]['250']:.3f}" if str(layers) in book else ""
        after = f"{heldout[layers]['median']:.3f}" if layers in heldout else ""
        rows.append([str(layers), before, f"{lyrics[layers]['median']:.3f}", after])
    return markdown_table(rows)


def book(language: str) -> str:
    """The book's recipe, epoch by epoch: medians, and the range of the seeds at the end."""
    record = read("book")
    title, ends, to = BOOK[language]
    epochs = list(next(iter(record["median"].values())))
    rows = [[title, *epochs, ends]]
    for layers, at in record["median"].items():
        last = [run["perplexity"][epochs[-1]] for run in record["runs"] if str(run["layers"]) == layers]
        values = [f"{at[epoch]:.4g}" for epoch in epochs]
        rows.append([layers, *values, f"{min(last):.4g} {to} {max(last):.4g}"])
    return markdown_table(rows)


def pythons(language: str) -> str:
    """Each Python with its numpy: the tests, the time of set-up, and the losses of one training, in all digits."""
    rows = [["Python", "numpy", "passed", "failed", "skipped", "set-up", "training loss, 3 epochs", "held-out loss"]]
    for row in read("pythons")["pythons"]:
        # A row without tests is one of a run that was stopped before their end.
        counts = [f"{row.get(kind, 0):,}" if "whole" in row else "" for kind in ("passed", "failed", "skipped")]
        losses = [repr(loss) for loss in row["losses"][-1]]
        rows.append([row["python"], row["numpy"], *counts, f"{row['set_up_seconds']:.0f} s", *losses])
    return markdown_table(rows)


def generation(language: str) -> str:
    """Characters a second in each runtime, one text and 64 at once."""
    records = {cell: read(f"generation_{cell}") for cell in LAYERS}
    works = {"texts_1": "one text", "texts_64": "64 texts"}
    rows = [["characters a second", *(f"{name}, {work}" for work in works.values() for name in LAYERS.values())]]
    for runtime in records["rnn"]["texts_1"]["runtimes"]:
        name = "a loop over gluon.rnn" if runtime == "gluon.rnn" else runtime
        measured = [records[cell][work]["runtimes"][runtime] for work in works for cell in LAYERS]
        rows.append([name, *(f"{round(each['characters_per_second'], -1):,.0f}" for each in measured)])
    return markdown_table(rows)


TABLES = {
    "bench:in-short": speed,
    "depth:in-short": depth,
    "depth:book": book,
    "pythons": pythons,
    "generation": generation,
}
PAGES = {
    "README.md": "en",
    "README.zh-CN.md": "zh",
    "docs/depth.md": "en",
    "docs/pythons.md": "en",
    "docs/export.md": "en",
}


def filled(text: str, language: str) -> str:
    """A page with its short tables as the records have them."""
    for mark, table in TABLES.items():
        if f"<!-- {mark} -->" in text:
            text = fill(text, mark, table(language))
    return text


if __name__ == "__main__":
    Parser(description=__doc__.splitlines()[0]).parse_args()
    for page, language in PAGES.items():
        path = PROJECT / page
        write_text_atomic(path, filled(path.read_text(encoding="utf-8"), language))

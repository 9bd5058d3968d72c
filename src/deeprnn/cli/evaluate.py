"""`deeprnn evaluate`: loss and perplexity of a trained model on a text, and its most surprising symbols."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Union

import numpy as np

from .._util.wording import counted
from ..config import EvaluateConfig, select
from ..evaluation import Surprise, evaluate
from .console import show
from .models import open_model
from .runs import saved_corpus, use_threads

if TYPE_CHECKING:
    import gluonnlp

    from ..data.encoded import Ids

__all__ = ["build_evaluate"]

PLACES = 20
"""Places that --per-symbol shows."""

BEFORE = 30
"""Characters of the text before each place."""

CHUNK = 1 << 20
"""Symbols that are read at a time to find the line of a place: the text may be larger than memory."""


def build_evaluate(given: Mapping[str, Any]) -> Callable[[], int]:
    """Check the arguments, load model and text; the result prints loss and perplexity.

    The text is a part of the model's own one, or another text, which is evaluated as a whole.
    """
    config = select(EvaluateConfig, given)
    use_threads(0)
    from ..config import DataConfig
    from ..data.batches import Batches
    from ..data.text import load_corpus
    from ..train.loss import perplexity

    opened = open_model(Path(given["model"]), config.runtime, given.get("plugin"))
    data, vocab = opened.data, opened.vocab
    another = None if config.part else config.corpus  # with a part it is the run's own text, wherever it is now
    if another:
        corpus = load_corpus(another, encoding=config.encoding, split=(0, 0, 1), unit=opened.unit, vocab=vocab)
        ids, title = corpus.test, corpus.name
    else:
        if data is None:
            raise ValueError(f"{given['model']} has no record of the text it was trained on: give a text, corpus=PATH")
        part = config.part or "test"
        if config.corpus:
            data = replace(data, corpus=config.corpus)
        try:
            corpus = saved_corpus(Path(given["model"]), data, opened.state, vocab)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error} part={part}") from error
        ids, title = getattr(corpus, part), part
    sizes = data or DataConfig()
    batches = Batches(ids, sizes.batch_size, sizes.seq_len, keep_last=True)
    if not len(batches):
        if another:
            raise ValueError(f"corpus {corpus.name} is too short: {counted(len(ids), 'symbol')}, and 2 are needed")
        raise ValueError(f"part={title} has no text: the run has split={sizes.split}")

    def work() -> int:
        if another:
            for note in corpus.notes:
                print(note, file=sys.stderr)
        positions = batches.positions() if config.per_symbol else None
        loss, places = evaluate(opened.model, batches, positions, PLACES)
        tokens = counted(batches.scored, "token")
        show(f"{title} loss {loss:.4f} nats per token, perplexity {perplexity(loss):.4g}, {tokens}")
        if places:
            show(surprises(places, ids, vocab, opened.unit))
        return 0

    return work


def surprises(places: Sequence[Surprise], ids: Union[np.ndarray, Ids], vocab: gluonnlp.Vocab, unit: str) -> str:
    """A table of the most surprising symbols of a text."""
    from ..data.text import decode

    rows = [("nats", "line", "word" if unit == "word" else "column", "actual", "expected", "context")]
    ends = np.array([place.position for place in places])
    lines, begins = lines_at(ids, vocab.token_to_idx.get("\n", -1), ends)
    for place, line, begin, end in zip(places, lines, begins, ends):
        came = vocab.idx_to_token[ids[end]]
        rows.append(
            (
                f"{place.loss:.2f}",
                f"{line}",
                f"{1 + end - begin}",
                repr(came),
                f"{vocab.idx_to_token[place.expected]!r} ({place.probability:.0%})",
                repr(decode(vocab, ids[max(0, end - BEFORE) : end], unit)[-BEFORE:]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    number = 3  # columns of numbers, aligned right
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i < number else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def lines_at(ids: Union[np.ndarray, Ids], newline: int, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the line that each position is in, from 1, and where that line begins."""
    lines, begins = np.ones_like(positions), np.zeros_like(positions)
    for at in range(0, int(positions.max()), CHUNK):
        found = at + np.flatnonzero(ids[at : at + CHUNK] == newline)
        before = np.searchsorted(found, positions)
        lines += before
        begins[before > 0] = found[before[before > 0] - 1] + 1
    return lines, begins

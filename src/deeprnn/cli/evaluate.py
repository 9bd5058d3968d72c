"""`deeprnn evaluate`: loss and perplexity of a trained network on a text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from .._util.wording import counted
from ..config import EvaluateConfig, select
from .console import show
from .runs import open_run, saved_corpus, use_threads

__all__ = ["build_evaluate"]


def build_evaluate(given: Mapping[str, Any]) -> Callable[[], int]:
    """Check the arguments, load network and text; the result prints loss and perplexity.

    The text is a part of the run's own one, or another text, which is evaluated as a whole.
    """
    config = select(EvaluateConfig, given)
    use_threads(0)
    import mxnet as mx

    from ..data.batches import Batches
    from ..data.text import load_corpus
    from ..train.loop import evaluate, perplexity

    net, vocab, run, checkpoint = open_run(Path(given["run"]), given.get("plugin"))
    data = run.data
    if config.corpus:
        corpus = load_corpus(config.corpus, encoding=config.encoding, split=(0, 0, 1), unit=data.unit, vocab=vocab)
        ids, title = corpus.test, corpus.name
    else:
        part = config.part or "test"
        corpus = saved_corpus(Path(given["run"]), data, checkpoint.state, vocab)
        ids, title = getattr(corpus, part), part
    batches = Batches(ids, data.batch_size, data.seq_len, keep_last=True)
    if not len(batches):
        if config.corpus:
            raise ValueError(f"corpus {corpus.name} is too short: {counted(len(ids), 'symbol')}, and 2 are needed")
        raise ValueError(f"part={title} has no text: the run has split={data.split}")

    def work() -> int:
        if config.corpus:
            for note in corpus.notes:
                print(note, file=sys.stderr)
        loss = evaluate(net, batches, mx.cpu())
        assert loss is not None
        tokens = counted(batches.scored, "token")
        show(f"{title} loss {loss:.4f} nats per token, perplexity {perplexity(loss):.4g}, {tokens}")
        return 0

    return work

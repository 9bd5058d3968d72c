"""`deeprnn evaluate`: loss and perplexity of a trained network on a part of its text."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from jsonargparse import Namespace

from ..config import EvaluateConfig, chosen
from .console import say
from .runs import open_run, use_threads

__all__ = ["build_evaluate"]


def build_evaluate(given: Namespace) -> Callable[[], int]:
    """Print loss and perplexity on a part of the run's text."""
    config = chosen(EvaluateConfig, vars(given))
    use_threads(0)
    import mxnet as mx

    from ..data.batches import Batches
    from ..data.text import load_corpus
    from ..train.loop import evaluate, perplexity

    net, vocab, run, checkpoint = open_run(Path(given.run))
    data = run.data
    corpus = load_corpus(data.corpus, max_chars=data.max_chars, split=data.split, unit=data.unit, vocab=vocab)
    if corpus.sha256 != checkpoint.state["corpus_sha256"]:
        raise ValueError(f"the text {corpus.name} is not what it was when the run in {given.run} began")
    batches = Batches(getattr(corpus, config.part), data.batch_size, data.seq_len, keep_last=True)
    if not len(batches):
        raise ValueError(f"--part {config.part} has no text: the run has --split {data.split}")

    def work() -> int:
        loss = evaluate(net, batches, mx.cpu())
        assert loss is not None
        tokens = f"{batches.scored:,} tokens"
        say(f"{config.part} loss {loss:.4f} nats per token, perplexity {perplexity(loss):.4g}, {tokens}")
        return 0

    return work

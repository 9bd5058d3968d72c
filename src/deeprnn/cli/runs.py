"""What the commands share: a run opened, its network and vocabulary, a text written by it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Union

from .._util.machine import cores, keep_freed_memory
from ..config import ModelConfig, RunConfig
from ..generation import Sampler, generate

if TYPE_CHECKING:
    import gluonnlp
    import mxnet as mx
    import numpy as np

    from ..models.language_model import LanguageModel
    from ..train.checkpoint import Checkpoint

__all__ = [
    "context",
    "holds_a_run",
    "language_model",
    "open_run",
    "parameter_count",
    "prefix_ids",
    "saved_vocabulary",
    "use_threads",
    "write",
]


def holds_a_run(folder: Union[str, Path]) -> bool:
    """Whether an epoch is saved there."""
    return (Path(folder) / "checkpoints" / "last.json").exists()


def open_run(folder: Path) -> tuple[LanguageModel, gluonnlp.Vocab, RunConfig, Checkpoint]:
    """The best network of a run, with its vocabulary and configuration."""
    import mxnet as mx

    from ..train import checkpoint

    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of a run")
    best = checkpoint.load(folder / "checkpoints", "best")
    run = RunConfig.from_mapping(best.state["config"])
    vocab = saved_vocabulary(best)
    net = language_model(run.model, len(vocab))
    best.restore(net, ctx=mx.cpu())
    net.hybridize(static_alloc=True, static_shape=True)
    return net, vocab, run, best


def use_threads(threads: int) -> None:
    """Settle how many threads mxnet computes with, before it is imported: left alone it takes half of the cores."""
    if threads or "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads or cores())
    keep_freed_memory()


def context(name: str) -> mx.Context:
    """The device of a name, if there is one."""
    import mxnet as mx

    if name == "gpu" and not mx.context.num_gpus():
        raise ValueError("--ctx gpu: mxnet finds no GPU here; use --ctx cpu")
    return mx.Context(name)


def language_model(config: ModelConfig, vocab_size: int) -> LanguageModel:
    """The network that a configuration describes, not initialized yet."""
    from ..models.language_model import LanguageModel

    return LanguageModel(
        vocab_size,
        config.hidden_size,
        config.layers,
        cell=config.cell,
        activation=config.activation,
        embedding_size=config.embedding_size,
        dropout=config.dropout,
        residual=config.residual,
        layer_norm=config.layer_norm,
        zoneout=config.zoneout,
        tied=config.tied,
        backend=config.backend,
    )


def parameter_count(net: LanguageModel) -> int:
    """How many numbers are learnt."""
    return sum(parameter.data().size for parameter in net.collect_params().values())


def saved_vocabulary(checkpoint: Checkpoint) -> gluonnlp.Vocab:
    """The vocabulary that is kept with a checkpoint."""
    from ..data.text import UNKNOWN_TOKEN, vocabulary

    tokens = checkpoint.state["vocabulary"]
    return vocabulary(tokens, UNKNOWN_TOKEN if UNKNOWN_TOKEN in tokens else None)


def prefix_ids(vocab: gluonnlp.Vocab, unit: str, prefix: str, option: str = "prefix") -> list[int]:
    """The ids of a prefix; of an empty one the most frequent symbol, which in most texts a word can follow."""
    from ..data.text import encode

    if not prefix:
        return [0 if vocab.unknown_token is None else 1]
    try:
        ids = encode(vocab, prefix, unit).tolist()
    except ValueError as error:
        raise ValueError(f"{option} {prefix!r}: {error}") from error
    if not ids:
        raise ValueError(f"{option} {prefix!r} has no {unit} in it")
    return ids


def write(
    net: LanguageModel,
    vocab: gluonnlp.Vocab,
    unit: str,
    prefix: str,
    length: int,
    sampler: Sampler,
    rng: np.random.Generator,
    ctx: mx.Context,
) -> str:
    """The prefix, and `length` symbols more."""
    from ..data.text import decode

    ids = prefix_ids(vocab, unit, prefix)
    never = [] if vocab.unknown_token is None else [vocab[vocab.unknown_token]]  # it stands for no text
    added = generate(net, ids, length, sampler=sampler, rng=rng, never=never, ctx=ctx)
    return decode(vocab, ids + added if prefix else added, unit)

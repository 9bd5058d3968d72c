"""Shared by the commands: the network and vocabulary of a run, threads and device, generated text."""

from __future__ import annotations

import locale
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from .._util.checks import check_devices
from .._util.machine import cores, keep_freed_memory
from .._util.wording import counted
from ..config import DataConfig, ModelConfig, RunConfig
from ..generation import generate
from ..sampling import Sampler

if TYPE_CHECKING:
    import gluonnlp
    import mxnet as mx
    import numpy as np

    from ..data.text import Corpus
    from ..models.language_model import LanguageModel
    from ..train.checkpoint import Checkpoint

__all__ = [
    "COPY",
    "check_size_of",
    "corpus_of",
    "devices",
    "generated",
    "holds_a_run",
    "is_utf8",
    "language_model",
    "open_run",
    "parameter_count",
    "prefix_ids",
    "saved_corpus",
    "saved_vocabulary",
    "try_plugin",
    "use_threads",
]


COPY = "corpus.txt"
"""In the folder of a run: its text, if that came from a stream, which cannot be read again."""


def holds_a_run(folder: Union[str, Path]) -> bool:
    """Whether `folder` has a run with at least one checkpoint."""
    from ..train.storage import holds_checkpoints

    return holds_checkpoints(Path(folder) / "checkpoints")


def open_run(folder: Path, plugin: Optional[str] = None) -> tuple[LanguageModel, gluonnlp.Vocab, RunConfig, Checkpoint]:
    """The best network of a run, with its vocabulary, configuration and checkpoint.

    Parameters
    ----------
    folder
        Folder of the run.
    plugin
        Code that registers the run's cell; must be given if the run was trained with a plugin, as code is never loaded
        just because a file names it.

    Raises
    ------
    ValueError
        If there is no run, or it is damaged, or its plugin is not given.
    """
    import mxnet as mx

    from ..train import checkpoint

    if not folder.is_dir():
        raise ValueError(f"{folder} is not the folder of a run")
    best = checkpoint.load(folder / "checkpoints", "best")
    run = RunConfig.from_mapping(best.state["config"])
    model = run.model
    if model.plugin and not plugin:
        raise ValueError(
            f"the run in {folder} uses the cell {model.cell!r} of the plugin {model.plugin}; it holds code, so it is "
            f"loaded only if you name it again: plugin={model.plugin!r}"
        )
    if plugin and not model.plugin:
        raise ValueError(f"plugin {plugin} is not needed: the run in {folder} uses the built-in cell {model.cell!r}")
    for damaged in best.damaged:
        print(f"{damaged}; the checkpoint before it is used", file=sys.stderr)
    vocab = saved_vocabulary(best)
    check_size_of(model, best)
    net = language_model(model, len(vocab), plugin)
    best.restore(net, ctx=mx.cpu())
    net.hybridize(static_alloc=True, static_shape=True)
    return net, vocab, run, best


def check_size_of(config: ModelConfig, checkpoint: Checkpoint) -> None:
    """Raise ValueError if a checkpoint has too few or too small arrays for a network of this size.

    Called before the network is made: a damaged configuration could ask for more memory than there is.
    """
    largest = max((size for array in checkpoint.parameters.values() for size in array.shape), default=0)
    for name, value, limit in (
        ("layers", config.layers, len(checkpoint.parameters)),
        ("hidden_size", config.hidden_size, largest),
        ("embedding_size", config.embedding_size, largest),
    ):
        if value > limit:
            raise ValueError(f"{checkpoint.path} does not have the parameters of a network with {name}={value}")


def corpus_of(data: DataConfig, vocab: Optional[gluonnlp.Vocab] = None) -> Corpus:
    """The text of a configuration, in the ids of `vocab` or of its own vocabulary; raises as `load_corpus`."""
    from ..data.text import load_corpus

    return load_corpus(vocab=vocab, **data.text_options)


def saved_corpus(folder: Path, data: DataConfig, state: Mapping[str, Any], vocab: Optional[gluonnlp.Vocab]) -> Corpus:
    """The text that the model in `folder` was trained on, by the `state` of its checkpoint, or by its card.

    Raises
    ------
    ValueError
        If the text has changed; the message names the difference.
    FileNotFoundError
        If it is no longer where it was.
    """
    from ..data.reading import is_stream, is_there

    corpus, recorded = data.corpus, state.get("corpus_path")
    if is_stream(corpus):
        data = replace(data, corpus=str(folder / COPY), encoding="utf-8")
    elif not is_there(corpus):
        if not isinstance(recorded, str) or not is_there(recorded):
            was = f"; it was at {recorded} when the run began" if recorded else ""
            raise FileNotFoundError(f"corpus {corpus}: no such file{was}; give its path: corpus=FILE")
        data = replace(data, corpus=recorded)
    text = corpus_of(data, vocab)
    its_own = corpus == state.get("config", {}).get("corpus")  # another file may have the name in this folder
    if (
        text.sha256 != state.get("corpus_sha256")
        and its_own
        and isinstance(recorded, str)
        and recorded != str(text.path)
        and is_there(recorded)
    ):
        there = corpus_of(replace(data, corpus=recorded), vocab)
        text = there if there.sha256 == state.get("corpus_sha256") else text
    if text.sha256 != state.get("corpus_sha256"):
        now, then = len(text.train) + len(text.valid) + len(text.test), state.get("corpus_symbols")
        size = "same length, different symbols" if now == then else f"{counted(now, 'symbol')} now"
        if isinstance(then, int) and now != then:
            size += f", {then:,} then"
        raise ValueError(f"the text {text.name} differs from the one that {folder} was trained on: {size}")
    return text


def use_threads(threads: int) -> None:
    """Set the number of threads of MXNet, before it is imported; by default MXNet uses half of the cores.

    Parameters
    ----------
    threads
        0: OMP_NUM_THREADS if it is set, otherwise one per core.
    """
    if threads or not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(threads or cores())
    keep_freed_memory()


def devices(ctx: str) -> list[mx.Context]:
    """The devices of a list such as ``gpu(0),gpu(1)``; raises ValueError if there are not so many GPUs."""
    import mxnet as mx

    found, gpus = check_devices("ctx", ctx), mx.context.num_gpus()
    for kind, number in found:
        if kind == "gpu" and number >= gpus:
            lacking = "finds no GPU here" if not gpus else f"finds {counted(gpus, 'GPU')} here, numbered from 0"
            raise ValueError(f"ctx={ctx!r}: MXNet {lacking}; use ctx='cpu'")
    return [mx.Context(kind, number) for kind, number in found]


def language_model(config: ModelConfig, vocab_size: int, plugin: Optional[str] = None) -> LanguageModel:
    """The network of a configuration, not initialized; `plugin` is loaded if given.

    Raises
    ------
    ValueError
        If the plugin cannot be loaded, or layers of its cell cannot be made.
    """
    from ..models.language_model import LanguageModel

    def build() -> LanguageModel:
        return LanguageModel(vocab_size, config.hidden_size, config.layers, **config.network_options)

    if not plugin:
        return build()
    from ..models.plugins import load_plugin

    load_plugin(plugin, config.cell)
    try:
        net = build()
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"plugin {plugin}: layers of {config.cell!r} cannot be made: {error}") from error
    lacking = [name for name in ("begin_state", "state_info") if not hasattr(net.stack, name)]
    if lacking:
        raise ValueError(f"plugin {plugin}: the layers of {config.cell!r} have no {' and no '.join(lacking)}")
    return net


def try_plugin(net: LanguageModel, plugin: str, ctx: mx.Context) -> None:
    """Make a forward and a backward pass of two steps with an initialized network whose cell is a plugin's.

    Raises
    ------
    ValueError
        If that fails, before a run depends on it.
    """
    import mxnet as mx
    from mxnet import autograd

    ids = mx.nd.zeros((2, 1), ctx=ctx, dtype="int32")
    try:
        with autograd.record():
            logits, states = net(ids, net.begin_state(1, ctx=ctx))
        logits.backward()
        mx.nd.waitall()
        if logits.shape[:2] != (2, 1) or not isinstance(states, (list, tuple)):
            raise ValueError(f"expected outputs (T, N, H) and a list of states, got logits of shape {logits.shape}")
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"plugin {plugin}: a pass over two steps failed: {type(error).__name__}: {error}") from error


def parameter_count(net: LanguageModel) -> int:
    """Number of trained values."""
    return sum(parameter.list_data()[0].size for parameter in net.collect_params().values())


def saved_vocabulary(checkpoint: Checkpoint) -> gluonnlp.Vocab:
    """The vocabulary that is saved with a checkpoint."""
    from ..data.text import UNKNOWN_TOKEN, vocabulary

    tokens = checkpoint.state["vocabulary"]
    guess = UNKNOWN_TOKEN if UNKNOWN_TOKEN in tokens else None  # for a run of before it was saved
    return vocabulary(tokens, checkpoint.state.get("unk_token", guess))


def prefix_ids(vocab: gluonnlp.Vocab, unit: str, prefix: str, option: Optional[str] = None) -> list[int]:
    """`writing.prefix_ids` of what was typed; the message begins with `option`, or else with the prefix."""
    from ..data import writing

    try:
        return writing.prefix_ids(vocab, unit, prefix, option or f"prefix {prefix!r}")
    except ValueError as error:
        raise ValueError(f"{error}{_terminal()}") from error


def generated(
    net: LanguageModel,
    vocab: gluonnlp.Vocab,
    unit: str,
    prefix: str,
    length: int,
    sampler: Sampler,
    rng: np.random.Generator,
    ctx: mx.Context,
) -> str:
    """A text of the prefix and `length` generated symbols."""
    from ..data.text import decode
    from ..data.writing import unknown_ids

    ids = prefix_ids(vocab, unit, prefix)
    added = generate(net, ids, length, sampler=sampler, rng=rng, banned=unknown_ids(vocab), ctx=ctx)
    return decode(vocab, ids + added if prefix else added, unit)


def is_utf8(encoding: str) -> bool:
    """Whether this is a name of UTF-8."""
    return encoding.lower().replace("-", "") == "utf8"


def _terminal() -> str:
    """A hint for a prefix with unknown symbols if the terminal's encoding is not UTF-8."""
    encoding = locale.getpreferredencoding(False)
    if is_utf8(encoding):
        return ""
    return f" (LANG or LC_ALL sets the encoding of this terminal to {encoding}; should it be UTF-8?)"

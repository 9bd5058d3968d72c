"""Whole training steps of a language model, compared with the training loop of *Dive into Deep Learning*."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Union

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn

from deeprnn.config import ModelConfig, TrainConfig
from deeprnn.data.batches import Batches
from deeprnn.distributed.workers import Alone
from deeprnn.models.language_model import STACKS, LanguageModel
from deeprnn.testing import distance
from deeprnn.train.loop import Position, Progress, make_trainer, train_epoch

from .clock import ROUNDS, Spread, ratio, seconds_per_call, sgemm_rate, steadiest
from .comparison import copy_in_order
from .contestants import Case

__all__ = ["BookLoop", "BookModel", "OurLoop", "language_model_speed"]


class BookModel(gluon.Block):
    """The book's `RNNModel`: one-hot, the built-in layer, a dense decoder; not hybridized."""

    def __init__(self, layer: gluon.Block, vocab_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._vocab_size = vocab_size
        with self.name_scope():
            self.layer = layer
            self.decoder = nn.Dense(vocab_size)

    def forward(self, ids: Any, states: Any) -> tuple[Any, Any]:
        outputs, states = self.layer(mx.nd.one_hot(ids.T, self._vocab_size), states)
        return self.decoder(outputs.reshape((-1, outputs.shape[-1]))), states


class BookLoop:
    """The book's `train_and_predict_rnn_gluon`: an epoch of it, on the same batches."""

    def __init__(self, model: BookModel, config: TrainConfig) -> None:
        self._model, self._clip = model, config.clip
        self._loss = gluon.loss.SoftmaxCrossEntropyLoss()
        self._trainer = gluon.Trainer(
            model.collect_params(), "sgd", {"learning_rate": config.lr, "momentum": 0, "wd": 0}
        )

    def epoch(self, batches: Batches) -> float:
        """Mean loss, in nats per character."""
        loss_sum, count = 0.0, 0
        states = None
        for data, target in batches.epoch(1):
            ids, labels = data.T, target.T  # the book's batches are (N, T)
            if states is None:
                states = self._model.layer.begin_state(ids.shape[0])
            states = [state.detach() for state in states]
            with autograd.record():
                outputs, states = self._model(ids, states)
                y = labels.T.reshape((-1,))
                loss = self._loss(outputs, y).mean()
            loss.backward()
            self._clip_gradients()
            self._trainer.step(1)
            loss_sum += loss.asscalar() * y.size
            count += y.size
        return loss_sum / count

    def _clip_gradients(self) -> None:
        gradients = [parameter.data().grad for parameter in self._model.collect_params().values()]
        norm = mx.nd.zeros((1,))
        for gradient in gradients:
            norm += (gradient**2).sum()
        norm = norm.sqrt().asscalar()
        if norm > self._clip:
            for gradient in gradients:
                gradient[:] *= self._clip / norm


class OurLoop:
    """An epoch of this package's loop."""

    def __init__(self, model: LanguageModel, config: TrainConfig) -> None:
        self._model, self._config = model, config
        self._trainer = make_trainer(model, config, steps=1)

    def epoch(self, batches: Batches) -> float:
        """Mean loss, in nats per character."""
        position = Position(step=self._trainer.optimizer.num_update)
        progress = Progress(position, self._trainer, self._config, position.step + len(batches), None, math.inf)
        progress.begin_epoch()
        where: dict[str, Any] = {"position": position, "contexts": [mx.cpu()], "workers": Alone()}
        train_epoch(self._model, batches, self._trainer, self._config, **where, progress=progress)
        progress.settle()
        return position.loss_sum / position.tokens


def language_model_speed(
    cell: str = "rnn",
    *,
    vocab_size: int = 1027,
    hidden_size: int = 256,
    layers: int = 2,
    seq_len: int = 35,
    batch_size: int = 32,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Any]:
    """Characters a second in training: embedding, stack, decoder, loss, clipping and update.

    By default in the sizes of the book's experiment (8 updates an epoch of 10,000 characters), with random characters,
    as these do not affect the time. This package's model takes part twice: with an embedding, the default in training,
    and with one-hot vectors, which make it the same function as the book's; the losses of those two are compared before
    timing. The limit is that of the first: its matrix products (an embedding has none) over the sgemm rate.

    Raises
    ------
    RuntimeError
        If the two losses of an epoch from the same weights differ by more than 1e-4, relative.
    """
    config = TrainConfig(optimizer="sgd", lr=100.0, clip=0.01, schedule="constant", epochs=1)
    ids = np.random.default_rng(seed).integers(vocab_size, size=8 * seq_len * batch_size + batch_size).astype("int32")
    batches = Batches(ids, batch_size, seq_len)
    mx.random.seed(seed)

    def ours(embedding_size: int) -> LanguageModel:
        model = LanguageModel(vocab_size, hidden_size, layers, cell=cell, embedding_size=embedding_size)
        model.initialize(mx.init.Normal(0.01))
        model.hybridize(static_alloc=True, static_shape=True)
        return model

    options = {"activation": "tanh"} if cell == "rnn" else {}
    embedding_size = ModelConfig().embedding_size
    embedded, one_hot = ours(embedding_size), ours(0)
    book = BookModel(STACKS["gluon"][cell](hidden_size, layers, input_size=vocab_size, **options), vocab_size)
    book.initialize()
    copy_in_order(one_hot, book)
    names = (
        f"deeprnn, embedding of {embedding_size}",
        "deeprnn, one-hot",
        f"the book's loop: one-hot, gluon.rnn.{cell.upper()}",
    )
    loops: Sequence[Union[OurLoop, BookLoop]] = (
        OurLoop(embedded, config),
        OurLoop(one_hot, config),
        BookLoop(book, config),
    )
    _, *same = (loop.epoch(batches) for loop in loops)
    if distance(*same) > 1e-4:
        raise RuntimeError(f"not the same function: the losses of the first epoch are {same[0]:.6f} and {same[1]:.6f}")

    timers = {name: partial(seconds_per_call, partial(loop.epoch, batches)) for name, loop in zip(names, loops)}
    samples, tries = steadiest(timers, rounds)
    characters = len(batches) * seq_len * batch_size
    case = Case(embedding_size, hidden_size, layers, seq_len, batch_size, cell=cell)
    products = case.multiply_adds("training") + 3 * seq_len * batch_size * hidden_size * vocab_size
    times = {name: Spread.of(seconds) for name, seconds in samples.items()}
    theirs = samples[names[-1]]
    return {
        "shape": f"{layers} x {hidden_size} units, {batch_size} x {seq_len} characters, vocabulary {vocab_size:,}",
        "seconds_per_epoch": {name: asdict(spread) for name, spread in times.items()},
        "characters_per_second": {name: characters / spread.median for name, spread in times.items()},
        "ratios": {name: asdict(ratio(theirs, seconds)) for name, seconds in samples.items() if seconds is not theirs},
        "tries": tries,
        "limit": seq_len * batch_size * sgemm_rate() / (2 * products),
    }

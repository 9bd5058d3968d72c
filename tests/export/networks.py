"""Networks to export, what they are called with, and what they answer."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np

from deeprnn import DeepGRU, DeepLSTM, DeepRNN, LanguageModel
from deeprnn.testing import randomize

KINDS = {"rnn": DeepRNN, "gru": DeepGRU, "lstm": DeepLSTM}
INPUTS, UNITS, SYMBOLS = 3, 4, 7
TOKENS = ["<unk>", *"abcdef"]


def layers(kind, num_layers=2, **options):
    """Layers with random parameters, biases too."""
    net = KINDS[kind](UNITS, num_layers, input_size=INPUTS, **options)
    net.initialize()
    randomize(net)
    return net


def model(cell="rnn", num_layers=2, **options):
    """A language model with random parameters."""
    net = LanguageModel(SYMBOLS, UNITS, num_layers, cell=cell, **options)
    net.initialize()
    randomize(net, seed=1, scale=0.6)
    return net


def arguments(net, length, batch_size, seed=0):
    """Random inputs and states by the names that every format has, as NumPy arrays."""
    draw, dtype = np.random.default_rng((seed, length, batch_size)), getattr(net, "dtype", "float32")
    stack = net.stack if isinstance(net, LanguageModel) else net
    given: dict[str, Any] = {}
    if isinstance(net, LanguageModel):
        given["ids"] = draw.integers(SYMBOLS, size=(length, batch_size))
    else:
        shape = (length, batch_size) if net.layout == "TNC" else (batch_size, length)
        given["input"] = draw.normal(size=(*shape, INPUTS)).astype(dtype)
    for name, info in zip(("h0", "c0"), stack.state_info(batch_size)):
        given[name] = draw.normal(size=info["shape"]).astype(dtype)
    if stack.use_sequence_length:
        given["lengths"] = np.arange(batch_size) % (length + 2)  # none, some, all, and more than there are
    return given


def answers(net, given):
    """What a network returns for `arguments`: a flat list of NumPy arrays."""
    first, *states = (
        mx.nd.array(value, dtype="int32" if name == "ids" else value.dtype)
        for name, value in given.items()
        if name != "lengths"
    )
    lengths = [mx.nd.array(given["lengths"])] if "lengths" in given else []
    outputs, last = net(first, states, *lengths)
    return [each.asnumpy() for each in (outputs, *last)]

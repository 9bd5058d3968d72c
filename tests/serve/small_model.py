"""A small model that has preferences, but has learnt nothing."""

from __future__ import annotations

import mxnet as mx

from deeprnn import LanguageModel

TOKENS = ["<unk>", *"abcdefghijklmnopqrstuvwxyz \n"]


def network(cell="rnn", units=24, seed=0):
    """A language model that has preferences, but has learnt nothing."""
    mx.random.seed(seed)
    net = LanguageModel(len(TOKENS), units, 2, cell=cell, embedding_size=8)
    net.initialize()
    for name, parameter in net.collect_params().items():
        if "h2h" not in name:
            parameter.set_data(mx.nd.random.normal(0, 0.5, parameter.shape))
    net.hybridize(static_alloc=True, static_shape=True)
    return net

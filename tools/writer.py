"""The language model whose generation is timed."""

from __future__ import annotations

import mxnet as mx

from deeprnn import LanguageModel

__all__ = ["LAYERS", "SYMBOLS", "TOKENS", "UNITS", "writer"]

SYMBOLS, UNITS, LAYERS = 100, 256, 2
TOKENS = [chr(0x4E00 + i) for i in range(SYMBOLS)]


def writer(cell: str) -> LanguageModel:
    """A model as a run begins with it, but with a decoder that has preferences.

    Weights much larger would make a chaos of the states, in which the last digit of a rounding error has become the
    first after some hundred steps.
    """
    mx.random.seed(0)
    net = LanguageModel(SYMBOLS, UNITS, LAYERS, cell=cell, embedding_size=UNITS)
    net.initialize()
    net.decoder.weight.set_data(mx.nd.random.normal(0, 0.2, net.decoder.weight.shape))
    return net

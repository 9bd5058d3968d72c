"""A small model, as a folder and in memory, and a service of it in a process of its own."""

from __future__ import annotations

import mxnet as mx
import pytest

from deeprnn import LanguageModel, export
from deeprnn.data.text import vocabulary
from tools.service import Service

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


@pytest.fixture(scope="session")
def vocab():
    return vocabulary(TOKENS)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two exported models."""
    home = tmp_path_factory.mktemp("models")
    for name, cell in (("ducks", "rnn"), ("geese", "gru")):
        export.to_torch(network(cell), home / name, vocabulary=TOKENS)
    return [home / "ducks", home / "geese"]


@pytest.fixture(scope="session")
def service(folders):
    pytest.importorskip("fastapi")
    running = Service(*folders, "--max-samples", "4", "--max-length", "50000")
    yield running
    assert running.stop() == 0

"""A small model, as a folder and in memory, and a service of it in a process of its own."""

from __future__ import annotations

import pytest
from small_model import TOKENS, network

from deeprnn import export
from deeprnn.data.text import vocabulary
from tools.service import Service


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
    pytest.importorskip("fastapi", reason="pip install .[serve]")
    running = Service(*folders, "--max-samples", "4", "--max-length", "50000")
    yield running
    assert running.stop() == 0

"""Deep recurrent networks for Apache MXNet Gluon.

The layers need only mxnet and numpy:

>>> layer = deeprnn.DeepRNN(256, num_layers=2, activation="tanh")     # instead of gluon.rnn.RNN; also DeepGRU, DeepLSTM

The modules behind them (`deeprnn.testing`, `deeprnn.train.loop`, `deeprnn.data.text`, ...) are imported by name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._util import old_numpy

if TYPE_CHECKING:
    from . import export
    from .export import from_pretrained
    from .models.language_model import LanguageModel
    from .nn import native
    from .nn.cells import ElmanCell, GRUCell, LSTMCell, RecurrentCell
    from .nn.graphs import portable
    from .nn.initializers import DepthScaled, RecurrentIdentity, RecurrentOrthogonal
    from .nn.layers import DeepGRU, DeepLSTM, DeepRNN
    from .nn.stack import RecurrentStack

__all__ = [
    "DeepGRU",
    "DeepLSTM",
    "DeepRNN",
    "DepthScaled",
    "ElmanCell",
    "GRUCell",
    "LSTMCell",
    "LanguageModel",
    "RecurrentCell",
    "RecurrentIdentity",
    "RecurrentOrthogonal",
    "RecurrentStack",
    "__version__",
    "export",
    "from_pretrained",
    "native",
    "portable",
]

__version__ = "0.1.0"

# Before mxnet is imported, which needs names that current versions of numpy no longer have.
old_numpy.install()

_MODULES = {"export": ".export", "native": ".nn.native"}

_HOMES = {
    "export": ("from_pretrained",),
    "nn.cells": ("ElmanCell", "GRUCell", "LSTMCell", "RecurrentCell"),
    "nn.graphs": ("portable",),
    "nn.initializers": ("DepthScaled", "RecurrentIdentity", "RecurrentOrthogonal"),
    "models.language_model": ("LanguageModel",),
    "nn.layers": ("DeepGRU", "DeepLSTM", "DeepRNN"),
    "nn.stack": ("RecurrentStack",),
}


def __getattr__(name: str) -> Any:
    # Names are imported on first use: the command line sets the number of threads before mxnet is loaded, and reports
    # invalid arguments without loading it at all.
    if name in _MODULES:
        return import_module(_MODULES[name], __name__)
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The deep recurrent network for Apache MXNet Gluon, written by hand.

The layers, which need mxnet and numpy alone:

>>> layer = deeprnn.DeepRNN(256, num_layers=2, activation="tanh")     # instead of gluon.rnn.RNN; also DeepGRU, DeepLSTM

The rooms behind them (`deeprnn.parity`, `deeprnn.training`, `deeprnn.corpus`, ...) are imported by name.
"""

from .cells import ElmanCell, GRUCell, LSTMCell
from .initializers import RecurrentOrthogonal
from .language_model import LanguageModel
from .stack import DeepGRU, DeepLSTM, DeepRNN

__all__ = [
    "DeepGRU",
    "DeepLSTM",
    "DeepRNN",
    "ElmanCell",
    "GRUCell",
    "LSTMCell",
    "LanguageModel",
    "RecurrentOrthogonal",
    "__version__",
]

__version__ = "0.1.0"

"""A minimal gated unit (Zhou et al. 2016, arXiv:1603.09420): a cell of the user's own, in one file.

One gate f both resets and updates:

    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
    c_t = tanh(W_c x_t + U_c (f_t * h_{t-1}) + b_c)
    h_t = (1 - f_t) * h_{t-1} + f_t * c_t

    deeprnn train --cell mgu --plugin mgu.py
"""

from deeprnn.models import register_cell
from deeprnn.nn.cells import _Cell
from deeprnn.nn.layers import _Stack


class MGUCell(_Cell):
    """The cell: an input projection for all steps at once, then one step after the other."""

    gates = ("f", "c")
    in_step = ("h2h_weight", "h2h_bias")
    num_kept = 0
    by_hand = False
    _operators = 12

    def __init__(self, hidden_size, input_size=0, prefix=None, params=None, layer_norm=False, dtype="float32", **inits):
        names = ("i2h_weight", "h2h_weight", "i2h_bias", "h2h_bias")
        arguments = [inits.get(f"{name}_initializer") for name in names]
        super().__init__(hidden_size, *arguments, input_size, prefix, params, layer_norm, dtype)

    def _alias(self):
        return "mgu"

    def step(self, F, projected, states, params):
        hidden, size = states[0], self._hidden_size
        weights = F.split(params["h2h_weight"], num_outputs=2, axis=0)
        biases = F.split(params["h2h_bias"], num_outputs=2, axis=0)
        input_f, input_c = F.split(projected[0], num_outputs=2, axis=-1)

        def recurrent(state, gate):
            return F.FullyConnected(state, weights[gate], biases[gate], num_hidden=size, flatten=False)

        forget = F.Activation(input_f + recurrent(hidden, 0), act_type="sigmoid")
        candidate = F.Activation(input_c + recurrent(forget * hidden, 1), act_type="tanh")
        return [hidden + forget * (candidate - hidden)], []


class DeepMGU(_Stack):
    """Layers of the cell."""

    def __init__(self, hidden_size, num_layers=1, dropout=0.0, input_size=0, dtype="float32", **options):
        super().__init__(MGUCell, hidden_size, num_layers, "TNC", dropout, False, input_size, dtype, **options)


register_cell("mgu", DeepMGU)

"""A minimal gated unit (Zhou et al. 2016, arXiv:1603.09420): a cell of the user's own, in one file.

One gate f both resets and updates, and the reset comes after the product, as in MXNet's GRU:

    f_t = sigmoid(x_t W_xf + b_xf + h_{t-1} W_hf + b_hf)
    c_t = tanh(x_t W_xc + b_xc + f_t * (h_{t-1} W_hc + b_hc))
    h_t = (1 - f_t) * h_{t-1} + f_t * c_t

    deeprnn train --cell mgu --plugin mgu.py
"""

from deeprnn import RecurrentCell
from deeprnn.models import register_cell


class MGUCell(RecurrentCell):
    """The formula; `projected` is x_t W_x + b_x of all gates, `dense` the product with the last state."""

    gates = ("f", "c")

    def step(self, F, projected, states, params):
        input_f, input_c = F.split(projected, num_outputs=2, axis=-1)
        state_f, state_c = F.split(self.dense(F, states[0], "h2h", params), num_outputs=2, axis=-1)
        forget = F.sigmoid(input_f + state_f)
        candidate = F.tanh(input_c + forget * state_c)
        return [states[0] + forget * (candidate - states[0])]


register_cell("mgu", MGUCell)

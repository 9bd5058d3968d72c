"""A stack as gluon's unfused cells, which is what `_unfuse` of its built-in layers returns."""

from __future__ import annotations

from typing import Any, Callable

from mxnet.gluon import rnn

from .cells import ElmanCell, GRUCell, LSTMCell

__all__ = ["unfused"]


def unfused(layer: Any) -> rnn.HybridSequentialRNNCell:
    """Gluon's cells with the parameters of `layer`, a `RecurrentStack`.

    Raises
    ------
    ValueError
        For options that gluon's cells lack; the message names them.
    """
    new_cells: dict[type, Callable[..., Any]] = {
        ElmanCell: lambda **kwargs: rnn.RNNCell(layer.hidden_size, activation=layer.cell.activation, **kwargs),
        GRUCell: lambda **kwargs: rnn.GRUCell(layer.hidden_size, **kwargs),
        LSTMCell: lambda **kwargs: rnn.LSTMCell(layer.hidden_size, **kwargs),
    }
    cell = layer.cell
    lacking = {
        "residual": layer.residual,
        "layer_norm": cell.layer_norm,
        "zoneout": layer.zoneout,
        "dropout_mode='variational'": layer.dropout_mode != "standard",
        "projection_size": getattr(cell, "projection_size", None),
        "state_clip_min": getattr(cell, "clip", None),
        type(cell).__name__: type(cell) not in new_cells,
    }
    if any(lacking.values()):
        names = ", ".join(name for name, is_on in lacking.items() if is_on)
        raise ValueError(f"gluon has no cells for {names}: build the layer without")
    stack = rnn.HybridSequentialRNNCell(prefix=layer.prefix, params=layer.params)
    with stack.name_scope():
        size = layer.input_size
        for number in range(layer.num_layers):
            cells = [
                new_cells[type(cell)](prefix=f"{direction}{number}_", input_size=size) for direction in layer.directions
            ]
            stack.add(rnn.BidirectionalCell(*cells) if len(cells) == 2 else cells[0])
            if layer.dropout and number + 1 < layer.num_layers:
                stack.add(rnn.DropoutCell(layer.dropout))
            size = layer.hidden_size * len(cells)
    return stack

"""Deep recurrent layers as PyTorch modules: their arguments, and the formula of one step."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .folder import read_folder
from .stack import DeepStack, Weights, dense, layer_norm

__all__ = ["DeepGRU", "DeepLSTM", "DeepRNN"]


class _Pretrained:
    """Layers that can be read from a folder."""

    @classmethod
    def from_pretrained(cls, path: Union[str, PathLike[str]]) -> Any:
        """The layer of a folder that `deeprnn export` wrote.

        Raises
        ------
        ValueError
            If the folder is damaged, of a later format, or holds another class: with the file.
        """
        folder = read_folder(path, cls.__name__)
        options = dict(folder.config)
        options["batch_first"] = options.pop("layout", "TNC") == "NTC"
        if "projection_size" in options:
            options["proj_size"] = options.pop("projection_size") or 0
        if "activation" in options:
            options["nonlinearity"] = options.pop("activation")
        return folder.network(cls, **options)


class DeepRNN(_Pretrained, DeepStack, nn.RNN):
    r"""A deep Elman network, :math:`h_t = \phi(x_t W_{ih}^T + b_{ih} + h_{t-1} W_{hh}^T + b_{hh})`.

    Parameters
    ----------
    *arguments, **options
        Those of `torch.nn.RNN`, but for ``bias``.
    residual : bool
        Each layer from the second on adds its input to its output.
    layer_norm : bool
        Both products of each step are normalized; the biases are the shifts.
    zoneout : float
        Probability with which a unit keeps its state in a step of training; in inference the expectation.
    dropout_mode : {'standard', 'variational'}
        A mask for each step, or one for all.
    use_sequence_length : bool
        Each call brings `lengths`.

    Raises
    ------
    ValueError
        For an option that is out of range.
    """

    def _step(self, projected: Tensor, states: Sequence[Tensor], own: Weights) -> list[Tensor]:
        total = projected + dense(states[0], "hh", own)
        return [torch.tanh(total) if self.mode == "RNN_TANH" else torch.relu(total)]

    def _single(self, input_size: int, **options: Any) -> nn.RNNBase:
        kind = "tanh" if self.mode == "RNN_TANH" else "relu"
        return nn.RNN(input_size, self.hidden_size, nonlinearity=kind, bidirectional=self.bidirectional, **options)


class DeepGRU(_Pretrained, DeepStack, nn.GRU):
    """A deep gated recurrent unit; the arguments are those of `torch.nn.GRU` and the keywords of `DeepRNN`."""

    def _step(self, projected: Tensor, states: Sequence[Tensor], own: Weights) -> list[Tensor]:
        (hidden,) = states
        of_x, of_h = projected.chunk(3, -1), dense(hidden, "hh", own).chunk(3, -1)
        reset, update = (torch.sigmoid(of_x[i] + of_h[i]) for i in (0, 1))
        candidate = torch.tanh(of_x[2] + reset * of_h[2])
        return [candidate + update * (hidden - candidate)]

    def _single(self, input_size: int, **options: Any) -> nn.RNNBase:
        return nn.GRU(input_size, self.hidden_size, bidirectional=self.bidirectional, **options)


class DeepLSTM(_Pretrained, DeepStack, nn.LSTM):
    """A deep long short-term memory; the arguments are those of `torch.nn.LSTM` and the keywords of `DeepRNN`.

    Parameters
    ----------
    state_clip_min, state_clip_max : float, optional
        The cell state is kept between them.
    state_clip_nan : bool
        With them: a NaN in the cell state becomes ``state_clip_min``.
    """

    clip: Optional[tuple[float, float]] = None

    def __init__(
        self,
        *arguments: Any,
        state_clip_min: Optional[float] = None,
        state_clip_max: Optional[float] = None,
        state_clip_nan: bool = False,
        **options: Any,
    ) -> None:
        if (state_clip_min is None) != (state_clip_max is None):
            raise ValueError("state_clip_min and state_clip_max go together")
        super().__init__(*arguments, **options)
        if state_clip_min is not None and state_clip_max is not None:
            if not state_clip_min <= state_clip_max:
                raise ValueError(f"state_clip_min={state_clip_min} must not exceed state_clip_max={state_clip_max}")
            self.clip = (state_clip_min, state_clip_max)
        self.clip_nan = state_clip_nan
        self._share()

    def _norms(self, rows: int) -> dict[str, int]:
        return {**super()._norms(rows), "gamma_c": self.hidden_size, "beta_c": self.hidden_size}

    @property
    def written_out(self) -> bool:
        return super().written_out or self.clip is not None

    def _single(self, input_size: int, **options: Any) -> nn.RNNBase:
        sizes = {"proj_size": self.proj_size, "bidirectional": self.bidirectional}
        return nn.LSTM(input_size, self.hidden_size, **sizes, **options)

    def _step(self, projected: Tensor, states: Sequence[Tensor], own: Weights) -> list[Tensor]:
        hidden, cell = states
        i, f, c, o = (projected + dense(hidden, "hh", own)).chunk(4, -1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(c)
        if self.clip is not None:
            if self.clip_nan:
                cell = torch.where(cell.isnan(), self.clip[0], cell)
            cell = cell.clamp(*self.clip)
        seen = layer_norm(cell, own["gamma_c"], own["beta_c"]) if "gamma_c" in own else cell
        hidden = torch.sigmoid(o) * torch.tanh(seen)
        return [F.linear(hidden, own["weight_hr"]) if "weight_hr" in own else hidden, cell]

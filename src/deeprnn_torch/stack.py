"""Layers on layers: what `DeepRNN`, `DeepGRU` and `DeepLSTM` share.

Each is a `torch.nn.RNN`, `GRU` or `LSTM` with options besides, and where these are left alone it is that layer, on a
GPU cuDNN's. With `residual` it is one of them for each layer. Layer normalization, zoneout and the clipping of the cell
state change the step itself, which is then written out, and so it is for lengths of zero.

Shapes: T steps, N sequences, C inputs, H units, G gates * H.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

__all__ = ["DeepStack", "Weights", "dense", "layer_norm"]

States = Union[Tensor, tuple[Tensor, ...]]
Weights = Mapping[str, Tensor]

EPSILON = 9.999999747378752e-06
"""Of layer normalization: 1e-5 as float32 has it, which is deeprnn's in float64, too."""

WRITTEN_OUT_WHEN_CAPTURED = ("RNN_TANH", "RNN_RELU")
"""Layers of which one step in a CUDA graph is faster written out than in cuDNN; `benchmarks/gpu.py` measures both."""


class DeepStack(nn.RNNBase):
    """What the layers share: their options, and how each is computed."""

    residual, layer_norm, zoneout, dropout_mode, use_sequence_length = False, False, 0.0, "standard", False

    def __init__(
        self,
        *arguments: Any,
        residual: bool = False,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        dropout_mode: str = "standard",
        use_sequence_length: bool = False,
        **options: Any,
    ) -> None:
        if dropout_mode not in ("standard", "variational"):
            raise ValueError(f"dropout_mode must be 'standard' or 'variational', got {dropout_mode!r}")
        if not 0 <= zoneout < 1:
            raise ValueError(f"zoneout must be at least 0 and below 1, got {zoneout}")
        super().__init__(*arguments, **options)
        if not self.bias:
            raise ValueError("bias must be True: deeprnn's layers have biases")
        self.residual, self.layer_norm, self.zoneout = residual, layer_norm, zoneout
        self.dropout_mode, self.use_sequence_length = dropout_mode, use_sequence_length
        if layer_norm:
            for suffix in self._suffixes():
                weight = getattr(self, f"weight_ih{suffix}")
                for name, size in self._norms(len(weight)).items():
                    self.register_parameter(name + suffix, nn.Parameter(torch.empty(size).to(weight)))
            self._reset_norms()
        self._share()

    def _norms(self, rows: int) -> dict[str, int]:
        """The parameters of layer normalization, and their sizes."""
        return {"gamma_ih": rows, "gamma_hh": rows}

    def _reset_norms(self) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith(("gamma", "beta")):
                nn.init.constant_(parameter, name.startswith("gamma"))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._reset_norms()

    @property
    def num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: Optional[int] = None) -> list[str]:
        """The ends of the names of parameters, of all layers or of one."""
        layers = range(self.num_layers) if layer is None else [layer]
        return [f"_l{layer}{end}" for layer in layers for end in ("", "_reverse")[: self.num_directions]]

    # Which way it is computed

    @property
    def written_out(self) -> bool:
        """Whether the step is another than that of torch's layers."""
        return bool(self.layer_norm or self.zoneout)

    @property
    def plain(self) -> bool:
        """Whether this is torch's layer and no more."""
        variational = self.dropout > 0 and self.dropout_mode == "variational"
        return not (self.written_out or variational or (self.residual and self.num_layers > 1))

    def _share(self) -> None:
        """Make layers of one layer each, where it is computed so."""
        singles = []
        if not (self.plain or self.written_out):
            for layer in range(self.num_layers):
                size = self.input_size if layer == 0 else self.num_directions * (self.proj_size or self.hidden_size)
                singles.append(self._single(size, device="meta"))
        self._singles = tuple(singles)  # in a tuple, and so no children: the parameters have one owner
        for layer in range(len(singles)):
            self._single_of(layer)

    def _single_of(self, layer: int) -> nn.RNNBase:
        """The layer of one layer, with the parameters that this one has now: others may have been assigned."""
        single, changed = self._singles[layer], False
        names = single._flat_weights_names
        for name, here in zip(names, self._flat_weights_names[layer * len(names) :]):
            own = getattr(self, here)
            if single._parameters.get(name) is not own:
                single._parameters.pop(name, None)  # a tensor that is no parameter may follow, as for torch's layer
                setattr(single, name, own)
                changed = True
        if changed:
            single.flatten_parameters()
        single.training = self.training  # cuDNN asks
        return single

    def _single(self, input_size: int, **options: Any) -> nn.RNNBase:
        """A layer of torch's of the same kind and size."""
        raise NotImplementedError

    def flatten_parameters(self) -> None:
        """Lay the weights out as cuDNN wants them."""
        if self.plain:
            super().flatten_parameters()

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        result = super()._apply(*arguments, **options)  # to another device, or dtype
        self._share()
        return result

    # The call

    def forward(
        self, input: Union[Tensor, PackedSequence], hx: Optional[States] = None, lengths: Optional[Tensor] = None
    ) -> Any:
        """Outputs and last states, as of `torch.nn`'s layer.

        Parameters
        ----------
        input
            ``(T, N, C)``, with ``batch_first=True`` ``(N, T, C)``. Without options of deeprnn's own, and without
            `lengths`, all else that torch takes.
        hx
            The states: a tensor ``(num_layers * directions, N, H)``, for an LSTM a pair; zeros by default.
        lengths
            ``(N,)``: the steps of each sequence that count. Outputs past them are zero, the last states those at them.

        Raises
        ------
        ValueError
            Where `lengths` are missing or given against ``use_sequence_length``; for an input without a batch, and
            states of other shapes, where `lengths` or options of deeprnn's own are used.
        TypeError
            For a `PackedSequence` with `lengths` or options of deeprnn's own.
        """
        if self.use_sequence_length != (lengths is not None):
            raise ValueError(
                "use_sequence_length=True needs lengths with each call"
                if self.use_sequence_length
                else "lengths need a layer with use_sequence_length=True"
            )
        if self.plain and lengths is None and not self._faster_written_out(input):
            return super().forward(input, hx)
        if not isinstance(input, Tensor):
            raise TypeError(
                f"input must be a Tensor where lengths or deeprnn's own options are used, got {type(input).__name__}: "
                "give padded sequences, and lengths with use_sequence_length=True"
            )
        if self.plain and lengths is not None and bool((lengths > 0).all()):
            return self._packed(input, hx, lengths)
        if input.dim() != 3:
            raise ValueError(f"input must have 3 axes, a batch among them, got shape {tuple(input.shape)}")
        x = input.transpose(0, 1) if self.batch_first else input
        states = self._begin(x) if hx is None else self._checked([hx] if isinstance(hx, Tensor) else hx, x.shape[1])
        y, last = self._stacked(x, states, lengths)
        return y.transpose(0, 1) if self.batch_first else y, last[0] if len(last) == 1 else tuple(last)

    def _faster_written_out(self, input: Any) -> bool:
        one_step = isinstance(input, Tensor) and input.dim() == 3 and input.shape[int(self.batch_first)] == 1
        return (
            one_step
            and self.mode in WRITTEN_OUT_WHEN_CAPTURED
            and input.is_cuda
            and torch.cuda.is_current_stream_capturing()
        )

    def _packed(self, input: Tensor, hx: Optional[States], lengths: Tensor) -> Any:
        steps = input.shape[1 if self.batch_first else 0]
        packed = pack_padded_sequence(input, lengths.cpu().clamp(max=steps), self.batch_first, enforce_sorted=False)
        y, last = super().forward(packed, hx)
        return pad_packed_sequence(y, self.batch_first, total_length=steps)[0], last

    def state_sizes(self) -> list[int]:
        """The units of each state."""
        return [self.proj_size or self.hidden_size] + [self.hidden_size] * (self.mode == "LSTM")

    def _state_shapes(self, batch_size: int) -> list[tuple[int, ...]]:
        return [(self.num_layers * self.num_directions, batch_size, size) for size in self.state_sizes()]

    def _begin(self, x: Tensor) -> list[Tensor]:
        return [x.new_zeros(shape) for shape in self._state_shapes(x.shape[1])]

    def _checked(self, states: Sequence[Tensor], batch_size: int) -> list[Tensor]:
        expected, came = self._state_shapes(batch_size), [tuple(state.shape) for state in states]
        if came != expected:
            raise ValueError(f"the states must have the shapes {expected}, got {came}")
        return list(states)

    def _stacked(self, x: Tensor, states: Sequence[Tensor], lengths: Optional[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Layer upon layer, ``(T, N, C)``."""
        alive = None
        if lengths is not None:
            alive = (torch.arange(len(x), device=x.device)[:, None] < lengths.to(x.device)).unsqueeze(-1)  # (T, N, 1)
        last = []
        for layer, begin in enumerate(zip(*(state.split(self.num_directions) for state in states))):
            dropped = self._dropped(x) if layer > 0 else x
            if self._singles and lengths is None:
                y, end = self._single_of(layer)(dropped, begin if len(begin) > 1 else begin[0])
                end = end if isinstance(end, tuple) else (end,)
            else:
                y, end = self._unrolled(layer, dropped, begin, alive)
            x = y + x if self.residual and layer > 0 else y
            last.append(end)
        return x, [torch.cat(state) for state in zip(*last)]

    def _dropped(self, x: Tensor) -> Tensor:
        if self.dropout_mode == "standard":
            return F.dropout(x, self.dropout, self.training)
        return x * F.dropout(torch.ones_like(x[:1]), self.dropout, self.training)  # one mask for all steps

    # The step, written out

    def _unrolled(
        self, layer: int, x: Tensor, begin: Sequence[Tensor], alive: Optional[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A layer step by step: outputs ``(T, N, H)``, side by side for two directions, and the last states."""
        if alive is not None:
            x = torch.where(alive, x, 0.0)  # what is past the end is not seen, not even a NaN
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"] + ["weight_hr"] * (self.proj_size > 0)
        names += self._norms(0) if self.layer_norm else []
        outputs, last = [], []
        for direction, suffix in enumerate(self._suffixes(layer)):
            own = {name: getattr(self, name + suffix) for name in names}
            projected = dense(x, "ih", own)
            states, steps = [state[direction] for state in begin], [x] * len(x)
            for t in reversed(range(len(x))) if direction else range(len(x)):
                new = self._step(projected[t], states, own)
                if self.zoneout:
                    new = [s + (1 - self.zoneout) * self._zoned(after - s) for after, s in zip(new, states)]
                steps[t] = new[0]
                if alive is not None:
                    new = [torch.where(alive[t], after, before) for after, before in zip(new, states)]
                states = new
            y = torch.stack(steps)
            outputs.append(y if alive is None else torch.where(alive, y, 0.0))
            last.append(states)
        return torch.cat(outputs, -1), tuple(torch.stack(state) for state in zip(*last))

    def _zoned(self, change: Tensor) -> Tensor:
        """In training each unit keeps its state with that probability, else it takes the expectation."""
        return F.dropout(change, self.zoneout, self.training)

    def _step(self, projected: Tensor, states: Sequence[Tensor], own: Weights) -> list[Tensor]:
        """The states after one step, the first of which is the output."""
        raise NotImplementedError


def dense(x: Tensor, part: str, own: Weights) -> Tensor:
    """The product with a weight and its bias, normalized where there is a gamma; the bias then is the shift."""
    weight, bias, gamma = own[f"weight_{part}"], own[f"bias_{part}"], own.get(f"gamma_{part}")
    return F.linear(x, weight, bias) if gamma is None else layer_norm(F.linear(x, weight), gamma, bias)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Layer normalization over the last axis."""
    return F.layer_norm(x, x.shape[-1:], gamma, beta, EPSILON)

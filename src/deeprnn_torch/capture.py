"""Calls that are recorded once and replayed: on a GPU as a CUDA graph, elsewhere as they are.

A small network on a large GPU spends its time on launching kernels, and a graph of them is one launch. The memory of a
graph is fixed, so inputs are copied into it and results out of it; parameters may change in place, as an optimizer
changes them, but not move to another device. What is recorded is inference: no gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .model import LanguageModel

__all__ = ["Call", "Step"]

WARM_UP = 3
"""Calls before the recording, in which libraries choose and allocate."""


def recorded(net: nn.Module, step: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """`step` of a network in inference, a function of tensors whose memory does not change, to be called repeatedly."""

    def work() -> Any:
        if not net.training:
            return step()
        net.eval()
        try:
            return step()
        finally:
            net.train()

    if device.type != "cuda":
        return work
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()

    # The graph reads the memory of the tensors in `work` and does not keep it: without this reference it is freed.
    def replay(_kept: Callable[[], Any] = work) -> Any:
        graph.replay()
        return results

    return replay


class Call:
    """A language model for ids of one shape: called as the model is, with the same results.

    Parameters
    ----------
    net
        The model, on its device. It is used as it is in inference.
    sequence_length, batch_size : int
        Shape of the ids.
    """

    def __init__(self, net: LanguageModel, sequence_length: int, batch_size: int) -> None:
        device = net.decoder.weight.device
        self._ids = torch.zeros((sequence_length, batch_size), dtype=torch.long, device=device)
        self._states = net.begin_state(batch_size)
        with torch.no_grad():
            self._run = recorded(net, lambda: net(self._ids, self._states), device)

    @torch.no_grad()
    def __call__(self, ids: Tensor, states: Optional[Sequence[Tensor]] = None) -> tuple[Tensor, list[Tensor]]:
        """Logits and the last states; a ValueError for ids of another shape."""
        if ids.shape != self._ids.shape:
            raise ValueError(f"ids must have shape {tuple(self._ids.shape)}, as captured, got {tuple(ids.shape)}")
        self._ids.copy_(ids)
        _fill(self._states, states)
        logits, last = self._run()
        return logits.clone(), [state.clone() for state in last]


class Step:
    """Texts that grow by a symbol each with every call: embedding, layers, decoder, temperature and draw.

    States stay inside, from one call to the next. A draw is ``argmax(logits / temperature - log(e))`` with e drawn from
    an exponential distribution, which is a draw from the softmax. Random numbers are torch's, seeded by
    `torch.manual_seed`.

    Parameters
    ----------
    net
        The model, on its device. It is used as it is in inference.
    batch_size : int
        Texts N.
    banned : sequence of int
        Ids that are never drawn, such as that of the unknown symbol.

    Examples
    --------
    >>> step = net.capture_step(64)
    >>> step.begin(torch.zeros(64, dtype=torch.long))
    >>> text = torch.stack([step(temperature=0.8) for _ in range(100)])    # (100, 64)
    """

    def __init__(self, net: LanguageModel, batch_size: int, banned: Sequence[int] = ()) -> None:
        weight = net.decoder.weight
        self._ids = torch.zeros((1, batch_size), dtype=torch.long, device=weight.device)
        self._states = net.begin_state(batch_size)
        self._temperature = weight.new_ones(())
        forbidden = weight.new_zeros(net.vocab_size)
        forbidden[list(banned)] = -torch.inf

        def step() -> None:
            logits, last = net(self._ids, self._states)
            noise = torch.empty_like(logits).exponential_()
            self._ids.copy_((logits / self._temperature + forbidden - noise.log()).argmax(-1))
            _fill(self._states, last)

        with torch.no_grad():
            self._run = recorded(net, step, weight.device)

    @torch.no_grad()
    def begin(self, ids: Tensor, states: Optional[Sequence[Tensor]] = None) -> None:
        """Start with the ids ``(N,)`` that were last, and the states before them, by default zeros.

        Raises
        ------
        ValueError
            For ids of another shape than captured.
        """
        if ids.shape != self._ids.shape[1:]:
            raise ValueError(f"ids must have shape {tuple(self._ids.shape[1:])}, as captured, got {tuple(ids.shape)}")
        self._ids.copy_(ids[None])
        _fill(self._states, states)

    @torch.no_grad()
    def __call__(self, temperature: float = 1.0) -> Tensor:
        """The next ids, ``(N,)``."""
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self._temperature.fill_(temperature)
        self._run()
        return self._ids[0].clone()


def _fill(states: Sequence[Tensor], values: Optional[Sequence[Tensor]]) -> None:
    """Write states into memory that is there; zeros for None."""
    for i, state in enumerate(states):
        if values is None:
            state.zero_()
        else:
            state.copy_(values[i])

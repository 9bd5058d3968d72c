r"""Why a deep stack learns, or does not: signal, gradient and update of each layer, and a sentence.

A layer passes on a share of its signal going up and of its gradient coming down. Where that share is not near one, it
is raised to the power of the depth. `diagnose` looks at one batch: how far the outputs of each layer spread, how many
sit where the non-linearity is flat, how much gradient arrives at each layer, and at each step back in time, and how
large an update is beside the weights. `Diagnosis.sentences` says what is wrong and what to try.

Glorot and Bengio 2010; Pascanu, Mikolov and Bengio 2013 (arXiv:1211.5063).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Optional

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon.utils import shape_is_known
from mxnet.ndarray import NDArray

from .stack import RecurrentStack, parameter_name

__all__ = ["Diagnosis", "Layer", "Watched", "diagnose"]

FLAT = 0.97
"""A tanh beyond this has a slope below 0.06."""
QUIET = 5e-3
"""Spread of a layer's outputs below which what is above it hears next to nothing."""
WEAK, STRONG = 0.2, 10.0
"""Shares of the top layer's gradient outside of which the bottom layer does not learn with it."""
FORGOTTEN = 1e-3
"""Share of the gradient at the last step below which an earlier step is not learnt from."""


@dataclass(frozen=True)
class Layer:
    """One layer as one batch shows it.

    Attributes
    ----------
    number : int
        From 1, the layer next to the input.
    spread : float
        Standard deviation of its outputs over steps, sequences and units.
    saturated : float
        Share of its outputs where the non-linearity is flat: beyond 0.97 for tanh, at zero for relu.
    dead : float
        Share of its units that are so at every step of every sequence.
    gradient : float
        Norm of the loss's gradient by its outputs.
    back : tuple of float
        Norm of the last step's loss's gradient by its input 0, 1, 2, ... steps earlier.
    gain : float
        :math:`\\sqrt C` times the root mean square of its input weights: what it multiplies a signal of C inputs by.
    ratio : float or None
        Norm of the last update over norm of the weights before it, where those are given.
    """

    number: int
    spread: float
    saturated: float
    dead: float
    gradient: float
    back: tuple[float, ...]
    gain: float
    ratio: Optional[float] = None


@dataclass(frozen=True)
class Diagnosis:
    """All layers, bottom to top, and what they show."""

    layers: tuple[Layer, ...]
    activation: str
    residual: bool

    def sentences(self, followed: Collection[str] = ()) -> list[str]:
        """What is wrong, each with advice; empty if nothing is.

        Parameters
        ----------
        followed
            Advice that the network follows already, which is not repeated: any of ``init=deep``, ``cell=gru``,
            ``cell=lstm``. Whether it has ``residual=True`` is known.
        """
        wrong = [layer.number for layer in self.layers if not math.isfinite(layer.spread + layer.gradient)]
        if wrong:
            return [f"{_named(wrong)}: outputs or gradients are NaN or infinite; try a lower learning rate or clip"]
        found = []
        bottom, top = self.layers[0], self.layers[-1]
        known = {*followed, *(["residual=True"] if self.residual else [])}
        cure = [each for each in ("init=deep", "residual=True") if each not in known]
        share = bottom.gradient / top.gradient if top.gradient else 0.0
        if len(self.layers) > 1 and share < WEAK:
            found.append(
                f"layer 1 receives {_percent(share)} of layer {top.number}'s gradient: {self._gains()}" + _advice(cure)
            )
        if len(self.layers) > 1 and share > STRONG:
            found.append(
                f"layer 1 receives {share:.0f} times layer {top.number}'s gradient: {self._gains()}"
                + _advice([*cure, "a smaller clip"], " and ")
            )
        for faulty, fault in (
            (lambda layer: layer.spread < QUIET, "next to nothing comes out" + _advice(cure)),
            (
                lambda layer: self.activation == "tanh" and layer.saturated > 0.5,
                f"most outputs are beyond {FLAT}, where no gradient passes; try smaller weights or learning rate",
            ),
            (
                lambda layer: layer.dead > 0.2,
                "a fifth of the units or more are dead, flat at every step; try a lower learning rate"
                + (" or activation=tanh" if self.activation == "relu" else ""),
            ),
            (
                lambda layer: layer.ratio is not None and layer.ratio > 0.1,
                "one update changes more than a tenth of the weights; try a lower learning rate or clip",
            ),
        ):
            numbers = [layer.number for layer in self.layers if faulty(layer)]
            if numbers:
                found.append(f"{_named(numbers)}: {fault}")
        steps = min(10, len(top.back) - 1)
        if steps > 2 and top.back[steps] < FORGOTTEN * top.back[0]:
            gated = [] if {"cell=gru", "cell=lstm"} & known else ["cell=gru or lstm"]
            remedies = [*(each for each in cure if each == "init=deep"), *gated]
            found.append(
                f"the gradient {steps} steps back is {top.back[steps] / top.back[0]:.0e} of that at the last step: "
                "longer dependencies are not learnt" + _advice(remedies, ", or ")
            )
        return found

    def _gains(self) -> str:
        with np.errstate(divide="ignore"):  # weights of zero
            gain = float(np.exp(np.mean(np.log([layer.gain for layer in self.layers[1:]]))))
        if gain < 0.7 or gain > 1.5:
            return f"its weights {'shrink' if gain < 1 else 'grow'} the signal {gain:.2g}-fold a layer"
        return "the signal is lost on the way, though the weights' spread is right"

    def table(self) -> str:
        """The layers, top to bottom, as text."""
        rows = ["layer   spread  saturated   dead   gradient   10 back   weights' gain   update/weight"]
        for layer in reversed(self.layers):
            back = layer.back[min(10, len(layer.back) - 1)] / layer.back[0] if layer.back[0] else 0.0
            ratio = "-" if layer.ratio is None else f"{layer.ratio:.1e}"
            rows.append(
                f"{layer.number:5d} {layer.spread:8.2g} {layer.saturated:9.1%} {layer.dead:7.1%} "
                f"{layer.gradient:10.2e} {back:9.1e} {layer.gain:15.2f} {ratio:>15}"
            )
        return "\n".join(rows)


def diagnose(
    net: gluon.Block,
    inputs: NDArray,
    states: Sequence[NDArray],
    loss: Callable[[NDArray], NDArray],
    *,
    before: Optional[Mapping[str, NDArray]] = None,
) -> Diagnosis:
    """Look at a stack, or at a network that holds one, over one batch. The network is left as it was.

    Parameters
    ----------
    net : Block
        A `DeepRNN`, `DeepGRU`, `DeepLSTM`, or a block with one of them among its children, called as
        ``net(inputs, states)``.
    inputs, states
        One batch, and the states to begin from.
    loss : callable
        From the network's outputs, time first, to a loss of each step, ``(T, ...)``.
    before : mapping, optional
        The parameters by name as they were before the last update, for the ratio of update to weight.

    Raises
    ------
    ValueError
        If there is no such stack in the network.

    Examples
    --------
    >>> net = LanguageModel(vocab_size=65, hidden_size=256, num_layers=4)
    >>> net.initialize("normal")
    >>> cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss(batch_axis=0)
    >>> print(*diagnose(net, ids, net.begin_state(32), lambda logits: cross_entropy(logits, targets)).sentences())
    """
    stack = _find_stack(net)
    probes: list[NDArray] = []
    seen: list[np.ndarray] = []

    def tap(_: int, x: NDArray) -> NDArray:
        # Adding a zero with a gradient of its own: what arrives at it is what arrives at x.
        probe = mx.nd.zeros_like(x)
        probe.attach_grad()
        probes.append(probe)
        seen.append(x.detach().asnumpy())
        return x + probe

    def gradients(last_step_only: bool) -> list[np.ndarray]:
        probes.clear()
        seen.clear()
        with autograd.record(train_mode=False):
            outputs, _ = net(inputs, list(states))
            losses = loss(outputs)
            total = losses[-1].mean() if last_step_only else losses.mean()
        total.backward()
        return [probe.grad.asnumpy() for probe in probes]

    with _eager(net):
        if not all(shape_is_known(parameter.shape) for parameter in net.collect_params().values()):
            net(inputs, list(states))  # completes those that were left to the first call
    with _eager(net), _kept_gradients(net):
        with stack.hooked(tap):
            last = gradients(last_step_only=True)
            whole = gradients(last_step_only=False)
        layers = tuple(
            _layer(stack, number, seen[number], seen[number + 1], whole[number + 1], last[number], before)
            for number in range(stack.num_layers)
        )
    activation = getattr(stack.cell, "activation", "tanh")
    return Diagnosis(layers, activation, stack.residual)


class Watched:
    """Batches handed on as they are, and the weights as they were before the last update of an epoch.

    Attributes
    ----------
    before : dict or None
        The parameters by name, for `diagnose`; None until the first epoch is over.
    """

    def __init__(self, net: gluon.Block, batches: Any) -> None:
        self.before: Optional[dict[str, NDArray]] = None
        self.batch_size, self.carries_state = batches.batch_size, batches.carries_state
        self._net = net
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int) -> Iterator[tuple[NDArray, NDArray]]:
        for left, batch in zip(range(len(self) - 1, -1, -1), self._batches.epoch(number)):
            if not left:
                self.before = {name: p.list_data()[0].copy() for name, p in self._net.collect_params().items()}
            yield batch


def _layer(
    stack: RecurrentStack,
    number: int,
    inputs: np.ndarray,
    outputs: np.ndarray,
    whole: np.ndarray,
    last: np.ndarray,
    before: Optional[Mapping[str, NDArray]],
) -> Layer:
    weights = {
        name: [getattr(stack, parameter_name(direction, number, name)) for direction in stack.directions]
        for name in ("i2h_weight", "h2h_weight")
    }
    relu = getattr(stack.cell, "activation", "tanh") == "relu"
    activations = outputs - inputs if stack.residual and number > 0 else outputs  # (T, N, H)
    flat = activations <= 0 if relu else np.abs(activations) > FLAT
    weight = np.concatenate([weight.list_data()[0].asnumpy() for weight in weights["i2h_weight"]])
    ratio = None
    if before is not None:
        pairs = [(p.list_data()[0], before[p.name]) for of_kind in weights.values() for p in of_kind]
        change, size = _norm(*(now - was for now, was in pairs)), _norm(*(was for _, was in pairs))
        ratio = change / size if size else math.inf if change else 0.0
    return Layer(
        number=number + 1,
        spread=float(outputs.std()),
        saturated=float(flat.mean()),
        dead=float(flat.all(axis=(0, 1)).mean()),
        gradient=float(np.linalg.norm(whole)),
        back=tuple(float(np.linalg.norm(step)) for step in last[::-1]),
        gain=float(np.sqrt(np.square(weight).mean() * weight.shape[1])),
        ratio=ratio,
    )


def _norm(*arrays: NDArray) -> float:
    return float(np.sqrt(sum(np.square(array.asnumpy(), dtype="float64").sum() for array in arrays)))


def _find_stack(net: gluon.Block) -> RecurrentStack:
    found = [block for block in _blocks(net) if isinstance(block, RecurrentStack)]
    if len(found) != 1:
        raise ValueError(f"a diagnosis needs a network with one DeepRNN, DeepGRU or DeepLSTM in it, got {len(found)}")
    return found[0]


def _blocks(block: gluon.Block) -> Iterator[gluon.Block]:
    yield block
    for child in block._children.values():
        yield from _blocks(child)


@contextmanager
def _eager(net: gluon.Block) -> Iterator[None]:
    """Run without graphs, and give them back untouched: one cannot look into a graph."""
    active: list[tuple[Any, bool]] = [(b, b._active) for b in _blocks(net) if isinstance(b, gluon.HybridBlock)]
    for block, _ in active:
        block._active = False
    try:
        yield
    finally:
        for block, was in active:
            block._active = was


@contextmanager
def _kept_gradients(net: gluon.Block) -> Iterator[None]:
    """Leave the gradients of the parameters as they were found."""
    kept = [(g, g.copy()) for p in net.collect_params().values() if p.grad_req != "null" for g in p.list_grad()]
    try:
        yield
    finally:
        for gradient, before in kept:
            before.copyto(gradient)


def _named(numbers: list[int]) -> str:
    """``layer 3``, ``layers 2 to 5``, ``layers 1, 3, 4``."""
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"layers {numbers[0]} to {numbers[-1]}"
    return f"layers {', '.join(map(str, numbers))}"


def _advice(remedies: Sequence[str], joint: str = ", ") -> str:
    """``; try init=deep, residual=True and a smaller clip``; empty if there is nothing left to try."""
    if not remedies:
        return ""
    *first, last = remedies
    return "; try " + (", ".join(first) + joint if first else "") + last


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 or not share else f"{share:.1e}"

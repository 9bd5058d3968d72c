r"""Same weights, two implementations, everything compared.

`run` takes a layer through one recorded pass and some steps of a Trainer; `compare` measures how far two such runs are
apart in everything that a caller can see: outputs, last states, the gradients of inputs, initial states and every
parameter, and the parameters after the Trainer's steps. Distance is relative, by norm over one whole tensor,
:math:`\|a - b\| / \|b\|`: element by element, two correct float32 implementations differ by up to 1e-3 where a small
number is the sum of large ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.ndarray import NDArray

__all__ = [
    "TOLERANCE",
    "Parity",
    "Run",
    "compare",
    "compare_networks",
    "copy_parameters",
    "distance",
    "randomize",
    "run",
]

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
"""The largest relative distance at which two implementations count as the same function."""

Layer = Callable[..., Any]


def distance(a: Any, b: Any) -> float:
    """``||a - b|| / ||b||`` over one tensor, in float64; infinite for unequal shapes or numbers that are not finite."""
    a, b = (np.asarray(x.asnumpy() if isinstance(x, NDArray) else x, dtype="float64") for x in (a, b))
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    scale = float(np.linalg.norm(b))
    error = float(np.linalg.norm(a - b))
    return error / scale if scale else error


def randomize(layer: gluon.Block, seed: int = 0, scale: float = 0.3) -> None:
    """Draw every parameter of a layer, biases too, from N(0, scale): with zeros a missing bias would go unnoticed."""
    draw = np.random.default_rng(seed)
    for parameter in layer.collect_params().values():
        # From NumPy straight to where it is kept: a third of the time of an NDArray in between.
        parameter.set_data(draw.normal(0, scale, parameter.shape).astype(parameter.dtype))


def copy_parameters(source: gluon.Block, target: gluon.Block) -> None:
    """Give `target` the values of `source`; parameters are matched by their names after each block's own prefix.

    Raises
    ------
    ValueError
        If the two differ in the names of their parameters, or a name does not begin with its block's prefix.
    """
    values, names = _own_names(source), _own_names(target)
    if values.keys() != names.keys():
        raise ValueError(f"the two blocks differ in parameters: {sorted(values.keys() ^ names.keys())}")
    for name, parameter in names.items():
        parameter.set_data(values[name].data().astype(parameter.dtype))


def _own_names(block: gluon.Block) -> dict[str, gluon.Parameter]:
    """The parameters by their names after the block's prefix."""
    parameters = block.collect_params().items()
    stray = [name for name, _ in parameters if not name.startswith(block.prefix)]
    if stray:
        raise ValueError(f"{type(block).__name__} has parameters whose names do not begin with its own: {stray}")
    return {name[len(block.prefix) :]: parameter for name, parameter in parameters}


@dataclass(frozen=True)
class Run:
    """All that a caller can see of one layer, by name."""

    tensors: Mapping[str, np.ndarray]
    losses: Sequence[float]


def run(
    layer: gluon.Block,
    inputs: np.ndarray,
    states: Sequence[np.ndarray],
    *arguments: NDArray,
    call: Optional[Layer] = None,
    trainer_steps: int = 0,
    optimizer: str = "adam",
    learning_rate: float = 1e-3,
) -> Run:
    """One recorded pass of `layer`, its gradients, and `trainer_steps` steps of a Trainer after it.

    In the loss every element of outputs and states has a weight of its own, so that no two of them can be swapped
    unnoticed; the weights are the same in each run.

    Parameters
    ----------
    layer : Block
        Has the parameters.
    inputs, states : numpy arrays
        In the layer's dtype.
    *arguments
        Further arguments of the call, such as a `sequence_length`.
    call : callable, optional
        Called with ``(inputs, states, *arguments)`` instead of the layer.
    trainer_steps, optimizer, learning_rate
        Number of steps, and their optimizer; 0 steps leave the parameters as they were.

    Raises
    ------
    ValueError
        If the name of a parameter does not begin with the layer's prefix.
    """
    call = call or layer
    dtype = inputs.dtype
    x = mx.nd.array(inputs, dtype=dtype)
    begin = [mx.nd.array(state, dtype=dtype) for state in states]
    weights: list[NDArray] = []
    for tensor in (x, *begin):
        tensor.attach_grad()

    def loss() -> tuple[NDArray, list[NDArray]]:
        with autograd.record():
            outputs, last = call(x, begin, *arguments)
            seen = [outputs, *last]
            if not weights:
                draw = np.random.default_rng(7)
                weights.extend(mx.nd.array(draw.normal(size=t.shape), dtype=dtype) for t in seen)
            total = sum((w * t).sum() for w, t in zip(weights, seen))
        total.backward()
        return total, seen

    total, (outputs, *last) = loss()
    parameters = _own_names(layer)
    tensors = {"outputs": outputs, "d inputs": x.grad}
    tensors.update({f"state {i}": state for i, state in enumerate(last)})
    tensors.update({f"d state {i}": state.grad for i, state in enumerate(begin)})
    tensors.update({f"d {name}": p.grad() for name, p in parameters.items() if p.grad_req != "null"})
    seen = {name: tensor.asnumpy() for name, tensor in tensors.items()}
    losses = [float(total.asscalar())]
    if trainer_steps:
        trainer = gluon.Trainer(layer.collect_params(), optimizer, {"learning_rate": learning_rate})
        for _ in range(trainer_steps):
            losses.append(float(loss()[0].asscalar()))
            trainer.step(inputs.size)
        seen.update({f"{name} after {trainer_steps} steps": p.data().asnumpy() for name, p in parameters.items()})
    return Run(seen, losses)


@dataclass(frozen=True)
class Parity:
    """Relative distances by name, and the losses of both."""

    distances: Mapping[str, float]
    tolerance: float
    losses: tuple[Sequence[float], Sequence[float]]

    @property
    def worst(self) -> tuple[str, float]:
        """The name with the largest distance, and that distance."""
        return max(self.distances.items(), key=lambda item: item[1])

    @property
    def same(self) -> bool:
        """Whether the two are the same function: no distance above the tolerance."""
        return self.worst[1] <= self.tolerance

    def summary(self) -> dict[str, float]:
        """The largest distance of each kind: outputs, states, gradients, and weights after the Trainer's steps."""
        kinds: dict[str, float] = {}
        for name, value in self.distances.items():
            if name == "outputs":
                kind = "outputs"
            elif name.startswith("state"):
                kind = "states"
            else:
                kind = "gradients" if name.startswith("d ") else "weights"
            kinds[kind] = max(value, kinds.get(kind, 0.0))
        return kinds


def compare(ours: Run, theirs: Run, tolerance: Optional[float] = None) -> Parity:
    """The distance of `ours` from `theirs` in everything that `theirs` holds.

    Parameters
    ----------
    ours, theirs : Run
        From `run`, or made by another implementation under the same names.
    tolerance : float, optional
        By default that of the dtype, see `TOLERANCE`.

    Raises
    ------
    ValueError
        If `ours` lacks something that `theirs` has.
    """
    missing = theirs.tensors.keys() - ours.tensors.keys()
    if missing:
        raise ValueError(f"nothing to compare with {sorted(missing)}")
    if tolerance is None:
        dtype = next(iter(theirs.tensors.values())).dtype.name
        if dtype not in TOLERANCE:
            raise ValueError(f"there is no tolerance for {dtype}: give tolerance=")
        tolerance = TOLERANCE[dtype]
    distances = {name: distance(ours.tensors[name], value) for name, value in theirs.tensors.items()}
    return Parity(distances, tolerance, (ours.losses, theirs.losses))


def compare_networks(
    ours: gluon.Block,
    theirs: gluon.Block,
    *inputs: Any,
    parameters: Optional[str] = None,
    gradients: bool = True,
    tolerance: Optional[float] = None,
) -> Parity:
    """Whether two networks with the same parameters are the same function of these inputs.

    For your own network, in which a layer of this package replaces a built-in one, and for its file of parameters.

    Parameters
    ----------
    ours, theirs : Block
        Initialized, with parameters of the same structural names, as in a ``.params`` file.
    *inputs
        Arguments of both: arrays, lists of arrays, or None.
    parameters : str, optional
        A ``.params`` file, which both load. By default `ours` gets the values of `theirs`.
    gradients : bool
        Compare the gradients of the inputs and of all parameters besides the outputs. In the loss every element of the
        outputs has a weight of its own, the same for both. Dropout is off.
    tolerance : float, optional
        By default that of the dtype, see `TOLERANCE`.

    Returns
    -------
    Parity
        With the names ``output 0``, ..., ``d input 0``, ..., and ``d <structural name>``.

    Raises
    ------
    ValueError
        If the two differ in the names of their parameters.

    Examples
    --------
    >>> compare_networks(mine(DeepLSTM(64)), mine(gluon.rnn.LSTM(64)), x, parameters="model.params").same
    True
    """
    if parameters is not None:
        for net in (ours, theirs):
            net.load_parameters(parameters)
    else:
        for net in (ours, theirs):
            net(*inputs)  # completes shapes that were left to the first call
        mine, wanted = ours._collect_params_with_prefix(), theirs._collect_params_with_prefix()
        if mine.keys() != wanted.keys():
            raise ValueError(f"the two networks differ in parameters: {sorted(mine.keys() ^ wanted.keys())}")
        for name, parameter in mine.items():
            parameter.set_data(wanted[name].data().astype(parameter.dtype))
    return compare(_network_run(ours, inputs, gradients), _network_run(theirs, inputs, gradients), tolerance)


def _network_run(net: gluon.Block, inputs: Sequence[Any], gradients: bool) -> Run:
    tensors = {f"output {i}": tensor.asnumpy() for i, tensor in enumerate(_flat(net(*inputs)))}
    if gradients:
        inputs = _copied(inputs)  # which take the gradients: the caller's arrays stay as they are
        floats = [x for x in _flat(inputs) if np.dtype(x.dtype).kind == "f"]
        for x in floats:
            x.attach_grad()
        parameters = net._collect_params_with_prefix()
        kept = [parameter for parameter in parameters.values() if parameter.grad_req == "add"]
        before = [parameter.grad().copy() for parameter in kept]
        for parameter in kept:
            parameter.zero_grad()
        draw = np.random.default_rng(7)
        with autograd.record(train_mode=False):  # dropout would draw other numbers for each
            outputs = [y.as_nd_ndarray() for y in _flat(net(*inputs))]
            total = sum((mx.nd.array(draw.normal(size=y.shape), dtype=y.dtype) * y).sum() for y in outputs)
        total.backward()
        tensors.update({f"d input {i}": x.grad.asnumpy() for i, x in enumerate(floats)})
        tensors.update({f"d {name}": p.grad().asnumpy() for name, p in parameters.items() if p.grad_req != "null"})
        for parameter, gradient in zip(kept, before):
            parameter.grad()[:] = gradient
    return Run(tensors, [])


def _copied(value: Any) -> Any:
    """The arrays of a nested list in new memory, in the same order."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_copied, value))
    return value if value is None else value.copy()


def _flat(value: Any) -> list[NDArray]:
    """The arrays of a nested list."""
    if value is None:
        return []
    if isinstance(value, NDArray):
        return [value]
    return [array for item in value for array in _flat(item)]

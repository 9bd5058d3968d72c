"""Ways of use: the layer by itself and in a model, eager and hybridized, compared with the built-in one.

The model is an embedding, the layer and a decoder. It is a `Block`, as most scripts have it, or a `HybridBlock`, which
is hybridized as a whole. Arrays are ``mx.nd`` or ``mx.np``. Both layers have the same weights and take turns; the
results are compared before timing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Callable, Optional

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn

from deeprnn._util.types import Operators, Tensor
from deeprnn.testing import TOLERANCE, distance

from .clock import ROUNDS, Spread, ratio, seconds_per_call, steadiest
from .comparison import copy_in_order
from .contestants import WORKS, Case, build
from .processes import alone

__all__ = ["MODES", "PLACES", "Use", "groups", "measure_group", "summary"]

PLACES = ("by itself", "in a Block", "in a HybridBlock")

MODES: Mapping[str, Optional[Mapping[str, bool]]] = {
    "eager": None,
    "hybridized": {},
    "static_alloc": {"static_alloc": True},
    "static_alloc and static_shape": {"static_alloc": True, "static_shape": True},
}
"""Flags of `hybridize`, which is called on the outermost block; None: it is not called."""

EAGER_SIZES = tuple((units, batch) for units in (64, 200, 256, 650) for batch in (8, 32))
HYBRID_SIZES = tuple((units, batch) for units in (64, 200, 256, 650) for batch in (1, 16, 64))
"""Units and sequences."""
NUMPY_UNITS = (64, 200, 650)
"""With ``mx.np`` arrays, at the smallest batch of more than one sequence."""

LAYERS, LENGTH, VOCABULARY = 2, 35, 100
NAMES = ("deeprnn", "gluon")


@dataclass(frozen=True)
class Use:
    """One way of using a layer, at one size."""

    place: str
    mode: str
    units: int
    batch_size: int
    cell: str = "rnn"
    layers: int = LAYERS
    length: int = LENGTH
    arrays: str = "nd"

    @property
    def way(self) -> str:
        """All but the size."""
        return way_of(asdict(self))

    @property
    def name(self) -> str:
        return f"{self.way}: {self.units} units, batch {self.batch_size}"

    @property
    def case(self) -> Case:
        return Case(self.units, self.units, self.layers, self.length, self.batch_size, cell=self.cell)


def way_of(use: Mapping[str, Any]) -> str:
    """How a layer is used, whatever its size: ``in a Block, eager``; with ``, np`` where arrays are those."""
    return f"{use['place']}, {use['mode']}" + (", np" if use.get("arrays") == "np" else "")


def groups(cell: str, smallest: bool = False) -> list[list[Use]]:
    """All uses; those of one group are measured in the same process. With `smallest` one size each."""
    found = []
    for arrays in ("nd", "np"):
        for place in PLACES:
            for mode, flags in MODES.items():
                sizes = EAGER_SIZES if flags is None else HYBRID_SIZES
                if arrays == "np":
                    sizes = tuple((units, 8 if flags is None else 16) for units in NUMPY_UNITS)
                sizes = sizes[: 1 if smallest else None]
                found.append([Use(place, mode, units, batch, cell, arrays=arrays) for units, batch in sizes])
    return found


def _add_parts(model: gluon.Block, implementation: str, case: Case) -> None:
    """The children of both models."""
    with model.name_scope():
        model.embedding = nn.Embedding(VOCABULARY, case.input_size)
        model.layer = build(implementation, case)
        model.decoder = nn.Dense(VOCABULARY, flatten=False, in_units=case.hidden_size)


class _EagerModel(gluon.Block):
    """Embedding, layer, decoder, of which only the layer can be a graph."""

    def __init__(self, implementation: str, case: Case) -> None:
        super().__init__()
        _add_parts(self, implementation, case)

    def forward(self, ids: Any, states: Any) -> tuple[Any, Any]:
        outputs, states = self.layer(self.embedding(ids), states)
        return self.decoder(outputs), states


class _HybridModel(gluon.HybridBlock):
    """The same as one graph."""

    def __init__(self, implementation: str, case: Case) -> None:
        super().__init__()
        _add_parts(self, implementation, case)

    def hybrid_forward(self, F: Operators, ids: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        outputs, states = self.layer(self.embedding(ids), states)
        return self.decoder(outputs), states


class _Used:
    """One implementation, set up for one use."""

    def __init__(self, implementation: str, use: Use) -> None:
        case = use.case
        xp = mx.np if use.arrays == "np" else mx.nd
        self.block: gluon.Block
        if use.place == "by itself":
            self.block = layer = build(implementation, case)
            drawn = np.random.normal(size=(case.length, case.batch_size, case.input_size))
            self.inputs = xp.array(drawn, dtype="float32")
            self.inputs.attach_grad()
        else:
            self.block = (_EagerModel if use.place == "in a Block" else _HybridModel)(implementation, case)
            layer = self.block.layer
            self.inputs = xp.array(np.random.randint(0, VOCABULARY, (case.length, case.batch_size)), dtype="float32")
        self.block.initialize(mx.init.Uniform(case.hidden_size**-0.5))
        self.states = layer.begin_state(case.batch_size)
        self._flags = MODES[use.mode]

    def begin(self) -> None:
        """Hybridize, and call once, so that an error of this use is raised here."""
        if self._flags is not None:
            self.block.hybridize(**self._flags)
        for work in WORKS:
            getattr(self, work)()
        mx.nd.waitall()

    def inference(self) -> Any:
        return self.block(self.inputs, self.states)[0]

    def training(self) -> Any:
        with autograd.record():
            outputs = self.block(self.inputs, self.states)[0]
        outputs.backward()
        return outputs

    def results(self) -> list[Any]:
        """Outputs, and the gradient of every parameter."""
        outputs = self.training()
        return [outputs, *(parameter.grad() for parameter in self.block.collect_params().values())]

    def timer(self, work: str) -> Callable[[int], float]:
        return partial(seconds_per_call, getattr(self, work))


def measure_group(
    uses: Sequence[Use], rounds: int = ROUNDS, processes: int = 1, threads: Optional[int] = None
) -> list[dict[str, Any]]:
    """Measure uses in new processes, the fastest of which counts for each use and work.

    Returns
    -------
    list of dict
        Of each use its fields and ``name``, and either ``refused``, a line for each implementation that raised, or
        ``difference``, relative by norm, of the worst tensor, and by work the ``seconds`` of both and their ``ratio``,
        as `clock.Spread`. Those that are not the same function have no times.
    """
    taken = [alone(_measure_all, uses, rounds, threads=threads) for _ in range(processes)]
    return [_fastest(list(tries)) for tries in zip(*taken)]


def _measure_all(uses: Sequence[Use], rounds: int) -> list[dict[str, Any]]:
    found = []
    for use in uses:
        numpy = use.arrays == "np"
        with mx.util.np_shape(numpy), mx.util.np_array(numpy):
            found.append(_measure(use, rounds))
    return found


def _measure(use: Use, rounds: int) -> dict[str, Any]:
    record: dict[str, Any] = {**asdict(use), "name": use.name}
    used: dict[str, _Used] = {}
    refused: dict[str, str] = {}
    mx.random.seed(0)
    for name in NAMES:
        try:
            used[name] = _Used(name, use)
            if name == "gluon" and "deeprnn" in used:
                copy_in_order(used["deeprnn"].block, used["gluon"].block)
                used[name].inputs[:] = used["deeprnn"].inputs
            used[name].begin()
        except Exception as error:  # of any kind: this use is not possible
            refused[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    if refused:
        return {**record, "refused": refused}
    difference = max(distance(*pair) for pair in zip(*(each.results() for each in used.values())))
    record["difference"] = difference if difference < float("inf") else None
    if not difference <= TOLERANCE["float32"]:
        return record
    for work in WORKS:
        samples, tries = steadiest({name: each.timer(work) for name, each in used.items()}, rounds)
        record[work] = {
            "seconds": {name: asdict(Spread.of(times)) for name, times in samples.items()},
            "ratio": asdict(ratio(*samples.values())),
            "tries": tries,
        }
    return record


def _fastest(tries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each work the process in which the two medians have the smallest sum."""
    result = dict(tries[0])
    for work in WORKS:
        measured = [each[work] for each in tries if work in each]
        if measured:
            result[work] = min(measured, key=lambda one: sum(spread["median"] for spread in one["seconds"].values()))
    return result


def summary(uses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each way of use: ``way``, ``count``, ``refused``, and by work the ``worst`` and its size."""
    rows = []
    for way in dict.fromkeys(map(way_of, uses)):
        those = [use for use in uses if way_of(use) == way]
        row: dict[str, Any] = {"way": way, "count": len(those)}
        row["refused"] = sum("deeprnn" in use.get("refused", ()) for use in those)
        for work in WORKS:
            timed = [use for use in those if work in use]
            worst = max(timed, key=lambda use: use[work]["ratio"]["median"], default=None)
            row[work] = worst and {
                "ratio": worst[work]["ratio"]["median"],
                "units": worst["units"],
                "batch_size": worst["batch_size"],
            }
        rows.append(row)
    return rows

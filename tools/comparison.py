"""Side by side with what users of MXNet have: the built-in layers, and the book's training loop.

`compare_layers` answers for one configuration: the same function? as fast? the same loss, step by step, from the same
start? `language_model_speed` times whole training steps of a language model, against the loop of *Dive into Deep
Learning* as it stands there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any, Callable, Optional, Union

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn

from deeprnn._util.machine import machine
from deeprnn.config import ModelConfig, TrainConfig
from deeprnn.data.batches import Batches
from deeprnn.models.language_model import STACKS, LanguageModel
from deeprnn.testing import compare, copy_parameters, distance, run
from deeprnn.train.loop import Progress, make_trainer, train_epoch

from .bench import ROUNDS, Case, Problem, Spread, build, measure, ratio, sgemm_rate, steadiest

__all__ = ["compare_layers", "language_model_speed", "picture", "table"]

KINDS = ("outputs", "states", "gradients", "weights")
NAMES = ("deeprnn", "gluon")
WORK_TITLES = {"inference": "inference", "training": "forward + backward"}

PEERS = (("float32", "gluon"), ("float64", "gluon"), ("float64", "gluon-cells"))
"""What ours is compared with: the built-in layer, and in float64, where that is partly wrong, its unfused cells too."""

ECHO_SYMBOLS, ECHO_DELAY, ECHO_STEPS, ECHO_RATE = 16, 3, 100, 1e-3


def compare_layers(case: Case, *, trainer_steps: int = 10, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Any]:
    """Ours and the built-in layer of one configuration.

    Parameters
    ----------
    case : Case
        The layer and the shape of its inputs.
    trainer_steps : int
        Steps of Adam after which the weights are compared.
    rounds : int
        Samples of each time.
    seed : int
        Of weights, inputs and the task.

    Returns
    -------
    dict
        JSON. ``parity``: for each of `PEERS` the largest distance of each of `KINDS`, relative by norm over one tensor
        (None: not finite), and whether it ``counts``; ``same``: whether all that count are within their tolerance;
        ``speed``: from `bench.measure`, None where they are not the same function; ``curves``: losses of both, in nats
        per symbol, training from the same start.
    """
    problem = Problem.draw(case, seed)
    parity = [_parity(problem, dtype, peer, trainer_steps) for dtype, peer in PEERS]
    same = all(row["same"] for row in parity if row["counts"])
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "case": asdict(case),
        "trainer_steps": trainer_steps,
        "seed": seed,
        "parity": parity,
        "same": same,
        "speed": measure(case, NAMES, rounds=rounds, seed=seed) if same else None,
        "curves": _curves(case, seed),
    }


def _parity(problem: Problem, dtype: str, peer: str, trainer_steps: int) -> dict[str, Any]:
    runs = []
    for implementation in ("deeprnn", peer):
        layer = build(implementation, problem.case, dtype)
        layer.initialize()
        copy_parameters(problem.layer, layer)
        layer.hybridize(static_alloc=True, static_shape=True)
        states = [state.astype(dtype) for state in problem.states]
        runs.append(run(layer, problem.inputs.astype(dtype), states, trainer_steps=trainer_steps))
    ours, theirs = runs
    result = compare(ours, theirs)
    distances = result.summary()
    return {
        "dtype": dtype,
        "peer": peer,
        "counts": peer != "gluon" or dtype == "float32" or _fused_is_right_in_float64(problem.case),
        "distances": {kind: _finite(distances[kind]) for kind in KINDS if kind in distances},
        "worst": result.worst[0],
        "tolerance": result.tolerance,
        "same": result.same,
    }


def _fused_is_right_in_float64(case: Case) -> bool:
    """Gluon's RNN in float64 leaves gradients of middle layers uninitialised, and computes relu in float32 (CPU)."""
    return case.cell != "rnn" or (case.layers < 3 and case.activation == "tanh")


def _finite(value: float) -> Optional[float]:
    return value if math.isfinite(value) else None


# The loss from the same start.


class _Echo(gluon.Block):
    """Embedding, layer, decoder: to say at each step which symbol came `ECHO_DELAY` steps ago."""

    def __init__(self, implementation: str, case: Case) -> None:
        super().__init__()
        with self.name_scope():
            self.embedding = nn.Embedding(ECHO_SYMBOLS, case.input_size)
            self.layer = build(implementation, case)
            self.decoder = nn.Dense(ECHO_SYMBOLS, flatten=False, in_units=case.hidden_size * (1 + case.bidirectional))

    def forward(self, ids: Any) -> Any:
        return self.decoder(self.layer(self.embedding(ids)))


def _curves(case: Case, seed: int) -> dict[str, Any]:
    """The losses of both, trained on the same batches from the same weights."""
    nets = {name: _Echo(name, case) for name in NAMES}
    mx.random.seed(seed)
    nets["deeprnn"].initialize(mx.init.Xavier())
    nets["gluon"].initialize()
    _copy_in_order(nets["deeprnn"], nets["gluon"])
    losses = {name: _train_echo(net, case, seed) for name, net in nets.items()}
    return {
        "task": f"say which of {ECHO_SYMBOLS} symbols came {ECHO_DELAY} steps ago",
        "optimizer": f"Adam, {ECHO_RATE:g}",
        **losses,
        "difference": _finite(distance(losses["deeprnn"], losses["gluon"])),
    }


def _copy_in_order(source: gluon.Block, target: gluon.Block) -> None:
    """Give `target` the values of `source`, which has the same parameters in the same order under names of its own."""
    for a, b in zip(source.collect_params().values(), target.collect_params().values()):
        b.set_data(a.data().copy())  # where a shape is left open the value is taken later, when `a` may have changed


def _train_echo(net: _Echo, case: Case, seed: int) -> list[float]:
    net.layer.hybridize(static_alloc=True, static_shape=True)
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": ECHO_RATE})
    cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()
    draw = np.random.default_rng(seed)
    echoed = np.maximum(np.arange(case.length) - ECHO_DELAY, 0)  # the first steps echo the first symbol
    losses = []
    for _ in range(ECHO_STEPS):
        ids = draw.integers(ECHO_SYMBOLS, size=(case.length, case.batch_size))
        target = ids[echoed]
        if case.layout == "NTC":
            ids, target = ids.T, target.T
        with autograd.record():
            loss = cross_entropy(net(mx.nd.array(ids)), mx.nd.array(target)).mean()
        loss.backward()
        trainer.step(1)
        losses.append(float(loss.asscalar()))
    return losses


# What is shown of it.

MARK = {True: "yes", False: "NO"}


def table(record: Mapping[str, Any]) -> str:
    """The record of `compare_layers` for a terminal."""
    case = Case(**record["case"])
    name = STACKS["deeprnn"][case.cell].__name__
    options = [case.activation] if case.cell == "rnn" else []
    options += ["bidirectional"] if case.bidirectional else []
    lines = [
        f"{name} and gluon.rnn.{case.cell.upper()}: input {case.input_size}, hidden {case.hidden_size}, "
        f"layers {case.layers}, {case.length} steps, {case.batch_size} sequences, {', '.join([*options, case.layout])}",
        "",
        "Largest difference, relative by norm over one tensor",
        f"  {'':33}{''.join(f'{kind:>12}' for kind in KINDS)}{'allowed':>12}  same",
    ]
    for row in record["parity"]:
        numbers = "".join(_distance(row["distances"].get(kind)) for kind in KINDS)
        peer = {"gluon": "built-in layer", "gluon-cells": "gluon's unfused cells"}[row["peer"]]
        verdict = MARK[row["same"]] if row["counts"] else "(the built-in layer is wrong here: see the next line)"
        lines.append(f"  {row['dtype'] + ', ' + peer:33}{numbers}{row['tolerance']:12.0e}  {verdict}")
    lines[3] = lines[3].replace("     weights", "   weights *")
    lines += [f"  * after {record['trainer_steps']} steps of Adam", ""]
    if record["speed"]:
        heads = "".join(f"{head:>12}" for head in (*NAMES, "ratio", "quartiles", "limit"))
        lines.append(f"{'Time, median in ms':28}{heads}")
        busy = False
        for work, title in WORK_TITLES.items():
            measured = record["speed"][work]
            spread = Spread(**measured["ratios"]["gluon"])
            busy |= not spread.steady
            cells = [f"{1e3 * measured['seconds'][name]['median']:.3g}" for name in NAMES]
            cells += [f"{spread.median:.2f}" if spread.steady else "busy", f"{spread.low:.2f}-{spread.high:.2f}"]
            cells.append(f"{1e3 * measured['limit']:.3g}")
            lines.append(f"  {title:26}" + "".join(f"{cell:>12}" for cell in cells))
        if busy:
            lines.append("  busy: the machine had other work to do, the ratios are too far apart for a verdict")
    else:
        lines.append("Time: not measured, as they are not the same function")
    curves = record["curves"]
    steps = len(curves["deeprnn"])
    shown = [*range(0, steps, max(steps // 4, 1)), steps - 1]
    lines += ["", f"Loss from the same start, nats per symbol ({curves['task']}; {curves['optimizer']})"]
    lines.append(f"  {'step':16}" + "".join(f"{step + 1:>10}" for step in shown))
    lines += [f"  {name:16}" + "".join(f"{curves[name][step]:10.5f}" for step in shown) for name in NAMES]
    lines += ["", "The same function." if record["same"] else f"NOT the same function: {_faults(record['parity'])}"]
    return "\n".join(lines) + "\n"


def _distance(value: Optional[float]) -> str:
    return f"{'not finite':>12}" if value is None else f"{value:12.1e}"


def _faults(rows: Sequence[Mapping[str, Any]]) -> str:
    wrong = (row for row in rows if row["counts"] and not row["same"])
    return "; ".join(f"{row['worst']} in {row['dtype']} against {row['peer']}" for row in wrong)


def picture(record: Mapping[str, Any], path: Any) -> None:
    """The record of `compare_layers` as a PNG file: differences, times, loss curves."""
    from matplotlib.figure import Figure

    case = Case(**record["case"])
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    differences, times, losses = figure.subplots(1, 3, width_ratios=(1.2, 0.8, 1))

    rows = [row for row in record["parity"] if row["counts"]]
    for i, row in enumerate(rows):
        known = [(x, row["distances"][kind]) for x, kind in enumerate(KINDS) if row["distances"].get(kind)]
        x = [x + 0.2 * (i - (len(rows) - 1) / 2) for x, _ in known]
        label = f"{row['dtype']}, {'built-in layer' if row['peer'] == 'gluon' else 'unfused cells'}"
        differences.plot(x, [value for _, value in known], "sDo"[i], color=("C2", "C3", "C4")[i], label=label)
    for dtype, tolerance in {row["dtype"]: row["tolerance"] for row in rows}.items():
        differences.axhline(tolerance, color="0.3", linewidth=1, linestyle="--")
        differences.annotate(
            f"allowed in {dtype}",
            (1, tolerance),
            (-2, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color="0.3",
        )
    differences.set_yscale("log")
    differences.set_ylim(1e-17, 1e-1)
    differences.set_xlim(-0.5, len(KINDS) - 0.5)
    differences.set_xticks(range(len(KINDS)), [*KINDS[:-1], f"weights after\n{record['trainer_steps']} steps"])
    differences.set_title("largest difference, relative by norm")
    differences.legend(frameon=False, fontsize=8, loc="upper left")

    if record["speed"]:
        for i, name in enumerate(NAMES):
            spreads = [Spread(**record["speed"][work]["seconds"][name]) for work in WORK_TITLES]
            x = [j + (i - 0.5) * 0.38 for j in range(2)]
            heights = [1e3 * spread.median for spread in spreads]
            errors = [[1e3 * (s.median - s.low) for s in spreads], [1e3 * (s.high - s.median) for s in spreads]]
            times.bar(
                x, heights, 0.36, yerr=errors, color=f"C{i}", label=name, error_kw={"linewidth": 1, "ecolor": "0.3"}
            )
        for j, work in enumerate(WORK_TITLES):
            limit = 1e3 * record["speed"][work]["limit"]
            times.plot(
                [j - 0.42, j + 0.42],
                [limit, limit],
                color="0.2",
                linewidth=1,
                linestyle=":",
                label=None if j else "limit of the machine",
            )
        times.set_xticks(range(2), ["inference", "forward +\nbackward"])
        times.set_title("time, median and quartiles, ms")
        times.legend(frameon=False, fontsize=8, loc="upper left")
    else:
        times.set_axis_off()

    curves = record["curves"]
    steps = range(1, len(curves["deeprnn"]) + 1)
    losses.plot(steps, curves["gluon"], color="C1", linewidth=5, alpha=0.45, label="gluon")
    losses.plot(steps, curves["deeprnn"], color="C0", linewidth=1.3, label="deeprnn")
    losses.set_ylim(bottom=0)
    losses.set_xlabel("step")
    losses.set_title("loss from the same start, nats per symbol")
    losses.legend(frameon=False, fontsize=8)

    for panel in (differences, times, losses):
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    where = record["machine"]
    figure.suptitle(
        f"{STACKS['deeprnn'][case.cell].__name__} and gluon.rnn.{case.cell.upper()}: {case.layers} layers of "
        f"{case.hidden_size} units, {case.length} steps, {case.batch_size} sequences "
        f"({where['processor']}, {where['cores']} cores)",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)


# Whole training steps of a language model.


class BookModel(gluon.Block):
    """The book's `RNNModel`: one-hot, the built-in layer, a dense decoder; not hybridized."""

    def __init__(self, layer: gluon.Block, vocab_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._vocab_size = vocab_size
        with self.name_scope():
            self.layer = layer
            self.decoder = nn.Dense(vocab_size)

    def forward(self, ids: Any, states: Any) -> tuple[Any, Any]:
        outputs, states = self.layer(mx.nd.one_hot(ids.T, self._vocab_size), states)
        return self.decoder(outputs.reshape((-1, outputs.shape[-1]))), states


class BookLoop:
    """The book's `train_and_predict_rnn_gluon`: an epoch of it, on the same batches."""

    def __init__(self, model: BookModel, config: TrainConfig) -> None:
        self._model, self._clip = model, config.clip
        self._loss = gluon.loss.SoftmaxCrossEntropyLoss()
        self._trainer = gluon.Trainer(
            model.collect_params(), "sgd", {"learning_rate": config.lr, "momentum": 0, "wd": 0}
        )

    def epoch(self, batches: Batches) -> float:
        """Mean loss, in nats per character."""
        loss_sum, count = 0.0, 0
        states = None
        for data, target in batches.epoch(1):
            ids, labels = data.T, target.T  # the book's batches are (N, T)
            if states is None:
                states = self._model.layer.begin_state(ids.shape[0])
            states = [state.detach() for state in states]
            with autograd.record():
                outputs, states = self._model(ids, states)
                y = labels.T.reshape((-1,))
                loss = self._loss(outputs, y).mean()
            loss.backward()
            self._clip_gradients()
            self._trainer.step(1)
            loss_sum += loss.asscalar() * y.size
            count += y.size
        return loss_sum / count

    def _clip_gradients(self) -> None:
        gradients = [parameter.data().grad for parameter in self._model.collect_params().values()]
        norm = mx.nd.zeros((1,))
        for gradient in gradients:
            norm += (gradient**2).sum()
        norm = norm.sqrt().asscalar()
        if norm > self._clip:
            for gradient in gradients:
                gradient[:] *= self._clip / norm


class OurLoop:
    """An epoch of this package's loop."""

    def __init__(self, model: LanguageModel, config: TrainConfig) -> None:
        self._model, self._config = model, config
        self._trainer = make_trainer(model, config, steps=1)

    def epoch(self, batches: Batches) -> float:
        """Mean loss, in nats per character."""
        step = self._trainer.optimizer.num_update
        progress = Progress(self._trainer, self._config, step, step + len(batches), None, math.inf)
        progress.begin_epoch(1)
        train_epoch(self._model, batches, self._trainer, self._config, epoch=1, ctx=mx.cpu(), progress=progress)
        return progress.end_epoch()[0]


def language_model_speed(
    cell: str = "rnn",
    *,
    vocab_size: int = 1027,
    hidden_size: int = 256,
    layers: int = 2,
    seq_len: int = 35,
    batch_size: int = 32,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, Any]:
    """Characters a second in training: embedding, stack, decoder, loss, clipping and update.

    By default in the sizes of the book's experiment (8 updates an epoch of 10,000 characters). The characters are drawn
    by chance: what they are does not matter to the time. Ours takes part twice, with an embedding, as it is by default
    in training, and with one-hot vectors, which is the book's function to the letter; that one is compared before
    timing. The limit is that of the first: its matrix products, in which an embedding has no part, over the sgemm rate.

    Raises
    ------
    RuntimeError
        If the two losses of an epoch from the same weights differ by more than 1e-4, relative.
    """
    config = TrainConfig(optimizer="sgd", lr=100.0, clip=0.01, schedule="constant", epochs=1)
    ids = np.random.default_rng(seed).integers(vocab_size, size=8 * seq_len * batch_size + batch_size).astype("int32")
    batches = Batches(ids, batch_size, seq_len)
    mx.random.seed(seed)

    def ours(embedding_size: int) -> LanguageModel:
        model = LanguageModel(vocab_size, hidden_size, layers, cell=cell, embedding_size=embedding_size)
        model.initialize(mx.init.Normal(0.01))
        model.hybridize(static_alloc=True, static_shape=True)
        return model

    options = {"activation": "tanh"} if cell == "rnn" else {}
    embedding_size = ModelConfig().embedding_size
    embedded, one_hot = ours(embedding_size), ours(0)
    book = BookModel(STACKS["gluon"][cell](hidden_size, layers, input_size=vocab_size, **options), vocab_size)
    book.initialize()
    _copy_in_order(one_hot, book)
    names = (
        f"deeprnn, embedding of {embedding_size}",
        "deeprnn, one-hot",
        f"the book's loop: one-hot, gluon.rnn.{cell.upper()}",
    )
    loops: Sequence[Union[OurLoop, BookLoop]] = (
        OurLoop(embedded, config),
        OurLoop(one_hot, config),
        BookLoop(book, config),
    )
    _, *same = (loop.epoch(batches) for loop in loops)
    if distance(*same) > 1e-4:
        raise RuntimeError(f"not the same function: the losses of the first epoch are {same[0]:.6f} and {same[1]:.6f}")

    def timer(loop: Union[OurLoop, BookLoop]) -> Callable[[int], float]:
        def seconds(calls: int) -> float:
            mx.nd.waitall()
            begun = time.perf_counter()
            for _ in range(calls):
                loop.epoch(batches)
                mx.nd.waitall()
            return (time.perf_counter() - begun) / calls

        return seconds

    samples, tries = steadiest({name: timer(loop) for name, loop in zip(names, loops)}, rounds)
    characters = len(batches) * seq_len * batch_size
    case = Case(embedding_size, hidden_size, layers, seq_len, batch_size, cell=cell)
    products = case.multiply_adds("training") + 3 * seq_len * batch_size * hidden_size * vocab_size
    times = {name: Spread.of(seconds) for name, seconds in samples.items()}
    theirs = samples[names[-1]]
    return {
        "shape": f"{layers} x {hidden_size} units, {batch_size} x {seq_len} characters, vocabulary {vocab_size:,}",
        "seconds_per_epoch": {name: asdict(spread) for name, spread in times.items()},
        "characters_per_second": {name: characters / spread.median for name, spread in times.items()},
        "ratios": {name: asdict(ratio(theirs, seconds)) for name, seconds in samples.items() if seconds is not theirs},
        "tries": tries,
        "limit": seq_len * batch_size * sgemm_rate() / (2 * products),
    }

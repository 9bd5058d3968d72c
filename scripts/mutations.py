#!/usr/bin/env python3
"""Is the parity suite awake? Plausible slips, made one at a time in a copy of the package: each must turn it red.

    python scripts/mutations.py                     # all, a table
    python scripts/mutations.py --only gru          # those whose name contains 'gru'
    python scripts/mutations.py --json benchmarks/mutations.json

Exit code 0 if every mutation was noticed, 1 if any survived.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parent.parent
SUITE = (
    "tests/test_testing.py::test_pairwise",
    "tests/nn/test_laws.py",
    "tests/nn/test_bptt.py::test_the_gradients_are_mxnets_own",  # of sequences longer than a piece
)


@dataclass(frozen=True)
class Mutation:
    """In `file`, the one place that reads `old` reads `new`."""

    name: str
    file: str
    old: str
    new: str


def _cell(name: str, old: str, new: str) -> Mutation:
    return Mutation(name, "nn/cells.py", old, new)


def _unroll(name: str, old: str, new: str) -> Mutation:
    return Mutation(name, "nn/unroll.py", old, new)


def _stack(name: str, old: str, new: str) -> Mutation:
    return Mutation(name, "nn/layers.py", old, new)


ELMAN = "F.Activation(_sum(F, projected[0], self.recur(F, states[0], params)), act_type=self._activation)"
ELMAN_END = ELMAN + "\n        return [hidden], []"
GRU_RECUR = "recurrent = self.recur(F, hidden, params)"
GRU_SPLIT = "state_r, state_z, state_h = _split(F, recurrent, 3, self._hidden_size)"
GRU_BIAS = 'return params["i2h_bias"]\n'
GRU_LAST = "hidden = _sum(F, candidate, update * (hidden - candidate))"
LSTM_SPLIT = "_split(F, _sum(F, projected[0], self.recur(F, hidden, params)), 4, self._hidden_size)"
LSTM_GATES = "for i in (0, 1, 3))"
LSTM_CELL = "cell = self._clipped(F, _sum(F, forget * cell, inputs * candidate))"
LSTM_SEEN = 'F.LayerNorm(cell, params["cell_gamma"], params["cell_beta"], axis=-1) if self._layer_norm else cell'
LSTM_SEEN_THROUGH = 'seen = F.Activation(seen, act_type="tanh")'
LSTM_PROJECTED = 'hidden = _affine(F, hidden, params["h2r_weight"], None, self._projection_size)'
BIAS = 'return F.broadcast_add(params["i2h_bias"], params["h2h_bias"])'
BIAS_ROW = 'F.broadcast_like(F.expand_dims(params["h2h_bias"], axis=0), projected[0])'
TRANSPOSED = (
    '{**params, "h2h_weight": F.reshape(F.transpose(F.reshape(params["h2h_weight"], '
    "shape=(-4, %d, -1, 0)), axes=(0, 2, 1)), shape=(-3, 0))}"
)  # each gate's square block by itself

MUTATIONS = (
    _cell("elman: always tanh", ELMAN, ELMAN.replace("self._activation", '"tanh"')),
    _cell(
        "elman: recurrent weight transposed", ELMAN, ELMAN.replace("states[0], params", "states[0], " + TRANSPOSED % 1)
    ),
    _cell("elman: recurrent product forgotten", ELMAN, ELMAN.replace(", self.r", ", 0 * self.r")),
    _cell("elman: recurrent product subtracted", ELMAN, ELMAN.replace(", self.r", ", -self.r")),
    _cell("elman: recurrent bias added again", ELMAN, ELMAN.replace("params))", f"params) + {BIAS_ROW})")),
    _cell("elman: activated twice", ELMAN, f"F.Activation({ELMAN}, act_type=self._activation)"),
    _cell("elman: not activated", ELMAN, "_sum(F, projected[0], self.recur(F, states[0], params))"),
    _cell("elman: old state handed on", ELMAN_END, ELMAN_END.replace("[hidden]", "states")),
    _cell("elman: gradient cut at the state", ELMAN, ELMAN.replace("states[0]", "F.BlockGrad(states[0])")),
    _cell("elman: state added to the output", ELMAN, f"states[0] + {ELMAN}"),
    _cell(
        "gru: reset and update exchanged in the inputs", "input_r, input_z, input_h =", "input_z, input_r, input_h ="
    ),
    _cell(
        "gru: reset and update exchanged in the states", "state_r, state_z, state_h =", "state_z, state_r, state_h ="
    ),
    _cell(
        "gru: candidate's rows first",
        GRU_SPLIT,
        GRU_SPLIT.replace("state_r, state_z, state_h", "state_h, state_r, state_z"),
    ),
    _cell(
        "gru: reset before the product",
        "reset * state_h",
        '_split(F, self.recur(F, reset * hidden, params, params["h2h_bias"]), 3, self._hidden_size)[2]',
    ),
    _cell("gru: reset gate forgotten", "reset * state_h", "state_h + 0 * reset"),
    _cell("gru: update gate the other way round", GRU_LAST, "hidden = hidden + update * (candidate - hidden)"),
    _cell(
        "gru: recurrent bias forgotten",
        GRU_RECUR,
        GRU_RECUR.replace("params", '{**params, "h2h_bias": 0 * params["h2h_bias"]}'),
    ),
    _cell(
        "gru: recurrent bias added again", GRU_BIAS, 'return F.broadcast_add(params["i2h_bias"], params["h2h_bias"])\n'
    ),
    _cell(
        "gru: recurrent bias outside the reset gate",
        "reset * state_h",
        (
            "reset * _split(F, self.recur(F, hidden, params), 3, self._hidden_size)[2]"
            " + F.broadcast_add(F.zeros_like(input_h), "
            'F.slice_axis(F.expand_dims(params["h2h_bias"], axis=0), axis=1, begin=2 * self._hidden_size, end=None))'
        ),
    ),
    _cell(
        "gru: recurrent weight transposed",
        GRU_RECUR,
        GRU_RECUR.replace("hidden, params", f"hidden, {TRANSPOSED % 3}"),
    ),
    _cell("gru: candidate a sigmoid", 'reset * state_h), act_type="tanh"', 'reset * state_h), act_type="sigmoid"'),
    _cell("gru: old state left out of the sum", GRU_LAST, "hidden = candidate - update * candidate"),
    _cell("lstm: input and forget exchanged", LSTM_GATES, "for i in (1, 0, 3))"),
    _cell("lstm: forget and output exchanged", LSTM_GATES, "for i in (0, 3, 1))"),
    _cell(
        "lstm: candidate a sigmoid",
        'F.Activation(gates[2], act_type="tanh")',
        'F.Activation(gates[2], act_type="sigmoid")',
    ),
    _cell(
        "lstm: recurrent weight transposed",
        LSTM_SPLIT,
        LSTM_SPLIT.replace("hidden, params", f"hidden, {TRANSPOSED % 4}"),
    ),
    _cell("lstm: recurrent bias added again", LSTM_SPLIT, LSTM_SPLIT.replace("params))", f"params) + {BIAS_ROW})")),
    _cell("lstm: forget bias of one added", "forget * cell", "F.Activation(gates[1] + 1, act_type='sigmoid') * cell"),
    _cell("lstm: cell not squashed", LSTM_SEEN_THROUGH, "seen = seen"),
    _cell(
        "lstm: last cell state squashed",
        LSTM_SEEN_THROUGH,
        LSTM_SEEN_THROUGH.replace("(seen", "(states[1]"),
    ),
    _cell("lstm: old cell state handed on", "return [hidden, cell], [", "return [hidden, states[1]], ["),
    _cell("lstm: hidden and cell exchanged", "return [hidden, cell], [", "return [cell, hidden], ["),
    _cell("lstm back: slope of the cell forgotten", "cell = _sum(F, cell, hidden * to_cell)", "cell = cell"),
    _cell("lstm back: cell not carried", "weight), cell * forget]", "weight), cell]"),
    _cell("gru back: way past the candidate forgotten", "weight), hidden * update)]", "weight), 0 * hidden)]"),
    _cell(
        "elman back: slope forgotten",
        "product = _through(F, self._activation, grads[0], slopes[0])",
        "product = grads[0]",
    ),
    Mutation("bptt: first gradient not handed on", "nn/bptt.py", "last = into[-self.num_states :]", "last = last"),
    Mutation("bptt: outputs' gradient forgotten", "nn/bptt.py", "F.broadcast_add(grads[0], outputs[t])", "grads[0]"),
    _cell("lstm: clip dropped", LSTM_CELL, "cell = forget * cell + inputs * candidate"),
    _cell(
        "lstm: clip of the handed-on state alone",
        f"{LSTM_CELL}\n        seen = {LSTM_SEEN}",
        ("cell = seen = forget * cell + inputs * candidate\n        cell = self._clipped(F, cell)"),
    ),
    _cell(
        "lstm: clip of the candidate alone", LSTM_CELL, "cell = forget * cell + self._clipped(F, inputs * candidate)"
    ),
    _cell(
        "lstm: projection forgotten",
        LSTM_PROJECTED,
        "hidden = F.slice_axis(hidden, axis=-1, begin=0, end=self._projection_size)",
    ),
    _cell(
        "lstm: projection of the squashed output",
        LSTM_PROJECTED,
        LSTM_PROJECTED.replace("F, hidden", "F, F.tanh(hidden)"),
    ),
    _cell("shared: recurrent bias forgotten", BIAS, BIAS.replace(", params", ", 0 * params")),
    _cell(
        "shared: input bias taken twice",
        BIAS,
        BIAS.replace(', params["h2h_bias"]', ', params["i2h_bias"] + 0 * params["h2h_bias"]'),
    ),
    _unroll("static: backward outputs not turned round", "        outputs.reverse()", "        pass"),
    _unroll(
        "static: backward direction reads forwards",
        "range(length - 1, -1, -1) if reverse else range(length)",
        "range(length)",
    ),
    _unroll("static: mask of the step before", "living[t])", "living[t - 1])"),
    _unroll(
        "static: every step from the first state",
        ("    for t in order(length, reverse):\n        new, _ = cell.step(F, steps[t], states, params)"),
        (
            "    first = states\n"
            "    for t in order(length, reverse):\n"
            "        new, _ = cell.step(F, steps[t], first, params)"
        ),
    ),
    _unroll(
        "dynamic: backward outputs not turned round", "(F.reverse(outputs, axis=0) if reverse else outputs)", "outputs"
    ),
    _unroll(
        "dynamic: mask not turned round",
        "[F.reverse(sequence, axis=0) for sequence in sequences]",
        "[F.reverse(projected, axis=0), *sequences[1:]]",
    ),
    _unroll(
        "dynamic: gradient cut at the state",
        "cell.step(F, slices[: len(projected)], states, params)",
        ("cell.step(F, slices[: len(projected)], [F.BlockGrad(state) for state in states], params)"),
    ),
    _unroll("carry: old state put out", "output = new[0]", "output = old[0]"),
    _unroll("carry: alive and ended exchanged", "F.where(alive, after, before)", "F.where(alive, before, after)"),
    _unroll("carry: ended sequences go on", "F.where(alive, after, before)", "after"),
    _unroll(
        "carry: ended sequences lose their state",
        "F.where(alive, after, before)",
        "F.where(alive, after, F.zeros_like(after))",
    ),
    _stack("mask: off by one", "_masked(F, ones, sequence_length)", "_masked(F, ones, sequence_length - 1)"),
    _stack("mask: outputs past the end kept", "outputs.append(_masked(F, y, sequence_length))", "outputs.append(y)"),
    _stack("mask: inputs past the end seen", "x = _masked(F, x, sequence_length)", "x = x"),
    _stack("stack: directions joined backward first", "_side_by_side(F, outputs)", "_side_by_side(F, outputs[::-1])"),
    _stack("stack: last states backward first", "last.append(end)", "last.insert(layer * len(cells), end)"),
    _stack(
        "stack: first states of the wrong layer",
        "split(F, state, rows) for state",
        "reversed(split(F, state, rows)) for state",
    ),
    _stack(
        "stack: one first state for all layers",
        "split(F, state, rows) for state",
        "[split(F, state, rows)[0]] * rows for state",
    ),
    _stack(
        "stack: backward direction with forward weights",
        "params[parameter_name(direction, layer",
        'params[parameter_name("l", layer',
    ),
    _stack("stack: backward direction reads forwards", 'reverse=direction == "r",', "reverse=False,"),
    _stack("stack: outputs left time-major", "return self._time_major(F, x), ", "return x, "),
    _stack("stack: given states ignored", "    if states is None:\n", "    if True:\n"),
    _stack("stack: last layer's state for all", "for state in zip(*last)]", "for state in zip(*[last[-1]] * rows)]"),
    Mutation(
        "lengths: one static graph for all",
        "nn/graphs.py",
        "graph = self._graphs.find(key)",
        "graph = next(iter(self._graphs._by_key.values()), None)",
    ),
)


def mutate(mutation: Optional[Mutation], folder: Path) -> None:
    """Copy the package into `folder`, with the mutation in it if there is one."""
    package = folder / "deeprnn"
    shutil.copytree(ROOT / "src" / "deeprnn", package, ignore=shutil.ignore_patterns("__pycache__", "configs"))
    if mutation is None:
        return
    file = package / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.name}: {mutation.file} reads {mutation.old!r} {text.count(mutation.old)} times, not once"
        )
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def run(mutation: Optional[Mutation]) -> tuple[Optional[str], float]:
    """The first test of the suite that fails, or None; and how long it took, in seconds."""
    with tempfile.TemporaryDirectory() as name:
        mutate(mutation, Path(name))
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"}
        where = [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('deeprnn').origin)"]
        origin = subprocess.run(where, env=environment, capture_output=True, text=True, check=True).stdout
        if not Path(origin).resolve().is_relative_to(Path(name).resolve()):
            raise RuntimeError(f"the tests would import {origin.strip()}, not the mutated copy")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", *SUITE]
        begin = time.perf_counter()
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
    if result.returncode == 0:
        return None, seconds
    failed = [line.split(" ")[1] for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR "))]
    if not failed:
        raise RuntimeError(f"pytest did not run:\n{result.stdout}{result.stderr}")
    return failed[0], seconds


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run, print, write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="mutations whose name contains this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    options = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    if not chosen:
        parser.error(f"--only {options.only!r} fits no mutation")

    failed, suite_seconds = run(None)
    if failed:
        print(f"the suite fails without any mutation: {failed}", file=sys.stderr)
        return 1
    print(f"unmutated: passes in {suite_seconds:.1f} s: {' '.join(SUITE)}")
    records = []
    for mutation in chosen:
        failed, seconds = run(mutation)
        records.append(
            {"name": mutation.name, "file": mutation.file, "noticed_by": failed, "seconds": round(seconds, 1)}
        )
        print(f"{'noticed' if failed else 'SURVIVED':8} {seconds:5.1f} s  {mutation.name}", flush=True)
    survivors = [record["name"] for record in records if record["noticed_by"] is None]
    noticed = len(records) - len(survivors)
    print(f"{noticed} of {len(records)} noticed; survivors: {', '.join(map(str, survivors)) or 'none'}")
    if options.json:
        result = {
            "suite": SUITE,
            "suite_seconds": round(suite_seconds, 1),
            "mutations": records,
            "survivors": survivors,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

"""The record of `comparison.compare_layers` as text for a terminal and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from matplotlib.figure import Figure

from deeprnn.models.language_model import STACKS

from .clock import Spread
from .comparison import KINDS, NAMES
from .contestants import WORK_TITLES, Case
from .tables import terminal_table

__all__ = ["picture", "report"]


def report(record: Mapping[str, Any]) -> str:
    """The record for a terminal."""
    case = Case(**record["case"])
    options = [case.activation] if case.cell == "rnn" else []
    options += ["bidirectional"] if case.bidirectional else []
    parts = [
        f"{STACKS['deeprnn'][case.cell].__name__} and gluon.rnn.{case.cell.upper()}: input {case.input_size}, "
        f"hidden {case.hidden_size}, layers {case.layers}, {case.length} steps, {case.batch_size} sequences, "
        f"{', '.join([*options, case.layout])}",
        f"Largest difference, relative by norm over one tensor\n{_differences(record)}\n"
        f"* after {record['trainer_steps']} step{'' if record['trainer_steps'] == 1 else 's'} of Adam",
        _times(record["speed"]),
        _losses(record["curves"]),
        "The same function." if record["same"] else f"NOT the same function: {_faults(record['parity'])}",
    ]
    return "\n\n".join(parts) + "\n"


def _differences(record: Mapping[str, Any]) -> str:
    rows = [["", *KINDS[:-1], f"{KINDS[-1]} *", "allowed", "same"]]
    peers = {"gluon": "built-in layer", "gluon-cells": "gluon's unfused cells"}
    for row in record["parity"]:
        same = {True: "yes", False: "NO"}[row["same"]]
        if not row["counts"]:
            same = "(the built-in layer is wrong here: see the next line)"
        distances = [_distance(row["distances"].get(kind)) for kind in KINDS]
        rows.append([f"{row['dtype']}, {peers[row['peer']]}", *distances, f"{row['tolerance']:.0e}", same])
    return terminal_table(rows)


def _distance(value: Optional[float]) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def _times(speed: Optional[Mapping[str, Any]]) -> str:
    if speed is None:
        return "Time: not measured, as they are not the same function"
    rows = [["Time, median in ms", *NAMES, "ratio", "quartiles", "limit"]]
    busy = False
    for work, title in WORK_TITLES.items():
        measured = speed[work]
        spread = Spread(**measured["ratios"]["gluon"])
        busy |= not spread.steady
        cells = [f"{1e3 * measured['seconds'][name]['median']:.3g}" for name in NAMES]
        cells += [f"{spread.median:.2f}" if spread.steady else "busy", f"{spread.low:.2f}-{spread.high:.2f}"]
        rows.append([title, *cells, f"{1e3 * measured['limit']:.3g}"])
    note = "\nbusy: the machine had other work, so the ratios are too far apart for a verdict" if busy else ""
    return terminal_table(rows) + note


def _losses(curves: Mapping[str, Any]) -> str:
    count = len(curves["deeprnn"])
    shown = [*range(0, count, max(count // 4, 1)), count - 1]
    rows = [["step", *(str(step + 1) for step in shown)]]
    rows += [[name, *(f"{curves[name][step]:.5f}" for step in shown)] for name in NAMES]
    head = f"Loss from the same start, nats per symbol ({curves['task']}; {curves['optimizer']})"
    return f"{head}\n{terminal_table(rows)}"


def _faults(rows: Sequence[Mapping[str, Any]]) -> str:
    wrong = (row for row in rows if row["counts"] and not row["same"])
    return "; ".join(f"{row['worst']} in {row['dtype']} against {row['peer']}" for row in wrong)


def picture(record: Mapping[str, Any]) -> Figure:
    """The record as a figure of three panels: differences, times, losses."""
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
    return figure

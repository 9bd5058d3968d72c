r"""How cost grows: time and memory of a hybridized stack, by steps, layers, units and sequences.

One size is varied at a time around `BASE`. What counts is the cost of a cell-step: one layer, one step, one sequence.
Steps and layers only repeat it, so that a call ought to take

.. math:: t = \text{fixed} + \text{each} \cdot T \qquad \text{and} \qquad t = \text{fixed} + \text{each} \cdot L

and `verdicts` measures how near to such a line the times are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from .bench_report import milliseconds, where
from .clock import TRIES, Spread
from .contestants import WORK_TITLES, WORKS, Case, Here, Problem, memory
from .processes import alone
from .tables import markdown_table

__all__ = ["AXES", "BASE", "LINEAR", "brief", "busy", "picture", "point", "points", "report", "verdicts"]

BASE = Case(128, 128, 2, 64, 16)

AXES: Mapping[str, tuple[str, Sequence[int]]] = {
    "length": ("steps T", [2**i for i in range(12)]),
    "layers": ("layers L", [2**i for i in range(6)]),
    "hidden_size": ("units", [2**i for i in range(5, 12)]),
    "batch_size": ("sequences N", [2**i for i in range(9)]),
}
"""By field of `Case`: its name in tables, and its values. There are always as many inputs as units."""

LINEAR = ("length", "layers")
TOLERANCE = 0.2
"""The largest relative distance of a time from its line."""

SAMPLES, SAMPLE_SECONDS = 5, 0.1

PROCESSES = 3
"""New processes, of which the fastest counts: a process may be slow by up to a half from its start to its end, perhaps
because of where its memory is."""


def points(cell: str = "rnn") -> list[Case]:
    """The cases to measure, each once."""
    cases = [_varied(replace(BASE, cell=cell), axis, value) for axis, (_, values) in AXES.items() for value in values]
    return list(dict.fromkeys(cases))


def _varied(case: Case, axis: str, value: int) -> Case:
    changes: dict[str, Any] = {axis: value, **({"input_size": value} if axis == "hidden_size" else {})}
    return replace(case, **changes)


def point(case: Case) -> dict[str, Any]:
    """The cost of one case, of each work in the fastest of `PROCESSES` new processes.

    Returns
    -------
    dict
        ``case`` and its ``name``; and by work ``first_call``, the seconds of the first call, the building of the graph
        included, ``seconds`` of a later one as `Spread` (of the steadiest of up to `TRIES` tries), and ``memory``,
        bytes at the peak so far less those after import (None if the system does not report it).
    """
    measured = [alone(_point, case) for _ in range(PROCESSES)]
    return {**measured[0], **{work: min((one[work] for one in measured), key=_median) for work in WORKS}}


def _point(case: Case) -> dict[str, Any]:
    before = memory("self", "VmRSS")
    contestant = Here("deeprnn", Problem.draw(case))
    record: dict[str, Any] = {"case": asdict(case), "name": case.name}
    for work in WORKS:
        first_call = contestant.time(work, 1)
        calls = max(1, round(SAMPLE_SECONDS / contestant.time(work, 1)))
        tried = [Spread.of([contestant.time(work, calls) for _ in range(SAMPLES)])]
        while len(tried) < TRIES and not tried[-1].steady:
            tried.append(Spread.of([contestant.time(work, calls) for _ in range(SAMPLES)]))
        seconds = min(tried, key=lambda spread: spread.width)
        peak = memory("self", "VmHWM")
        used = None if peak is None or before is None else peak - before
        record[work] = {"first_call": first_call, "seconds": asdict(seconds), "memory": used}
    return record


def _along(record: Mapping[str, Any], axis: str) -> list[tuple[int, Mapping[str, Any]]]:
    """The values of an axis that a record holds, with what was measured there."""
    found = {Case(**each["case"]): each for each in record["points"]}
    cases = {value: _varied(replace(BASE, cell=record["cell"]), axis, value) for value in AXES[axis][1]}
    return [(value, found[case]) for value, case in cases.items() if case in found]


def _median(of_work: Mapping[str, Any]) -> float:
    return float(of_work["seconds"]["median"])


def _seconds(measured: Mapping[str, Any], work: str) -> float:
    return _median(measured[work])


def busy(measured: Mapping[str, Any], work: str) -> bool:
    """Whether the machine was busy: the samples of a point are too far apart for a verdict."""
    return not Spread(**measured[work]["seconds"]).steady


def _cell_steps(measured: Mapping[str, Any]) -> int:
    case = measured["case"]
    return int(case["length"] * case["layers"] * case["batch_size"])


def verdicts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each of `LINEAR` and each work, the line through the times, and how far they are from it.

    Returns
    -------
    list of dict
        ``axis``, ``work``; ``fixed`` and ``each``, seconds, of the line with the least squares of the relative
        distances; ``off``, the largest of these, and ``at`` which value; ``linear``, whether it is within `TOLERANCE`;
        ``even_from``, the value from which on the cost of a cell-step alone is within `TOLERANCE` of that at the
        largest; ``busy``, the values at which the machine was, so that all this is no verdict.
    """
    found = []
    for axis in LINEAR:
        along = _along(record, axis)
        if len(along) < 3:
            continue  # through two points any line fits
        for work in WORKS:
            values, seconds = np.array([(value, _seconds(each, work)) for value, each in along]).T
            design = np.stack([1 / seconds, values / seconds], axis=1)  # each row over its time: relative distances
            (fixed, each_one), *_ = np.linalg.lstsq(design, np.ones(len(seconds)), rcond=None)
            off = (fixed + each_one * values) / seconds - 1
            worst = int(np.abs(off).argmax())
            costs = seconds / values / (seconds[-1] / values[-1])
            uneven = [i for i, cost in enumerate(costs) if abs(cost - 1) > TOLERANCE]
            found.append(
                {
                    "axis": axis,
                    "work": work,
                    "fixed": float(fixed),
                    "each": float(each_one),
                    "off": float(abs(off[worst])),
                    "at": int(values[worst]),
                    "linear": bool(abs(off[worst]) <= TOLERANCE),
                    "even_from": int(values[max(uneven) + 1 if uneven else 0]),
                    "busy": [value for value, each in along if busy(each, work)],
                }
            )
    return found


def _sentence(verdict: Mapping[str, Any]) -> str:
    """A verdict in a sentence or two."""
    name = AXES[verdict["axis"]][0]
    line = f"{1e3 * verdict['fixed']:.3g} ms a call and {1e3 * verdict['each']:.3g} ms for each of the {name}"
    text = f"{WORK_TITLES[verdict['work']]}, {name}: "
    if verdict["busy"]:
        return f"{text}no verdict, the machine was busy at {', '.join(map(str, verdict['busy']))}."
    if verdict["linear"]:
        text += f"linear within {verdict['off']:.0%}: {line}"
    else:
        text += f"not linear: {verdict['off']:.0%} off the line at {verdict['at']} ({line})"
    text += f". A cell-step costs the same within {TOLERANCE:.0%} from {verdict['even_from']} up"
    if verdict["even_from"] > 1 and verdict["fixed"] > 0:
        text += "; below, the fixed cost of a call is felt"
    return text + "."


def brief(record: Mapping[str, Any]) -> str:
    """The verdicts, as a list in Markdown."""
    return "\n".join(f"- {_sentence(verdict)}" for verdict in verdicts(record))


def report(record: Mapping[str, Any]) -> str:
    """A record as Markdown: its verdicts, and a table for each size that is varied."""
    base = replace(BASE, cell=record["cell"])
    parts = [
        f"**How cost grows, {record['cell']}** ({where(record)})",
        f"Around {base.hidden_size} units, {base.layers} layers, {base.length} steps and {base.batch_size} sequences. "
        "us and kB are for a cell-step: one layer, one step, one sequence.",
        brief(record),
    ]
    for axis, (name, _) in AXES.items():
        heads = [f"{WORK_TITLES[work]}, {unit}" for work in WORKS for unit in ("ms", "us")]
        rows = [[name, *heads, "first call, s", "then backward, s", "memory, MB", "kB"]]
        for value, each in _along(record, axis):
            row = [str(value)]
            for work in WORKS:
                seconds = _seconds(each, work)
                mark = "busy: " if busy(each, work) else ""
                row += [mark + milliseconds(seconds), f"{1e6 * seconds / _cell_steps(each):.3g}"]
            row += [f"{each[work]['first_call']:.2f}" for work in WORKS]
            used = each["training"]["memory"]
            row += ["?", "?"] if used is None else [f"{used / 1e6:.0f}", f"{used / 1e3 / _cell_steps(each):.3g}"]
            rows.append(row)
        parts.append(markdown_table(rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def picture(record: Mapping[str, Any]) -> Figure:
    """Time (above) and memory (below) of a cell-step by each of the sizes."""
    colours = dict(zip(WORKS, ("C0", "C1")))
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    panels = figure.subplots(2, len(AXES), sharex="col", sharey="row")
    for column, (axis, (name, _)) in zip(panels.T, AXES.items()):
        along = _along(record, axis)
        for work in WORKS:
            times = [(value, 1e6 * _seconds(each, work) / _cell_steps(each), each) for value, each in along]
            memories = [
                (value, 1e-3 * each[work]["memory"] / _cell_steps(each), each)
                for value, each in along
                if each[work]["memory"] is not None
            ]
            for panel, measured in zip(column, (times, memories)):
                panel.plot([x for x, _, _ in measured], [y for _, y, _ in measured], color=colours[work], linewidth=1.3)
                for x, y, each in measured:
                    mark = "x" if panel is column[0] and busy(each, work) else "o"
                    panel.plot(x, y, mark, color=colours[work], markersize=5)
        for panel in column:
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.axvline(getattr(BASE, axis), color="0.8", linewidth=1, linestyle="--", zorder=0)
            panel.grid(color="0.92")
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
        column[1].set_xlabel(name)
    panels[0, 0].set_ylabel("time of a cell-step, us")
    panels[1, 0].set_ylabel("peak memory of a cell-step, kB")
    marks = [Line2D([], [], marker="o", color=colours[work], label=WORK_TITLES[work]) for work in WORKS]
    marks.append(Line2D([], [], marker="x", color="0.4", label="the machine was busy"))
    marks.append(Line2D([], [], color="0.8", linestyle="--", label="where the others are varied"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    figure.suptitle(f"{record['cell']}: {where(record)}", fontsize=8)
    return figure

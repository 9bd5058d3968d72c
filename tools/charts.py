"""The drawings of a page, as matplotlib figures in the colours of `inline_svg`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

import matplotlib
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from .inline_svg import DEPTH_COLOURS, LINE, NONE, QUIET, STYLE
from .wording import layer_count, scientific

__all__ = [
    "COLOUR_COUNT",
    "gradient_chart",
    "gradient_scale",
    "heat_colours",
    "perplexity_chart",
    "spread_out",
    "thinned",
]

Record = Mapping[str, Any]

COLOUR_COUNT = len(DEPTH_COLOURS)

WIDTH = 390
"""Of a chart, in the units of its SVG, which are points: a phone shows it at about this many pixels."""

COLUMNS, POINTS = 48, 200
"""Columns of a heat map and points of a curve; more than these are thinned out."""

TICKS = [1 + digit * 10.0**power for power in range(-5, 0) for digit in (1, 2, 5)]
TICKS += [digit * 10.0**power for power in range(7) for digit in (2, 5, 10)]


def perplexity_chart(record: Record, recipe: str, part: str, depths: Sequence[int]) -> Figure:
    """Perplexity over the epochs, a curve for each depth: the median over seeds in a band from lowest to highest.

    Parameters
    ----------
    record
        Of `study_record.record`.
    recipe, part
        What is drawn: the runs of one recipe on ``"train"`` or ``"valid"``.
    depths
        All depths of the page, in the order of their colours.
    """
    groups = {group["layers"]: group for group in record["groups"] if group["recipe"] == recipe}
    curves = {
        layers: _over_seeds([run[part] for run in record["runs"] if (run["recipe"], run["layers"]) == (recipe, layers)])
        for layers in sorted(groups)
    }
    epochs = max(group["epochs"] for group in groups.values())
    known = [_nats(value) for curve in curves.values() for three in curve for value in three if math.isfinite(value)]
    low, high = min(known) / 1.15, max(known) * 1.15

    height = 300
    figure, axes = _chart(height, left=46, right=84, top=12, bottom=42)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_xlim(1, max(epochs, 2))
    axes.set_xlabel("epoch", color=QUIET, labelpad=3)
    per_tick = math.log(high / low) * 26 / (height - 54)  # so that labels are 26 points apart
    ticks: list[float] = []
    for tick in TICKS:
        if low <= _nats(tick) <= high and (not ticks or math.log(_nats(tick) / _nats(ticks[-1])) > per_tick):
            ticks.append(tick)
    axes.set_yticks([_nats(tick) for tick in ticks], [f"{tick:,.10g}" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.set_xticks(_whole_ticks(epochs))
    axes.grid(axis="y", color=LINE, linewidth=1)

    goal = record["perplexity"]
    if part == "train" and low < _nats(goal) < high:
        axes.axhline(_nats(goal), color=QUIET, linewidth=1, linestyle=(0, (3, 4)))
        place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(f"{goal:g}", (0, _nats(goal)), (4, 4), **place)
    ends = {}
    for layers, curve in curves.items():
        order = list(depths).index(layers)
        colour = DEPTH_COLOURS[order % COLOUR_COUNT]
        dash = (0, (6, 3)) if order >= COLOUR_COUNT else "-"
        for stretch in _finite_stretches(curve):
            stretch = thinned(stretch, POINTS)
            x = [epoch for epoch, _ in stretch]
            median, lowest, highest = ([_nats(min(three[i], 1e9)) for _, three in stretch] for i in range(3))
            axes.fill_between(x, lowest, [min(value, high) for value in highest], color=colour, alpha=0.16, linewidth=0)
            axes.plot(
                x, median, color=colour, linewidth=2, linestyle=dash, marker="o" if len(x) == 1 else "", markersize=6
            )
            ends[layers] = median[-1]
    _label_ends(axes, ends, depths)
    return figure


def _chart(height: float, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Any]:
    """A figure with one pair of axes, its margins in points."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        axes = figure.add_axes(
            (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (top + bottom) / height), facecolor="none"
        )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=7, labelcolor=QUIET, which="both")
    axes.set_axisbelow(True)
    return figure, axes


def _label_ends(axes: Any, ends: Mapping[int, float], depths: Sequence[int]) -> None:
    """Name each curve to the right of its end; labels that would meet are moved apart."""
    _, right = axes.get_xlim()
    box = axes.get_window_extent()
    points = {layers: axes.transData.transform((right, value))[1] - box.y0 for layers, value in ends.items()}
    rising = sorted(points, key=lambda layers: points[layers])
    for layers, place in zip(rising, spread_out([points[layers] for layers in rising], 16, 0, box.height)):
        colour = DEPTH_COLOURS[list(depths).index(layers) % COLOUR_COUNT]
        at, label = points[layers] / box.height, place / box.height
        frame = axes.transAxes
        axes.plot(
            [1 + 1 / box.width, 1 + 10 / box.width],
            [at, label],
            color=colour,
            linewidth=1,
            transform=frame,
            clip_on=False,
            scalex=False,
            scaley=False,
        )
        axes.text(
            1 + 13 / box.width,
            label,
            layer_count(layers),
            color=colour,
            weight="semibold",
            va="center",
            transform=frame,
        )


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places, in rising order, moved until they are `gap` apart, and within the bounds if they fit."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap if moved else low))
    bound = high
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], bound)
        bound = moved[i] - gap
    return moved


def _over_seeds(curves: Sequence[Sequence[Optional[float]]]) -> list[tuple[float, float, float]]:
    """Median, lowest and highest at each epoch; epochs that a diverged run did not reach count as infinite."""
    length = max(map(len, curves))
    padded = [
        [math.inf if value is None else value for value in curve] + [math.inf] * (length - len(curve))
        for curve in curves
    ]
    return [(statistics.median(values), min(values), max(values)) for values in zip(*padded)]


def _finite_stretches(
    curve: Sequence[tuple[float, float, float]],
) -> Iterable[list[tuple[int, tuple[float, float, float]]]]:
    """The stretches of a curve whose median is finite, with the epochs."""
    stretch = []
    for epoch, three in enumerate(curve, start=1):
        if math.isfinite(three[0]):
            stretch.append((epoch, three))
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _nats(perplexity: float) -> float:
    return max(math.log(perplexity), 1e-5)


def _whole_ticks(last: int) -> list[int]:
    step = next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if last / step <= 6)
    ticks = [1, *range(step, last + 1, step)] if step > 1 else list(range(1, last + 1))
    return [tick for tick in ticks if tick == 1 or tick - 1 >= step / 2]


def thinned(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def heat_colours() -> Colormap:
    """Viridis, perceptually even, in grey too; what is not finite or zero has the colour `NONE`."""
    return matplotlib.colormaps["viridis"].with_extremes(bad=NONE)


def gradient_chart(group: Record, low: int, high: int) -> Figure:
    """Norm of the gradient at each layer's outputs (rows, the top layer above) over the epochs (columns).

    Parameters
    ----------
    group
        One recipe and depth of a record, with its ``diagnosis``.
    low, high
        Powers of ten at the ends of the colour scale.
    """
    columns, layers = thinned(group["diagnosis"], COLUMNS), group["layers"]
    row = min(max(140 / layers, 5), 20)
    left, right = 38, 8
    figure, axes = _chart(row * layers + 44, left, right, top=4, bottom=40)
    values = [[_power(column["gradient"][number]) for column in columns] for number in range(layers)]
    mesh = axes.pcolormesh(
        range(len(columns) + 1),
        [number + 0.5 for number in range(layers + 1)],
        values,
        cmap=heat_colours(),
        norm=Normalize(low, high),
    )
    mesh.set_gid("cells")
    axes.set_xlim(0, len(columns))
    axes.set_ylim(0.5, layers + 0.5)
    axes.set_yticks(sorted({1, layers}))
    every = max(1, math.ceil(len(columns) / 6))
    ticks = range(0, len(columns), every)
    axes.set_xticks([i + 0.5 for i in ticks], [str(columns[i]["epoch"]) for i in ticks])
    axes.set_xlabel("epoch", color=QUIET, labelpad=2)
    if layers > 2:
        axes.set_ylabel("layer", color=QUIET, va="center")
        axes.yaxis.set_label_coords(-(left - 8) / (WIDTH - left - right), 0.5)
    axes.tick_params(pad=5)
    figure.cell_titles = [  # type: ignore[attr-defined]  # for `inline_svg.svg`
        f"epoch {column['epoch']}, layer {number + 1}: {scientific(column['gradient'][number])}"
        for number in range(layers)
        for column in columns
    ]
    return figure


def _power(value: Optional[float]) -> float:
    return math.log10(value) if value is not None and 0 < value < math.inf else math.nan


def gradient_scale(low: int, high: int) -> Figure:
    """The colours of `gradient_chart`, with their powers of ten."""
    figure, axes = _chart(42, left=18, right=18, top=4, bottom=24)
    steps = 64
    mesh = axes.pcolormesh(
        [low + (high - low) * i / steps for i in range(steps + 1)],
        [0, 1],
        [[low + (high - low) * (i + 0.5) / steps for i in range(steps)]],
        cmap=heat_colours(),
        norm=Normalize(low, high),
    )
    mesh.set_gid("cells")
    powers = range(high, low - 1, -max(1, math.ceil((high - low) / 5)))
    axes.set_xticks(list(powers), [f"10{str(power).translate(_SUPERSCRIPT)}" for power in powers])
    axes.set_xlim(low, high)
    axes.set_yticks([])
    return figure


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
